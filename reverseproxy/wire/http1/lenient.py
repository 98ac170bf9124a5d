"""
Malformed heads of responses that can be understood, and how they are normalised.

RFC 9112 lets a recipient accept some of what old devices and home-made servers
send, and has a proxy write it properly for the next recipient.  Only responses,
which come from one's own services, are read in this way: a request that two
recipients read differently is what request smuggling is made of.

What is understood: lines that end with LF alone, or with a CR too many (2.2);
folded lines (5.2); blanks before a colon (5.1); the same Content-Length several
times (6.3); Transfer-Encoding beside Content-Length, which goes by that (6.3);
chunked in HTTP/1.0 (6.1); C{identity}, which RFC 2616 knew; empty
elements in lists of codings; framing of interim responses and of 204 and 304, which have no
body whatever they say (6.3); 101 with C{Upgrade} that Connection does not name; blanks
too many in the status line, and a later minor version.  Everything else that is malformed
is an error: NUL and other control characters, CR within a line, lengths that
differ or are no numbers, names that are no tokens, lines without a colon.
"""

from __future__ import annotations

__all__ = ["Normalised", "begins_well", "find_end", "normalise", "parse_lines"]

import re
from dataclasses import dataclass
from typing import Final

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.fields import TOKEN, Headers
from reverseproxy.wire.http1.fields import content_length

_END: Final = re.compile(rb"\n\r{0,2}\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([0-9])[ \t]+([1-9][0-9][0-9])(?:[ \t]+([^ \t].*)?)?", re.DOTALL)
_STATUS_LINE_SO_FAR: Final = re.compile(
    rb"HTTP/1\.(?:[0-9](?:[ \t]+(?:[1-9](?:[0-9](?:[0-9](?:[ \t][^\r\n\0]*)?)?)?)?)?\r{0,2})?"
)
_BEGIN: Final = b"HTTP/1."
_NAME: Final = re.compile(TOKEN + rb"+")
_VALUE: Final = re.compile(rb"[\t -~\x80-\xff]*")
_CODINGS: Final = frozenset({b"gzip", b"x-gzip", b"deflate"})
_CODINGS_OR_NONE: Final = _CODINGS | {b""}


@dataclass(frozen=True, slots=True)
class Normalised:
    """
    A head as it should have been written.

    @ivar raw: the head.
    @ivar certain: whether every recipient would find the same end of the message; if
        not, the connection must not be used again.
    @ivar coding: the transfer coding of the body besides chunked; empty for none.
    """

    raw: bytes
    certain: bool
    coding: bytes


def _without_end(line: bytes) -> bytes:
    """Strip up to two CRs from the end of a line, which stood before its LF."""
    if line[-1:] == b"\r":
        line = line[:-1]
        if line[-1:] == b"\r":
            line = line[:-1]
    return line


def find_end(text: bytes, start: int = 0) -> int:
    """
    Find where a head ends.

    @param start: where to search from.
    @return: the index behind its empty line; -1 if that has not come.
    """
    found = _END.search(text, start)
    return -1 if found is None else found.end()


def begins_well(text: bytes) -> bool:
    """Return whether a part of a head may be the beginning of a response."""
    line, complete, _ = text.partition(b"\n")
    if complete:
        found = _STATUS_LINE.fullmatch(_without_end(line))
        return found is not None and _VALUE.fullmatch(found[3] or b"") is not None
    return _BEGIN.startswith(line) or _STATUS_LINE_SO_FAR.fullmatch(line) is not None


def parse_lines(text: bytes) -> Headers:
    """
    Parse complete lines of fields.

    @raise HttpError: if one can't be understood.
    """
    fields: Headers = []
    for line in text.split(b"\n")[:-1]:
        line = _without_end(line)
        if line[:1] in (b" ", b"\t"):
            if not fields:
                raise HttpError(502, "a folded line in the response that goes on with nothing")
            name, value = fields.pop()
            value = (value + b" " + line.strip(b" \t")).strip(b" \t")
        else:
            name, colon, value = line.partition(b":")
            name = name.rstrip(b" \t")
            if not colon or not _NAME.fullmatch(name):
                raise HttpError(502, "a line in the response that is no field")
            value = value.strip(b" \t")
        if not _VALUE.fullmatch(value):
            raise HttpError(502, "a control character in a field of the response")
        fields.append((name, value))
    return fields


