"""
Connections over TLS whose host is another worker's at present.

TLS can't leave its process.  What goes to the other worker is one end of a pair of sockets; at
the other end the worker that has accepted the connection relays.  That end may go on to others,
as any connection does, and comes home when this worker is given it.

    {"retire": "0.c2b1.7"}    the worker that relays it ends: close it when it is idle
"""

from __future__ import annotations

__all__ = ["TlsRelay", "TlsRelays"]

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.host import ReverseHost
from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.proxy.closing import CloseLimits
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.transport.handing import make_pair, put_in
from reverseproxy.tunnel.server.joined import ConnectionState, JoinedConnection
from reverseproxy.workers.directory import Directory, Entry
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message

log = Logger()

_CLOSE_LIMITS: Final = CloseLimits(excused=True)


class _Far(RelayEnd):
    """The agent's end of a relay."""

    close_limits = _CLOSE_LIMITS

    @property
    def intact(self) -> bool:
        """Whether both directions of the connection are open."""
        return not (self._lost or self._read_closed or self._write_closed or self.closing)

    def uncouple(self) -> None:
        """Have nothing more to do with the other end, and receive nothing for now."""
        self._peer = None
        self.transport.unregisterProducer()
        self.transport.pauseProducing()


class _Near(RelayEnd):
    """Our end of the pair of sockets whose other end another worker has."""

    close_limits = _CLOSE_LIMITS

    def __init__(self, clock: IReactorTime, relay: TlsRelay) -> None:
        super().__init__(clock)
        self._relay = relay

    def readConnectionLost(self) -> None:
        """The other worker sends no more, or all of it has come that it had sent before it gave it back."""
        if self._relay.returned:
            self._relay.all_sent()
        else:
            super().readConnectionLost()

    def part(self) -> None:
        """Have nothing more to do with the agent's end, and close behind what came from there."""
        self._peer = None
        self.transport.unregisterProducer()
        self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The other worker is gone, or we have parted."""
        super().connectionLost(reason)
        self._relay.near_lost()


class _Rest(Protocol):
    """The other end of the pair, back again: what it still holds is for whoever is next."""

    transport: Any

    def __init__(self, relay: TlsRelay) -> None:
        self._relay = relay
        self._data: list[bytes] = []

    def connectionMade(self) -> None:
        """End what the near end receives, behind all that was sent here."""
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep it."""
        self._data.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """That is all."""
        self._relay.all_here(b"".join(self._data))


class TlsRelay:
    """
    A connection over TLS, whose host is another worker's at present.

    @ivar entry: the host.
    @ivar connection: who has the connection.
    @ivar join_record: who has brought it.
    @ivar server: what it has joined.
    @ivar place: what it takes of the quotas.
    @ivar claimed: whether it has brought routes.
    @ivar state: what has happened on it, once it has come back.
    @ivar returned: whether the other worker has given it back.
    """

    returned = False
    state = ConnectionState()

    def __init__(self, relays: TlsRelays, entry: Entry, holding: JoinedConnection, clock: Any) -> None:
        self.entry = entry
        self.connection = holding.connection
        self.join_record = holding.join_record
        self.server = holding.server
        self.place = holding.take_place()
        self.claimed = holding.claimed
        self._relays = relays
        self._far = _Far(clock)
        self._near = _Near(clock, self)
        self._clock = clock
        self._over = self._parted = False

    def begin(self, ours: Any) -> None:
        """
        Relay from now on.

        @param ours: our end of a pair of sockets, of which the other worker is given the other one.
        """
        self.server.revocations.add(self)
        self.connection.hand_over(self._far)
        try:
            put_in(ours, self._near, self._clock)
        except ConnectionUnavailable:
            self.lost()
            return
        couple(self._near, self._far)

    # IJoined: whether its TLS would be good enough now; who has it judges the rest

    def judge_again(self, credentials: bool) -> str:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        return self.server.transport_policy.objection(self.join_record.info, self.connection.transport)

    def revoke(self, reason: str, grace: float) -> None:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        log.warn(
            "{listener}: {peer} is let go, at the latest in {seconds:g} s: {reason}",
            listener=self.server.listener,
            peer=self.join_record.info.remote,
            seconds=grace,
            reason=reason,
        )
        self._relays.recall(self)
        self._clock.callLater(grace, self._far.abort)

    def come_back(self, handle: Any, state: ConnectionState) -> None:
        """
        The connection is ours again, as soon as everything has come that is on its way.

        @param handle: the other worker's end.
        @param state: what has happened at its end.
        """
        self.returned = True
        self.state = state
        try:
            put_in(handle, _Rest(self), self._clock)
        except ConnectionUnavailable:
            self.lost()

    def all_sent(self) -> None:
        """Everything has gone to the agent that was meant for it."""
        if self._parted or self._over:
            return
        if self._far.intact:
            self._parted = True
            self._far.uncouple()
            self._near.part()
        else:
            # The agent has closed it, and the worker that has given it back has not heard of that.
            self._near.close()
            self.lost()

    def all_here(self, rest: bytes) -> None:
        """Everything has come back that the agent has sent."""
        if self._over:
            return
        if not self._parted or not self._far.intact:
            self.lost()
            return
        self._over = True
        self.connection.let_go()
        self._relays.home(self, rest)

    def near_lost(self) -> None:
        """The pair of sockets is closed, or the connection is."""
        if not self._parted:
            self.lost()

    def lost(self) -> None:
        """The connection is nobody's any more."""
        if not self._over:
            self._over = True
            self._far.abort()
            self._relays.lost(self)


