"""
Changes to requests and responses that are forwarded: headers, path and Host.

As in MOSN (C{finalizeRequestHeaders} in C{pkg/router/base_rule.go} and
C{pkg/router/header_parser.go}): headers first, those of the route, then of its
virtual host, then of the router, where each adds before it removes; then the
Host header, which may be taken from a header; then the path.

All of this is compiled once for each route.  Arguments are never changed in place.
"""

from __future__ import annotations

__all__ = [
    "ORIGINAL_PATH",
    "IMMUTABLE_FIELDS",
    "HeaderMutation",
    "HeaderStep",
    "PathRewrite",
    "RequestMutation",
    "Rewritten",
    "field_value",
    "replace_pattern",
    "replace_prefix",
    "replace_whole",
]

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from reverseproxy.routing.patterns import Replace
from reverseproxy.routing.urls import quote_path
from reverseproxy.wire.http.hop_by_hop import OF_THE_MESSAGE

if TYPE_CHECKING:
    from reverseproxy.routing.facts import Headers, RouteInput
    from reverseproxy.routing.variables import Getter

ORIGINAL_PATH: Final = b"x-mosn-original-path"
"""The header with the path before it was rewritten."""

IMMUTABLE_FIELDS: Final = OF_THE_MESSAGE
"""Headers that frame a message or concern one connection: the proxy writes them itself."""

# Headers whose values are not joined with commas.
_COOKIE: Final = b"cookie"
_SET_COOKIE: Final = b"set-cookie"

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]+")


def field_value(text: str) -> bytes:
    """
    Make a header's value of any text, trusted or not.

    Control characters are percent-encoded, so that a value can't end its header.
    """
    value = text.encode("utf-8", "surrogateescape").strip(b" \t")
    if _CONTROL.search(value) is not None:
        value = _CONTROL.sub(lambda match: b"%%%02X" % match[0][0], value)
    return value


@dataclass(frozen=True, slots=True)
class HeaderStep:
    """
    One change to headers.

    @ivar name: the header, in lower case.
    @ivar value: the value to add, or the getter of a variable; L{None} to remove the
        header.
    @ivar append: whether to add it to the old value rather than replace that.
    """

    name: bytes
    value: bytes | Getter | None = None
    append: bool = False


class HeaderMutation:
    """
    Changes to headers.

    If a header exists and is added with C{append}, the new value follows the old one
    and a comma, in one field.  Cookies are joined with a semicolon, and C{Set-Cookie},
    which can't be joined, gets another field.  Without C{append}, it replaces all old
    values.

    @ivar names: all headers that may change, in lower case.  A C{Connection} header of
        the client must not remove these.
    """

    __slots__ = ("_steps", "names")

    def __init__(self, steps: Sequence[HeaderStep]) -> None:
        self._steps = [(step.name, step.value, step.append) for step in steps]
        self.names = frozenset(step.name for step in steps)

    def apply(self, headers: Headers, facts: RouteInput) -> Headers:
        """
        Make the changes.

        @param headers: fields in order; not changed.
        @param facts: the source of variables.
        @return: the new fields; names keep their case.
        """
        fields = list(headers)
        names = [name.lower() for name, _ in fields]
        for name, value, append in self._steps:
            if value is None:
                if name in names:
                    fields = [field for field, each in zip(fields, names, strict=True) if each != name]
                    names = [each for each in names if each != name]
                continue
            new = field_value(value(facts) or "") if callable(value) else value
            if name not in names or (append and name == _SET_COOKIE):
                fields.append((name, new))
                names.append(name)
                continue
            if append:
                old = [value for (_, value), each in zip(fields, names, strict=True) if each == name]
                new = (b"; " if name == _COOKIE else b",").join(filter(None, [*old, new]))
            first = names.index(name)
            fields[first] = (fields[first][0], new)
            if names.count(name) > 1:
                kept = [i for i, each in enumerate(names) if each != name or i == first]
                fields = [fields[i] for i in kept]
                names = [names[i] for i in kept]
        return fields


PathRewrite = Callable[[str], str | None]
"""Returns the new path for a decoded one; L{None} if it does not change."""


def replace_prefix(old: str, new: str) -> PathRewrite:
    """Replace a prefix of a path."""

    def rewrite(path: str) -> str | None:
        return new + path[len(old) :] if path.startswith(old) else None

    return rewrite


def replace_whole(new: str) -> PathRewrite:
    """Replace a whole path."""
    return lambda path: new


def replace_pattern(replace: Replace) -> PathRewrite:
    """Replace all matches of a pattern in a path."""

    def rewrite(path: str) -> str | None:
        old = path.encode("utf-8", "surrogateescape")
        new = replace(old)
        return None if new == old else new.decode("utf-8", "surrogateescape")

    return rewrite


class Rewritten(NamedTuple):
    """
    A request as it is forwarded.

    @ivar target: the request target, in origin form.
    @ivar host: the authority.
    @ivar headers: the fields.
    """

    target: bytes
    host: bytes
    headers: Headers


class RequestMutation:
    """
    Changes to a request.

    @ivar names: all headers that may change, in lower case; see
        L{HeaderMutation.names}.
    """

    __slots__ = ("_headers", "_host", "_host_header", "_path", "names")

    def __init__(
        self,
        headers: HeaderMutation | None = None,
        path: PathRewrite | None = None,
        host: bytes = b"",
        host_header: bytes = b"",
    ) -> None:
        """
        @param host: the new authority; empty for none.
        @param host_header: the header that it is taken from if C{host} is empty, in
            lower case.
        """
        self._headers = headers
        self._path = path
        self._host = host
        self._host_header = host_header
        self.names = frozenset() if headers is None else headers.names
        if path is not None:
            self.names |= {ORIGINAL_PATH}

    def apply(self, facts: RouteInput, target: bytes, host: bytes, headers: Headers) -> Rewritten:
        """
        Make the changes.

        @param facts: the request that the route was found for: its path is rewritten.
        @param target: the request target, in origin form; it is not changed unless the
            path is rewritten, and its query never.
        @param host: the authority.
        @param headers: fields in order; not changed.
        """
        if self._headers is not None:
            headers = self._headers.apply(headers, facts)
        if self._host:
            host = self._host
        elif self._host_header:
            wanted = self._host_header
            value = next((value for name, value in headers if name.lower() == wanted), b"")
            if _HOST.fullmatch(value):
                host = value
        if self._path is not None and facts.path[:1] == "/":
            path = self._path(facts.path)
            if path is not None:
                headers = [field for field in headers if field[0].lower() != ORIGINAL_PATH]
                headers.append((ORIGINAL_PATH, field_value(facts.path)))
                if path != facts.path:
                    _, mark, query = target.partition(b"?")
                    target = quote_path(path).encode("ascii") + mark + query
        return Rewritten(target, host, headers)
