"""A fake of MOSN's agent: it dials a tunnel server, and answers what comes through."""

from __future__ import annotations

__all__ = ["FakeAgent"]

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from tests.mosn.driver import TalkProtocol
from tests.mosn.frames import RESPONSE, OneFrameReader, close_frame, init_frame
from tests.mosn.talk import Answerer, Unexpected

FIRST_WAIT = 3.0
"""Seconds after the first failed attempt; twice as long after each further one, without a bound."""


class _Connection(Protocol):
    """A connection of a slot: the handshake, then whatever the hosting listener makes of it."""

    transport: Any

    def __init__(self, slot: _Slot) -> None:
        self._slot = slot
        self.hosted: TalkProtocol | None = None
        self.address = ""

    def connectionMade(self) -> None:
        host = self.transport.getHost()
        self.address = f"{host.host}:{host.port}"
        if self._slot.aside:
            self.host(b"")
        else:
            self.transport.write(init_frame(self._slot.agent.cluster, **self._slot.agent.fields))

    def dataReceived(self, data: bytes) -> None:
        if self.hosted is not None:
            self.hosted.dataReceived(data)
            return
        try:
            frame = self._slot.reader.feed(data)
            if frame is not None and frame[0] != RESPONSE:
                raise Unexpected(f"flag {frame[0]} for an answer: a type assertion of MOSN's fails")
        except Exception:
            self._slot.agent.failures.append(Failure())
            self.transport.abortConnection()
            return
        if frame is not None:
            self._slot.answered(self, frame[1].get("status", 0), self._slot.reader.rest)

    def host(self, rest: bytes) -> None:
        """Give the connection to the hosting listener, with what came behind the answer."""
        self.hosted = TalkProtocol(self._slot.agent.clock, self._slot.agent.make_answerer())
        self.hosted.makeConnection(self.transport)
        if rest:
            self.hosted.dataReceived(rest)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.hosted is not None:
            self.hosted.connectionLost(reason)
            if self.hosted.failed is not None:
                self._slot.agent.failures.append(self.hosted.failed)
        self._slot.lost(self)


class _Slot:
    """
    Keeps one connection, for ever or until it was refused.

    @ivar aside: whether it is the one on which nothing is said until the end.
    @ivar dead: whether it has been refused; MOSN takes that for success, fails
        over the missing connection, and never dials again.
    @ivar reader: of all its connections: what came together with an answer is
        hosted, but stays in front of the next answer, so that this one is not
        understood, nor any after it.
    """

    def __init__(self, agent: FakeAgent, aside: bool = False) -> None:
        self.agent = agent
        self.aside = aside
        self.dead = False
        self.reader = OneFrameReader()
        self.connection: _Connection | None = None
        self._wait = FIRST_WAIT

    async def dial(self) -> None:
        """Make an attempt."""
        agent = self.agent
        if agent.leaving or self.dead:
            return
        if not agent.prompt:
            self.reader = OneFrameReader()
        try:
            self.connection = await agent.endpoint.connect(Factory.forProtocol(lambda: _Connection(self)))
        except Exception:
            agent.failures.append(Failure())
            self._again()
            return
        if agent.leaving and self.connection is not None:
            self.connection.transport.loseConnection()  # it was too late for that
        if self.aside:
            agent.check()

    def _again(self) -> None:
        self.agent.retries += 1
        self.agent.clock.callLater(self._wait, self.redial)
        self._wait *= 2

    def redial(self) -> None:
        Deferred.fromCoroutine(self.dial())

    def answered(self, connection: _Connection, status: int, rest: bytes) -> None:
        """The server has answered."""
        if status != 1:
            self.dead = True
            self.agent.refusals.append(status)
            connection.transport.loseConnection()
            self.agent.check()
            return
        self._wait = FIRST_WAIT
        self.agent.accepted += 1
        if self.agent.quitters:
            # The service is down, say: what the hosting listener does is to close.
            self.agent.quitters -= 1
            connection.transport.loseConnection()
            connection.hosted = None
            self.quit = True
            return
        connection.host(rest)
        self.agent.check()

    quit = False

    def lost(self, connection: _Connection) -> None:
        """The connection is closed, by whoever it was."""
        accepted = connection.hosted is not None or self.quit
        self.connection, self.quit = None, False
        if self.agent.leaving or self.dead:
            self.agent.check()
        elif accepted:
            self.redial()  # the first attempt is made at once
        else:
            self._again()
        self.agent.check()


