"""
Connections between workers.

Each worker listens on a Unix socket in a directory that the supervisor has made.  Of any
two workers the one with the lower number dials, and retries, so that a restarted worker is
linked again.  This connection is the channel (L{reverseproxy.workers.channel}); its first
message carries one end of a socket pair for streams (L{reverseproxy.mux.session}).
"""

from __future__ import annotations

__all__ = ["Link", "Links", "socket_path"]

import os
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.errors import ConnectionUnavailable, WireError
from reverseproxy.logs import loss
from reverseproxy.mux.session import MuxSession
from reverseproxy.transport.handing import discard, make_pair, put_in
from reverseproxy.wire.yamux.events import SMALL_WINDOW, MuxLimits
from reverseproxy.workers.channel import Channel, IChannel
from reverseproxy.workers.messages import Message
from reverseproxy.workers.relaying import RelayStream
from reverseproxy.workers.sibling_sockets import ChannelAcceptor, ChannelDialler

log = Logger()

VERSION: Final = 3
"""The version of the messages between workers; a new one needs a restart of all."""

HELLO_TIMEOUT: Final = 10.0
"""Seconds for a sibling to send its hello."""

LIMITS: Final = MuxLimits(
    SMALL_WINDOW,
    SMALL_WINDOW,
    max_streams=65536,
    accept_backlog=65536,
    max_resets=1_000_000,
    tells=True,
)
"""Limits between siblings, which trust one another and carry each other's requests."""

PING_INTERVAL: Final = 10.0
PING_TIMEOUT: Final = 20.0
"""Generous, as the kernel closes the link of a worker that dies; a busy worker is not dead."""


def socket_path(directory: str, number: int) -> str:
    """Return the path of the socket on which a worker accepts its siblings."""
    return os.path.join(directory, f"{number}.sock")


class IBusiness(Protocol):
    """Receives the events of all links."""

    def received(self, link: Link, message: Message, handle: Any) -> None:
        """Handle a message of a sibling, with its socket or L{None}."""

    def opened(self, link: Link, stream: RelayStream, message: Message) -> None:
        """Handle a stream that a sibling has opened."""

    def came(self, link: Link) -> None:
        """A link is up."""

    def went(self, link: Link, reason: str) -> None:
        """A link that was up is lost."""


class Link:
    """
    A connection to a sibling.

    @ivar number: the sibling's number; -1 until its hello.
    @ivar session: its streams.
    @ivar up: whether both have said hello.
    @ivar draining: whether the sibling is about to end.
    """

    def __init__(self, links: Links, dialled: int | None) -> None:
        """
        @param dialled: the number of the sibling, if this worker has dialled; else L{None}.
        """
        self.number = -1 if dialled is None else dialled
        self.session = MuxSession(
            client=dialled is not None,
            clock=links.clock,
            limits=LIMITS,
            accept=lambda: RelayStream(self._opened),
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            on_lost=self._session_lost,
        )
        self.up = False
        self.draining = False
        self._links = links
        self._dialled = dialled is not None
        self._channel: IChannel | None = None
        self._deadline: IDelayedCall | None = None
        self._over = False

    def __repr__(self) -> str:
        return f"<Link to worker {self.number}>"

    def begin(self, channel: IChannel) -> None:
        """Use a channel, and send the hello first if this worker has dialled."""
        self._channel = channel
        self._links.all.add(self)
        self._deadline = self._links.clock.callLater(HELLO_TIMEOUT, self.abort, "no hello")
        if self._dialled:
            try:
                ours, theirs = make_pair(self._links.clock)
            except OSError as error:
                self.abort(str(error))  # there is no descriptor left, for now
                return
            try:
                put_in(ours, self.session, self._links.clock)
            except ConnectionUnavailable as error:
                discard(theirs)
                self.abort(str(error))
                return
            self._hello(theirs)

    def _hello(self, handle: Any = None) -> None:
        self.send({"hello": VERSION, "worker": self._links.number}, handle)

    def send(self, message: Message, handle: Any = None) -> bool:
        """
        Send a message; it is dropped if the link is lost.

        @param handle: see L{IChannel.send}.
        @return: false if it is too large; otherwise it arrives as long as the link lasts.
        """
        if self._channel is not None and not self._over:
            try:
                self._channel.send(message, handle)
            except WireError as error:
                log.error("{reason}: {kind}", reason=str(error), kind=next(iter(message)))
                return False
        elif handle is not None:
            discard(handle)
        return True

    def received(self, message: Message, handle: Any = None) -> None:
        """Handle a message of the channel; an invalid one ends the link."""
        try:
            if self.up:
                self._links.business.received(self, message, handle)
            else:
                self._greeted(message, handle)
        except (KeyError, TypeError, ValueError, AttributeError):
            log.failure("worker {number} sent a message that makes no sense", number=self.number + 1)
            self.abort("a message that makes no sense")

    def _greeted(self, message: Message, handle: Any) -> None:
        version, number = message["hello"], message["worker"]
        if version != VERSION:
            log.error(
                "worker {number} is of another version: it speaks {theirs}, not {ours}; restart all of them",
                number=number + 1,
                theirs=version,
                ours=VERSION,
            )
            if handle is not None:
                discard(handle)
            self.abort("another version")
            return
        if not self._dialled and handle is None:
            self.abort("it came without its descriptor, of which there is none left")
            return
        self._cancel_deadline()
        self.number = number
        if not self._dialled:
            try:
                put_in(handle, self.session, self._links.clock)
            except ConnectionUnavailable as error:
                self.abort(str(error))
                return
            self._hello()
        self.up = True
        self._links.came(self)

    def _opened(self, stream: RelayStream, message: Message) -> None:
        if self.up:
            self._links.business.opened(self, stream, message)
        else:
            stream.refuse()

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def abort(self, reason: str) -> None:
        """End the link."""
        if self._over:
            return
        self._over = True
        self._cancel_deadline()
        if self._channel is not None:
            self._channel.close()
        self._links.all.discard(self)
        if self.session.transport is not None:
            self.session.abort(reason)
        if self.up:
            self.up = False
            self._links.went(self, reason)
        if self._dialled:
            self._links.dial_again(self)

    def _session_lost(self, reason: Failure) -> None:
        self.abort(loss(reason))


