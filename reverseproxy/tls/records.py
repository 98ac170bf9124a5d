"""
Encryption and decryption of a connection's records by OpenSSL, from memory to memory.

OpenSSL has no socket, but two memory BIOs: one for the ciphertext that was received, one for the
ciphertext to be sent.
"""

from __future__ import annotations

__all__ = ["BLOCK", "PORTION", "DirectRecords", "PublicRecords", "Records", "records_of"]

from typing import Any, Final

from OpenSSL import SSL
from OpenSSL.SSL import Error, WantReadError, ZeroReturnError

from reverseproxy.tls.openssl import (
    FETCHED,
    OUTPUT,
    OUTPUT_VIEW,
    PLAIN,
    PLAIN_VIEW,
    RECORD,
    ROOM,
    WANT_READ,
    ZERO_RETURN,
    address_of,
    bio_over,
    bio_read,
    bio_write,
    get_error,
    new_bio,
    raise_error,
    read,
    serves,
    set_bios,
    write,
)

BLOCK: Final = 2**15
"""
Bytes of plaintext that are encrypted at once.

Larger blocks save system calls, but their first records have left the processor's
cache when they are read from OpenSSL.
"""

PORTION: Final = 2**15
"""
Bytes of ciphertext that OpenSSL is given at once.

A memory BIO never shrinks, so that a large read is written to it in parts.
"""

_HEADER: Final = 5
"""Bytes of a record's header, the last two of which are the record's length."""


class Records:
    """
    Encrypts and decrypts the records of one connection.

    @ivar ended: whether the peer's close_notify has been read.
    @ivar error: the error that ends the connection; L{None} without one.
    """

    def __init__(self) -> None:
        self.ended = False
        self.error: Error | None = None

    def feed(self, data: bytes) -> None:
        """
        Take ciphertext.

        @param data: at most a L{PORTION}.
        """
        raise NotImplementedError

    def decrypt(self) -> bytes:
        """
        Decrypt all complete records.

        @return: the plaintext; empty if there is no complete record, and also
            at the end, which sets C{ended} or C{error}.
        """
        raise NotImplementedError

    def receive(self, data: bytes) -> bytes:
        """Take ciphertext of any length, and return the plaintext of all complete records; see L{decrypt}."""
        pieces: list[bytes] = []
        for start in range(0, len(data), PORTION):
            self.feed(data[start : start + PORTION])
            pieces.append(self.decrypt())
            if self.ended or self.error is not None:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes | memoryview) -> bytes | memoryview:
        """
        Encrypt plaintext.

        @param data: at most a L{BLOCK}.
        @return: the records, behind anything else that OpenSSL has to send.  It may be a view of a buffer
            that the next call on any connection overwrites.
        @raise Error: if OpenSSL can't.
        """
        raise NotImplementedError

    def take(self) -> bytes:
        """Return what OpenSSL has to send by itself; mostly nothing."""
        raise NotImplementedError


