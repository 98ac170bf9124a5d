"""
Field compression (RFC 7541) at the speed that a proxy needs.

Decoding is the hpack library's.  A block that only refers to what is known, or
has short values that are not to be remembered, is read here: that changes
nothing in the decoder, so that whatever is out of the ordinary is left to the
library, from the block's beginning.  The same peer says the same again and again: the
last few of such blocks are remembered, and what was made of them.

Encoding is done here.  It takes no pains to save the last byte: values that are
new go out as they are, without Huffman's code, and what changes from message to
message is not remembered, as it would drive out what does not.
"""

from __future__ import annotations

__all__ = ["TABLE_SIZE", "FieldDecoder", "FieldEncoder", "Fields"]

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, cast

from hpack import Decoder
from hpack.exceptions import HPACKDecodingError, HPACKError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

TABLE_SIZE: Final = 4096
"""Bytes of fields that either side remembers of the other, at the most; the default of RFC 9113."""

SIMPLE_BLOCK: Final = 4096
"""Bytes of a block that is read here; a larger one is nothing ordinary."""

MOST_KNOWN: Final = 4
"""How many blocks of a peer are remembered."""

KNOWN_HEAD: Final = 4096
"""Bytes of the fields of the largest head that is kept with its block: a few bytes may stand for many."""

KNOWN_BLOCK: Final = 256
"""Bytes of a block that is remembered, at the most."""

KNOWN_FIELDS: Final = 24
"""Fields of a block that is remembered, at the most."""

_STATIC: Final[tuple[Field, ...]] = HeaderTable.STATIC_TABLE
_STATIC_SIZE: Final = len(_STATIC)

_STATIC_FIELDS: Final[dict[Field, int]] = {field: number for number, field in enumerate(_STATIC, 1)}
_STATIC_NAMES: Final[dict[bytes, int]] = {
    name: number for number, (name, _) in reversed(list(enumerate(_STATIC, 1)))
}

_NEVER_INDEXED: Final = frozenset({b"authorization", b"proxy-authorization", b"cookie", b"set-cookie"})
"""
Secrets: they stay out of every table on their way.

A neighbour on the same connection could otherwise find out by guessing, and by
the length of what is sent, what they are (RFC 7541 7.1).
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
"""Fields that are different in most messages."""

MAX_UPDATES: Final = 2
"""Changes of the table's size at the beginning of a block: the lowest one that there was, and the last."""

_FIRST_DYNAMIC: Final = 0x80 + _STATIC_SIZE + 1
"""What refers to the field that was remembered last."""

_INDEXED: Final = [bytes((0x80 | number,)) for number in range(127)]


def _integer(value: int, bits: int, pattern: int) -> bytes:
    """Write a number behind a pattern that leaves it some bits (RFC 7541 5.1)."""
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


def _size(name: bytes, value: bytes) -> int:
    return len(name) + len(value) + 32


class FieldEncoder:
    """Writes field blocks, each of which the peer has to read, in this order."""

    __slots__ = ("_count", "_entries", "_fields", "_lowest", "_max", "_names", "_size")

    def __init__(self) -> None:
        self._max = TABLE_SIZE
        self._lowest: int | None = None  # that the table's bound has had since the last block
        self._size = 0
        # What the peer remembers, by the number of its insertion, the last one first.
        self._count = 0
        self._entries: deque[Field] = deque()
        self._fields: dict[Field, int] = {}
        self._names: dict[bytes, int] = {}

    @property
    def max_size(self) -> int:
        """Bytes of fields that the peer is to remember."""
        return self._max

    def set_max_size(self, size: int) -> None:
        """
        Let the peer remember less, or more again.

        @param size: what the peer has room for; L{TABLE_SIZE} is enough.
        """
        size = min(size, TABLE_SIZE)
        if size != self._max:
            self._lowest = size if self._lowest is None else min(size, self._lowest)
            self._max = size
            self._evict(0)

    def _evict(self, room: int) -> None:
        """Forget the oldest fields, until there is some room."""
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
        """Write a block."""
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
        """Write a field that is not known."""
        name, value = field
        index = _STATIC_NAMES.get(name)
        if index is None:
            number = self._names.get(name)
            index = 0 if number is None else _STATIC_SIZE + 1 + self._count - number
        size = _size(name, value)
        if name in _NEVER_INDEXED:
            head = _integer(index, 4, 0x10)
        elif name in _NOT_INDEXED or 2 * size > self._max:
            head = _integer(index, 4, 0)
        else:
            head = _integer(index, 6, 0x40)
            self._add(field, size)
        return head + _string(value) if index else head + _string(name) + _string(value)


def _check_updates(block: bytes) -> None:
    """Look that the bound of the table is not changed more often than RFC 7541 4.2 has it."""
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
    The fields of a block that is remembered: whenever it comes again, these are given again, to be read only.

    @ivar meaning: what their reader has made of them, for itself; L{None} for nothing yet.
    """

    __slots__ = ("meaning",)

    def __init__(self, fields: Iterable[Field]) -> None:
        super().__init__(fields)
        self.meaning: Any = None


class FieldDecoder:
    """Reads field blocks, which have to be all that the peer writes, in this order."""

    __slots__ = ("_decoder", "_dynamic", "_known")

    def __init__(self, max_list_size: int) -> None:
        """
        @param max_list_size: bytes of fields, roughly, beyond which the library
            gives a block up.
        """
        self._decoder = Decoder(max_list_size)
        self._dynamic: deque[Field] = self._decoder.header_table.dynamic_entries
        self._known: dict[bytes, Fields] = {}  # as long as the table stays as it is

    def decode(self, block: bytes) -> list[Field]:
        """
        Read a block.

        @return: its fields; these are L{Fields} if it is one that may come again.
        @raise hpack.HPACKError: if it is none, after which no other can be read.
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
        self._known.clear()  # it may change what numbers stand for
        return cast("list[Field]", self._decoder.decode(block, raw=True))

    def _remember(self, block: bytes, fields: list[Field]) -> Fields:
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        known = self._known[block] = Fields(fields)
        return known

    def _field(self, index: int) -> Field | None:
        """Look a field up; L{None} if there is none."""
        if index <= _STATIC_SIZE:
            return _STATIC[index - 1] if index else None
        index -= _STATIC_SIZE + 1
        return self._dynamic[index] if index < len(self._dynamic) else None

    def _read_simple(self, block: bytes) -> list[Field] | None:
        """Read a block that changes nothing and has nothing unusual; L{None} for every other."""
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
        Read a field that is not to be remembered (RFC 7541 6.2.2, 6.2.3).

        @param at: where its first byte ends.
        @param fields: gets it.
        @return: where it ends; 0 if it has anything unusual.
        @raise IndexError: if it is not all there.
        """
        end = len(block)
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
        fields.append((name, value))
        return at
