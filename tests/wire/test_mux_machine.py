"""
Two ends of a multiplexed connection, used at random.

The bytes between them are cut anywhere and delayed at will.  Frames are checked
by code that knows yamux but not the module, and what arrives against what was
sent.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import NoMoreStreams
from reverseproxy.wire.window import RESERVE, Reserve
from reverseproxy.wire.yamux.events import (
    INITIAL_WINDOW,
    MIN_WINDOW,
    SMALL_WINDOW,
    Credit,
    Data,
    Ended,
    GoneAway,
    MuxLimits,
    Opened,
    Pong,
    Reset,
)
from reverseproxy.wire.yamux.session import Mux
from tests import most
from tests.wire.mux_frames import ACK, DATA, FIN, GO_AWAY, PING, RST, SYN, UPDATE, frames

PERIOD = 1 << 19

PATTERN = random.Random(4).randbytes(PERIOD) * 2
"""What streams carry: each begins elsewhere, so that bytes at a wrong place show."""

SIZES = st.sampled_from([1, 2, 100, 5_000, 32_000, 32_768, 40_000, 70_000, 140_000, 300_000])

LIMITS = [
    MuxLimits(),
    MuxLimits(window=INITIAL_WINDOW + 1000, max_frame=1000),
    MuxLimits(max_window=INITIAL_WINDOW * 2, receive_budget=INITIAL_WINDOW * 64, max_frame=16384),
    MuxLimits(max_streams=3, accept_backlog=2),
]


def pattern(stream: int, sender: int, offset: int, size: int) -> bytes:
    start = (stream * 7919 + sender * 104_729 + offset) % PERIOD
    return PATTERN[start : start + size]


@dataclass
class Side:
    """What one end has done with a stream, and has seen of it."""

    credit: int  # that has arrived
    sent: int = 0
    received: int = 0
    unconsumed: int = 0
    ended: bool = False
    saw_end: bool = False
    reset: bool = False
    saw_reset: bool = False
    known: bool = False
    answered: bool = False
    # on the wire, as this end has put it there
    syn: bool = False
    ack: bool = False
    fin: bool = False
    rst: bool = False
    on_wire: int = 0

    @property
    def over(self) -> bool:
        return self.reset or self.saw_reset


@dataclass
class Line:
    """One direction of the connection."""

    data: bytearray = field(default_factory=bytearray)
    put: int = 0
    got: int = 0
    updates: list[tuple[int, int, int]] = field(default_factory=list)  # where it ends, stream, credit


class MuxMachine(RuleBasedStateMachine):
    streams: Bundle[int] = Bundle("streams")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.sides: dict[int, tuple[Side, Side]] = {}
        self.lines = (Line(), Line())  # by who sends
        self.asked: tuple[list[int], list[int]] = ([], [])
        self.gone = [False, False]
        self.last_syn = [0, 0]

    @initialize(
        limits=st.tuples(st.sampled_from(LIMITS), st.sampled_from(LIMITS)),
        fast=st.booleans(),
        first=st.sampled_from([INITIAL_WINDOW, SMALL_WINDOW, MIN_WINDOW]),
        reserve=st.sampled_from([0, 1_000_000, RESERVE]),
    )
    def begin(self, limits: tuple[MuxLimits, MuxLimits], fast: bool, first: int, reserve: int) -> None:
        self.first = first
        more = first - INITIAL_WINDOW
        self.limits = limits = tuple(replace(each, first=first, window=each.window + more) for each in limits)
        self.reserve = Reserve(reserve)
        self.ends = (Mux(True, limits[0], self.reserve), Mux(False, limits[1], self.reserve))
        if fast:
            for mux in self.ends:
                mux.growth.measured(1.0, 0.0)

    # what owners do

    @rule(target=streams, who=st.integers(0, 1))
    def open(self, who: int) -> Any:
        mux = self.ends[who]
        room = mux.room
        try:
            number = mux.open()
        except NoMoreStreams:
            assert not room
            assert mux.local_goaway or mux.remote_goaway or mux.streams >= self.limits[who].max_streams
            return multiple()
        assert room
        assert number & 1 == 1 - who
        assert number not in self.sides
        self.sides[number] = (Side(credit=self.first), Side(credit=self.first))
        self.sides[number][who].known = True
        return number

    @rule(stream=streams, who=st.integers(0, 1), size=SIZES, limit=st.sampled_from([0, 65_536]))
    def send_often(self, stream: int, who: int, size: int, limit: int) -> None:
        for _ in range(12):
            self.send(stream, who, size)
            self.take(who, limit)

    @rule(stream=streams, who=st.integers(0, 1), size=SIZES)
    def send(self, stream: int, who: int, size: int) -> None:
        side = self.sides[stream][who]
        if not side.known:
            return
        self.ends[who].send(stream, pattern(stream, who, side.sent, size))
        if not (side.ended or side.over):
            side.sent += size
            side.answered = True
        assert side.sent - side.on_wire >= self.ends[who].pending(stream)

    @rule(stream=streams, who=st.integers(0, 1))
    def end(self, stream: int, who: int) -> None:
        side = self.sides[stream][who]
        if side.known:
            self.ends[who].end(stream)
            side.ended = side.ended or not side.over
            side.answered = True

    @rule(stream=consumes(streams), who=st.integers(0, 1), refuse=st.booleans())
    def reset(self, stream: int, who: int, refuse: bool) -> None:
        side = self.sides[stream][who]
        if not side.known:
            return
        mine = stream & 1 == 1 - who
        if refuse and not mine and not side.answered:
            self.ends[who].refuse(stream)
        else:
            self.ends[who].reset(stream)
            side.answered = True
        side.reset = True
        side.unconsumed = 0
        assert not self.ends[who].pending(stream)

    @rule(stream=streams, who=st.integers(0, 1), share=st.sampled_from([0.1, 0.5, 1.0]))
    def consume(self, stream: int, who: int, share: float) -> None:
        side = self.sides[stream][who]
        size = int(side.unconsumed * share)
        if size:
            self.ends[who].consumed(stream, size, self.now)
            side.unconsumed -= size

    @rule(who=st.integers(0, 1), token=st.integers(0, 0xFFFFFFFF))
    def ping(self, who: int, token: int) -> None:
        self.ends[who].ping(token)
        self.asked[who].append(token)

    @rule(who=st.integers(0, 1), really=st.integers(0, 3))
    def go_away(self, who: int, really: int) -> None:
        if not really:
            self.ends[who].go_away()
            self.gone[who] = True

    @rule(seconds=st.sampled_from([0.1, 1.0, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # the connection

    @rule(who=st.integers(0, 1), limit=st.sampled_from([0, 1, 10_000, 65_536, 1 << 20]))
    def take(self, who: int, limit: int) -> None:
        mux = self.ends[who]
        expected = mux.has_output
        data = mux.take(limit)
        assert expected or not data
        self.check_frames(who, data)

    @rule(who=st.integers(0, 1), size=st.sampled_from([12, 1000, 50_000, 1 << 30]))
    def carry(self, who: int, size: int) -> None:
        self.take(who, 1 << 20)
        self.deliver(1 - who, size)

    @rule(share=st.sampled_from([0.4, 1.0]))
    def go_round(self, share: float) -> None:
        """Let both ends have what there is, and make use of it."""
        for who in (0, 1):
            self.carry(who, 1 << 30)
            for stream in self.sides:
                self.consume(stream, 1 - who, share)

    def check_frames(self, who: int, data: bytes) -> None:
        line = self.lines[who]
        for kind, flags, stream, length, payload in frames(data):
            line.put += 12 + len(payload)
            if kind in (PING, GO_AWAY):
                assert not stream
                continue
            mine = stream & 1 == 1 - who
            side = self.sides[stream][who]
            assert not side.rst, "a frame behind a reset"
            if mine and not side.syn:
                assert flags & SYN
                assert stream > self.last_syn[who]
                self.last_syn[who] = stream
                side.syn = True
            else:
                assert not flags & SYN
            if flags & ACK:
                assert not mine
                assert not side.ack
                side.ack = True
            if kind == DATA:
                assert not side.fin, "data behind the end"
                assert 0 < length <= self.limits[who].max_frame
                assert mine or side.ack
                side.on_wire += length
                assert side.on_wire <= side.credit, "more data than credit"
            else:
                assert kind == UPDATE
                line.updates.append((line.put, stream, length))
            if flags & FIN:
                assert not side.fin
                side.fin = True
            if flags & RST:
                side.rst = True
        line.data += data

    @rule(who=st.integers(0, 1), size=st.sampled_from([1, 7, 12, 13, 1000, 50_000, 1 << 30]))
    def deliver(self, who: int, size: int) -> None:
        """Carry some bytes to an end."""
        line = self.lines[1 - who]
        data = bytes(line.data[:size])
        del line.data[:size]
        line.got += len(data)
        while line.updates and line.updates[0][0] <= line.got:
            _, stream, credit = line.updates.pop(0)
            self.sides[stream][who].credit += credit
        self.check_events(who, self.ends[who].feed(data, self.now))

    def check_events(self, who: int, events: Iterable[Any]) -> None:
        for event in events:
            if isinstance(event, Pong):
                assert event.token == self.asked[who].pop(0)
                continue
            if isinstance(event, GoneAway):
                assert self.gone[1 - who]
                continue
            side, other = self.sides[event.stream][who], self.sides[event.stream][1 - who]
            assert not side.over, "something came for a stream that was reset"
            match event:
                case Opened(stream=stream):
                    assert stream & 1 == who
                    assert not side.known
                    side.known = True
                case Data(stream=stream, data=data):
                    assert side.known
                    assert not side.saw_end
                    assert data == pattern(stream, 1 - who, side.received, len(data))
                    side.received += len(data)
                    side.unconsumed += len(data)
                    assert side.received <= other.sent
                case Ended():
                    assert not side.saw_end
                    assert other.ended
                    assert side.received == other.sent
                    side.saw_end = True
                case Reset(stream=stream, remote=remote, refused=refused):
                    assert remote
                    # Those that it has no room for are reset by the module itself.
                    assert other.reset or not other.known
                    assert refused == (stream & 1 == 1 - who and not other.ack)
                    if refused:
                        assert not other.answered
                    side.saw_reset = True
                    side.unconsumed = 0
                case Credit():
                    assert not side.ended

    @invariant()
    def within_bounds(self) -> None:
        for who, mux in enumerate(getattr(self, "ends", ())):
            assert mux.streams <= self.limits[who].max_streams
            assert mux.held >= 0
            assert 0 <= mux.growth.grown <= self.limits[who].receive_budget
        if hasattr(self, "ends"):
            assert self.reserve.taken == sum(mux.growth.grown for mux in self.ends) <= self.reserve.limit

    # the end

    def settle(self) -> None:
        """Let everything happen that has to."""
        for _ in range(10_000):
            for who in (0, 1):
                self.take(who, 1 << 20)
                self.deliver(1 - who, 1 << 30)
                for stream in self.sides:
                    self.consume(stream, 1 - who, 1.0)
            if not (self.ends[0].has_output or self.ends[1].has_output):
                return
        raise AssertionError("it goes on without end")

    def teardown(self) -> None:
        if not hasattr(self, "ends"):
            return
        self.settle()
        for stream, sides in self.sides.items():
            if any(side.over for side in sides):
                continue
            for side, other in (sides, sides[::-1]):
                if other.known:
                    assert other.received == side.sent == side.on_wire, (stream, sides)
                    assert other.saw_end == side.ended
            for who in (0, 1):
                self.end(stream, who)
        self.settle()
        assert self.asked == ([], [])
        for mux in self.ends:
            assert not mux.streams
            assert (mux.held, mux.growth.grown) == (0, 0)
            assert not mux.output._ready
            assert not mux.output._brief
            assert not mux.output.unacknowledged
        assert (self.reserve.taken, self.reserve.streams) == (0, 0)


class MuxMachineTests(SynchronousTestCase):
    def test_two_ends(self) -> None:
        run_state_machine_as_test(
            MuxMachine, settings=settings(max_examples=most(100), stateful_step_count=60, deadline=None)
        )
