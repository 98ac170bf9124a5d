"""
Relay TLS connections to the workers that use them.

A TLS session can't leave its process.  So the other worker gets one end of a socket pair, and the
worker that has accepted the connection relays at the other end.  That end may move on like any
connection; when it comes back to this worker, the relay ends.

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
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.transport.closing import CloseLimits
from reverseproxy.transport.handing import make_pair, put_in
from reverseproxy.tunnel.server.joined import ConnectionState, JoinedConnection
from reverseproxy.workers.directory import Directory
from reverseproxy.workers.entries import Entry
from reverseproxy.workers.links import Link
from reverseproxy.workers.messages import Message

log = Logger()

_CLOSE_LIMITS: Final = CloseLimits(excused=True)


class _AgentEnd(RelayEnd):
    """The agent's end of a relay."""

    close_limits = _CLOSE_LIMITS

    @property
    def intact(self) -> bool:
        """Whether both directions of the connection are open."""
        return not (self._lost or self._read_closed or self._write_closed or self.closing)

    def uncouple(self) -> None:
        """Detach from the other end of the relay, and pause reading."""
        self._peer = None
        self.transport.unregisterProducer()
        self.transport.pauseProducing()


class _WorkerEnd(RelayEnd):
    """This worker's end of the socket pair."""

    close_limits = _CLOSE_LIMITS

    def __init__(self, clock: IReactorTime, relay: TlsRelay) -> None:
        super().__init__(clock)
        self._relay = relay

    def readConnectionLost(self) -> None:
        """Handle the end of the other worker's data; after a return, all of it has arrived."""
        if self._relay.returned:
            self._relay.all_sent()
        else:
            super().readConnectionLost()

    def part(self) -> None:
        """Detach from the agent's end, and close after its data."""
        self._peer = None
        self.transport.unregisterProducer()
        self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report that the socket pair is closed."""
        super().connectionLost(reason)
        self._relay.near_lost()


class _ReturnedEnd(Protocol):
    """The other end of the socket pair after its return: collects the data that is left in it."""

    transport: Any

    def __init__(self, relay: TlsRelay) -> None:
        self._relay = relay
        self._data: list[bytes] = []

    def connectionMade(self) -> None:
        """Send FIN to the near end, after all data."""
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """Collect data."""
        self._data.append(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass on the collected data."""
        self._relay.all_here(b"".join(self._data))


