"""
Requests and responses, alike in every version of HTTP.

A message is a sequence of events: a L{Request} or L{Response}, which are the
heads; the body as plain C{bytes}; and an L{End}, with the trailers.  The parser
of one version makes them, and the writer of another takes them.  How a version
frames messages, and whether its connection persists, is not known here.

A version may derive from these heads: those of HTTP/1 have the bytes that came,
so that they can be forwarded verbatim (L{reverseproxy.wire.http1.heads}).  Other
code need not know.
"""

from __future__ import annotations

__all__ = [
    "END",
    "MAX_INTERIM",
    "NO_OPTIONS",
    "UNKNOWN_LENGTH",
    "End",
    "Event",
    "Headers",
    "Request",
    "Response",
]

from typing import Any, Final

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.border import NOTHING
from reverseproxy.wire.http.fields import Headers, find, takes_trailers

UNKNOWN_LENGTH: Final = -1
"""The length of a body whose end is determined otherwise; any other negative number means the same."""

MAX_INTERIM: Final = 100
"""Interim responses (1xx) before the final one."""

NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
"""No option of C{Connection}."""


class Request:
    """
    The head of a request.

    @ivar method: such as C{b"GET"}.
    @ivar target: in the form that is forwarded: origin-form, or C{*}.
    @ivar host: the authority, wherever it stood; may be empty.
    @ivar asked_host: the authority that the client asked for.
    @ivar http11: false for HTTP/1.0, whose senders may name no authority and take no interim responses:
        ask L{authority} and L{takes_interim}.
    @ivar length: bytes of the body, or L{UNKNOWN_LENGTH}.
    @ivar options: what the sender has marked as meant for us only (C{Connection}, RFC 9110 7.6.1): names
        of fields, in lower case, and C{upgrade}, if the answer to L{upgrade} is to be a 101.
    @ivar upgrade: the protocols to which the sender asks to switch, as far as they are passed on (see
        L{reverseproxy.wire.http.upgrades}); empty if it does not.
    @ivar awaits_continue: whether it waits for a 100 before it sends the body.
    @ivar mosn: whether it may have headers by which MOSN's proxies talk to each other (C{x-mosn-...}).
    @ivar dropped: the marks of fields that it had, but that its sender may not set; they are not among
        the L{headers}.
    """

    __slots__ = (
        "_deadline",
        "_headers",
        "asked_host",
        "awaits_continue",
        "dropped",
        "host",
        "http11",
        "length",
        "method",
        "mosn",
        "options",
        "target",
        "upgrade",
    )

    _headers: Any  # None in a derived one that has not taken them apart yet
    _deadline: bytes | None  # the same

    def __init__(
        self,
        method: bytes,
        target: bytes,
        host: bytes,
        headers: Headers,
        length: int = 0,
        deadline: bytes = b"",
    ) -> None:
        """Make an ordinary request; attributes that few requests need are set afterwards."""
        self.method = method
        self.target = target
        self.host = self.asked_host = host
        self._headers = headers
        self.length = length
        self._deadline = deadline
        self.http11 = self.mosn = True
        self.options = NO_OPTIONS
        self.upgrade = b""
        self.awaits_continue = False
        self.dropped = NOTHING

    def __repr__(self) -> str:
        kind = type(self).__name__
        return f"<{kind} {self.method!r} {self.target!r} host={self.host!r} length={self.length}>"

    @property
    def headers(self) -> Headers:
        """The fields as they came, but for those that were dropped."""
        headers: Headers = self._headers
        return headers

    @property
    def deadline(self) -> bytes:
        """The value of C{grpc-timeout}, by which the sender says how long it waits; empty for none."""
        return self._deadline or b""

    @property
    def takes_interim(self) -> bool:
        """Whether the sender understands interim responses, and may ask for one."""
        return self.http11

    def authority(self, default: bytes) -> bytes:
        """
        Return the Host that the request is forwarded with.

        @param default: the Host for a request of HTTP/1.0 that has none.  In later versions an empty
            Host means that the target has no authority (RFC 9112 3.2).
        """
        return self.host or (b"" if self.http11 else default)

    @property
    def trails(self) -> bool:
        """Whether trailers are announced although the body has a length, which HTTP/1 can't express."""
        return (
            self.length > 0
            and not self.upgrade
            and any(name.lower() == b"trailer" for name, _ in self.headers)
        )

    @property
    def wants_trailers(self) -> bool:
        """Whether the sender has said that it takes trailers in the response."""
        return takes_trailers(self.headers)

    def lookup(self, name: str) -> str | None:
        """
        Find a header by its lower-case name; several are joined with commas.

        @return: its value, as UTF-8 with surrogate escapes, or L{None}.
        """
        return find(self.headers, name)

    def may_have(self, prefix: bytes) -> bool:
        """
        Return, at little cost, whether there may be a header whose name has a prefix.

        @param prefix: in lower case.
        """
        return any(name.lower().startswith(prefix) for name, _ in self.headers)

    def rewritten(self, target: bytes, host: bytes, headers: Headers, names: frozenset[bytes]) -> Request:
        """
        Make the head of the request that is forwarded in place of this one.

        @param names: headers that were changed, in lower case: the client's
            Connection field can't take them out.
        """
        head = Request(self.method, target, host, headers, self.length, self.deadline)
        head.asked_host = self.asked_host
        head.http11 = self.http11
        head.options = self.options - names
        head.upgrade = self.upgrade
        head.awaits_continue = self.awaits_continue
        return head


class Response:
    """
    The head of a response.

    @ivar status: such as 200.
    @ivar length: bytes of the body that follows (0 where the status or the
        method of the request allows none), or L{UNKNOWN_LENGTH}.
    @ivar options: see L{Request}.
    """

    __slots__ = ("_headers", "length", "options", "status")

    _headers: Any  # see Request

    def __init__(
        self, status: int, headers: Headers, length: int = 0, options: frozenset[bytes] = NO_OPTIONS
    ) -> None:
        self.status = status
        self._headers = headers
        self.length = length
        self.options = options

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.status} length={self.length}>"

    @property
    def headers(self) -> Headers:
        """The fields as they came."""
        headers: Headers = self._headers
        return headers

    @property
    def trails(self) -> bool:
        """Whether trailers may follow although the body has a length, as in HTTP/2 but not in HTTP/1."""
        return self.length > 0

    def lookup(self, name: str) -> str | None:
        """See L{Request.lookup}."""
        return find(self.headers, name)

    def rewritten(self, headers: Headers, names: frozenset[bytes]) -> Response:
        """Make the head of the response that is forwarded in place of this one; see L{Request.rewritten}."""
        return Response(self.status, headers, self.length, self.options - names)


class End:
    """
    The end of a message.

    @ivar trailers: the fields that came behind the body.
    """

    __slots__ = ("trailers",)

    def __init__(self, trailers: Headers) -> None:
        self.trailers = trailers

    def __repr__(self) -> str:
        return f"End({self.trailers!r})"


END: Final = End([])
"""The end of a message without trailers."""

Event = Request | Response | bytes | End | HttpError
"""A part of a message; last and once an error, if the peer broke the rules."""
