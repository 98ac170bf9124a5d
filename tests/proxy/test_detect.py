from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.interfaces import ConnectionInfo, IDrainable
from reverseproxy.proxy import detect
from reverseproxy.proxy.closing import FRESH, QUIET
from reverseproxy.proxy.detect import (
    DETECT_LIMIT,
    Candidate,
    Detector,
    DetectorSettings,
    detect_http1,
    detect_http2,
)
from reverseproxy.wire.rpc.bolt import Bolt
from reverseproxy.wire.rpc.dubbo import Dubbo
from tests.cluster.fakes import HalfUser, User
from tests.proxy.memory import Wire

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


@implementer(IDrainable)
class Drainable(User):
    busy = False

    def drain(self) -> None:
        self.events.append("drain")


class MatcherTests(SynchronousTestCase):
    def test_http1(self) -> None:
        for data in (
            b"GET / HTTP/1.1\r\n",
            b"POST ",
            b"OPTIONS *",
            b"PROPFIND /",
            b"PUT /",
            b"PRINT /",
            b"P /",
            b"NONSENSE x",
            b"get /",
            b"M-SEARCH *",
            b"RDG_OUT_DATA /",
            b"foo https:",
            b"!#$%&'*+.^_`|~09 HTTP:",
            b"x" * 64 + b" /",
            b"\r\n\r\nGET /",
            b"\nget /",
        ):
            self.assertIs(detect_http1(data), True, data)
        for data in (
            b"G",
            b"GET",
            b"PRI",
            b"PROPFIND",
            b"A" * 64,
            b"get",
            b"get ",
            b"x htTPs",
            b"\r\n",
            b"\r",
        ):
            self.assertIsNone(detect_http1(data), data)
        for data in (
            b"\1",
            b"get key",
            b"get hta",
            b"set httpx",
            b"\r\n\r\n GET /",
            b"\r\nPRI *",
            b" GET",
            b"GE\0",
            b"PRI * HTTP/2.0",
            b"A" * 65,
            b"A" * 65 + b" /",
            b"GET\r\n",
        ):
            self.assertIs(detect_http1(data), False, data)

    def test_http2(self) -> None:
        self.assertIs(detect_http2(PREFACE), True)
        self.assertIs(detect_http2(PREFACE + b"\0\0"), True)
        for end in range(1, len(PREFACE)):
            self.assertIsNone(detect_http2(PREFACE[:end]))
            self.assertIs(detect_http2(PREFACE[: end - 1] + b"\0"), False)


class DetectorTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.built: list[tuple[str, Any]] = []

    def candidate(self, name: str, detect: Any, make: Any = User) -> Candidate:
        def build(info: ConnectionInfo) -> Any:
            protocol = make()
            self.built.append((name, protocol))
            return protocol

        return Candidate(name, detect, build)

    def connect(
        self, make: Any = User, *, reverse: bool = False, fallback: bool = False, secure: bool = False
    ) -> Wire:
        candidates = [
            self.candidate("Http1", detect_http1, make),
            self.candidate("Http2", detect_http2, make),
            self.candidate("bolt", Bolt().detect, make),
            self.candidate("boltv2", Bolt(2).detect, make),
            self.candidate("dubbo", Dubbo().detect, make),
        ]
        settings = DetectorSettings(
            "test",
            candidates,
            self.clock,
            None if reverse else 90.0,
            self.candidate("next", None).build if fallback else None,
        )
        info = ConnectionInfo("10.0.0.1:1", "10.0.0.2:2", reverse=reverse, secure=secure)
        return Wire(self.clock).connect(Detector(settings, info))


