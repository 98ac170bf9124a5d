"""Tests for L{reverseproxy.net.dead_peers}, some of them over real sockets."""

from __future__ import annotations

import gc
import socket
from struct import pack
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reverseproxy.net import dead_peers
from reverseproxy.net.dead_peers import PeerSweep, SlowPaths, is_gone, waits_since
from reverseproxy.net.tcp_info import INFO_SIZE, TcpInfo
from reverseproxy.net.tcp_options import tune
from tests.blackhole import blackhole
from tests.tunnel.logged import capture


def info(probes: int = 0, unacked: int = 0, silence: float = 0.0, data: float = 1e6) -> TcpInfo:
    return TcpInfo(probes, unacked, round(data * 1000), round(silence * 1000))


class DecisionTests(SynchronousTestCase):
    """What to make of what the kernel knows, for a peer that has 10 s."""

    def looks(self, *seen: TcpInfo) -> list[bool]:
        """Look every two seconds."""
        since: float | None = None
        gone = []
        for number, found in enumerate(seen):
            since = waits_since(found, since, number * 2.0)
            gone.append(since is not None and is_gone(found, number * 2.0 - since, 10.0))
        return gone

    def test_parse(self) -> None:
        raw = pack("=BBBBBBBB24I3Q", *range(1, 9), *range(100, 127))
        found = TcpInfo.parse(raw)
        self.assertEqual((len(raw), found), (INFO_SIZE, TcpInfo(4, 104, 111, 112, 115, 116, 121, 126)))

    def test_what_is_heard_of_a_peer(self) -> None:
        self.assertEqual(info(silence=3.0).silence, 3.0)
        self.assertEqual(info(silence=3.0, data=1.5).silence, 1.5)

    def test_at_rest(self) -> None:
        self.assertEqual(self.looks(*[info(silence=3600.0)] * 3), [False] * 3)

    def test_data_without_an_answer(self) -> None:
        self.assertEqual(
            self.looks(*(info(unacked=2, silence=1.9 + 2 * n) for n in range(5))),
            [False, False, False, True, True],
        )

    def test_probes_without_an_answer(self) -> None:
        seen = [info(silence=4.0), *(info(probes=n, silence=4.0 + 2 * n) for n in range(1, 4))]
        self.assertEqual(self.looks(*seen), [False, False, True, True])

    def test_data_after_a_long_rest(self) -> None:
        """Nothing asks a peer while data comes from it, so that its last acknowledgement may be old."""
        seen = [info(silence=9.0), info(unacked=1, silence=11.0), info(silence=1.9)]
        self.assertEqual(self.looks(*seen), [False] * 3)

    def test_data_that_comes_is_an_answer(self) -> None:
        self.assertEqual(self.looks(*[info(unacked=9, silence=3600.0, data=0.2)] * 9), [False] * 9)

    def test_a_peer_without_room_that_answers_probes(self) -> None:
        """Probes come at intervals of up to two minutes: one may be on its way at any look."""
        seen = [
            info(silence=0.3),
            info(silence=60.0),
            info(probes=1, silence=62.0),
            info(silence=1.9),
            info(probes=1, silence=3.9),
            info(probes=1, silence=0.1),
            info(probes=1, silence=1.1),
        ]
        self.assertEqual(self.looks(*seen), [False] * 7)

    def test_a_peer_without_room_that_is_gone(self) -> None:
        seen = [info(silence=60.0), info(probes=1, silence=62.0), info(probes=1, silence=64.0)]
        self.assertEqual(self.looks(*seen), [False, False, True])

    def test_each_answer_begins_the_time_anew(self) -> None:
        seen = [info(unacked=1, silence=0.1 + number % 3 * 2) for number in range(12)]
        self.assertEqual(self.looks(*seen), [False] * 12)


class FakeConnection:
    """A socket of which the kernel knows what a test says."""

    family = socket.AF_INET
    found: TcpInfo | None = TcpInfo(0, 0, 0, 0)
    state = 1
    sent = 60_000
    looks = 0

    def getpeername(self) -> tuple[str, int]:
        return "10.0.0.1", 80

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        self.looks += 1
        if self.found is None:
            raise OSError("closed")
        probes, unacked, data_age, ack_age = self.found[:4]
        rtt, rttvar, rcv_rtt, acked = self.found[4:]
        head = pack("=B2xB20xI16xI4xII", self.state, probes, unacked, self.sent, data_age, ack_age)
        return head + pack("=8xII16xI24xQ", rtt, rttvar, rcv_rtt, acked)


class FakeTransport:
    aborted = 0

    def getPeer(self) -> Any:
        return "somebody"

    def abortConnection(self) -> None:
        self.aborted += 1


