"""
The OpenSSL functions behind pyOpenSSL's C{send}, C{recv}, C{bio_read} and C{bio_write}.

These methods cost several times what it costs to encrypt a small message: each
allocates a buffer, asks for an error even if there is none, and copies.  Here the
functions are called directly, with one buffer for all connections, and therefore
only in the reactor's thread.

They are private to pyOpenSSL.  They are looked up when this module is imported; if
anything is missing, L{serves} returns false, and pyOpenSSL's methods are used instead.
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
    "bio_over",
    "bio_read",
    "bio_write",
    "get_error",
    "new_bio",
    "raise_error",
    "read",
    "serves",
    "set_bios",
    "write",
]

from typing import Any, Final, NoReturn

from OpenSSL import SSL

RECORD: Final = 2**14
"""Bytes of plaintext in one TLS record at the most."""

ROOM: Final = 2**18
"""Bytes of plaintext that are decrypted into one buffer before they are copied."""

FETCHED: Final = 2**15 + 2**12
"""Bytes of ciphertext that are read from OpenSSL at once: more than two full records."""

_ATTRIBUTES: Final = ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error")

# The cffi module that pyOpenSSL uses.
_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)


def _function(name: str) -> Any:
    return getattr(_lib, name, None)


# Their types are those of the OpenSSL functions with these names.
read, write, get_error = _function("SSL_read"), _function("SSL_write"), _function("SSL_get_error")
bio_read, bio_write = _function("BIO_read"), _function("BIO_write")
set_bios, _bio_new, _bio_s_mem = _function("SSL_set_bio"), _function("BIO_new"), _function("BIO_s_mem")
_bio_new_mem_buf, _bio_set_eof = _function("BIO_new_mem_buf"), _function("BIO_set_mem_eof_return")
WANT_READ, ZERO_RETURN = _function("SSL_ERROR_WANT_READ"), _function("SSL_ERROR_ZERO_RETURN")
_found = _ffi is not None and None not in (
    *(read, write, get_error, bio_read, bio_write, set_bios),
    *(_bio_new, _bio_s_mem, _bio_new_mem_buf, _bio_set_eof),
    *(WANT_READ, ZERO_RETURN),
)

PLAIN: Any = None
"""The buffer for plaintext: L{ROOM}, and one record more."""
PLAIN_VIEW = memoryview(b"")
OUTPUT: Any = None
"""The buffer for ciphertext to be sent: L{FETCHED}."""
OUTPUT_VIEW = memoryview(b"")
address_of: Any = None
"""Returns the address of an object's buffer, and keeps the object alive."""

if _found:
    PLAIN, OUTPUT, address_of = (
        _ffi.new("char[]", ROOM + RECORD),
        _ffi.new("char[]", FETCHED),
        _ffi.from_buffer,
    )
    PLAIN_VIEW, OUTPUT_VIEW = memoryview(_ffi.buffer(PLAIN)), memoryview(_ffi.buffer(OUTPUT))


def serves(connection: Any) -> bool:
    """Return whether these functions can be used with a connection of pyOpenSSL."""
    return _found and all(hasattr(connection, name) for name in _ATTRIBUTES)


def new_bio() -> Any:
    """Return an empty memory BIO."""
    return _allocated(_bio_new(_bio_s_mem()))


def bio_over(address: Any, size: int) -> Any:
    """
    Return a BIO that is read from memory of ours, without a copy.

    @param address: of the memory, which must stay there as long as the BIO; see L{address_of}.
    @param size: in bytes.
    """
    bio = _allocated(_bio_new_mem_buf(address, size))
    _bio_set_eof(bio, -1)  # more may come: its end is not that of the connection
    return bio


def _allocated(bio: Any) -> Any:
    if not bio:
        raise MemoryError
    return bio


def raise_error(connection: Any, result: int) -> NoReturn:
    """
    Raise the exception that pyOpenSSL's methods would raise.

    @param result: the result of L{read} or L{write}, with no other call of OpenSSL since.
    """
    connection._raise_ssl_error(connection._ssl, result)
    raise SSL.Error([])  # OpenSSL gave no reason
