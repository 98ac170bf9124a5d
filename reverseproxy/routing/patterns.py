"""
Regular expressions, by RE2, whose syntax MOSN uses as well.

It searches in time linear in the length of the text, whatever the pattern, so that
neither a careless pattern nor a hostile path can block the process.
"""

from __future__ import annotations

__all__ = ["PatternError", "Replace", "Search", "compile_replacement", "compile_search"]

import re
from collections.abc import Callable
from typing import Any, Final

Search = Callable[[str], bool]
"""Returns whether a pattern is found in a text."""

Replace = Callable[[bytes], bytes]
"""Replaces all matches of a pattern in a text."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_REFERENCE: Final = re.compile(r"\$(?:(\$)|\{(\w+)\}|(\w+))")
_NUMBER: Final = re.compile(r"0|[1-9][0-9]{0,7}")


class PatternError(ValueError):
    """A text is no regular expression of RE2; the message says why."""


def _compile(pattern: str, captures: bool) -> Any:
    # A large library, which only configurations with patterns need.
    import re2

    options = re2.Options()
    options.log_errors = False
    options.never_capture = not captures
    try:
        return re2.compile(_encode(pattern), options)
    except re2.error as error:
        # Its messages are bytes.
        reason = error.args[0] if error.args else error
        raise PatternError(
            reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        ) from None


def compile_search(pattern: str) -> Search:
    """
    Compile a pattern to a function that returns whether it is found.

    @raise PatternError: if it is not valid.
    """
    search = _compile(pattern, captures=False).search

    def found(text: str) -> bool:
        return search(_encode(text)) is not None

    return found


def _encode(text: str) -> bytes:
    """
    Encode for RE2, which accepts UTF-8 only.

    A byte that is not UTF-8 becomes U+FFFD, as in Go's regexp.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return _SURROGATE.sub("\ufffd", text).encode("utf-8")


def compile_replacement(pattern: str, substitution: str) -> tuple[Replace, list[str]]:
    """
    Compile a pattern and the substitution for its matches.

    The substitution is Go's: C{$1}, C{${1}} and C{${name}} stand for groups,
    where C{$1x} is C{${1x}}, and C{$$} for a dollar sign.  A group that has no
    part in a match, or does not exist, is empty.

    @return: the function, and the groups that do not exist.
    @raise PatternError: if the pattern is not valid.
    """
    compiled = _compile(pattern, captures=True)
    parts: list[bytes | int] = []
    missing: list[str] = []
    end = 0
    for reference in _REFERENCE.finditer(substitution):
        parts.append(_encode(substitution[end : reference.start()]))
        end = reference.end()
        if reference[1]:
            parts.append(b"$")
            continue
        name = reference[2] or reference[3]
        group = int(name) if _NUMBER.fullmatch(name) else compiled.groupindex.get(_encode(name), -1)
        if 0 <= group <= compiled.groups:
            parts.append(group)
        else:
            missing.append(name)
    parts.append(_encode(substitution[end:]))

    def expand(match: Any) -> bytes:
        return b"".join([(match[part] or b"") if isinstance(part, int) else part for part in parts])

    def replace(text: bytes) -> bytes:
        out: list[bytes] = []
        position = last = 0
        while position <= len(text):
            match = compiled.search(text, position)
            if match is None:
                break
            start, stop = match.span()
            out.append(text[last:start])
            # An empty match right behind another one is not replaced, as in Go.
            if stop > last or start == 0:
                out.append(expand(match))
            last = stop
            position = stop if stop > position else _next(text, position)
        out.append(text[last:])
        return b"".join(out)

    return replace, missing


def _next(text: bytes, position: int) -> int:
    """Return the index of the next character of UTF-8."""
    position += 1
    while position < len(text) and text[position] & 0xC0 == 0x80:
        position += 1
    return position