class SlowPathsTests(SynchronousTestCase):
    def test_the_longest_of_late(self) -> None:
        paths = SlowPaths()
        self.assertEqual(paths.allowance("a", 0.0), 0.0)
        paths.note("a", 2.0, 0.0)
        paths.note("a", 1.0, 1.0)
        self.assertEqual(paths.allowance("a", 1.0), 4.0)
        self.assertEqual(paths.allowance("b", 1.0), 0.0)
        paths.note("a", 1.0, 6.0)
        self.assertEqual(paths.allowance("a", 6.0), 2.0)
        self.assertEqual(paths.allowance("a", 17.0), 0.0)

    def test_there_is_an_end_to_patience(self) -> None:
        paths = SlowPaths()
        paths.note("a", 1000.0, 0.0)
        self.assertEqual(paths.allowance("a", 1.0), 60.0)


class SweepTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.tuned: dict[int, Any] = {}
        self.patch(dead_peers, "_watched", self.tuned)
        self.clock = Clock()
        self.sweep = PeerSweep(self.clock, SlowPaths())
        self.sweep.start()
        self.addCleanup(self.sweep.stop)

    def add(self, timeout: float = 5.0) -> tuple[FakeTransport, FakeConnection]:
        transport, connection = FakeTransport(), FakeConnection()
        entry = self.tuned[len(self.tuned)] = dead_peers.WatchedConnection(transport)
        entry.connection = connection  # type: ignore[assignment]
        entry.timeout, entry.due, entry.ended, entry.waits_since = timeout, 0.0, False, None
        return transport, connection

    def lapse(self, seconds: float, *silent: FakeConnection) -> None:
        """Let time pass in which nothing is heard of some peers."""
        for _ in range(round(seconds * 20)):
            for each in silent:
                found = each.found
                assert found is not None
                each.found = found._replace(data_age=found.data_age + 50, ack_age=found.ack_age + 50)
            self.clock.advance(0.05)

    def test_a_peer_that_is_gone(self) -> None:
        (good, _), (bad, connection) = self.add(), self.add()
        self.lapse(10)
        connection.found = info(unacked=3)
        with capture() as events:
            self.lapse(3.7, connection)
            self.assertEqual(bad.aborted, 0)
            self.lapse(1.3, connection)
        self.assertEqual((bad.aborted, good.aborted), (1, 0))
        self.assertRegex(
            events.text(), "^somebody is gone: 3 segments without an answer, nothing heard of it for [34]"
        )

    def test_a_reset_that_nobody_would_read(self) -> None:
        (read, one), (ended, other) = self.add(), self.add()
        self.tuned[1].ended = True
        self.lapse(10)
        self.assertEqual((read.aborted, ended.aborted), (0, 0))
        one.state = other.state = 7
        self.lapse(5)
        self.assertEqual((read.aborted, ended.aborted), (0, 1))

    def test_probes_are_told_apart_in_the_log(self) -> None:
        transport, connection = self.add()
        connection.found = info(probes=2)
        with capture() as events:
            self.lapse(5, connection)
        self.assertEqual(transport.aborted, 1)
        self.assertIn("2 probes without an answer", events.text())

    def test_each_has_its_time(self) -> None:
        kept = [self.add(timeout) for timeout in (60.0, 5.0, 2.5)]
        self.lapse(120)
        looks = [connection.looks for _, connection in kept]
        for number, wanted in zip(looks, (10, 120, 240), strict=True):
            self.assertTrue(wanted * 0.9 <= number <= wanted * 1.1, looks)

    def test_within_the_time_whenever_it_begins(self) -> None:
        for timeout in (2.0, 5.0, 60.0):
            for offset in range(12):
                self.tuned.clear()
                transport, connection = self.add(timeout)
                self.lapse(offset * timeout / 37)
                connection.found = info(unacked=1)
                self.lapse(timeout, connection)
                self.assertEqual(transport.aborted, 1, (timeout, offset))

    def test_one_timer_and_short_steps(self) -> None:
        kept = [self.add() for _ in range(2200)]
        self.clock.advance(1.0)
        before = [connection.looks for _, connection in kept]
        self.assertEqual(sum(before), 500)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.lapse(1.0)
        self.assertTrue(all(connection.looks >= 1 for _, connection in kept))
        self.lapse(9.0)
        self.assertTrue(all(8 <= connection.looks <= 11 for _, connection in kept))

    def test_what_is_closed_is_forgotten(self) -> None:
        (_, connection), (_, other) = self.add(), self.add()
        connection.found = None
        self.lapse(2)
        self.assertEqual([entry.connection for entry in self.tuned.values()], [other])

    def test_a_transport_is_not_kept(self) -> None:
        transport, connection = self.add()
        del transport
        gc.collect()
        connection.found = info(unacked=1)
        self.lapse(10, connection)  # there is nothing to abort
        self.assertIsNone(self.tuned[0]())

    def test_others_show_that_the_way_is_slow(self) -> None:
        """Then a connection at rest has as much more time, and no more than that."""
        (busy, one), (resting, other) = self.add(), self.add()
        one.found = info(data=0.0)._replace(rtt=3_000_000)
        other.found = info(probes=1)
        self.lapse(8.0, other)
        self.assertEqual((busy.aborted, resting.aborted), (0, 0))
        self.lapse(3.0, other)
        self.assertEqual((busy.aborted, resting.aborted), (0, 1))

    def test_by_the_first_slow_round_trip(self) -> None:
        """One of 2.8 s, behind many of 1 ms, moves the smoothed one to 0.35 s, and the deviation to 0.7 s."""
        (busy, one), (resting, other) = self.add(), self.add()
        one.found = info(data=0.0)._replace(rtt=350_000, rttvar=700_000)
        other.found = info(probes=1)
        self.lapse(5.5, other)
        self.assertEqual((busy.aborted, resting.aborted), (0, 0))
        self.lapse(3.0, other)
        self.assertEqual((busy.aborted, resting.aborted), (0, 1))

    def test_a_steady_path_gives_no_more_time(self) -> None:
        (_, one), (resting, other) = self.add(), self.add()
        one.found = info(data=0.0)._replace(rtt=300_000, rttvar=20_000)
        other.found = info(probes=1)
        self.lapse(5.0, other)
        self.assertEqual(resting.aborted, 1)

    def test_by_what_comes_as_well(self) -> None:
        (_, one), (resting, other) = self.add(), self.add()
        one.found = info(data=0.0)._replace(rcv_rtt=3_000_000)
        other.found = info(unacked=1)
        self.lapse(8.0, other)
        self.assertEqual(resting.aborted, 0)

    def test_what_was_sent_shows_it_better(self) -> None:
        """What comes seems to take as long as the peer has waited before it sent something."""
        (_, one), (resting, other) = self.add(), self.add()
        one.found = info(data=0.0)._replace(rcv_rtt=3_000_000)
        one.sent = 100
        other.found = info(unacked=1)
        self.lapse(6.0, other)
        self.assertEqual(resting.aborted, 1)

    def test_others_say_nothing_that_are_silent_too(self) -> None:
        (busy, one), (resting, other) = self.add(), self.add()
        one.found = info(unacked=1, silence=4.0, data=4.0)._replace(rtt=9_000_000)
        other.found = info(probes=1)
        self.lapse(5.0, one, other)
        self.assertTrue(busy.aborted)
        self.assertTrue(resting.aborted)

    def test_on_other_ways_nothing_changes(self) -> None:
        (_, one), (resting, other) = self.add(), self.add()
        one.found = info(data=0.0)._replace(rtt=9_000_000)
        one.getpeername = lambda: ("10.0.0.2", 80)  # type: ignore[method-assign]
        other.found = info(probes=1)
        self.lapse(5.0, other)
        self.assertEqual(resting.aborted, 1)

    def test_stop(self) -> None:
        self.sweep.start()
        self.sweep.stop()
        self.sweep.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class Noted(Protocol):
    """A protocol that knows when its connection was lost."""

    lost_at = 0.0

    def connectionLost(self, reason: Any = None) -> None:
        self.lost_at = reactor.seconds()  # type: ignore[attr-defined]


