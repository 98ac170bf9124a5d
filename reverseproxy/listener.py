"""
Listeners: a port, or an agent, feeds one; its filter builds the protocols.

A listener with C{bind_port} false binds nothing, and serves the connections
that an agent hands in.
"""

from __future__ import annotations

__all__ = [
    "BACKLOG",
    "NO_IPV6",
    "BoundPort",
    "BuildProtocol",
    "Listen",
    "Listener",
    "ListenerFailed",
    "bind_all",
    "not_bound",
    "remove_stale_socket",
]

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IHandshakeListener,
    IListeningPort,
    IProtocol,
    IProtocolFactory,
)
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.addresses import host_of
from reverseproxy.binding import bind_all, listen_at, say_bound
from reverseproxy.cluster.handover import Handover
from reverseproxy.config.models import ListenerConfig
from reverseproxy.crowd import Crowd, crowd_address
from reverseproxy.folding import Folding
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink, IDrainable, IExpendable, IPartable
from reverseproxy.limiter import ConnectionLimiter
from reverseproxy.logs import LeftOut, counted, how_many
from reverseproxy.ports import (
    BACKLOG,
    INHERITED,
    NO_IPV6,
    Bequest,
    ListenerFailed,
    SharedPort,
    not_bound,
    remove_stale_socket,
    stop_taking,
)
from reverseproxy.proxied import Proxied, proxied_factory, trusting
from reverseproxy.proxy.farewell import QUIET, doing, end_session
from reverseproxy.sockets import descriptor_of, format_address, tune
from reverseproxy.tls import ServerTls, gate_of, inspect_factory, peer_subject, wrap_server
from reverseproxy.transport.fronts import build_protocol

log = Logger()

BuildProtocol = Callable[[ConnectionInfo], IProtocol]
"""What a listener's filter is to it: one protocol for each connection."""

Listen = Callable[[IProtocolFactory], IListeningPort]
"""Listens in a way of its own."""

PARTING = 2.0
"""Seconds that clients of a listener that is no more have for another request."""

END_TIME = 2.0
"""
Seconds that connections have which are ended at the limit of a drain: to send what is left, and for a
close frame to be answered.  What is open then is aborted.
"""

TLS_HANDSHAKE_TIMEOUT = 15.0
"""Seconds for a client's TLS handshake, as MOSN's (docs/mosn.rst 1.3.11)."""


