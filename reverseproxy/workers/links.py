"""
Connections between workers.

Each worker listens on a Unix socket in a directory that is the supervisor's.
Of any two workers the one with the lower number dials, again and again, so that
a worker that was started anew is linked again.  Such a link carries streams
(L{reverseproxy.mux.session}).  The first one is for messages, and opens with
who is there; see L{reverseproxy.workers.streams}.
"""

from __future__ import annotations

__all__ = ["Link", "Links", "socket_path"]

import os
import socket
from collections import OrderedDict, deque
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.application.internet import ClientService, backoffPolicy
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.interfaces import IDelayedCall, IProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import Building
from reverseproxy.errors import WireError
from reverseproxy.logs import loss
from reverseproxy.mux.session import MuxSession
from reverseproxy.wire.yamux.events import SMALL_WINDOW, MuxLimits
from reverseproxy.workers.messages import Message, MessageReader, encode
from reverseproxy.workers.ports import Acceptor
from reverseproxy.workers.streams import VERSION, Incoming

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.workers.borrowing import Lease
    from reverseproxy.workers.lending import Loan

log = Logger()

MAX_QUEUED: Final = 200_000
"""Messages that wait for a sibling which does not read; more of them, and the link is given up."""

MAX_WANTS: Final = 64
"""Requests of one cluster for which one sibling is asked at the same time."""

MAX_RECALLED: Final = 4096
"""Loans that are remembered as recalled before they are known."""

HELLO_TIMEOUT: Final = 10.0
"""Seconds for a sibling to say who it is, once it can."""

LIMITS: Final = MuxLimits(
    SMALL_WINDOW,
    SMALL_WINDOW,
    max_streams=65536,
    accept_backlog=65536,
    max_resets=1_000_000,
    tells=True,
)
"""A sibling is trusted, and carries as many requests as we do."""

PING_INTERVAL: Final = 10.0
PING_TIMEOUT: Final = 20.0
"""A worker that is busy with something is not gone: if it was, the link would be lost by itself."""


def socket_path(directory: str, number: int) -> str:
    """Where a worker listens for its siblings."""
    return os.path.join(directory, f"{number}.sock")


@implementer(IPushProducer)
class _Messages(Protocol):
    """The stream of messages, at either end."""

    transport: Any

    def __init__(self, link: Link, received: bytes = b"") -> None:
        self._link = link
        self._reader = MessageReader()
        self._reader.feed(received)
        self._queue: deque[bytes] = deque()
        self._full = False

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)
        self._link._messages_made(self)

    def send(self, message: Message) -> None:
        """Send a message now, or when the sibling has read what came before."""
        if not self._full:
            self.transport.write(encode(message))
            return
        self._queue.append(encode(message))
        if len(self._queue) > MAX_QUEUED:
            self._link.abort("it does not read messages")

    def dataReceived(self, data: bytes) -> None:
        self._reader.feed(data)
        self.take()

    def take(self) -> None:
        """Handle the messages that have come."""
        try:
            while (message := self._reader.next()) is not None:
                self._link._received(message)
        except WireError as error:
            self._link.abort(str(error))
        except (KeyError, TypeError, ValueError, AttributeError):
            log.failure("worker {number} sent a message that makes no sense", number=self._link.number)
            self._link.abort("a message that makes no sense")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._queue.clear()
        self._link.abort(reason.getErrorMessage())

    # IPushProducer

    def pauseProducing(self) -> None:
        self._full = True

    def resumeProducing(self) -> None:
        self._full = False
        while self._queue and not self._full:
            self.transport.write(self._queue.popleft())

    def stopProducing(self) -> None:
        pass