class KernelTests(TestCase):
    """With what the kernel really does, and peers that have three seconds."""

    TIMEOUT = 3.0

    async def connect(self) -> tuple[Any, Any]:
        """Both ends of a connection, tuned."""
        ends: list[Any] = []
        accepted = Noted()
        factory: Any = Factory.forProtocol(lambda: accepted)  # type: ignore[arg-type]
        port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
        self.addCleanup(port.stopListening)
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port)
        ends = [await connectProtocol(endpoint, Noted()), accepted]
        while not accepted.connected:
            await deferLater(reactor, 0.01)
        for end in ends:
            end.transport.getHandle().setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
            tune(end.transport, self.TIMEOUT)
            self.addCleanup(end.transport.abortConnection)
        return ends[0], ends[1]

    async def test_slow_readers_live_and_dead_peers_do_not(self) -> None:
        sweep = PeerSweep(reactor)  # type: ignore[arg-type]
        sweep.start()
        self.addCleanup(sweep.stop)
        rest, busy, slow, alive = [await self.connect() for _ in range(4)]
        for writer, reader in (slow, alive):
            reader.transport.pauseProducing()
            writer.transport.write(b"x" * 8_000_000)
        await deferLater(reactor, self.TIMEOUT * 1.7)
        for end in (*rest, *busy, *slow, *alive):
            self.assertTrue(end.connected and not end.lost_at)

        began = reactor.seconds()  # type: ignore[attr-defined]
        for pair in (rest, busy, slow):
            blackhole(*(end.transport.getHandle() for end in pair))
        for end in busy:
            end.transport.write(b"x")
        await deferLater(reactor, self.TIMEOUT)
        taken = {
            name: [end.lost_at - began for end in pair]
            for name, pair in (("rest", rest), ("busy", busy), ("slow", slow))
        }
        for name, times in taken.items():
            for seconds in times:
                self.assertTrue(0 < seconds <= self.TIMEOUT + 0.2, (name, taken))
        self.assertFalse(any(end.lost_at for end in alive))