@implementer(IHandshakeListener)
class _Accepted(Handover):
    """
    An accepted connection, until it is known who it comes from.

    Over TLS that is once the handshake is complete, as the peer's certificate
    goes into L{ConnectionInfo}.

    @ivar address: whom the connection is counted with.
    @ivar vouched_for: whether somebody else counts it.
    """

    def __init__(self, listener: Listener, secure: bool, proxied: Proxied | None = None) -> None:
        """
        @param proxied: who is at the ends, if somebody before us says so.
        """
        super().__init__()
        self._listener = listener
        self._proxied = proxied
        self._secure = secure
        self._leaves: Callable[[], None] | None = None  # what to do as soon as it has begun
        self.address = ""
        self.vouched_for = False

    def connectionMade(self) -> None:
        self.address = crowd_address(getattr(self._peer, "host", ""))
        if not self._listener.admit(self):
            self.transport.abortConnection()
            return
        self._listener._connections.add(self)
        self._listener.accepted += 1
        tune(self.transport)
        if not self._secure:
            self._begin()

    # ILimited

    @property
    def expendable(self) -> bool:
        """Whether nothing is lost with it."""
        inner = IExpendable(self.inner, None)
        return self.inner is None or (inner is not None and bool(inner.expendable))

    @property
    def descriptor(self) -> int:
        """Its number; -1 if it has none."""
        return descriptor_of(self.transport)

    def make_room(self) -> None:
        """End, for another connection."""
        self.transport.abortConnection()

    def vouched(self) -> None:
        """Somebody knows who the peer is, and has limits of its own."""
        self.vouched_for = True
        self._listener.vouch(self)

    def handshakeCompleted(self) -> None:
        self._begin()

    @property
    def _peer(self) -> Any:
        """Where the client is."""
        return self.transport.getPeer() if self._proxied is None else self._proxied.source

    @property
    def _host(self) -> Any:
        """Where it has connected to."""
        return self.transport.getHost() if self._proxied is None else self._proxied.destination

    def _begin(self) -> None:
        subject = peer_subject(self.transport) if self._secure else None
        info = ConnectionInfo(
            remote=format_address(self._peer),
            local=format_address(self._host),
            secure=self._secure,
            identity=None if subject is None else subject.key,
            subject=subject,
            gate=gate_of(self.transport, self._listener.tls) if self._secure else None,
        )
        try:
            self.hand_over(self._listener.build_protocol(info))
        except Exception:
            self._failed()
            self.transport.abortConnection()
        else:
            if self._leaves is not None:
                self._leaves()

    def _failed(self) -> None:
        log.failure(
            "listener {listener}: the protocol of the connection from {peer} failed",
            listener=self._listener.name,
            peer=format_address(self.transport.getPeer()),
        )

    def part(self) -> None:
        """
        Close when the client's next request is answered, if the protocol can say so; else as L{drain}.

        As nothing is closed at an arbitrary moment, no request is lost that is on its way.
        """
        if self.inner is None:
            self._leave_later(self.part)
        elif IPartable.providedBy(self.inner):
            self.inner.part()
        else:
            self.drain()

    def _leave_later(self, leave: Callable[[], None]) -> None:
        """Its TLS handshake is under way, behind which there is a request: it has a moment for that."""
        if self._leaves is None:
            self._listener._reactor.callLater(QUIET, self._too_late)
        self._leaves = leave

    def _too_late(self) -> None:
        if self.inner is None:
            self.transport.loseConnection()

    def drain(self) -> None:
        """Let what is under way finish; a protocol that can't drain is closed."""
        if self.inner is None:
            self._leave_later(self.drain)
            return
        try:
            if IDrainable.providedBy(self.inner):
                self.inner.drain()
            else:
                self.transport.loseConnection()
        except Exception:
            self._failed()
            self.transport.abortConnection()

    @property
    def doing(self) -> str:
        """What is under way, in a word or two."""
        return doing(self.inner)

    def end(self, reason: str) -> None:
        """End what is under way as its protocol has it."""
        try:
            if self.inner is None:
                self.transport.loseConnection()
            else:
                end_session(self.inner, reason)
        except Exception:
            self._failed()
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        try:
            super().connectionLost(reason)
        except Exception:
            self._failed()
        # Last: who waits for this may close what the protocol above has just used.
        self._listener._forget(self)


class _Adopted(_Accepted):
    """A connection that another worker has accepted, and knows who it comes from."""

    def __init__(self, listener: Listener, protocol: IProtocol) -> None:
        super().__init__(listener, secure=False)
        self._protocol = protocol

    def connectionMade(self) -> None:
        self._listener._connections.add(self)
        self.hand_over(self._protocol)


class _AcceptedFactory(ServerFactory):
    noisy = False

    def __init__(self, listener: Listener, secure: bool) -> None:
        self._listener = listener
        self._secure = secure

    def logPrefix(self) -> str:
        return f"listener {self._listener.name}"

    def buildProtocol(self, addr: IAddress | None) -> _Accepted:
        return _Accepted(self._listener, self._secure, addr if isinstance(addr, Proxied) else None)


class _Door(ServerFactory):
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
    door: _Door
    address: str


