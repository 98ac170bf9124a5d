"""
Fields of a request that only trusted peers may set.

Two kinds of them have a meaning for us, or for the upstream host: MOSN's proxies
control each other by C{x-mosn-...}, and proxies tell hosts by
C{X-Forwarded-...}, C{X-Real-IP} and C{Forwarded} (RFC 7239) who the client is.
They can be trusted if a proxy of one's own has set them.

Others only look like these, or like the fields that HTTP itself is framed by.  A
server that passes fields on as variables makes C{HTTP_X_FORWARDED_FOR} of
C{X_Forwarded_For} as well as of C{X-Forwarded-For} (RFC 3875 4.1.18); some do so
with every character that is neither a letter nor a digit.  So a name with any
such character in place of a hyphen counts as a lookalike, which no peer may set.
"""

from __future__ import annotations

__all__ = [
    "ANY",
    "FORWARDED",
    "LOOKALIKE",
    "MOSN",
    "NOTHING",
    "PATTERN",
    "mark_of",
    "without",
]

import re
from typing import Final

NOTHING: Final = 0
"""The mark of a field that every client may set."""

MOSN: Final = 1
"""The mark of C{x-mosn-...}."""

FORWARDED: Final = 2
"""The mark of fields that say who the client is."""

LOOKALIKE: Final = 4
"""The mark of names that look like one of those, or like a field of HTTP's own."""

ANY: Final = MOSN | FORWARDED | LOOKALIKE
"""All marks."""

_HYPHEN: Final = rb"[^:\r\n0-9a-z]"
_ODD: Final = rb"[^:\r\n0-9a-z-]"

PATTERN: Final = (
    rb"x%(any)b(?:forwarded[^:\r\n]*|mosn%(any)b[^:\r\n]*|real%(any)bip)|forwarded"
    rb"|transfer%(odd)bencoding|content%(odd)b(?:length|type|encoding)|keep%(odd)balive"
    rb"|proxy%(odd)b(?:connection|authorization)|http2%(odd)bsettings"
) % {b"any": _HYPHEN, b"odd": _ODD}
"""A regular expression for names of fields with a mark, in lower case."""

_marked = re.compile(PATTERN).fullmatch
_odd = re.compile(_ODD).search


def mark_of(name: bytes) -> int:
    """
    Return the mark of a field.

    @param name: in lower case.
    """
    if not _marked(name):
        return NOTHING
    if _odd(name):
        return LOOKALIKE
    return MOSN if name.startswith(b"x-mosn-") else FORWARDED


def without(fields: list[tuple[bytes, bytes]], marks: int) -> list[tuple[bytes, bytes]]:
    """
    Return fields without those that have one of some marks.

    @param fields: names in any case.
    """
    return [field for field in fields if not mark_of(field[0].lower()) & marks]
