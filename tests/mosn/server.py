"""A fake of MOSN's tunnel server: agents dial it, and it asks them for things."""

from __future__ import annotations

__all__ = ["FakeServer", "Pool", "Reverse"]

from collections import deque
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.mosn.driver import TalkProtocol
from tests.mosn.frames import CLOSE, INIT, OneFrameReader, response
from tests.mosn.talk import Asker


class Reverse(Protocol):
    """
    An agent's connection.

    @ivar init: what the agent has said of itself; L{None} while it is silent.
    @ivar talk: what is hosted, once it has been accepted.
    """

    transport: Any

    def __init__(self, server: FakeServer) -> None:
        self._server = server
        self._reader = OneFrameReader()
        self.init: dict[str, Any] | None = None
        self.talk: TalkProtocol | None = None
        self.lost = False

    @property
    def address(self) -> str:
        return _address(self)

    def dataReceived(self, data: bytes) -> None:
        if self.talk is not None:
            self.talk.dataReceived(data)
            return
        try:
            frame = self._reader.feed(data)
        except Exception:
            self._server.failures.append(Failure())
            self.transport.abortConnection()
            return
        if frame is None:
            return
        flag, document = frame
        if flag == INIT:
            self.init = document
            self._server.introduced(self)
        elif flag == CLOSE:
            self._server.leave(document)

    def answer(self, status: int) -> None:
        """Refuse; it is the agent who closes."""
        self.transport.write(response(status))

    def accept(self, asker: Asker, coalesced: bool = False) -> TalkProtocol:
        """
        Accept, and begin to use the connection.

        @param coalesced: whether the answer and the first bytes make one piece, as
            they may after a request that has waited for this connection.
        """
        talk = TalkProtocol(self._server.clock, asker, hurried=coalesced)
        self.transport.write(response(1))
        self.talk = talk
        talk.makeConnection(self.transport)
        return talk

    def accept_unused(self) -> None:
        """Accept, for a cluster that nobody asks for anything: not a byte follows."""
        self.transport.write(response(1))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.lost = True
        if self.talk is not None:
            self.talk.connectionLost(reason)
        self._server.lost(self)


class Pool:
    """
    The hosts of a cluster, one after the other.

    @ivar turning_away: whether connections are closed as soon as they are accepted.
    @ivar turned_away: how many have been so far.
    @ivar left: addresses that agents have announced to be leaving.
    @ivar failures: what went wrong that should not.
    """

    def __init__(self) -> None:
        self.talks: list[TalkProtocol] = []
        self.turning_away = False
        self.turned_away = 0
        self.left: list[str] = []
        self._leaving: list[Deferred[None]] = []
        self.failures: list[Failure] = []
        self.make_asker: Callable[[], Asker] | None = None
        self.coalesced = False
        self._turn = 0
        self._waiting: deque[Deferred[TalkProtocol]] = deque()

    def add(self, talk: TalkProtocol) -> None:
        self.talks.append(talk)
        talk.changed = self._changed
        self._changed(talk)

    def take(self) -> Deferred[TalkProtocol]:
        """Wait for a connection that may be used, and use it before anybody else does."""
        taken: Deferred[TalkProtocol] = Deferred()
        self._waiting.append(taken)
        self._serve()
        return taken

    def leave(self, addresses: list[str]) -> None:
        """Give no more requests to these connections, and leave it to the agent to close them."""
        self.left += addresses
        leaving, self._leaving = self._leaving, []
        for done in leaving:
            done.callback(None)

    def leaves(self) -> Deferred[None]:
        """Wait until all connections are said to leave."""
        done: Deferred[None] = Deferred()
        if self.left:
            done.callback(None)
        else:
            self._leaving.append(done)
        return done

    def _changed(self, talk: TalkProtocol) -> None:
        if talk.lost and talk in self.talks:
            self.talks.remove(talk)
            if talk.failed is not None:
                self.failures.append(talk.failed)
        self._serve()

    def _serve(self) -> None:
        while self._waiting:
            usable = [talk for talk in self.talks if talk.usable and _address(talk) not in self.left]
            if not usable:
                return
            self._turn += 1
            self._waiting.popleft().callback(usable[self._turn % len(usable)])


def _address(connection: Any) -> str:
    peer = connection.transport.getPeer()
    return f"{peer.host}:{peer.port}"


class FakeServer(Factory):
    """
    A tunnel server; it lets agents wait for its answer until a test opens their cluster.

    @ivar failures: what went wrong before an agent had named its cluster.
    """

    noisy = False

    def __init__(self, clock: IReactorTime) -> None:
        self.clock = clock
        self.failures: list[Failure] = []
        self.pools: dict[str, Pool] = {}
        self.pending: dict[str, list[Reverse]] = {}
        self.connections: list[Reverse] = []
        self._waiting: list[tuple[str, int, Deferred[list[Reverse]]]] = []

    def buildProtocol(self, addr: object) -> Reverse:
        connection = Reverse(self)
        self.connections.append(connection)
        return connection

    def pool(self, cluster: str) -> Pool:
        return self.pools.setdefault(cluster, Pool())

    def introduced(self, connection: Reverse) -> None:
        assert connection.init is not None
        cluster = connection.init["cluster_name"]
        pool = self.pool(cluster)
        if pool.turning_away:
            pool.turned_away += 1
            connection.accept_unused()
            connection.transport.loseConnection()
            return
        if pool.make_asker is not None:
            pool.add(connection.accept(pool.make_asker(), pool.coalesced))
            return
        self.pending.setdefault(cluster, []).append(connection)
        for waiting in list(self._waiting):
            name, count, came = waiting
            if name == cluster and len(self.pending[cluster]) >= count:
                self._waiting.remove(waiting)
                came.callback(self.pending[cluster])

    def waits(self, cluster: str, count: int) -> Deferred[list[Reverse]]:
        """Wait until that many connections of a cluster wait for an answer."""
        came: Deferred[list[Reverse]] = Deferred()
        if len(self.pending.get(cluster, [])) >= count:
            came.callback(self.pending[cluster])
        else:
            self._waiting.append((cluster, count, came))
        return came

    def open(self, cluster: str, make_asker: Callable[[], Asker], coalesced: bool) -> Pool:
        """Accept the connections of a cluster, those that wait and those that come."""
        pool = self.pool(cluster)
        pool.make_asker, pool.coalesced = make_asker, coalesced
        for connection in self.pending.pop(cluster, []):
            pool.add(connection.accept(make_asker(), coalesced))
        return pool

    def accept(self, cluster: str) -> list[Reverse]:
        """Accept the connections that wait, and don't use them."""
        connections = self.pending.pop(cluster, [])
        for connection in connections:
            connection.accept_unused()
        return connections

    def turn_away(self, cluster: str) -> Pool:
        """Close connections of a cluster as soon as they are accepted, those that wait as well."""
        pool = self.pool(cluster)
        pool.turning_away, pool.turned_away = True, 0
        for connection in self.pending.pop(cluster, []):
            self.introduced(connection)
        return pool

    def close(self, cluster: str) -> None:
        """Let the connections of a cluster wait from now on, and close those that there are."""
        pool = self.pool(cluster)
        pool.make_asker = None
        for talk in pool.talks:
            talk.transport.loseConnection()

    def leave(self, document: dict[str, Any]) -> None:
        """An agent announces that some of its connections are about to go."""
        self.pool(document["cluster_name"]).leave(document["addresses"])

    def lost(self, connection: Reverse) -> None:
        self.connections.remove(connection)
        if connection.init is not None:
            waiting = self.pending.get(connection.init["cluster_name"], [])
            if connection in waiting:
                waiting.remove(connection)