class _InspectingFactory(ServerFactory):
    """
    Remembers the connections that have not shown yet whether they speak TLS.

    @ivar silent: those, and some that have.
    """

    noisy = False

    def __init__(self, inspecting: IProtocolFactory) -> None:
        self._inspecting = inspecting
        self.silent: WeakSet[Any] = WeakSet()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = build_protocol(self._inspecting, addr)
        self.silent.add(protocol)
        return protocol

    def abort(self) -> None:
        """Close the connections that have sent nothing."""
        for protocol in list(self.silent):
            transport = protocol.transport
            # Once it is decided, or lost, the connection has another protocol, or none.
            if getattr(transport, "protocol", None) is protocol:
                transport.abortConnection()


class _Refuser(Protocol):
    """Closes a connection that no filter would serve."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.loseConnection()


class _Entrance:
    """Makes what builds the protocols of a listener's connections, from the first byte on."""

    def __init__(self, listener: Listener, reactor: Any) -> None:
        self._listener = listener
        self._reactor = reactor
        self._complaints = Folding(reactor)
        self._inspecting: list[_InspectingFactory] = []

    def make(self) -> IProtocolFactory:
        """Go by what the listener's configuration says now."""
        factory = self._make_inside()
        headers = self._listener.config.proxy_protocol
        if headers is None:
            return factory
        trusts = trusting(headers.trusted_proxies)
        return proxied_factory(factory, trusts, self._reactor, self._no_header)

    def _no_header(self, peer: IAddress, reason: str) -> None:
        def say(left_out: LeftOut) -> None:
            log.warn(
                "listener {listener}: {peer} closed: {reason}; see trusted_proxies of its proxy_protocol"
                "{left_out}",
                listener=self._listener.name,
                peer=format_address(peer),
                reason=reason,
                left_out=left_out,
            )

        self._complaints.note((crowd_address(host_of(format_address(peer))), reason), say)

    def _make_inside(self) -> IProtocolFactory:
        plain = _AcceptedFactory(self._listener, secure=False)
        if self._listener.tls is None:
            return plain
        secure: IProtocolFactory = wrap_server(
            _AcceptedFactory(self._listener, secure=True),
            self._listener.tls,
            clock=self._reactor,
            handshake_timeout=TLS_HANDSHAKE_TIMEOUT,
            plaintext=plain,
            folding=self._complaints,
            listener=str(self._listener.name),
        )
        if not self._listener.config.inspector:
            return secure
        inspecting = _InspectingFactory(inspect_factory(plain, secure))
        self._inspecting.append(inspecting)
        return inspecting

    def stop(self) -> None:
        """Say what is still to be said of bad peers."""
        self._complaints.stop()

    def abort_silent(self) -> None:
        """Close the connections that have sent nothing."""
        for inspecting in self._inspecting:
            inspecting.abort()


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
        self._connections: set[_Accepted] = set()
        self._mode = mode
        self._limiter = limiter or ConnectionLimiter(reactor)
        self._crowds: list[Crowd[Any]] = []
        self._limit()
        self._entrance = _Entrance(self, reactor)
        self._waiting: list[Deferred[None]] = []
        self._aborting: IDelayedCall | None = None
        self._ending = "the server stops"  # why what outlives the time for it is ended
        self.inside = self._entrance.make()

    def _limit(self) -> None:
        """Have as many connections as the configuration says, beginning with those that there are."""
        most, of_one = self.config.max_connections, self.config.max_connections_per_address
        if self._crowds:
            [crowd] = self._crowds
            crowd.most, crowd.most_per_address = most or sys.maxsize, of_one
        elif most or of_one:
            crowd = Crowd(most or sys.maxsize, of_one)
            self._crowds.append(crowd)
            for connection in self._connections:
                if not connection.vouched_for:
                    crowd.add(connection.address, connection)

    @property
    def connections(self) -> int:
        """How many accepted connections are open."""
        return len(self._connections)

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
        return _Adopted(self, protocol)

    # who may stay

    def admit(self, connection: _Accepted) -> bool:
        """Decide about a new connection; one that was accepted earlier may have to go."""
        self._limiter.relieve(connection, self.config.name, self._pause)
        return self._limiter.enter(self.config.name, connection.address, connection, self._crowds)

    def vouch(self, connection: _Accepted) -> None:
        """Somebody else limits this connection from now on."""
        self._limiter.leave(connection.address, connection, self._crowds)

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
            return _Refuser()
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
        door = _Door(self)
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

    def bequeath(self) -> Bequest | None:
        """Give the sockets to the process that takes the place of this one; L{None} if there are none."""
        port = None if self._port is None else self._port.port
        if not isinstance(port, SharedPort):
            return None
        return Bequest(self.name, INHERITED.pass_on(self.config.address), port.bequeath())

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
        self._limit()
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
        self._ending = "its listener is no more"
        self.stop_accepting(take=True)
        self.part()
        self._reactor.callLater(min(PARTING, seconds), self.drain, seconds)

    def part(self) -> int:
        """
        Close the connections that there are, each when nothing of it is lost.

        @return: how many there are.
        """
        connections = list(self._connections)
        for connection in connections:
            connection.part()
        return len(connections)

    def drain(self, seconds: float) -> Deferred[None]:
        """
        Take no more connections, and let those that are open finish.

        @param seconds: after this time, what is still open is ended as its protocol has it, and aborted
            L{END_TIME} later.
        @return: fires when no connection is open.
        """
        stopped = self.stop_accepting()
        for connection in list(self._connections):
            connection.drain()
        self._entrance.abort_silent()
        if not self._connections:
            return stopped
        log.info(
            "listener {listener} waits for {connections} to finish, at most {seconds:g} s",
            listener=self.name,
            connections=counted(len(self._connections), "connection"),
            count=len(self._connections),
            seconds=seconds,
        )
        deadline = self._reactor.callLater(seconds, self._end, seconds)

        def done(_: None) -> Deferred[None]:
            for call in (deadline, self._aborting):
                if call is not None and call.active():
                    call.cancel()
            return stopped

        return self.emptied().addCallback(done)

    def _end(self, seconds: float) -> None:
        """The time for what is under way is over."""
        log.warn(
            "listener {listener}: {connections} outlived the {seconds:g} s for what is under way, ended now:"
            " {doing}",
            listener=self.name,
            connections=counted(len(self._connections), "connection"),
            count=len(self._connections),
            seconds=seconds,
            doing=self.doing,
        )
        self._aborting = self._reactor.callLater(END_TIME, self.abort)
        for connection in list(self._connections):
            connection.end(self._ending)
        self._entrance.abort_silent()

    @property
    def doing(self) -> str:
        """What is under way on all connections, for the log: how many of what."""
        return how_many(connection.doing or "idle connection" for connection in self._connections)

    def emptied(self) -> Deferred[None]:
        """Wait until no connection is open."""
        if not self._connections:
            return succeed(None)
        emptied: Deferred[None] = Deferred()
        self._waiting.append(emptied)
        return emptied

    def abort(self) -> None:
        """Close all connections now, and warn of it, as something may be under way on them."""
        self._abort(log.warn, "aborts")

    def _abort(self, write: Callable[..., None], what: str) -> None:
        if self._connections:
            write(
                "listener {listener} {what} {connections}",
                what=what,
                listener=self.name,
                connections=counted(len(self._connections), "connection"),
                count=len(self._connections),
            )
        for connection in list(self._connections):
            connection.transport.abortConnection()
        self._entrance.abort_silent()

    def stopService(self) -> Deferred[None]:
        """
        Stop at once.

        @return: fires when no connection is open.
        """
        Service.stopService(self)
        stopped = self.stop_accepting()
        self._abort(log.info, "closes")

        def emptied(_: None) -> Deferred[None]:
            self._entrance.stop()
            return stopped

        return self.emptied().addCallback(emptied)

    def _forget(self, connection: _Accepted) -> None:
        self._connections.discard(connection)
        self._limiter.leave(connection.address, connection, self._crowds)
        if not self._connections:
            waiting, self._waiting = self._waiting, []
            for emptied in waiting:
                emptied.callback(None)