def normalise(text: bytes) -> Normalised:
    """
    Write the head of a response as it should have been written.

    @param text: a head, up to the index that L{find_end} returns.
    @raise HttpError: if it can't be understood, or has more than one meaning.
    """
    line, _, rest = text.partition(b"\n")
    found = _STATUS_LINE.fullmatch(_without_end(line))
    if found is None:
        raise HttpError(502, "malformed status line in the response")
    minor, status, reason = found.groups(b"")
    reason = reason.rstrip(b" \t")
    if not _VALUE.fullmatch(reason):
        raise HttpError(502, "a control character in the status line of the response")
    # The last line is the empty one, with or without a CR.
    fields = parse_lines(rest[: rest.rindex(b"\n", 0, -1) + 1] if b"\n" in rest[:-1] else b"")
    if status[:1] == b"1":
        framing, certain, coding = b"", True, b""
        if status == b"101":
            fields = _name_upgrade(fields)
    elif status in _BODILESS:
        framing, certain, coding = _frame_nothing(fields), True, b""
    else:
        framing, certain, coding = _frame(fields)
    if minor == b"0" and framing[:1] == b"T":
        # HTTP/1.0 has no chunks (6.1): as HTTP/1.1 it is read as it was meant; the connection ends anyway.
        minor, certain = b"1", False
    lines = [b"HTTP/1.%b %b %b\r\n" % (b"0" if minor == b"0" else b"1", status, reason)]
    lines += [b"%b: %b\r\n" % field for field in fields if field[0].lower() not in _FRAMING]
    return Normalised(b"".join([*lines, framing, b"\r\n"]), certain, coding)


_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding"})
_BODILESS: Final = frozenset({b"204", b"304"})


def _name_upgrade(fields: Headers) -> Headers:
    """Let Connection name the Upgrade of a 101, which is what makes it one (RFC 9110 7.8)."""
    names = {name.lower() for name, _ in fields}
    if b"upgrade" not in names:
        raise HttpError(502, "the host switched protocols and does not say to which")
    return [*fields, (b"Connection", b"Upgrade")]


def _frame_nothing(fields: Headers) -> bytes:
    """Return the Content-Length field of a response without a body; nothing if it is not one number."""
    try:
        framing, _, _ = _frame(fields)
    except HttpError:
        return b""
    return framing if framing[:1] == b"C" else b""


def _frame(fields: Headers) -> tuple[bytes, bool, bytes]:
    """
    Find how the end of a response's body is determined (RFC 9112 6.3).

    @return: the field that says it, or nothing if it ends with the connection;
        whether that is certain; and the coding of the body.
    """
    lengths: set[int] = set()
    codings: list[bytes] = []
    coded = False
    for name, value in fields:
        name = name.lower()
        if name == b"content-length":
            lengths.update(_length(part) for part in value.split(b","))
        elif name == b"transfer-encoding":
            coded = True
            codings += filter(None, (coding.strip(b" \t").lower() for coding in value.split(b",")))
    if len(lengths) > 1:
        raise HttpError(502, "the response has several lengths")
    if not coded:
        return _write_length(lengths), True, b""
    chunked = codings[-1:] == [b"chunked"]
    plain = [coding for coding in codings if coding != b"identity"]
    if codings and not plain:
        return _write_length(lengths), not lengths, b""
    if chunked:
        plain.pop()
    coding = b"".join(plain)
    if len(plain) > 1 or coding not in (_CODINGS_OR_NONE if chunked else _CODINGS):
        raise HttpError(502, "transfer coding of the response is not understood")
    if chunked:
        return b"Transfer-Encoding: chunked\r\n", not lengths, coding
    return b"", False, coding


def _length(text: bytes) -> int:
    length = content_length(text.strip(b" \t"))
    if length is None:
        raise HttpError(502, "Content-Length of the response is not one number")
    return length


def _write_length(lengths: set[int]) -> bytes:
    return b"".join([b"Content-Length: %d\r\n" % length for length in lengths])
