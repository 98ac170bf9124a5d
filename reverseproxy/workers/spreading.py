"""
Which worker serves a connection that an agent dials.

The kernel shares connections out by chance, so that of four connections of one agent
two may well get to the same worker, and none to another one, whose requests then have
to go through their siblings.  So a connection from an address that has more connections
here than at another worker is passed on, as it has been accepted: before its first byte,
and so before TLS, which could not move any more.

    {"accepted": listener, "from": ["192.0.2.7", 51234]} + descriptor

Agents of ours hear how many workers there are, and dial one connection after the other
until they have as many; each of them gets to a worker that has none.  Others get what
they have always got, more evenly.

What has been passed on and has not joined yet is counted for some seconds, as connections
that are dialled at one moment all seem to be the first.
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
from reverseproxy.transport.fronts import build_protocol
from reverseproxy.transport.handing import discard, put_in, take_out
from reverseproxy.workers.directory import Directory, Entry
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message

if TYPE_CHECKING:
    from reverseproxy.listener import Listener

log = Logger()

UNDER_WAY: Final = 5.0
"""Seconds for which a connection counts that has been accepted and is no host yet."""

MOST_UNDER_WAY: Final = 4096
"""How many of these are counted; the oldest make room."""


class _PassedOn(Protocol):
    """A connection that is another worker's."""

    def __init__(self, link: Link, message: Message) -> None:
        self._link = link
        self._message = message

    def connectionMade(self) -> None:
        """Give it away."""
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
        """Spread the connections of certain listeners, and of no others."""
        for listener in self.listeners.values():
            listener.elsewhere = None
        self.listeners = dict(listeners)
        for name, listener in listeners.items():
            listener.elsewhere = partial(self.elsewhere, name)

    def elsewhere(self, listener: str, address: IAddress | None) -> Protocol | None:
        """
        Decide about a connection that has been accepted here.

        @param address: where it comes from.
        @return: what passes it on; L{None} if it stays.
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
        A sibling has accepted a connection that is ours.

        @param handle: L{None} if this process can't have one more: whoever has dialled it dials again.
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
        """A connection has become a host, here or at a sibling, and counts as that."""
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
        """Count a connection for some time, and those no more that were noted long ago."""
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
