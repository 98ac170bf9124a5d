"""
Changes to requests and responses on their way: headers, path and Host.

As in MOSN (C{finalizeRequestHeaders} in C{pkg/router/base_rule.go} and
C{pkg/router/header_parser.go}): headers first, those of the route, then of its
virtual host, then of the router, where each adds before it removes; then the
Host header, which may be taken from a header; then the path.

All of this is compiled once for each route.  Nothing here changes what it is
given.
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
"""The header that says what a path was before it was rewritten."""

IMMUTABLE_FIELDS: Final = OF_THE_MESSAGE
"""Headers that say where a message ends or whose connection it is on: the proxy writes them itself."""

# What several fields of one name are joined with, where it is not a comma.
_COOKIE: Final = b"cookie"
_SET_COOKIE: Final = b"set-cookie"

_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_HOST: Final = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:%\[\]-]+")


def field_value(text: str) -> bytes:
    """
    Make a header's value of a text that may have come from anywhere.

    Line ends and their kind are percent-encoded, so that a value can't end its
    header.
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
    @ivar value: what to add, or a variable whose value is added; L{None} to
        remove the header.
    @ivar append: whether to put it behind the old value rather than in its
        place.
    """

    name: bytes
    value: bytes | Getter | None = None
    append: bool = False


class HeaderMutation:
    """
    Changes to headers.

    Where a header that is there already is added with C{append}, the new value
    stands behind the old one and a comma, in one field.  A cookie stands behind
    a semicolon, and C{Set-Cookie}, which can't be joined, gets another field.
    Where it is added without, all old values go.

    @ivar names: all headers that may change, in lower case.  Whoever lets a
        C{Connection} header of the client take headers out must not let it take
        these.
    """

    __slots__ = ("_steps", "names")

    def __init__(self, steps: Sequence[HeaderStep]) -> None:
        self._steps = [(step.name, step.value, step.append) for step in steps]
        self.names = frozenset(step.name for step in steps)

    def apply(self, headers: Headers, facts: RouteInput) -> Headers:
        """
        Make the changes.

        @param headers: fields in order; it stays as it is.
        @param facts: what values that are variables are taken from.
        @return: the new fields, those that came in the case they came in.
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
"""Given a decoded path, the new one; L{None} where there is nothing to do."""


def replace_prefix(old: str, new: str) -> PathRewrite:
    """Put something in place of a path's beginning."""

    def rewrite(path: str) -> str | None:
        return new + path[len(old) :] if path.startswith(old) else None

    return rewrite


def replace_whole(new: str) -> PathRewrite:
    """Put something in place of a path."""
    return lambda path: new


def replace_pattern(replace: Replace) -> PathRewrite:
    """Put something in place of what a pattern finds in a path."""

    def rewrite(path: str) -> str | None:
        old = path.encode("utf-8", "surrogateescape")
        new = replace(old)
        return None if new == old else new.decode("utf-8", "surrogateescape")

    return rewrite


class Rewritten(NamedTuple):
    """
    A request as it goes on.

    @ivar target: the request target, in origin form.
    @ivar host: the authority.
    @ivar headers: the fields.
    """

    target: bytes
    host: bytes
    headers: Headers


class RequestMutation:
    """
    What changes in a request.

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
        @param host: the new authority.
        @param host_header: the header that it is taken from otherwise, in lower
            case.
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

        @param facts: the request as the route was found for it: its path is the
            one that is rewritten.
        @param target: the request target, in origin form; it stays as it is
            unless the path is rewritten, and the query always does.
        @param host: the authority.
        @param headers: fields in order; it stays as it is.
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
