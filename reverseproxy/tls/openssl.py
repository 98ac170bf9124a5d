"""
The functions of OpenSSL that pyOpenSSL's methods for data call.

The methods cost several times what it costs to encrypt a small message: each
makes a buffer, asks for an error that there is not, and copies.  The functions
can be called without them, with one buffer for all connections, which is why
that is for the reactor's thread alone.

pyOpenSSL does not promise where those functions are.  They are looked for when
this module is imported; should anything be missing from where it has been for
years, nothing here is used, and pyOpenSSL's methods do the same for more.
"""

from __future__ import annotations

__all__ = [
    "FETCHED",
    "OUTPUT",
    "OUTPUT_VIEW",
    "PLAIN",
    "PLAIN_VIEW",
    "RECORD",
    "ROOM",
    "WANT_READ",
    "ZERO_RETURN",
    "address_of",
    "bio_read",
    "bio_write",
    "get_error",
    "raise_error",
    "read",
    "serves",
    "write",
]

from typing import Any, Final, NoReturn

from OpenSSL import SSL

RECORD: Final = 2**14
"""Bytes of plaintext in one TLS record at the most."""

ROOM: Final = 2**18
"""Bytes of plaintext that are collected before they are copied."""

FETCHED: Final = 2**15 + 2**12
"""Bytes that are fetched from OpenSSL at once: two records, and room for more."""

_ATTRIBUTES: Final = ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error")

# The same module of functions that pyOpenSSL works with, and what makes buffers for it.
_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)


def _function(name: str) -> Any:
    return getattr(_lib, name, None)


# The types are those of the functions of OpenSSL with these names.
read, write, get_error = _function("SSL_read"), _function("SSL_write"), _function("SSL_get_error")
bio_read, bio_write = _function("BIO_read"), _function("BIO_write")
WANT_READ, ZERO_RETURN = _function("SSL_ERROR_WANT_READ"), _function("SSL_ERROR_ZERO_RETURN")
_found = _ffi is not None and None not in (
    *(read, write, get_error, bio_read, bio_write),
    *(WANT_READ, ZERO_RETURN),
)

PLAIN: Any = None
"""For what is decrypted: L{ROOM}, and a record more."""
PLAIN_VIEW = memoryview(b"")
OUTPUT: Any = None
"""For what OpenSSL has to send: L{FETCHED}."""
OUTPUT_VIEW = memoryview(b"")
address_of: Any = None
"""The address of an object that has a buffer, which then belongs to it."""

if _found:
    PLAIN, OUTPUT, address_of = (
        _ffi.new("char[]", ROOM + RECORD),
        _ffi.new("char[]", FETCHED),
        _ffi.from_buffer,
    )
    PLAIN_VIEW, OUTPUT_VIEW = memoryview(_ffi.buffer(PLAIN)), memoryview(_ffi.buffer(OUTPUT))


def serves(connection: Any) -> bool:
    """Whether the functions here can be used with a connection of pyOpenSSL."""
    return _found and all(hasattr(connection, name) for name in _ATTRIBUTES)


def raise_error(connection: Any, result: int) -> NoReturn:
    """
    Raise what pyOpenSSL's methods would.

    @param result: what L{read} or L{write} has returned: nothing of OpenSSL has been called since.
    """
    connection._raise_ssl_error(connection._ssl, result)
    raise SSL.Error([])  # OpenSSL has no explanation