class Links:
    """
    This worker's connections to its siblings.

    @ivar number: this worker's number, from 0.
    @ivar count: how many workers there are.
    @ivar clock: the reactor.
    @ivar business: receives their events.
    @ivar all: all links, also before the hello.
    @ivar up: links after the hello, by the sibling's number.
    """

    def __init__(self, number: int, count: int, clock: Any, business: IBusiness) -> None:
        self.number = number
        self.count = count
        self.clock = clock
        self.business = business
        self.all: set[Link] = set()
        self.up: dict[int, Link] = {}
        self._diallers: dict[int, ChannelDialler] = {}
        self._stopped = False
        self._turn = 0
        self._acceptor: ChannelAcceptor | None = None

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self.up.values()))

    def missing(self, but: int) -> list[int]:
        """Return the numbers of the siblings that no link is up to, except a certain one."""
        return [each for each in range(self.count) if each not in self.up and each not in (self.number, but)]

    def any_link(self) -> Link | None:
        """Return the next sibling, round robin, that is not draining; L{None} if there is none."""
        staying = [link for link in self if not link.draining]
        if not staying:
            return None
        self._turn = (self._turn + 1) % len(staying)
        return staying[self._turn]

    def start(self, directory: str, listening: socket.socket) -> None:
        """
        Link to all siblings, and retry until they are up.

        @param directory: the directory of their sockets.
        @param listening: the socket of this worker.
        """
        self._acceptor = ChannelAcceptor(listening, partial(self._open, None), self.clock)
        self.clock.addReader(self._acceptor)
        for other in range(self.number + 1, self.count):
            dialler = ChannelDialler(socket_path(directory, other), partial(self._open, other), self.clock)
            self._diallers[other] = dialler
            dialler.dial()

    def _open(self, dialled: int | None, connection: socket.socket) -> None:
        link = Link(self, dialled)
        channel = Channel(connection, link.received, link.abort, self.clock)
        link.begin(channel)
        channel.start()

    def came(self, link: Link) -> None:
        """Use a link that is up, in place of an older one to the same sibling."""
        if not 0 <= link.number < self.count or link.number == self.number or self._stopped:
            link.up = False
            link.abort("there is no such worker")
            return
        older = self.up.pop(link.number, None)
        if older is not None:
            self._went(older, "it was started again")
            older.up = False
            older.abort("there is a new connection")
        self.up[link.number] = link
        if link.number in self._diallers:
            self._diallers[link.number].succeeded()
        log.debug("linked to worker {number}", number=link.number + 1)
        self.business.came(link)

    def went(self, link: Link, reason: str) -> None:
        """A link that was up is lost."""
        if self.up.get(link.number) is link:
            del self.up[link.number]
            if not self._stopped:
                log.info(
                    "the link to worker {number} is lost: {reason}", number=link.number + 1, reason=reason
                )
            self._went(link, f"worker {link.number + 1} is gone")

    def _went(self, link: Link, reason: str) -> None:
        self.business.went(link, reason)

    def dial_again(self, link: Link) -> None:
        """Retry after the end of a link that this worker had dialled."""
        dialler = self._diallers.get(link.number)
        if dialler is not None:
            dialler.again()

    def stop(self) -> None:
        """End all links."""
        self._stopped = True
        for dialler in self._diallers.values():
            dialler.stop()
        if self._acceptor is not None:
            self.clock.removeReader(self._acceptor)
            self._acceptor.connectionLost(Failure(ConnectionUnavailable("stopping")))
        for link in list(self.all):
            link.abort("stopping")