class TlsRelay:
    """
    A TLS connection that another worker uses.

    @ivar entry: its host in the directory.
    @ivar connection: its protocol.
    @ivar join_record: the agent's identity, and how it joined.
    @ivar server: the tunnel server that it has joined.
    @ivar place: its share of the quotas.
    @ivar claimed: whether it has brought routes.
    @ivar state: its state after its return.
    @ivar returned: whether the other worker has returned it.
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
        self._far = _AgentEnd(clock)
        self._near = _WorkerEnd(clock, self)
        self._clock = clock
        self._over = self._parted = False

    def begin(self, ours: Any) -> None:
        """
        Start to relay.

        @param ours: this worker's end of the socket pair.
        """
        self.server.revocations.add(self)
        self.connection.hand_over(self._far)
        try:
            put_in(ours, self._near, self._clock)
        except ConnectionUnavailable:
            self.lost()
            return
        couple(self._near, self._far)

    # IJoined: checks TLS only; the worker that uses the connection checks the rest

    def judge_again(self, credentials: bool) -> str:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        return self.server.transport_policy.objection(self.join_record.info, self.connection.transport)

    def revoke(self, reason: str, grace: float) -> None:
        """See L{IJoined<reverseproxy.tunnel.server.revocation.IJoined>}."""
        log.warn(
            "{listener}: {peer} is revoked, and closed within {seconds:g} s: {reason}",
            listener=self.server.listener,
            peer=self.join_record.info.remote,
            seconds=grace,
            reason=reason,
        )
        self._relays.recall(self)
        self._clock.callLater(grace, self._far.abort)

    def come_back(self, handle: Any, state: ConnectionState) -> None:
        """
        Take the connection back, once all data in flight has arrived.

        @param handle: the other worker's end of the socket pair.
        @param state: the state that the other worker reports.
        """
        self.returned = True
        self.state = state
        try:
            put_in(handle, _ReturnedEnd(self), self._clock)
        except ConnectionUnavailable:
            self.lost()

    def all_sent(self) -> None:
        """Stop relaying, as all data for the agent has been sent."""
        if self._parted or self._over:
            return
        if self._far.intact:
            self._parted = True
            self._far.uncouple()
            self._near.part()
        else:
            # The agent has closed it, which the other worker did not know.
            self._near.close()
            self.lost()

    def all_here(self, rest: bytes) -> None:
        """Use the connection here, as all data of the agent has come back."""
        if self._over:
            return
        if not self._parted or not self._far.intact:
            self.lost()
            return
        self._over = True
        self.connection.let_go()
        self._relays.home(self, rest)

    def near_lost(self) -> None:
        """The socket pair is closed."""
        if not self._parted:
            self.lost()

    def lost(self) -> None:
        """Abort the connection."""
        if not self._over:
            self._over = True
            self._far.abort()
            self._relays.lost(self)


class TlsRelays:
    """
    The TLS connections that this worker relays.

    @ivar on_arrival: called with a host whose connection has come back.
    @ivar on_loss: called with a host whose connection was lost on its way back, and a reason.
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
        Relay a connection for another worker.

        @return: the end of the socket pair for that worker; L{None} if there is no descriptor
            left, and nothing has changed.
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
        Take a connection back, if this worker relays it.

        @param handle: the other worker's end of the socket pair.
        @param state: the state that the other worker reports.
        @return: whether it is one of these.
        """
        relay = self._relays.get(entry.number)
        if relay is None:
            return False
        relay.entry = entry  # which is another one if its cluster has been made anew
        relay.come_back(handle, state)
        return True

    def home(self, relay: TlsRelay, surplus: bytes) -> None:
        """
        Use a connection here again.

        @param surplus: data of the agent that no worker has read.
        """
        entry = relay.entry
        self._relays.pop(entry.number, None)
        relay.server.revocations.discard(relay)
        host = entry.host
        if not isinstance(host, ReverseHost) or host.cluster is None or host.closed:
            relay.connection.transport.abortConnection()
            self.on_loss(entry, "nobody can use it here")
            return
        holding = JoinedConnection(
            relay.server, relay.join_record, host, relay.connection, relay.place, claimed=relay.claimed
        )
        relay.connection.holding = holding
        relay.state.restore(host, relay.connection, holding, surplus)
        relay.connection.transport.resumeProducing()
        self.on_arrival(entry, host)

    def lost(self, relay: TlsRelay) -> None:
        """Forget a connection that was lost while another worker used it."""
        self._relays.pop(relay.entry.number, None)
        relay.server.revocations.discard(relay)
        relay.server.quotas.give_back(relay.place)
        if relay.returned:
            self.on_loss(relay.entry, "it was lost on its way")

    def recall(self, relay: TlsRelay) -> None:
        """Ask the worker that uses a connection to close it when it is idle."""
        link = self._directory.links.up.get(relay.entry.at)
        if link is not None:
            link.send({"retire": relay.entry.number})

    def retire(self, link: Link, message: Message) -> None:
        """Close a connection when it is idle, as the worker that relays it ends."""
        host = self._directory.find(message["retire"])
        if host is not None and host.cluster is not None:
            host.cluster.remove_host(host, f"worker {link.number + 1}, which relays it, wants it closed")

    def withdraw(self) -> None:
        """Ask siblings to close all relayed connections when they are idle."""
        for relay in list(self._relays.values()):
            self.recall(relay)
