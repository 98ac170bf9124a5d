"""Tests for L{reverseproxy.mux.progress}, and for what a session makes of it."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.mux import progress, watch
from reverseproxy.mux.progress import Journey
from reverseproxy.mux.session import MAX_JITTER, PING_INTERVAL, PING_TIMEOUT
from reverseproxy.mux.watch import JOURNEY_LOOKS
from reverseproxy.net.tcp_info import TcpInfo, tcp_info
from reverseproxy.net.tcp_options import NOT_SENT, limit_unsent
from reverseproxy.transport.backlog import Backlog
from tests.blackhole import blackhole
from tests.transport.test_mux import Pair


class Kernel:
    """What a kernel says of a connection."""

    def __init__(self, waits: int = 0, acked: int | None = 0) -> None:
        self.waits = waits
        self.acked = acked
        self.age = 0

    def info(self) -> TcpInfo | None:
        """See L{reverseproxy.net.tcp_info.tcp_info}."""
        return None if self.acked is None else TcpInfo(0, 0, 9000, self.age, acked=self.acked)

    def backlog(self) -> Backlog:
        return Backlog(self.waits, self.waits)


class JourneyTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(progress, "tcp_info", Kernel.info)

    def test_nothing_is_before_it(self) -> None:
        self.assertFalse(Journey(Kernel()).under_way)

    def test_it_can_t_be_known(self) -> None:
        self.assertFalse(Journey(Kernel(1000, None)).under_way)

    def test_on_its_way(self) -> None:
        kernel = Kernel(100_000, 5000)
        journey = Journey(kernel)
        self.assertEqual([journey.under_way, journey.moves(), journey.under_way], [True, False, True])
        for acked, moved, under_way in (
            (6000, True, True),
            (6000, False, True),
            (104_999, True, True),
            (105_512, True, False),  # it has arrived
            (200_000, False, False),
        ):
            kernel.acked = acked
            self.assertEqual((journey.moves(), journey.under_way), (moved, under_way))

    def test_when_it_was_acknowledged(self) -> None:
        kernel = Kernel(100, 5000)
        journey = Journey(kernel)
        kernel.waits, kernel.acked, kernel.age = 0, 5112, 480
        self.assertEqual((journey.moves(), journey.age), (True, 0.48))

    def test_everything_has_arrived(self) -> None:
        kernel = Kernel(100, 5000)
        journey = Journey(kernel)
        kernel.waits, kernel.acked = 0, 5112
        self.assertEqual((journey.moves(), journey.under_way), (True, False))

    def test_it_is_closed(self) -> None:
        kernel = Kernel(100, 5000)
        journey = Journey(kernel)
        kernel.acked = None
        self.assertEqual((journey.moves(), journey.under_way), (False, False))


class KernelTests(SynchronousTestCase):
    """What Linux says."""

    def connect(self) -> tuple[Any, socket.socket]:
        class Transport:
            def getHandle(self) -> socket.socket:
                return ours

            def getPeer(self) -> IPv4Address:
                return IPv4Address("TCP", "127.0.0.1", 1)

        with socket.create_server(("127.0.0.1", 0)) as port:
            ours = socket.create_connection(port.getsockname())
            theirs, _ = port.accept()
        self.addCleanup(ours.close)
        self.addCleanup(theirs.close)
        return Transport(), theirs

    def acked(self, transport: Any) -> int:
        info = tcp_info(transport)
        assert info is not None
        return info.acked

    def test_acknowledged(self) -> None:
        transport, theirs = self.connect()
        ours = transport.getHandle()
        before = self.acked(transport)
        ours.send(b"x" * 1000)
        self.assertEqual(len(theirs.recv(1000, socket.MSG_WAITALL)), 1000)
        theirs.send(b"y")  # with which goes the acknowledgement
        ours.recv(1)
        self.assertEqual(self.acked(transport), before + 1000)
        blackhole(ours, theirs)
        ours.send(b"x")
        self.assertEqual(self.acked(transport), before + 1000)
        ours.close()
        self.assertIsNone(tcp_info(transport))

    def test_nothing_is_known_of_others(self) -> None:
        self.assertIsNone(tcp_info(object()))
        limit_unsent(object())

    def test_the_kernel_takes_less(self) -> None:
        for short in (False, True):
            transport, theirs = self.connect()
            ours = transport.getHandle()
            ours.setblocking(False)
            if short:
                limit_unsent(transport)
            blackhole(ours, theirs)
            sent = 0
            try:
                while True:
                    sent += ours.send(b"x" * 4096)
            except BlockingIOError:
                pass
            # What is on its way, as far as TCP goes without an answer, and as much as is allowed.
            self.assertEqual(sent < 10 * 65536 + NOT_SENT + 4096, short, sent)


class FakeJourney:
    """
    A question whose way a test decides on.

    @cvar script: what C{moves} says, one look after the other; it has arrived with the last one.
    @cvar age: how long ago that was, in seconds.
    """

    script: list[bool]
    age = 0.0

    def __init__(self, transport: Any) -> None:
        self.under_way = bool(self.script)

    def moves(self) -> bool:
        found = self.script.pop(0) if self.script else False
        self.under_way = bool(self.script)
        return found


class SessionTests(SynchronousTestCase):
    def silent(self, *script: bool) -> float:
        """How long a peer that has become silent is borne, when a question has to wait."""
        pair = Pair()
        ours, _ = pair.both()
        ours.transport.write(b"x")
        pair.clock.settle()
        FakeJourney.script = list(script)
        self.patch(watch, "Journey", FakeJourney)
        for session in (pair.first, pair.second):
            session.transport.silent = True
        pair.second.abort("only one of them is looked at")
        begun = pair.clock.seconds()
        while not pair.first.lost and pair.clock.seconds() - begun < 60:
            pair.pass_time(0.05)
        return pair.clock.seconds() - begun

    def test_nothing_is_before_it(self) -> None:
        self.assertLess(self.silent(), PING_INTERVAL + PING_TIMEOUT + 0.3)

    def test_it_comes_nearer(self) -> None:
        """As long as it does, the peer is there; and then has its time for the answer."""
        took = self.silent(*[True] * 20)
        self.assertTrue(10 < took < PING_INTERVAL + 10 + PING_TIMEOUT + 1.0, took)

    def test_it_arrives_before_it_is_looked_at(self) -> None:
        """
        The peer's time begins when it has arrived, not when that is seen: L{JOURNEY_LOOKS} later.

        So what is documented holds: a peer that stands still is noticed within five seconds.
        """
        self.patch(FakeJourney, "age", JOURNEY_LOOKS - 0.01)
        took = self.silent(True)
        self.assertTrue(PING_TIMEOUT < took < PING_INTERVAL + PING_TIMEOUT + 0.3, took)

    def test_a_look_that_is_late(self) -> None:
        """An acknowledgement that came long ago takes nothing from the time that was given since."""
        peer, now = Pair().first._watch, 100.0
        FakeJourney.script = [True]
        self.patch(FakeJourney, "age", 60.0)
        peer._journey = FakeJourney(None)  # type: ignore[assignment]
        peer._asked = peer.asking_since = now - 0.1
        self.assertAlmostEqual(peer._wait_for_answer(now), PING_TIMEOUT - 0.1)
        self.assertEqual(peer.asking_since, now - 0.1)

    def test_it_does_not(self) -> None:
        self.assertLess(self.silent(*[False] * 100), PING_INTERVAL + PING_TIMEOUT + 0.7)

    def test_it_stops_on_its_way(self) -> None:
        took = self.silent(*[True] * 4, *[False] * 100)
        self.assertLess(took, PING_INTERVAL + 2.0 + PING_TIMEOUT + 1.0)

    def test_others_show_that_the_way_is_slow(self) -> None:
        ways = watch.SLOW_PATHS.__class__()
        self.patch(watch, "SLOW_PATHS", ways)
        self.patch(ways, "allowance", lambda host, now: 3.0)
        took = self.silent()
        self.assertTrue(PING_INTERVAL + PING_TIMEOUT + 2.5 < took < PING_INTERVAL + PING_TIMEOUT + 3.5, took)


class JitterTests(SynchronousTestCase):
    def test_thousands_ask_at_different_times(self) -> None:
        times = []
        for number in (0.0, 0.5, 1.0):
            pair = Pair()
            pair.both()
            pair.first._watch._jitter = lambda number=number: number
            pair.pass_time(2 * PING_INTERVAL)
            pair.first._watch.ping()
            pair.clock.settle()
            asked: list[float] = []
            clock = pair.clock
            self.patch(
                watch.PeerWatch,
                "ping",
                lambda each, asked=asked, pair=pair: each is pair.first._watch and asked.append(0.0),
            )
            begun = clock.seconds()
            while not asked:
                pair.pass_time(0.05)
            times.append(clock.seconds() - begun)
        self.assertEqual(times, sorted(times, reverse=True))
        self.assertLess(times[-1], PING_INTERVAL * (1 - MAX_JITTER) + 0.2)
