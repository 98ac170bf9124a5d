"""
Field compression (RFC 7541, HPACK) at the speed that a proxy needs.

The hpack library decodes.  A block that only refers to the tables, or has short
literals that are not indexed, is decoded here: that leaves the dynamic table as it
is, so that any block with something else in it can be left to the library, from its
beginning.  A peer sends equal blocks again and again; the last few of these are
kept with their fields, and with the head that was made of them.  A block whose
decoding may change the table drops them all.

Encoding is done here, for speed rather than for the last byte: new values are not
Huffman-coded, and values that change from message to message are not indexed, as
they would evict those that stay.
"""

from __future__ import annotations

__all__ = ["TABLE_SIZE", "FieldDecoder", "FieldEncoder", "Fields", "NeverIndexed"]

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, cast

from hpack import Decoder, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKDecodingError, HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

TABLE_SIZE: Final = 4096
"""Bytes of the largest dynamic table, in either direction; the default of RFC 9113 6.5.2."""

SIMPLE_BLOCK: Final = 4096
"""Bytes of the largest block that is decoded here."""

MOST_KNOWN: Final = 4
"""How many blocks of a peer are kept."""

KNOWN_HEAD: Final = 4096
"""Bytes of the fields of the largest head that is kept with its block: a few bytes may stand for many."""

KNOWN_BLOCK: Final = 256
"""Bytes of the largest block that is kept."""

KNOWN_FIELDS: Final = 24
"""Fields of the largest block that is kept."""

_STATIC: Final[tuple[Field, ...]] = HeaderTable.STATIC_TABLE
_STATIC_SIZE: Final = len(_STATIC)

_STATIC_FIELDS: Final[dict[Field, int]] = {field: number for number, field in enumerate(_STATIC, 1)}
_STATIC_NAMES: Final[dict[bytes, int]] = {
    name: number for number, (name, _) in reversed(list(enumerate(_STATIC, 1)))
}

_NEVER_INDEXED: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"})
"""
Secrets, which are never indexed, here or at later hops.

Another client whose requests share the connection could otherwise guess them, by
the size of what is sent (RFC 7541 7.1).
"""

_NOT_INDEXED: Final = frozenset(
    {
        b":path",
        b"age",
        b"content-length",
        b"etag",
        b"if-modified-since",
        b"if-none-match",
        b"last-modified",
        b"location",
        b"traceparent",
        b"x-request-id",
    }
)
"""Fields whose values differ in most messages."""

MAX_UPDATES: Final = 2
"""Table size updates at the beginning of a block: the smallest, and the final one (RFC 7541 4.2)."""

_FIRST_DYNAMIC: Final = 0x80 + _STATIC_SIZE + 1
"""The byte that refers to the newest entry of the dynamic table."""

_INDEXED: Final = [bytes((0x80 | number,)) for number in range(127)]


class NeverIndexed(bytes):
    """
    A value that must not be indexed at later hops either, as its sender has marked it (RFC 7541 6.2.3).

    Its hash is not that of equal bytes, so that it is found in no table: another
    client of the same connection may have put a guess there.  For the same reason
    values of pseudo-headers, which are looked up in sets, are never marked.
    """

    __slots__ = ()

    def __hash__(self) -> int:
        return ~bytes.__hash__(self)


