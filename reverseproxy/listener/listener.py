"""A listener: connections come from a port or from an agent; a filter builds their protocols."""

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
from reverseproxy.transport.delegation import build_protocol

log = Logger(__package__)

BuildProtocol = Callable[[ConnectionInfo], IProtocol]
"""A filter, as its listener has it: builds the protocol of a connection."""

Listen = Callable[[IProtocolFactory], IListeningPort]
"""Listens for a factory, in place of binding the configured address."""

PARTING = 2.0
"""Seconds in which connections of a removed listener still serve another request."""


class PortFactory(ServerFactory):
    """
    The factory of a port: its listener may be replaced, and so may the listener's factory.

    @ivar listener: the listener that the port's connections go to.
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
    A bound address.

    @ivar port: the listening port.
    @ivar door: the port's factory.
    @ivar address: the address, with the port number that the kernel has chosen.
    """

    port: IListeningPort
    door: PortFactory
    address: str


class Refuser(Protocol):
    """Closes a connection, as the listener has no filter that serves."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


@implementer(IConnectionSink)
class Listener(Service):
    """
    One listener of the configuration.

    @ivar bound: the address that it is bound to; differs from the configuration's for
        port 0; L{None} before it is bound.
    @ivar accepted: the number of connections accepted, or handed in by agents (streams
        included).
    @ivar tls: TLS for clients; L{None} for plaintext.
    @ivar inside: the factory of accepted connections.
    @ivar elsewhere: decides, by its address, whether an accepted connection is for
        another process, and returns the protocol that passes it on; L{None} if all
        connections are for this one.
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
        @param config: the listener's configuration.
        @param build: the filter; L{None} if the configuration has none that serves, in
            which case connections are closed.
        @param tls: see the attribute.
        @param listen: listens at an address that is bound already, in place of binding.
        @param limiter: limits the connections of the process; one for this listener
            alone if not given.
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
        """The number of open connections."""
        return len(self._open)

    @property
    def build(self) -> BuildProtocol | None:
        """The current filter."""
        return self._build

    @property
    def listening(self) -> bool:
        """Whether it accepts connections at its address."""
        return self._port is not None and not self.held

    @property
    def held(self) -> bool:
        """Whether its address is bound, but not listening yet: see C{open_when_ready} of listeners."""
        port = None if self._port is None else self._port.port
        return isinstance(port, SharedPort) and port.held

    def open(self) -> bool:
        """
        Listen at the address that is bound, but not listening yet.

        @return: whether that was possible; if not, the reason is logged.
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
        Take over a connection that another worker has accepted on this listener.

        @param protocol: the protocol of the connection.
        @return: the protocol to be connected.
        """
        return AdoptedConnection(self, self._open, protocol)

    def _pause(self) -> Callable[[], object]:
        """Pause accepting, and return a function that resumes it."""
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
            self.accepted += 1  # not accepted by a port
        if self._build is None:
            log.warn("{listener}: {peer} closed: no filter serves here", listener=self.name, peer=info.remote)
            return Refuser()
        return self._build(info)

    # binding

    def startService(self) -> None:
        """
        Bind the address, unless it is bound.

        @raise ListenerFailed: see L{privilegedStartService}.
        """
        self.privilegedStartService()
        Service.startService(self)

    def privilegedStartService(self) -> None:
        """
        Bind the address, while the process may still be root.

        @raise ListenerFailed: if the address can't be bound.
        """
        if not self.config.bind_port or self._port is not None:
            return
        self.take_port(self.bind(self.config, self.tls is not None))

    def bind(
        self, config: ListenerConfig, secure: bool, listen: Listen | None = None, mode: int | None = None
    ) -> BoundPort:
        """
        Bind the address of a configuration, in addition to the current one.

        @param secure: whether it is for TLS, for the log.
        @param listen: listens at an address that is bound already, in place of binding.
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
        # An address that was bound elsewhere has been logged there.
        write = log.info if listen is None else log.debug
        say_bound(write, config, address, secure, isinstance(port, SharedPort) and port.held)
        return BoundPort(port, door, address)

    def take_port(self, port: BoundPort) -> None:
        """Use a bound address, of this listener or of another one."""
        port.door.listener = self
        self._port = port
        self.bound = port.address

    def give_port(self) -> BoundPort | None:
        """Give up the address, which stays bound, and return it; L{None} if there is none."""
        port, self._port = self._port, None
        return port

    # handing over to another process

    def bequeath(self) -> ListenerSockets | None:
        """Return the sockets for the process that replaces this one; L{None} if there are none."""
        port = None if self._port is None else self._port.port
        if not isinstance(port, SharedPort):
            return None
        return ListenerSockets(self.name, INHERITED.pass_on(self.config.address), port.bequeath())

    def leave_address(self) -> None:
        """Leave the address to another process, which listens there from now on."""
        port = None if self._port is None else self._port.port
        if isinstance(port, SharedPort):
            port.leave()

    # ending

    def stop_accepting(self, take: bool = False) -> Deferred[None]:
        """
        Stop accepting connections; open ones go on.

        @param take: see L{close_port}.
        """
        port, self._port = self._port, None
        return succeed(None) if port is None else self.close_port(port, take)

    def close_port(self, bound: BoundPort, take: bool = False) -> Deferred[None]:
        """
        Stop listening at an address.

        @param take: whether to accept the connections in the kernel's queue, as no other
            process will.
        """

        def report(_: object) -> None:
            log.info(
                "listener {listener} no longer listening on {address}",
                listener=self.name,
                address=bound.address,
            )

        closed: Deferred[Any] = stop_taking(bound.port) if take else maybeDeferred(bound.port.stopListening)
        return closed.addCallback(report)

    # changing

    def change(self, config: ListenerConfig, build: BuildProtocol | None, tls: ServerTls | None) -> int:
        """
        Apply another configuration, except for the address; see L{bind}.

        Open connections take over the new settings if their protocols can; otherwise they
        are closed when what is under way has ended.

        @return: the number of connections that are going to be closed.
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
        Stop accepting connections, and close open ones when what is under way has ended.

        @param seconds: after which connections that are still open are aborted.
        """
        self._open.ending = "its listener is no more"
        self.stop_accepting(take=True)
        self.part()
        self._reactor.callLater(min(PARTING, seconds), self.drain, seconds)

    def part(self) -> int:
        """
        Close each open connection at a moment when nothing is lost.

        @return: the number of open connections.
        """
        return self._open.part()

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Stop accepting connections, and let open ones finish.

        @param seconds: after which the sessions of open connections are ended, in their protocol's way;
            connections that are still open L{END_TIME} later are aborted.
        @return: fires when no connection is open.
        """
        stopped = self.stop_accepting()
        return self._open.drain(seconds).addCallback(lambda _: stopped)

    @property
    def doing(self) -> str:
        """What is under way on all connections, with numbers, for the log."""
        return self._open.doing

    def emptied(self) -> Deferred[None]:
        """Wait until no connection is open."""
        return self._open.emptied()

    def abort(self) -> None:
        """Abort all connections, and log a warning, as something may be under way on them."""
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