class DetectorTests(DetectorTestCase):
    def test_each(self) -> None:
        for name, data in (
            ("Http1", b"GET / HTTP/1.1\r\n\r\n"),
            ("Http2", PREFACE + b"\0\0\0"),
            ("bolt", b"\1\1\0"),
            ("boltv2", b"\2\1\1"),
            ("dubbo", b"\xda\xbb\xc2"),
        ):
            for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
                self.built.clear()
                wire = self.connect()
                for piece in pieces:
                    wire.send(piece)
                [(found, protocol)] = self.built
                self.assertEqual(found, name)
                self.assertEqual(protocol.events[0], "made")
                self.assertEqual(b"".join(protocol.events[1:]), data)
                self.assertEqual(self.clock.getDelayedCalls(), [])
                wire.reset()
                self.assertEqual(protocol.events[-1], "lost")

    def test_agreed_on(self) -> None:
        """Who has agreed on HTTP/2 speaks it, or makes a mistake in it."""
        self.patch(detect, "negotiated_protocol", lambda transport: "h2")
        for secure, expected in ((True, "Http2"), (False, "Http1")):
            self.built.clear()
            self.connect(secure=secure).send(b"GET / HTTP/1.1\r\n\r\n")
            [(found, _)] = self.built
            self.assertEqual(found, expected)

    def test_none(self) -> None:
        for data in (b"\x16\x03\x01", b"\xda\xbc", b"hello \xe9\r\n", b"GE\0"):
            wire = self.connect()
            wire.send(data)
            self.clock.advance(0)
            self.assertTrue(wire.aborted)
            self.assertEqual(self.built, [])
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_text(self) -> None:
        """HTTP/1 says what is wrong with it."""
        for data in (
            b"hello, you\r\n",
            b"PRI * HTTP/1.1",
            b"GE(",
            b"x" * 65 + b" / HTTP/1.1",
            b"SSH-2.0-x\r\n",
        ):
            for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
                self.built.clear()
                wire = self.connect()
                for piece in pieces:
                    wire.send(piece)
                [(found, protocol)] = self.built
                self.assertEqual((found, b"".join(protocol.events[1:])), ("Http1", data))
                self.assertFalse(wire.aborted)

    def test_text_without_http1(self) -> None:
        settings = DetectorSettings("test", [self.candidate("bolt", Bolt().detect)], self.clock)
        wire = Wire(self.clock).connect(Detector(settings, ConnectionInfo("10.0.0.1:1", "10.0.0.2:2")))
        wire.send(b"GE(")
        self.assertTrue(wire.aborted)
        self.assertEqual(self.built, [])

    def test_fallback(self) -> None:
        wire = self.connect(fallback=True)
        wire.send(b"\x16\x03\x01")
        [(found, protocol)] = self.built
        self.assertEqual((found, protocol.events), ("next", ["made", b"\x16\x03\x01"]))
        self.assertFalse(wire.aborted)

    def test_a_candidate_that_never_knows(self) -> None:
        settings = DetectorSettings("test", [self.candidate("shy", lambda data: None)], self.clock)
        wire = Wire(self.clock).connect(Detector(settings, ConnectionInfo("10.0.0.1:1", "10.0.0.2:2")))
        wire.send(b"x" * (DETECT_LIMIT - 1))
        self.assertFalse(wire.aborted)
        wire.send(b"x")
        self.assertTrue(wire.aborted)

    def test_deadline(self) -> None:
        wire = self.connect()
        wire.send(b"G")
        self.clock.advance(10)
        wire.send(b"E")
        self.clock.advance(4.9)
        self.assertFalse(wire.aborted)
        self.clock.advance(0.2)
        self.assertTrue(wire.aborted)

    def test_silence(self) -> None:
        wire = self.connect()
        self.clock.advance(89)
        self.assertFalse(wire.lost)
        self.clock.advance(1)
        self.clock.advance(0)
        self.assertTrue(wire.lost)
        self.assertFalse(wire.aborted)

    def test_silence_of_ours(self) -> None:
        """Without a turn for long, this process hears late of the first byte."""
        wire = self.connect()
        self.clock.advance(89)
        self.clock.advance(300)
        self.clock.advance(0)
        self.assertFalse(wire.lost)
        wire.send(b"\1")
        self.assertEqual(self.built[0][0], "bolt")

    def test_silence_of_a_reverse_connection(self) -> None:
        wire = self.connect(reverse=True)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.clock.advance(1e6)
        wire.send(b"\1")
        self.assertEqual(self.built[0][0], "bolt")

    def test_end_of_file(self) -> None:
        wire = self.connect()
        wire.send(b"G")
        wire.end()
        self.clock.advance(0)
        self.assertTrue(wire.lost)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_end_of_file_later(self) -> None:
        wire = self.connect(HalfUser)
        wire.send(b"GET ")
        wire.end()
        self.assertEqual(self.built[0][1].events, ["made", b"GET ", "read lost"])

    def test_lost(self) -> None:
        wire = self.connect()
        wire.send(b"G")
        wire.reset()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class DrainTests(DetectorTestCase):
    def test_interface(self) -> None:
        verifyObject(IDrainable, self.connect().protocol)

    def test_before_the_first_byte(self) -> None:
        wire = self.connect()
        self.assertFalse(wire.protocol.busy)
        self.clock.advance(FRESH)
        wire.protocol.drain()
        self.clock.advance(0)
        self.assertTrue(wire.lost)

    def test_a_fresh_one(self) -> None:
        """The first byte may be on its way."""
        wire = self.connect()
        wire.protocol.drain()
        self.clock.advance(QUIET - 0.1)
        self.assertFalse(wire.lost)
        self.clock.advance(0.1)
        self.clock.advance(0)
        self.assertTrue(wire.lost)

    def test_a_silent_reverse_connection(self) -> None:
        wire = self.connect(Drainable, reverse=True)
        wire.protocol.drain()
        self.clock.advance(0)
        self.assertFalse(wire.lost)
        self.assertFalse(wire.protocol.busy)
        wire.send(b"\1")
        self.assertEqual(self.built[0][1].events, ["made", b"\1", "drain"])

    def test_after_the_first_byte(self) -> None:
        wire = self.connect(Drainable)
        wire.send(b"G")
        self.assertTrue(wire.protocol.busy)
        wire.protocol.drain()
        wire.send(b"ET ")
        self.assertEqual(self.built[0][1].events, ["made", b"GET ", "drain"])

    def test_when_it_is_known(self) -> None:
        wire = self.connect(Drainable)
        wire.send(b"GET ")
        self.assertFalse(wire.protocol.busy)
        self.built[0][1].busy = True
        self.assertTrue(wire.protocol.busy)
        wire.protocol.drain()
        self.assertEqual(self.built[0][1].events[-1], "drain")

    def test_a_protocol_that_can_t_drain(self) -> None:
        wire = self.connect(Protocol)
        wire.send(b"GET ")
        self.assertTrue(wire.protocol.busy)
        wire.protocol.drain()
        self.clock.advance(0)
        self.assertTrue(wire.lost)
