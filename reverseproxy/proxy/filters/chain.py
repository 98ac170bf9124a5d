"""
Filters of requests, and how they are applied one after the other.

C{apply} of a filter is a generator: it yields a wait, or a response in place of
the host's, and is resumed after the wait.  So a filter that waits twice, or waits
and then rejects, needs no state of its own.
"""

from __future__ import annotations

__all__ = ["BodyLimit", "FilterChain", "FilteredRequest", "Passage", "LocalReply", "RequestFilter", "Step"]

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.flags import NO_FLAGS
from reverseproxy.routing import RouteInput, Router, RouteResult


@dataclass(frozen=True, slots=True)
class LocalReply:
    """
    A response of a filter, in place of the host's.

    @ivar status: in terms of HTTP.
    @ivar flag: why, for the access log.
    @ivar body: for protocols whose answers have one.
    @ivar flags: why, as codes; see L{reverseproxy.proxy.flags}.
    """

    status: int
    flag: str
    body: bytes = b""
    flags: int = NO_FLAGS


@dataclass(frozen=True, slots=True)
class BodyLimit:
    """
    The limit of a body whose length is not known yet.

    @ivar size: bytes.
    @ivar refusal: the answer to a larger one.
    """

    size: int
    refusal: LocalReply


Step = LocalReply | float
"""What a filter wants: to answer in place of the host, or to wait for some seconds."""


@dataclass(slots=True)
class FilteredRequest:
    """
    A request as filters see it.

    @ivar facts: what a router knows of it.
    @ivar target: the path and the query as they came; empty for RPC.
    @ivar info: the connection that it has come by.
    @ivar size: bytes of its body; negative if that is not known yet.
    @ivar result: what the router says, behind those filters that come before
        it; L{None} if it says nothing.
    @ivar labels: what filters demand of hosts, rather than the route.
    @ivar removed: headers that are not sent on, in lower case.
    @ivar limit: how large its body may be.
    @ivar copies: how many copies go to each mirror.
    @ivar flags: what was done to it on the way, as codes.
    """

    facts: RouteInput
    target: str
    info: ConnectionInfo
    size: int
    result: RouteResult | None = None
    labels: dict[str, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    limit: BodyLimit | None = None
    copies: int = 1
    flags: int = NO_FLAGS


class RequestFilter(Protocol):
    """
    A filter, for all requests of a listener.

    @ivar before_route: whether it comes before the choice of a route.
    """

    before_route: bool

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """
        Filter a request.

        @return: what is wanted, one thing after the other: behind a wait it goes
            on, behind an answer it does not.
        """


class Passage:
    """
    The filters that are left for one request.

    @ivar request: the request.
    """

    __slots__ = ("_steps", "request")

    def __init__(self, request: FilteredRequest, steps: Iterator[Step]) -> None:
        self.request = request
        self._steps = steps

    def advance(self) -> Step | None:
        """
        Apply the filters until one waits or answers.

        @return: L{None} if the request may go on to where C{request.result} says.
        """
        return next(self._steps, None)


class FilterChain:
    """The filters of a listener, in order."""

    def __init__(self, filters: Sequence[RequestFilter]) -> None:
        """
        @param filters: those before the choice of a route among them are gone
            through first.
        """
        self._before = [each for each in filters if each.before_route]
        self._after = [each for each in filters if not each.before_route]

    def passage(self, request: FilteredRequest, router: Router) -> Passage:
        """Begin to filter a request; its route is found on the way."""
        return Passage(request, self._steps(request, router))

    def _steps(self, request: FilteredRequest, router: Router) -> Iterator[Step]:
        for each in self._before:
            yield from each.apply(request)
        request.result = router.match(request.facts)
        for each in self._after:
            yield from each.apply(request)
