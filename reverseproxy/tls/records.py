"""
A connection's data through OpenSSL, at OpenSSL's price.

pyOpenSSL's methods for data cost several times what it costs to encrypt a small
message: each makes a buffer, asks for an error that there is not, and copies.
So the functions of OpenSSL that it calls are called here too, with one buffer
for all connections, which is why this is for the reactor's thread alone.

pyOpenSSL does not promise where those functions are.  They are looked for when
this module is imported; should anything be missing from where it has been for
years, its public methods do the same for more.
"""

from __future__ import annotations

__all__ = ["BLOCK", "DirectRecords", "PublicRecords", "Records", "records_of"]

from typing import Any, Final, NoReturn

from OpenSSL import SSL
from OpenSSL.SSL import Error, WantReadError, ZeroReturnError

BLOCK: Final = 2**15
"""
Bytes that are encrypted at once.

Larger blocks save system calls, but the first records of such a block have left
the processor's cache when they are fetched from OpenSSL.
"""

_RECORD: Final = 2**14
"""Bytes of plaintext in one TLS record at the most."""

_HEADER: Final = 5
"""Bytes in front of each record, the last two of which are its length."""

_ROOM: Final = 2**18
"""Bytes of plaintext that are collected before they are copied."""

_OUTPUT: Final = BLOCK + 2**12
"""Bytes that are fetched from OpenSSL at once: a block, and what makes records of it."""


class Records:
    """
    What goes through OpenSSL.

    @ivar ended: the peer's close_notify has been met.
    @ivar error: what has been met that ends the connection.
    """

    ended = False
    error: Error | None = None

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        raise NotImplementedError

    def decrypt(self) -> bytes:
        """
        Get what can be decrypted of what has come.

        @return: nothing if there is no more than a part of a record, and also
            at the end, which is in C{ended} or C{error}.
        """
        raise NotImplementedError

    def receive(self, data: bytes) -> bytes:
        """Take what has come, and get what can be decrypted; see L{decrypt}."""
        self.feed(data)
        return self.decrypt()

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """
        Make records.

        @param data: at most a L{BLOCK}.
        @return: the records, behind anything else that OpenSSL has to send.
        @raise Error: if OpenSSL can't.
        """
        raise NotImplementedError

    def take(self) -> bytes:
        """Get what OpenSSL has to send of its own accord; mostly nothing."""
        raise NotImplementedError


class PublicRecords(Records):
    """By way of pyOpenSSL's public methods."""

    def __init__(self, connection: SSL.Connection) -> None:
        self._connection = connection

    def feed(self, data: bytes) -> None:
        """See L{Records}."""
        self._connection.bio_write(data)

    def decrypt(self) -> bytes:
        """See L{Records}."""
        receive = self._connection.recv
        pieces: list[bytes] = []
        try:
            while True:
                pieces.append(receive(_RECORD))
        except WantReadError:
            pass
        except ZeroReturnError:
            self.ended = True
        except Error as error:
            self.error = error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """See L{Records}."""
        send, size = self._connection.send, len(data)
        sent = send(data)
        while sent < size:
            sent += send(memoryview(data)[sent:])
        return self.take()

    def take(self) -> bytes:
        """See L{Records}."""
        pieces: list[bytes] = []
        try:
            while not pieces or len(pieces[-1]) == _OUTPUT:
                pieces.append(self._connection.bio_read(_OUTPUT))
        except WantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


# The same module of functions that pyOpenSSL works with, and what makes buffers for it.
_lib: Any = getattr(SSL, "_lib", None)
_ffi: Any = getattr(SSL, "_ffi", None)
_FUNCTIONS: Final = ("SSL_read", "SSL_write", "SSL_get_error", "BIO_read", "BIO_write")
_CONSTANTS: Final = ("SSL_ERROR_WANT_READ", "SSL_ERROR_ZERO_RETURN")
_ATTRIBUTES: Final = ("_ssl", "_into_ssl", "_from_ssl", "_raise_ssl_error")
_found = _ffi is not None and all(hasattr(_lib, name) for name in (*_FUNCTIONS, *_CONSTANTS))

