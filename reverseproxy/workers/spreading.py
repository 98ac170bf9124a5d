"""
Distribute new connections of agents over the workers.

The kernel distributes connections at random, so that two of an agent's four connections may
get to the same worker, and none to another one, whose requests then need a detour through
its siblings.  So a worker passes a new connection on, if its address has more connections
here than at another worker: before its first byte, and so before TLS, which could not move
any more.

    {"accepted": listener, "from": ["192.0.2.7", 51234]} + descriptor

Agents of this project know the number of workers, and dial until they have as many
connections; each of them gets to a worker that has none.  Connections of other agents are
distributed more evenly.

Connections that have not joined yet count for some seconds, so that several which are dialled
at the same moment go to different workers.
"""

from __future__ import annotations

__all__ = ["MOST_UNDER_WAY", "UNDER_WAY", "Spreader"]

import socket
from collections import Counter, deque
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Protocol
from twisted.logger import Logger

from reverseproxy.addresses import host_of
from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.listener.sockets import address_of
from reverseproxy.transport.delegation import build_protocol
from reverseproxy.transport.handing import discard, put_in, take_out
from reverseproxy.workers.directory import Directory
from reverseproxy.workers.entries import Entry
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message

if TYPE_CHECKING:
    from reverseproxy.listener import Listener

log = Logger()

UNDER_WAY: Final = 5.0
"""Seconds for which an accepted connection counts before it has joined."""

MOST_UNDER_WAY: Final = 4096
"""How many of these are counted; with more, the oldest are forgotten."""


class _PassedOn(Protocol):
    """Sends a new connection to another worker."""

    def __init__(self, link: Link, message: Message) -> None:
        self._link = link
        self._message = message

    def connectionMade(self) -> None:
        """Send it."""
        transport: Any = self.transport
        handle = take_out(transport)
        if handle is None:
            transport.abortConnection()
            return
        self._link.send(self._message, handle)


class Spreader:
    """
    Passes connections of agents on to workers that have fewer of the same address.

    @ivar listeners: this worker's listeners for agents, by name.
    """

    def __init__(self, directory: Directory, clock: Any) -> None:
        self.listeners: dict[str, Listener] = {}
        self._directory = directory
        self._links = directory.links
        self._clock = clock
        self._under_way: deque[tuple[float, tuple[str, int]]] = deque()
        self._counts: Counter[tuple[str, int]] = Counter()
        self._settled: Counter[tuple[str, int]] = Counter()  # of these, those that are hosts by now
        directory.on_add = self.joined

    def serve(self, listeners: Mapping[str, Listener]) -> None:
        """Set the listeners whose connections are distributed."""
        for listener in self.listeners.values():
            listener.elsewhere = None
        self.listeners = dict(listeners)
        for name, listener in listeners.items():
            listener.elsewhere = partial(self.elsewhere, name)

    def elsewhere(self, listener: str, address: IAddress | None) -> Protocol | None:
        """
        Decide which worker serves a connection that this worker has accepted.

        @param address: the peer's.
        @return: a protocol that passes it on; L{None} if it stays.
        """
        ip = getattr(address, "host", None)
        if ip is None:
            return None
        best = self._pick(ip)
        self._note(ip, best)
        if best == self._links.number:
            return None
        message = {"accepted": listener, "from": [ip, getattr(address, "port", 0)]}
        return _PassedOn(self._links.up[best], message)

    def accepted(self, link: Link, message: Message, handle: Any) -> None:
        """
        Serve a connection that a sibling has accepted.

        @param handle: its socket; L{None} if this process has no descriptor left: the agent dials again.
        """
        if handle is None:
            return
        listener = self.listeners.get(message["accepted"])
        if listener is None:
            discard(handle)
            return
        ip, port = message["from"]
        self._note(ip, self._links.number)
        family = socket.AF_INET6 if ":" in ip else socket.AF_INET
        protocol = build_protocol(listener.inside, address_of(family, (ip, port)))
        if protocol is None:
            discard(handle)
            return
        try:
            put_in(handle, protocol, self._clock)
        except ConnectionUnavailable as error:
            log.debug(
                "{listener}: a connection that worker {number} has passed on: {error}",
                listener=message["accepted"],
                number=link.number + 1,
                error=error,
            )

    def joined(self, entry: Entry) -> None:
        """Count a connection as a host from now on, at this worker or at a sibling."""
        key = host_of(entry.host.address), entry.at
        if self._counts[key] > self._settled[key]:
            self._settled[key] += 1

    def _pick(self, ip: str) -> int:
        own = self._links.number
        best, least = own, self._held(ip, own)
        for number, link in self._links.up.items():
            if not link.draining:
                held = self._held(ip, number)
                if held < least:
                    best, least = number, held
        return best

    def _held(self, ip: str, number: int) -> int:
        key = ip, number
        return self._directory.count_from(ip, number) + self._counts[key] - self._settled[key]

    def _note(self, ip: str, number: int) -> None:
        """Count a new connection for some time, and forget expired ones."""
        now = self._clock.seconds()
        under_way = self._under_way
        while under_way and (under_way[0][0] <= now or len(under_way) >= MOST_UNDER_WAY):
            self._forget(under_way.popleft()[1])
        under_way.append((now + UNDER_WAY, (ip, number)))
        self._counts[ip, number] += 1

    def _forget(self, key: tuple[str, int]) -> None:
        for counter in (self._counts, self._settled):
            if counter[key] > 1:
                counter[key] -= 1
            else:
                del counter[key]