class Link:
    """
    A connection to a sibling.

    @ivar number: the sibling's; -1 until it has said it.
    @ivar session: the connection.
    @ivar loans: what this worker lends to the sibling, or is asked to, by number.
    @ivar leases: what the sibling lends to us, by number.
    @ivar recalled: what it wants back of that, although we do not know yet that
        we have it.
    @ivar hosts: what the sibling has announced, by cluster and address.
    @ivar wanted: for how many requests we have asked the sibling, by cluster.
    @ivar up: whether both have said hello.
    """

    def __init__(self, links: Links, dialled: int | None) -> None:
        """
        @param dialled: whom we have dialled, if it was us.
        """
        self.number = -1 if dialled is None else dialled
        self.session: MuxSession = _Session(
            self,
            client=dialled is not None,
            clock=links.clock,
            limits=LIMITS,
            accept=lambda: Incoming(self._opened),
            ping_interval=PING_INTERVAL,
            ping_timeout=PING_TIMEOUT,
            on_lost=self._lost,
        )
        self.loans: dict[int, Loan] = {}
        self.leases: dict[int, Lease] = {}
        self.recalled: OrderedDict[int, None] = OrderedDict()
        self.hosts: dict[tuple[str, str], Host] = {}
        self.wanted: dict[str, int] = {}
        self.up = False
        self._single: dict[str, int] = {}  # plain hosts, by cluster
        self._links = links
        self._dialled = dialled is not None
        self._messages: _Messages | None = None
        self._deadline: IDelayedCall | None = None

    def __repr__(self) -> str:
        return f"<Link to worker {self.number}>"

    def begin(self) -> None:
        """Say hello, if it is us who have dialled."""
        self._links.all.add(self)
        if self._dialled:
            self.session.open(Building(lambda: _Messages(self)))
        else:
            self._deadline = self._links.clock.callLater(HELLO_TIMEOUT, self.abort, "no hello")

    # bookkeeping of what the sibling has

    def count(self, cluster: str, host: Host, change: int) -> None:
        """Note how many hosts the sibling has that it can lend."""
        if host.single:
            self._single[cluster] = self._single.get(cluster, 0) + change

    def can_lend(self, cluster: str) -> bool:
        """Whether to ask the sibling for one more host of a cluster."""
        return self._single.get(cluster, 0) > 0 and self.wanted.get(cluster, 0) < MAX_WANTS

    def early_recall(self, number: int) -> None:
        """Remember what the sibling wants back before we know that we have it."""
        self.recalled[number] = None
        if len(self.recalled) > MAX_RECALLED:
            self.recalled.popitem(last=False)

    # messages

    def send(self, message: Message) -> None:
        """Send a message; it is dropped if the link is lost."""
        if self._messages is not None and not self.session.lost:
            self._messages.send(message)

    def abort(self, reason: str) -> None:
        """Give the link up."""
        self.session.abort(reason)

    def _opened(self, stream: Incoming, message: Message) -> None:
        if "hello" in message and self._messages is None and not self._dialled:
            messages = _Messages(self, stream.rest())
            stream.hand_over(messages)
            self._received(message)
            messages.take()
        elif self.up:
            self._links.opened(self, stream, message)
        else:
            stream.refuse("say hello first")

    def _messages_made(self, messages: _Messages) -> None:
        self._messages = messages
        messages.send({"hello": VERSION, "worker": self._links.number})

    def _received(self, message: Message) -> None:
        if self.up:
            self._links.received(self, message)
            return
        version, number = message["hello"], message["worker"]
        if version != VERSION:
            log.error(
                "worker {number} is of another version: it speaks {theirs}, not {ours}; restart all of them",
                number=number + 1,
                theirs=version,
                ours=VERSION,
            )
            self.abort("another version")
            return
        self._cancel_deadline()
        self.number = number
        self.up = True
        self._links.came(self)

    def _cancel_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
        self._deadline = None

    def _lost(self, reason: Failure) -> None:
        self._cancel_deadline()
        self._links.all.discard(self)
        if self.up:
            self.up = False
            self._links.went(self, reason)


class _Session(MuxSession):
    """The connection of a link."""

    def __init__(self, link: Link, **settings: Any) -> None:
        super().__init__(**settings)
        self._link = link

    def connectionMade(self) -> None:
        """Say hello."""
        super().connectionMade()
        self._link.begin()


class Links:
    """
    This worker's connections to its siblings.

    @ivar number: this worker's number, from 0.
    @ivar clock: the reactor.
    @ivar all: all links, those too that have not said hello.
    @ivar up: those that have, by the sibling's number.
    """

    def __init__(
        self,
        number: int,
        count: int,
        clock: Any,
        opened: Callable[[Link, Incoming, Message], object],
        received: Callable[[Link, Message], object],
        came: Callable[[Link], object],
        went: Callable[[Link, str], object],
    ) -> None:
        """
        @param count: how many workers there are.
        @param opened: takes over a stream of a sibling.
        @param received: takes a message of a sibling.
        @param came: is told of a link that can be used from now on.
        @param went: is told of one that can't any more, and why.
        """
        self.number = number
        self.count = count
        self.clock = clock
        self.opened = opened
        self.received = received
        self.all: set[Link] = set()
        self.up: dict[int, Link] = {}
        self._came = came
        self._went = went
        self._services: list[ClientService] = []
        self._stopped = False
        self._acceptor: Acceptor | None = None

    def start(self, directory: str, listening: socket.socket) -> None:
        """
        Link to all siblings, as soon as they are there.

        @param directory: where their sockets are.
        @param listening: our own.
        """
        self._acceptor = Acceptor(listening, Building(lambda: self.make(None).session), self.clock)
        self._acceptor.startReading()
        for other in range(self.number + 1, self.count):
            endpoint = UNIXClientEndpoint(self.clock, socket_path(directory, other))
            factory = Building(partial(self._dialled, other))
            policy = backoffPolicy(initialDelay=0.05, maxDelay=2.0, factor=1.5)
            service = ClientService(endpoint, factory, retryPolicy=policy, clock=self.clock)
            self._services.append(service)
            service.startService()

    def make(self, dialled: int | None) -> Link:
        """
        Make a link; its C{session} is the protocol of a connection.

        @param dialled: whom we have dialled, if it was us.
        """
        return Link(self, dialled)

    def _dialled(self, other: int) -> IProtocol:
        return self.make(other).session

    def came(self, link: Link) -> None:
        """A link can be used from now on; it takes the place of an older one."""
        if not 0 <= link.number < self.count or link.number == self.number or self._stopped:
            link.abort("there is no such worker")
            return
        older = self.up.pop(link.number, None)
        if older is not None:
            older.abort("there is a new connection")
            self._went(older, "it was started again")
        self.up[link.number] = link
        log.debug("linked to worker {number}", number=link.number + 1)
        self._came(link)

    def went(self, link: Link, reason: Failure) -> None:
        """A link is lost."""
        if self.up.get(link.number) is link:
            del self.up[link.number]
            if not self._stopped:
                log.info(
                    "the link to worker {number} is lost: {reason}",
                    number=link.number + 1,
                    reason=loss(reason),
                )
            self._went(link, f"worker {link.number + 1} is gone")

    def stop(self) -> None:
        """Give up all links."""
        self._stopped = True
        for service in self._services:
            service.stopService()
        if self._acceptor is not None:
            self._acceptor.close()
        for link in list(self.all):
            link.abort("stopping")