if _found:
    _ssl_read, _ssl_write, _ssl_error, _bio_read, _bio_write = (getattr(_lib, name) for name in _FUNCTIONS)
    _WANT_READ, _ZERO_RETURN = (getattr(_lib, name) for name in _CONSTANTS)
    _plain = _ffi.new("char[]", _ROOM + _RECORD)
    _output = _ffi.new("char[]", _OUTPUT)
    _plain_view, _output_view = memoryview(_ffi.buffer(_plain)), memoryview(_ffi.buffer(_output))


class DirectRecords(Records):
    """
    By way of the functions that pyOpenSSL's methods call.

    Asking OpenSSL for a record that has not come costs as much as decrypting a
    small one.  So the headers of records, which are not encrypted, are followed
    here: when what has come is exactly one record, there is no second one.
    """

    def __init__(self, connection: Any) -> None:
        """@param connection: with memory for a wire, through which nothing has gone yet."""
        self._connection = connection
        self._ssl = connection._ssl
        self._in, self._out = connection._into_ssl, connection._from_ssl
        self._aligned = True  # all that has come is whole records
        self._missing = 0  # bytes of a record that has begun
        self._head = b""  # of a record, if not even that is whole

    # This and encrypt run for every message, hence no helpers.

    def receive(self, data: bytes) -> bytes:
        """See L{Records}."""
        size = len(data)
        if not (self._aligned and size > _HEADER and _HEADER + (data[3] << 8 | data[4]) == size):
            self.feed(data)
            return self.decrypt()
        _bio_write(self._in, data, size)
        got = _ssl_read(self._ssl, _plain, _RECORD)
        if got > 0:
            return _plain_view[:got].tobytes()
        # Not data, but a message to OpenSSL.
        self._stop(got)
        return b""

    def feed(self, data: bytes) -> None:
        """See L{Records}."""
        _bio_write(self._in, data, len(data))
        position = self._missing
        if self._head:
            data = self._head + data
        size = len(data)
        while position + _HEADER <= size:
            position += _HEADER + (data[position + 3] << 8 | data[position + 4])
        if position < size:
            self._missing, self._head = 0, data[position:]
        else:
            self._missing, self._head = position - size, b""
        self._aligned = position == size

    def decrypt(self) -> bytes:
        """See L{Records}."""
        ssl = self._ssl
        size = 0
        pieces: list[bytes] = []
        while (got := _ssl_read(ssl, _plain + size, _RECORD)) > 0:
            size += got
            if size >= _ROOM:
                pieces.append(_plain_view[:size].tobytes())
                size = 0
        self._stop(got)
        last = _plain_view[:size].tobytes()
        return b"".join((*pieces, last)) if pieces else last

    def _stop(self, result: int) -> None:
        """Note why there is no more to be read."""
        error = _ssl_error(self._ssl, result)
        if error == _WANT_READ:
            return
        if error == _ZERO_RETURN:
            self.ended = True
            return
        try:
            self._fail(result)
        except Error as failed:
            self.error = failed

    def _fail(self, result: int) -> NoReturn:
        self._connection._raise_ssl_error(self._ssl, result)
        raise Error([])  # there is a result to explain, so this is not reached

    def encrypt(self, data: bytes | memoryview) -> bytes:
        """See L{Records}."""
        ssl = self._ssl
        size = len(data)
        sent = _ssl_write(ssl, data if type(data) is bytes else _ffi.from_buffer(data), size)
        if sent < size:
            # OpenSSL makes one record at once.
            if sent <= 0:
                self._fail(sent)
            start = _ffi.from_buffer(data)
            while sent < size:
                more = _ssl_write(ssl, start + sent, size - sent)
                if more <= 0:
                    self._fail(more)
                sent += more
        got = _bio_read(self._out, _output, _OUTPUT)
        if got < _OUTPUT:
            return _output_view[:got].tobytes()
        return _output_view.tobytes() + self.take()

    def take(self) -> bytes:
        """See L{Records}."""
        got = _bio_read(self._out, _output, _OUTPUT)
        if got <= 0:
            return b""
        pieces = [_output_view[:got].tobytes()]
        while got == _OUTPUT:
            got = max(0, _bio_read(self._out, _output, _OUTPUT))
            pieces.append(_output_view[:got].tobytes())
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def records_of(connection: SSL.Connection) -> Records:
    """
    Make the records of a connection.

    @param connection: with memory for a wire, through which nothing has gone yet.
    """
    if _found and all(hasattr(connection, name) for name in _ATTRIBUTES):
        return DirectRecords(connection)
    return PublicRecords(connection)
