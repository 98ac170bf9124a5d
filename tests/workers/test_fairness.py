"""
Clients that the kernel has distributed unevenly over workers are served as by one process.

Workers in memory, with everything that decides which requests wait and which connections
move.  Time is simulated, so that the result is always the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from twisted.internet.protocol import Protocol
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.mosn.frames import ConnectionInit, encode
from tests.workers.world import CLIENT, CLUSTER, REQUEST, TUNNEL, World

CONNECTIONS = 4

STEP = 0.005
"""Seconds by which time goes on."""

WARM = 0.5
"""Seconds until connections are where they are needed, which are not looked at."""

LASTS = 2.0
"""Seconds that are."""


class Service(Protocol):
    """A plain connection of an agent whose service takes the same time for each request."""

    transport: Any

    def __init__(self, clock: Any, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._data = b""

    def connectionMade(self) -> None:
        self.transport.write(encode(ConnectionInit(CLUSTER)))

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        if self._data.endswith(b"\r\n\r\n"):
            self._data = b""
            self._clock.callLater(self._seconds, self._answer)

    def _answer(self) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


class Client(Protocol):
    """
    A client that asks again as soon as it has been answered.

    @ivar took: the seconds of each request that ended after some time.
    """

    transport: Any

    def __init__(self, clock: Any, since: float) -> None:
        self.took: list[float] = []
        self._clock = clock
        self._since = since
        self._asked = 0.0

    def connectionMade(self) -> None:
        self._ask()

    def _ask(self) -> None:
        self._asked = self._clock.seconds()
        self.transport.write(REQUEST % b"/")

    def dataReceived(self, data: bytes) -> None:
        assert data.endswith(b"ok"), data
        if self._clock.seconds() > self._since:
            self.took.append(self._clock.seconds() - self._asked)
        self._ask()


class Outcome(NamedTuple):
    """
    How clients have fared.

    @ivar answers: how many each had.
    @ivar median: seconds of a request.
    @ivar late: of one in a hundred, at the least.
    @ivar moves: how often connections have gone to another worker.
    """

    answers: list[int]
    median: float
    late: float
    moves: int

    @property
    def evenness(self) -> float:
        """Jain's index of fairness: 1 if all have got the same, 1/n if one has got all."""
        return sum(self.answers) ** 2 / (len(self.answers) * sum(each**2 for each in self.answers))


def serve(clients: Sequence[int], seconds: float = 0.02, dialled: int = 0) -> Outcome:
    """
    Let clients ask for a while.

    @param clients: how many each worker has.
    @param seconds: what a request takes at the service.
    @param dialled: the worker that agents have reached.
    """
    world = World(len(clients))
    clock = world.reactor
    for _ in range(CONNECTIONS):
        clock.dial("127.0.0.1", TUNNEL + dialled, Service(clock, seconds))
    world.turn(0.1)
    asking = []
    for worker, number in enumerate(clients):
        for _ in range(number):
            asking.append(Client(clock, clock.seconds() + WARM))
            clock.dial("127.0.0.1", CLIENT + worker, asking[-1])
    for _ in range(round((WARM + LASTS) / STEP)):
        clock.advance(STEP)
    took = sorted(each for client in asking for each in client.took)
    moves = sum(entry.moves for entry in world.workers[0].siblings.directory.entries.values())
    return Outcome(
        [len(client.took) for client in asking], took[len(took) // 2], took[len(took) * 99 // 100], moves
    )


class FairnessTests(SynchronousTestCase):
    """As one process would serve them, whichever worker they are at, and wherever the agents are."""

    def test_skewed(self) -> None:
        alone = serve([16])
        self.assertEqual(alone.moves, 0)
        for clients in ([15, 1], [1, 15], [16, 0], [0, 16], [8, 8], [13, 1, 1, 1], [0, 5, 11, 0]):
            shared = serve(clients)
            about = f"{clients}: {shared}"
            self.assertGreater(sum(shared.answers), 0.97 * sum(alone.answers), about)
            self.assertGreater(shared.evenness, 0.98, about)
            self.assertGreater(min(shared.answers), 0.7 * min(alone.answers), about)
            self.assertLess(shared.late, 1.6 * alone.late, about)

    def test_an_agent_at_each_worker_makes_no_difference(self) -> None:
        one, other = serve([12, 4]), serve([12, 4], dialled=1)
        self.assertGreater(min(one.evenness, other.evenness), 0.98)
        self.assertApproximates(sum(one.answers), sum(other.answers), 10)

    def test_slow_requests(self) -> None:
        """What a request takes makes no difference to what each client gets."""
        alone, shared = serve([8], 0.2), serve([7, 1], 0.2)
        self.assertGreaterEqual(min(shared.answers), min(alone.answers) - 1)
        self.assertLess(shared.late, 1.6 * alone.late)

    def test_where_there_is_enough(self) -> None:
        """Nobody waits for longer than it takes a connection to come, and then they stay."""
        shared = serve([3, 1])
        self.assertLess(shared.late, 0.02 + 2 * STEP)
        self.assertLessEqual(shared.moves, 2 * CONNECTIONS)

    def test_the_measure(self) -> None:
        """It would be seen if anybody got less."""
        self.assertLess(Outcome([20] * 15 + [0], 0.0, 0.0, 0).evenness, 0.95)