def _integer(value: int, bits: int, pattern: int) -> bytes:
    """Encode an integer with a prefix of some bits, behind the bits of a pattern (RFC 7541 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes((pattern | value,))
    value -= limit
    out = [pattern | limit]
    while value >= 128:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _string(value: bytes) -> bytes:
    size = len(value)
    return (bytes((size,)) if size < 127 else _integer(size, 7, 0)) + value


def _marked(name: bytes, value: bytes) -> Field:
    """Return a field that came as one that is never indexed."""
    return (name, value) if name[:1] == b":" else (name, NeverIndexed(value))


def _size(name: bytes, value: bytes) -> int:
    return len(name) + len(value) + 32


class FieldEncoder:
    """Encodes field blocks; the peer has to decode all of them, in the same order."""

    __slots__ = ("_count", "_entries", "_fields", "_lowest", "_max", "_names", "_size")

    def __init__(self) -> None:
        self._max = TABLE_SIZE
        self._lowest: int | None = None  # the smallest table size that was set since the last block
        self._size = 0
        # The peer's dynamic table, the newest entry first, and its entries by number of insertion.
        self._count = 0
        self._entries: deque[Field] = deque()
        self._fields: dict[Field, int] = {}
        self._names: dict[bytes, int] = {}

    @property
    def max_size(self) -> int:
        """Bytes of the dynamic table."""
        return self._max

    def set_max_size(self, size: int) -> None:
        """
        Set the size of the dynamic table.

        @param size: the most bytes that the peer allows; no more than L{TABLE_SIZE} are used.
        """
        size = min(size, TABLE_SIZE)
        if size != self._max:
            self._lowest = size if self._lowest is None else min(size, self._lowest)
            self._max = size
            self._evict(0)

    def _evict(self, room: int) -> None:
        """Evict the oldest entries, until there is room for some bytes."""
        entries = self._entries
        while entries and self._size + room > self._max:
            number = self._count - len(entries) + 1
            field = entries.pop()
            self._size -= _size(*field)
            if self._fields.get(field) == number:
                del self._fields[field]
            if self._names.get(field[0]) == number:
                del self._names[field[0]]

    def _add(self, field: Field, size: int) -> None:
        self._evict(size)
        self._count = count = self._count + 1
        self._entries.appendleft(field)
        self._size += size
        self._fields[field] = count
        self._names[field[0]] = count

    def encode(self, fields: Iterable[Field]) -> bytes:
        """Encode a block."""
        out: list[bytes] = []
        if self._lowest is not None:
            out.append(_integer(self._lowest, 5, 0x20))
            if self._lowest != self._max:
                out.append(_integer(self._max, 5, 0x20))
            self._lowest = None
        known = self._fields
        for field in fields:
            index = _STATIC_FIELDS.get(field)
            if index is None:
                number = known.get(field)
                if number is None:
                    out.append(self._literal(field))
                    continue
                index = _STATIC_SIZE + 1 + self._count - number
            out.append(_INDEXED[index] if index < 127 else _integer(index, 7, 0x80))
        return b"".join(out)

    def _literal(self, field: Field) -> bytes:
        """Encode a field that is in no table."""
        name, value = field
        index = _STATIC_NAMES.get(name)
        if index is None:
            number = self._names.get(name)
            index = 0 if number is None else _STATIC_SIZE + 1 + self._count - number
        size = _size(name, value)
        if name in _NEVER_INDEXED or type(value) is NeverIndexed:
            head = _integer(index, 4, 0x10)
        elif name in _NOT_INDEXED or 2 * size > self._max:
            head = _integer(index, 4, 0)
        else:
            head = _integer(index, 6, 0x40)
            self._add(field, size)
        return head + _string(value) if index else head + _string(name) + _string(value)


def _check_updates(block: bytes) -> None:
    """Refuse more than L{MAX_UPDATES} table size updates."""
    at = count = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:
        count += 1
        if count > MAX_UPDATES:
            raise HPACKDecodingError(f"more than {MAX_UPDATES} changes of the table's size")
        at += 1
        if block[at - 1] & 0x1F == 0x1F:
            while at < len(block) and block[at] & 0x80:
                at += 1
            at += 1


class Fields(list[Field]):
    """
    The fields of a block that is kept.  When it comes again, the same object is returned: don't change it.

    @ivar meaning: for the caller to keep what it has made of them; L{None} at first.
    """

    __slots__ = ("meaning",)

    def __init__(self, fields: Iterable[Field]) -> None:
        super().__init__(fields)
        self.meaning: Any = None


class FieldDecoder:
    """Decodes field blocks: all that the peer has encoded, in the same order."""

    __slots__ = ("_decoder", "_dynamic", "_known")

    def __init__(self, max_list_size: int) -> None:
        """
        @param max_list_size: bytes of fields, roughly, beyond which the library refuses a block.
        """
        self._decoder = Decoder(max_list_size)
        self._dynamic: deque[Field] = self._decoder.header_table.dynamic_entries
        self._known: dict[bytes, Fields] = {}  # as long as the table stays as it is

    def decode(self, block: bytes) -> list[Field]:
        """
        Decode a block.

        @return: its fields; these are L{Fields} if the block is kept.
        @raise hpack.HPACKError: if it is malformed, after which no other can be decoded.
        """
        known = self._known.get(block)
        if known is not None:
            return known
        if block and block[0] & 0xE0 == 0x20:
            _check_updates(block)
        if len(block) <= SIMPLE_BLOCK:
            fields = self._read_simple(block)
            if fields is not None:
                if len(block) <= KNOWN_BLOCK and len(fields) <= KNOWN_FIELDS:
                    fields = self._remember(block, fields)
                return fields
        self._known.clear()  # the block may change the table, and so what indexes refer to
        decoded = cast("list[Field]", self._decoder.decode(block, raw=True))
        for index, field in enumerate(decoded):
            if type(field) is NeverIndexedHeaderTuple:
                decoded[index] = _marked(*field)
        return decoded

    def _remember(self, block: bytes, fields: list[Field]) -> Fields:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        known = self._known[block] = Fields(fields)
        return known

    def _field(self, index: int) -> Field | None:
        """Return the field with an index in the tables; L{None} if there is none."""
        if index <= _STATIC_SIZE:
            return _STATIC[index - 1] if index else None
        index -= _STATIC_SIZE + 1
        return self._dynamic[index] if index < len(self._dynamic) else None

    def _read_simple(self, block: bytes) -> list[Field] | None:
        """Decode a block that leaves the table as it is; return L{None} for others, and for long literals."""
        fields: list[Field] = []
        dynamic = self._dynamic
        at = 0
        end = len(block)
        try:
            while at < end:
                first = block[at]
                at += 1
                if first > 0x80 + _STATIC_SIZE:
                    if first == 0xFF:
                        return None
                    fields.append(dynamic[first - _FIRST_DYNAMIC])
                elif first > 0x80:
                    fields.append(_STATIC[first - 0x81])
                elif first >= 0x20:
                    return None
                else:
                    at = self._read_literal(block, at, fields)
                    if not at:
                        return None
        except (IndexError, HPACKError):
            return None
        return fields

    def _read_literal(self, block: bytes, at: int, fields: list[Field]) -> int:
        """
        Decode a literal that is not indexed (RFC 7541 6.2.2, 6.2.3).

        @param at: the index behind its first byte.
        @param fields: the field is appended to this.
        @return: the index behind it; 0 if it has a string of 127 bytes or more, or is incomplete.
        @raise IndexError: if it is incomplete.
        """
        end = len(block)
        marked = block[at - 1] & 0x10
        index = block[at - 1] & 0x0F
        if index == 0x0F:
            index += block[at]
            at += 1
        if index:
            field = self._field(index) if index < 0x0F + 0x80 else None
            if field is None:
                return 0
            name = field[0]
        else:
            size = block[at]
            at += 1 + (size & 0x7F)
            name = block[at - (size & 0x7F) : at]
            if size & 0x7F == 0x7F or at >= end:
                return 0
            if size & 0x80:
                name = decode_huffman(name)
        size = block[at]
        at += 1 + (size & 0x7F)
        value = block[at - (size & 0x7F) : at]
        if size & 0x7F == 0x7F or at > end:
            return 0
        if size & 0x80:
            value = decode_huffman(value)
        fields.append(_marked(name, value) if marked else (name, value))
        return at
