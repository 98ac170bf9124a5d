"""
Graceful closes that reach another worker than the connections that they name.

    {"evict": 9, ...}                        an agent wants these closed
    {"evicted": 9, "addresses": []}          what of it was ours

The worker that gets one has identified the agent, as for its own connections, and sends the
identity to its siblings; each decides by its own registry which of its connections the agent may
close.  A worker that has just given connections away asks the siblings that it gave them to: the
question follows the connection on the same channel, so that none is missed.
"""

from __future__ import annotations

__all__ = ["EVICT_TIMEOUT", "MOST_HOPS", "TOMBSTONE", "Evictions"]

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from reverseproxy.tunnel.handshake import Principal
from reverseproxy.tunnel.server.registry import Requester
from reverseproxy.workers.links import Link, Links
from reverseproxy.workers.messages import Message

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer

EVICT_TIMEOUT: Final = 5.0
"""Seconds that a sibling has to say which connections it has let go."""

TOMBSTONE: Final = 10.0
"""Seconds for which it is remembered to whom connections were given."""

MOST_HOPS: Final = 2
"""How often a graceful close is passed on to follow a connection."""


class Evictions:
    """Asks siblings to close connections, and does so for them."""

    def __init__(self, links: Links, servers: Mapping[str, TunnelServer], clock: IReactorTime) -> None:
        """
        @param servers: this worker's tunnel servers, by listener.
        """
        self._links = links
        self._servers = servers
        self._clock = clock
        self._open: dict[int, Deferred[list[str]]] = {}
        self._given: dict[tuple[str, int], float] = {}
        self._questions = count(1)

    def stop(self) -> None:
        """Cancel all questions that siblings have not answered."""
        for eviction in list(self._open.values()):
            eviction.cancel()

    def given(self, cluster: str, to: int) -> None:
        """Remember for a while that a connection of a cluster was given to a sibling."""
        now = self._clock.seconds()
        for key, until in list(self._given.items()):
            if until < now:
                del self._given[key]
        self._given[cluster, to] = now + TOMBSTONE

    def evict(
        self, listener: str, cluster: str, addresses: Sequence[str], requester: Requester
    ) -> Deferred[set[str]]:
        """
        Let siblings close connections that are not this worker's.

        @param requester: who asks, as far as that is proven.
        @return: the addresses of those that were; never fails.
        """
        by: dict[str, object] = {
            "remote_ip": requester.remote_ip,
            "identity": requester.identity,
            "agent": requester.agent,
            "policy": requester.policy,
        }
        if requester.principal is not None:
            by["principal"] = [requester.principal.policy, requester.principal.name]
        question = {
            "listener": listener,
            "cluster": cluster,
            "addresses": list(addresses),
            "by": by,
            "hops": 0,
        }
        return self._ask(list(self._links), question)

    def _ask(self, links: Sequence[Link], question: Message) -> Deferred[set[str]]:
        answers: list[Deferred[Any]] = []
        for link in links:
            number = next(self._questions)
            answer: Deferred[Any] = Deferred()
            self._open[number] = answer
            answer.addTimeout(EVICT_TIMEOUT, self._clock)
            answer.addBoth(self._answered, number)
            answers.append(answer)
            link.send({"evict": number, **question})
        gathered: Any = DeferredList(answers, consumeErrors=True)
        closed: Deferred[set[str]] = gathered.addCallback(
            lambda results: {address for good, found in results if good for address in found}
        )
        return closed

    def _answered(self, result: Any, number: int) -> Any:
        self._open.pop(number, None)
        return result

    def evicting(self, link: Link, message: Message) -> None:
        """A sibling has been asked for a graceful close."""
        by: Mapping[str, Any] = message["by"]
        principal = by.get("principal")
        requester = Requester(
            by["remote_ip"],
            by["identity"],
            None if principal is None else Principal(*principal),
            by["agent"],
            by["policy"],
        )
        server = self._servers.get(message["listener"])
        addresses = message["addresses"]
        refused: list[str] = list(addresses)
        if server is not None:
            selection = server.evict(message["cluster"], addresses, requester)
            refused = [each.address for each in selection.refused]
        evicted = set(addresses) - set(refused)
        now = self._clock.seconds()
        followed = [
            each
            for each in self._links
            if each is not link and self._given.get((message["cluster"], each.number), 0.0) > now
        ]
        hops = message["hops"]
        if not refused or not followed or hops >= MOST_HOPS:
            link.send({"evicted": message["evict"], "addresses": sorted(evicted)})
            return
        question = {name: value for name, value in message.items() if name != "evict"}
        asking = self._ask(followed, {**question, "addresses": refused, "hops": hops + 1})
        asking.addCallback(partial(self._followed, link, message["evict"], evicted))

    def _followed(self, link: Link, number: int, evicted: set[str], elsewhere: set[str]) -> None:
        link.send({"evicted": number, "addresses": sorted(evicted | elsewhere)})

    def evicted(self, link: Link, message: Message) -> None:
        """A sibling has said what it has closed."""
        answer = self._open.get(message["evicted"])
        if answer is not None and not answer.called:
            answer.callback(message["addresses"])