class FakeAgent:
    """
    An agent of one server.

    @ivar prompt: whether each connection is read as soon as something has come,
        as MOSN's are, so that nothing comes together that was not sent so.
    @ivar quitters: how many connections are closed right after they have been accepted.
    @ivar accepted: how often the server has said yes so far.
    @ivar refusals: the other answers so far.
    @ivar retries: how often a failure made it wait.
    @ivar failures: what went wrong that should not.
    """

    def __init__(
        self,
        clock: IReactorTime,
        endpoint: IStreamClientEndpoint,
        cluster: str,
        connections: int,
        make_answerer: Callable[[], Answerer],
        prompt: bool = True,
        quitters: int = 0,
        **fields: Any,
    ) -> None:
        """
        @param endpoint: how to reach the server.
        @param make_answerer: makes what stands behind the hosting listener, for a connection.
        @param fields: what to say otherwise in init frames.
        """
        self.clock = clock
        self.endpoint = endpoint
        self.cluster = cluster
        self.fields = fields
        self.make_answerer = make_answerer
        self.prompt = prompt
        self.quitters = quitters
        self.accepted = 0
        self.retries = 0
        self.refusals: list[int] = []
        self.failures: list[Failure] = []
        self.leaving = False
        self._slots = [_Slot(self) for _ in range(connections)]
        self._aside = _Slot(self, aside=True)
        self._waiting: list[tuple[Callable[[], bool], Deferred[None]]] = []

    async def start(self) -> None:
        """Dial all connections, and wait until each has been accepted or refused."""
        for slot in [*self._slots, self._aside]:
            await slot.dial()
        await self.settled()

    @property
    def hosted(self) -> list[_Connection]:
        """The connections that serve."""
        connections = [slot.connection for slot in self._slots]
        return [each for each in connections if each is not None and each.hosted is not None]

    @property
    def addresses(self) -> list[str]:
        """Our own addresses of the connections that serve."""
        return [each.address for each in self.hosted]

    def settled(self) -> Deferred[None]:
        """Wait until each slot serves or is dead, and the connection aside is there."""
        return self.until(
            lambda: (
                self._aside.connection is not None
                and all(slot.dead or slot.connection in self.hosted for slot in self._slots)
            )
        )

    def until(self, wanted: Callable[[], bool]) -> Deferred[None]:
        """Wait for something to become true."""
        done: Deferred[None] = Deferred()
        self._waiting.append((wanted, done))
        self.check()
        return done

    def check(self) -> None:
        """Something has changed."""
        for waiting in list(self._waiting):
            if waiting[0]():
                self._waiting.remove(waiting)
                waiting[1].callback(None)

    def close_idle(self) -> Deferred[None]:
        """
        The idle time is over: close what is unused; fires when that is done.

        MOSN counts 90 s by default; the connection aside has the same listener, and
        all are dialled again at once.
        """
        slots = [*self._slots, self._aside]
        old = {slot.connection for slot in slots if slot.connection is not None}
        for connection in old:
            connection.transport.loseConnection()
        return self.until(lambda: not any(slot.connection in old for slot in slots))

    def go_away(self) -> None:
        """
        The process has been told to stop, and its listeners to be first.

        Each connection of the hosting listener says that it wants no more requests,
        and the one aside is one of them.
        """
        for slot in [*self._slots, self._aside]:
            if slot.connection is not None and slot.connection.hosted is not None:
                slot.connection.hosted.go_away()

    def release(self) -> None:
        """Send the answers that have been held back."""
        for connection in self.hosted:
            assert connection.hosted is not None
            connection.hosted.release()

    def leave(self) -> Deferred[None]:
        """Say which connections are about to go; fires once the server has closed them, too."""
        self.leaving = True
        aside = self._aside.connection
        assert aside is not None
        aside.transport.write(close_frame(self.cluster, self.addresses))
        aside.transport.loseConnection()
        return self.gone()

    def quit(self) -> Deferred[None]:
        """Close all connections without a word, as on SIGINT."""
        self.leaving = True
        for slot in [*self._slots, self._aside]:
            if slot.connection is not None:
                slot.connection.transport.loseConnection()
        return self.gone()

    def gone(self) -> Deferred[None]:
        """Wait until all connections are closed."""
        return self.until(lambda: all(slot.connection is None for slot in [*self._slots, self._aside]))

    def abort(self) -> None:
        """Be gone, whatever was under way."""
        self.leaving = True
        for slot in [*self._slots, self._aside]:
            if slot.connection is not None:
                slot.connection.transport.abortConnection()
