"""A listener: a port, or an agent, feeds it; its filter builds the protocols."""

from __future__ import annotations

__all__ = ["BoundPort", "BuildProtocol", "Listen", "Listener", "PARTING"]

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol, ServerFactory
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.config.models import ListenerConfig
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink
from reverseproxy.listener.accepted import AdoptedConnection
from reverseproxy.listener.binding import listen_at, say_bound
from reverseproxy.listener.connection_limiter import ConnectionLimiter
from reverseproxy.listener.connections import Connections
from reverseproxy.listener.entrance import ListenerEntrance
from reverseproxy.listener.shared_port import SharedPort, stop_taking
from reverseproxy.listener.sockets import not_bound
from reverseproxy.net.formatting import format_address
from reverseproxy.process.inherited_sockets import INHERITED, ListenerSockets
from reverseproxy.tls import ServerTls
from reverseproxy.transport.fronts import build_protocol

log = Logger(__package__)

BuildProtocol = Callable[[ConnectionInfo], IProtocol]
"""What a listener's filter is to it: one protocol for each connection."""

Listen = Callable[[IProtocolFactory], IListeningPort]
"""Listens in a way of its own."""

PARTING = 2.0
"""Seconds that clients of a listener that is no more have for another request."""


class PortFactory(ServerFactory):
    """
    What a port has for a factory: the listener behind it may change, and so may what that one builds.

    @ivar listener: whom connections are for.
    """

    noisy = False

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def logPrefix(self) -> str:
        return f"listener {self.listener.name}"

    def buildProtocol(self, addr: IAddress | None) -> Any:
        elsewhere = self.listener.elsewhere
        passing = None if elsewhere is None else elsewhere(addr)
        return build_protocol(self.listener.inside, addr) if passing is None else passing


@dataclass(frozen=True, slots=True)
class BoundPort:
    """
    An address that connections are accepted at.

    @ivar address: as it is bound.
    """

    port: IListeningPort
    door: PortFactory
    address: str