class TlsRelays:
    """
    The connections that this worker relays.

    @ivar on_arrival: called with a host of this worker's whose connection has come home.
    @ivar on_loss: called with a host whose connection was lost on its way home, and a reason.
    """

    on_arrival: Callable[[Entry, ReverseHost], object] = staticmethod(lambda entry, host: None)
    on_loss: Callable[[Entry, str], object] = staticmethod(lambda entry, reason: None)

    def __init__(self, directory: Directory, clock: Any) -> None:
        self._directory = directory
        self._clock = clock
        self._relays: dict[str, TlsRelay] = {}

    def __len__(self) -> int:
        return len(self._relays)

    def begin(self, entry: Entry, holding: JoinedConnection) -> Any:
        """
        Relay a connection that another worker is given.

        @return: its end; L{None}, and nothing is changed, if there is no descriptor left.
        """
        try:
            ours, theirs = make_pair(self._clock)
        except OSError:
            return None
        relay = self._relays[entry.number] = TlsRelay(self, entry, holding, self._clock)
        holding.end()
        relay.connection.let_go()
        relay.begin(ours)
        return theirs

    def come_back(self, entry: Entry, handle: Any, state: ConnectionState) -> bool:
        """
        Take a connection back, if it is one of these.

        @param handle: the other worker's end.
        @param state: what has happened at its end.
        """
        relay = self._relays.get(entry.number)
        if relay is None:
            return False
        relay.come_back(handle, state)
        return True

    def home(self, relay: TlsRelay, surplus: bytes) -> None:
        """
        A connection has come back to the worker that has accepted it, which is this one.

        @param surplus: what has come on it, and nobody has had.
        """
        entry = relay.entry
        self._relays.pop(entry.number, None)
        relay.server.revocations.discard(relay)
        host = entry.host
        if not isinstance(host, ReverseHost) or host.cluster is None or host.closed:
            relay.connection.transport.abortConnection()
            return
        holding = JoinedConnection(
            relay.server, relay.join_record, host, relay.connection, relay.place, claimed=relay.claimed
        )
        relay.connection.holding = holding
        relay.state.restore(host, relay.connection, holding, surplus)
        relay.connection.transport.resumeProducing()
        self.on_arrival(entry, host)

    def lost(self, relay: TlsRelay) -> None:
        """A connection is gone while another worker had it."""
        self._relays.pop(relay.entry.number, None)
        relay.server.revocations.discard(relay)
        relay.server.quotas.give_back(relay.place)
        if relay.returned:
            self.on_loss(relay.entry, "it was lost on its way")

    def recall(self, relay: TlsRelay) -> None:
        """Let the worker that has a connection close it when it is idle."""
        link = self._directory.links.up.get(relay.entry.at)
        if link is not None:
            link.send({"retire": relay.entry.number})

    def retire(self, link: Link, message: Message) -> None:
        """The worker through which a connection goes is about to end."""
        host = self._directory.find(message["retire"])
        if host is not None and host.cluster is not None:
            host.cluster.remove_host(host, f"worker {link.number + 1}, which relays it, wants it closed")

    def withdraw(self) -> None:
        """Let siblings begin nothing more with what goes through this worker."""
        for relay in list(self._relays.values()):
            self.recall(relay)