class PublicRecords(Records):
    """Records by pyOpenSSL's public methods."""

    def __init__(self, connection: SSL.Connection) -> None:
        super().__init__()
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
                pieces.append(receive(RECORD))
        except WantReadError:
            pass
        except ZeroReturnError:
            self.ended = True
        except Error as error:
            self.error = error
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def encrypt(self, data: bytes | memoryview) -> bytes | memoryview:
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
            while not pieces or len(pieces[-1]) == FETCHED:
                pieces.append(self._connection.bio_read(FETCHED))
        except WantReadError:
            pass
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class DirectRecords(Records):
    """
    Records by the OpenSSL functions that pyOpenSSL's methods call.

    Asking OpenSSL for another record when there is none costs as much as
    decrypting a small one.  So the records' headers, which are not encrypted, are
    parsed here: if the ciphertext is exactly one record, there is no other one.
    """

    def __init__(self, connection: Any) -> None:
        """@param connection: with memory BIOs, which are empty."""
        super().__init__()
        self._connection = connection
        self._ssl = connection._ssl
        self._in, self._out = connection._into_ssl, connection._from_ssl
        self._aligned = True  # the ciphertext so far ends with a record
        self._missing = 0  # bytes of an incomplete record that have not arrived
        self._head = b""  # an incomplete record header
        self._fed = False  # the BIO may have ciphertext that was not decrypted yet

    # This and encrypt run for every message, hence few calls.

    def receive(self, data: bytes) -> bytes:
        """See L{Records}."""
        size = len(data)
        if not (self._aligned and size > _HEADER and _HEADER + (data[3] << 8 | data[4]) == size):
            return self._receive(data)
        bio_write(self._in, data, size)
        got = read(self._ssl, PLAIN, RECORD)
        if got > 0:
            return PLAIN_VIEW[:got].tobytes()
        # It was no application data, but for instance a session ticket.
        self._stop(got)
        return b""

    def _receive(self, data: bytes) -> bytes:
        """Do as L{receive} does, with anything but exactly one record."""
        if self._fed:
            return super().receive(data)
        self._follow(data)
        pieces: list[bytes] = []
        if len(data) <= RECORD:
            bio_write(self._in, data, len(data))
            return _together(pieces, self._decrypt(pieces, 0))
        # Much is decrypted where it is: a memory BIO would keep for ever what it takes.
        fresh, address = new_bio(), address_of(data)
        whole = bio_over(address, len(data))
        try:
            set_bios(self._ssl, whole, self._out)
            return _together(pieces, self._decrypt(pieces, 0))
        finally:
            # What there is of an incomplete record is in OpenSSL's own buffer.
            set_bios(self._ssl, fresh, self._out)
            self._in = self._connection._into_ssl = fresh

    def feed(self, data: bytes) -> None:
        """See L{Records}."""
        self._fed = True
        bio_write(self._in, data, len(data))
        self._follow(data)

    def _follow(self, data: bytes) -> None:
        """Follow the records' headers to where the last record ends."""
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
        self._fed = False
        pieces: list[bytes] = []
        return _together(pieces, self._decrypt(pieces, 0))

    def _decrypt(self, pieces: list[bytes], filled: int) -> int:
        """
        Decrypt into L{PLAIN}; when it is full, move its content to C{pieces}.

        @param filled: bytes of L{PLAIN} that are in use.
        @return: the same, afterwards.
        """
        ssl = self._ssl
        while (got := read(ssl, PLAIN + filled, RECORD)) > 0:
            filled += got
            if filled >= ROOM:
                pieces.append(PLAIN_VIEW[:filled].tobytes())
                filled = 0
        self._stop(got)
        return filled

    def _stop(self, result: int) -> None:
        """Set C{ended} or C{error}, if that is why nothing more was read."""
        error = get_error(self._ssl, result)
        if error == WANT_READ:
            return
        if error == ZERO_RETURN:
            self.ended = True
            return
        try:
            raise_error(self._connection, result)
        except Error as failed:
            self.error = failed

    def encrypt(self, data: bytes | memoryview) -> bytes | memoryview:
        """See L{Records}."""
        ssl, out = self._ssl, self._out
        size = len(data)
        sent = write(ssl, data if type(data) is bytes else address_of(data), size)
        if sent <= 0:
            raise_error(self._connection, sent)
        filled = bio_read(out, OUTPUT, FETCHED)
        if sent < size:
            # One call makes one record, which is fetched at once: a memory BIO never shrinks.
            start = address_of(data)
            while sent < size:
                more = write(ssl, start + sent, size - sent)
                if more <= 0:
                    raise_error(self._connection, more)
                sent += more
                filled += bio_read(out, OUTPUT + filled, FETCHED - filled)
        if filled < FETCHED:
            return OUTPUT_VIEW[:filled]
        return OUTPUT_VIEW.tobytes() + self.take()

    def take(self) -> bytes:
        """See L{Records}."""
        got = bio_read(self._out, OUTPUT, FETCHED)
        if got <= 0:
            return b""
        pieces = [OUTPUT_VIEW[:got].tobytes()]
        while got == FETCHED:
            got = max(0, bio_read(self._out, OUTPUT, FETCHED))
            pieces.append(OUTPUT_VIEW[:got].tobytes())
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _together(pieces: list[bytes], filled: int) -> bytes:
    last = PLAIN_VIEW[:filled].tobytes()
    return b"".join((*pieces, last)) if pieces else last


def records_of(connection: SSL.Connection) -> Records:
    """
    Return the records of a connection.

    @param connection: with memory BIOs, which are empty.
    """
    return DirectRecords(connection) if serves(connection) else PublicRecords(connection)