class Refuser(Protocol):
    """Closes a connection that no filter would serve."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IConnectionSink)
class Listener(Service):
    """
    One listener of the configuration.

    @ivar bound: the address it is bound to, once it is; differs from the
        configuration's for port 0.
    @ivar accepted: how many connections it has taken, and how many agents have brought
        (streams, or whole ones).
    @ivar tls: TLS towards clients; L{None} for plaintext.
    @ivar inside: builds the protocols of accepted connections.
    @ivar elsewhere: decides, by its address, whether a connection that is accepted is for
        another process, and makes what gives it away; L{None} if all are for this one.
    """

    bound: str | None = None
    accepted = 0
    elsewhere: Callable[[IAddress | None], IProtocol | None] | None = None

    def __init__(
        self,
        config: ListenerConfig,
        build: BuildProtocol | None,
        reactor: Any,
        tls: ServerTls | None = None,
        listen: Listen | None = None,
        limiter: ConnectionLimiter | None = None,
        mode: int = 0o666,
    ) -> None:
        """
        @param build: the filter; L{None} if the configuration names none that
            serves, in which case connections are closed.
        @param listen: takes the place of binding the address, if somebody else
            has done that.
        @param limiter: decides about connections; what this process may have by itself if
            not given.
        @param mode: the permissions of a Unix socket.
        """
        self.name = config.name
        self.config = config
        self._build = build
        self._reactor = reactor
        self.tls = tls
        self._listen = listen
        self._port: BoundPort | None = None
        self._mode = mode
        self._open = Connections(config.name, limiter or ConnectionLimiter(reactor), reactor, self._pause)
        self._open.limit(config.max_connections, config.max_connections_per_address)
        self._entrance = ListenerEntrance(self, self._open, reactor)
        self._open.abort_silent = self._entrance.abort_silent
        self.inside = self._entrance.make()

    @property
    def connections(self) -> int:
        """How many accepted connections are open."""
        return len(self._open)

    @property
    def build(self) -> BuildProtocol | None:
        """What builds the protocols of connections now."""
        return self._build

    @property
    def listening(self) -> bool:
        """Whether it takes connections at its address now."""
        return self._port is not None and not self.held

    @property
    def held(self) -> bool:
        """Whether its address is bound, and not listened at yet: see C{open_when_ready} of listeners."""
        port = None if self._port is None else self._port.port
        return isinstance(port, SharedPort) and port.held

    def open(self) -> bool:
        """
        Listen at the address that was held until now.

        @return: whether that could be done; an error in the log says why not.
        """
        port = None if self._port is None else self._port.port
        assert isinstance(port, SharedPort)
        try:
            port.open()
        except OSError as error:
            log.error("{problem}", problem=str(not_bound(self.config, error)))
            return False
        log.info("listener {listener} listening on {address}", listener=self.name, address=self.bound)
        return True

    def adopt(self, protocol: IProtocol) -> IProtocol:
        """
        Take in a connection that another worker has accepted on this listener.

        @param protocol: what it has become there.
        @return: what is to be connected.
        """
        return AdoptedConnection(self, self._open, protocol)

    def _pause(self) -> Callable[[], object]:
        """Accept nothing; what came meanwhile waits in the kernel."""
        bound = self._port
        if bound is None:
            return lambda: None
        port: Any = bound.port
        port.stopReading()

        def resume() -> None:
            if bound.door.listener._port is bound:
                port.startReading()

        return resume

    # IConnectionSink

    def build_protocol(self, info: ConnectionInfo) -> IProtocol:
        """See L{IConnectionSink}."""
        if info.reverse:
            self.accepted += 1  # no port has taken it
        if self._build is None:
            log.warn("{listener}: {peer} closed: no filter serves here", listener=self.name, peer=info.remote)
            return Refuser()
        return self._build(info)

    # binding

    def startService(self) -> None:
        """
        Bind, if that has not been done.

        @raise ListenerFailed: see L{privilegedStartService}.
        """
        self.privilegedStartService()
        Service.startService(self)

    def privilegedStartService(self) -> None:
        """
        Bind, while we may still be root.

        @raise ListenerFailed: if the address can't be bound.
        """
        if not self.config.bind_port or self._port is not None:
            return
        self.take_port(self.bind(self.config, self.tls is not None))

    def bind(
        self, config: ListenerConfig, secure: bool, listen: Listen | None = None, mode: int | None = None
    ) -> BoundPort:
        """
        Bind the address of a configuration, perhaps beside the one that is bound.

        @param secure: whether it is going to be for TLS.
        @param listen: takes the place of that, if somebody else has done it.
        @param mode: the permissions of a Unix socket; the listener's if not given.
        @raise ListenerFailed: if it can't be bound.
        """
        door = PortFactory(self)
        listen = listen or self._listen
        try:
            port = (
                listen_at(self._reactor, config, door, self._mode if mode is None else mode)
                if listen is None
                else listen(door)
            )
        except (CannotListenError, OSError) as error:
            raise not_bound(config, error) from error
        address = format_address(port.getHost())
        # If it has been bound by somebody else, that one has said so.
        write = log.info if listen is None else log.debug
        say_bound(write, config, address, secure, isinstance(port, SharedPort) and port.held)
        return BoundPort(port, door, address)

    def take_port(self, port: BoundPort) -> None:
        """Have an address that is bound, by this listener or by another one."""
        port.door.listener = self
        self._port = port
        self.bound = port.address

    def give_port(self) -> BoundPort | None:
        """Give away the address, which stays bound; L{None} if there is none."""
        port, self._port = self._port, None
        return port

    # leaving it to somebody else

    def bequeath(self) -> ListenerSockets | None:
        """Give the sockets to the process that takes the place of this one; L{None} if there are none."""
        port = None if self._port is None else self._port.port
        if not isinstance(port, SharedPort):
            return None
        return ListenerSockets(self.name, INHERITED.pass_on(self.config.address), port.bequeath())

    def leave_address(self) -> None:
        """Another process listens at the address from now on."""
        port = None if self._port is None else self._port.port
        if isinstance(port, SharedPort):
            port.leave()

    # ending

    def stop_accepting(self, take: bool = False) -> Deferred[None]:
        """
        Take no more connections; those that are open go on.

        @param take: see L{close_port}.
        """
        port, self._port = self._port, None
        return succeed(None) if port is None else self.close_port(port, take)

    def close_port(self, bound: BoundPort, take: bool = False) -> Deferred[None]:
        """
        Listen no more at an address.

        @param take: whether to accept the connections that wait there, as nobody else will.
        """
        log.info(
            "listener {listener} no longer listening on {address}", listener=self.name, address=bound.address
        )
        if take:
            return stop_taking(bound.port)
        return maybeDeferred(bound.port.stopListening).addCallback(lambda _: None)

    # changing

    def change(self, config: ListenerConfig, build: BuildProtocol | None, tls: ServerTls | None) -> int:
        """
        Go on with another configuration.

        The address is another matter; see L{bind}.  Connections go on with what is new where
        their protocols can; else they are closed when what is under way is over, and
        only new ones have it.

        @return: how many connections will be closed for that.
        """
        inspects = self.config.inspector
        self.config = config
        self._open.limit(config.max_connections, config.max_connections_per_address)
        if tls is not self.tls or inspects is not config.inspector:
            self.tls = tls
            self.inside = self._entrance.make()
        if build is self._build:
            return 0
        adopt = getattr(self._build, "take_over", None)
        if adopt is not None and adopt(build):
            return 0
        self._build = build
        return self.part()

    def leave(self, seconds: float) -> None:
        """
        Take no more connections, and close those that are open when what is under way is over.

        @param seconds: after this time, what is still open is aborted.
        """
        self._open.ending = "its listener is no more"
        self.stop_accepting(take=True)
        self.part()
        self._reactor.callLater(min(PARTING, seconds), self.drain, seconds)

    def part(self) -> int:
        """
        Close the connections that there are, each when nothing of it is lost.

        @return: how many there are.
        """
        return self._open.part()

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Take no more connections, and let those that are open finish.

        @param seconds: after this time, what is still open is ended as its protocol has it, and aborted
            L{END_TIME} later.
        @return: fires when no connection is open.
        """
        stopped = self.stop_accepting()
        return self._open.drain(seconds).addCallback(lambda _: stopped)

    @property
    def doing(self) -> str:
        """What is under way on all connections, for the log: how many of what."""
        return self._open.doing

    def emptied(self) -> Deferred[None]:
        """Wait until no connection is open."""
        return self._open.emptied()

    def abort(self) -> None:
        """Close all connections now, and warn of it, as something may be under way on them."""
        self._open.abort()

    def stopService(self) -> Deferred[None]:
        """
        Stop at once.

        @return: fires when no connection is open.
        """
        Service.stopService(self)
        stopped = self.stop_accepting()
        self._open.close()

        def emptied(_: None) -> Deferred[None]:
            self._entrance.stop()
            return stopped

        return self._open.emptied().addCallback(emptied)
