"""Tests for L{reverseproxy.tls.gate}: the name in a handshake, and the Host of a request."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import TlsContextConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.tls.contexts import Demands
from reverseproxy.tls.gate import Gate, gate_of
from reverseproxy.tls.server_contexts import ServerTls
from tests.certs import Certificates
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import World
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET

ROUTES: list[dict[str, Any]] = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c"}}]


class DemandsTests(SynchronousTestCase):
    def test_covers(self) -> None:
        none = Demands()
        for mine, theirs, covers in (
            (none, none, True),
            (Demands(2, "a"), none, True),
            (none, Demands(1, "a"), False),
            (Demands(1, "a"), Demands(2, "a"), False),
            (Demands(2, "a"), Demands(1, "a"), True),
            (Demands(2, "a"), Demands(2, "a"), True),
            (Demands(2, "a"), Demands(2, "b"), False),
            (Demands(2, "a"), Demands(2, "a", "revoked"), False),
        ):
            self.assertEqual(mine.covers(theirs), covers, (mine, theirs))


class GateTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.certs = Certificates(self.mktemp())

    def context(self, *names: str, level: int = 0, ca: str = "", **more: Any) -> TlsContextConfig:
        pair = self.certs.issue(names[0].replace("*", "any"), *names)
        if level:
            more = {"ca_cert": ca or self.certs.ca, "verify_client": True, **more}
        return TlsContextConfig(status=True, **pair.options, require_client_cert=level == 2, **more)

    def gate(self, tls: ServerTls, name: str, alpn: tuple[str, ...] = ()) -> Gate:
        return Gate(tls, tls.select(name, alpn), name, alpn[0] if alpn else None)


class GateTests(GateTestCase):
    def check(self, tls: ServerTls, name: str, refused: bytes, taken: bytes, always: bool = False) -> None:
        gate = self.gate(tls, name)
        for host in refused.split():
            self.assertTrue(gate.misdirects(host, always), (name, host))
        for host in [*taken.split(), *taken.split(), *([] if always else [b""])]:
            if host or not tls.select("", ()).demands.level:
                self.assertFalse(gate.misdirects(host, always), (name, host))
        for host in refused.split():
            self.assertTrue(gate.misdirects(host, always), (name, host))

    def test_open_by_default(self) -> None:
        tls = ServerTls(
            [self.context("open.example"), self.context("secure.example", "*.in.example", level=2)]
        )
        self.assertTrue(tls.differs)
        secure = (
            b"secure.example secure.example:443 SECURE.Example secure.example. secure.example.:443 "
            b"a.in.example A.IN.EXAMPLE:1 a.b.in.example"
        )
        others = b"open.example open.example:8443 else.example 127.0.0.1:443 [::1]:443 localhost"
        self.check(tls, "open.example", secure, others)
        self.check(tls, "", secure, others)
        self.check(tls, "else.example", secure, others)
        self.check(tls, "secure.example", b"", secure + b" " + others)
        self.check(tls, "x.in.example", b"", secure + b" " + others)

    def test_closed_by_default(self) -> None:
        """What has no context of its own has the first one's."""
        tls = ServerTls([self.context("secure.example", level=2), self.context("open.example")])
        self.check(tls, "open.example", b"secure.example else.example 127.0.0.1 [::1]:1", b"open.example:443")
        self.assertTrue(self.gate(tls, "open.example").misdirects(b"", False))
        self.check(tls, "", b"", b"secure.example open.example else.example")

    def test_other_authorities(self) -> None:
        tls = ServerTls(
            [self.context("a.example", level=2), self.context("b.example", level=2, ca=self.certs.wrong_ca)]
        )
        self.check(tls, "a.example", b"b.example", b"a.example c.example")
        self.check(tls, "b.example", b"a.example c.example", b"b.example")

    def test_optional_certificates(self) -> None:
        tls = ServerTls([self.context("a.example", level=1), self.context("b.example", level=2)])
        self.check(tls, "a.example", b"b.example", b"a.example")
        self.check(tls, "b.example", b"", b"a.example b.example")

    def test_no_difference(self) -> None:
        for level in (0, 2):
            tls = ServerTls([self.context("a.example", level=level), self.context("b.example", level=level)])
            self.assertFalse(tls.differs)
            self.check(tls, "a.example", b"", b"a.example b.example c.example")

    def test_always(self) -> None:
        tls = ServerTls([self.context("a.example")])
        self.check(tls, "a.example", b"b.example 127.0.0.1 [::1]", b"a.example A.example.:443", always=True)
        self.check(tls, "", b"", b"a.example b.example", always=True)

    def test_application_protocols(self) -> None:
        """Where those have chosen, they would have done so for another name as well."""
        tls = ServerTls([self.context("a.example", level=2), self.context("b.example", alpn="h2,http/1.1")])
        gate = self.gate(tls, "", ("h2",))
        self.assertFalse(gate.misdirects(b"else.example", False))
        self.assertTrue(gate.misdirects(b"a.example", False))

    def test_plaintext(self) -> None:
        self.assertIsNone(gate_of(StringTransport(), None))
        self.assertIsNone(gate_of(StringTransport(), ServerTls([self.context("a.example")])))


class RequestTests(GateTestCase):
    """What clients hear of it."""

    def setUp(self) -> None:
        super().setUp()
        contexts = [self.context("open.example"), self.context("secure.example", level=2)]
        self.tls = ServerTls(contexts)

    def info(self, name: str) -> dict[str, Any]:
        return {"secure": True, "gate": self.gate(self.tls, name)}

    def test_http1(self) -> None:
        for check, statuses in (
            ("demands", {b"secure.example": 421, b"open.example": 200, b"else.example": 200}),
            ("always", {b"secure.example": 421, b"open.example:443": 200, b"else.example": 421}),
            ("never", {b"secure.example": 200, b"open.example": 200, b"else.example": 200}),
        ):
            world = World(routes=ROUTES, sni_check=check, error_details=False)
            client = world.client(**self.info("open.example"))
            before = REFUSALS["misdirected"]
            for host, status in statuses.items():
                for data in (
                    get().replace(b"Host: a", b"Host: " + host),
                    get().replace(b"GET /", b"GET http://" + host + b"/"),
                ):
                    client.send(data)
                    if status == 200:
                        world.host().send(respond(b"Content-Length: 0"))
                    answer = client.take()
                    self.assertEqual(int(answer[9:12]), status, (check, host, answer))
                    if status == 421:
                        self.assertIn(b"the TLS handshake of this connection was for another host", answer)
            self.assertFalse(client.disconnecting)
            refused = sum(status == 421 for status in statuses.values())
            self.assertEqual(REFUSALS["misdirected"] - before, 2 * refused)

    def test_http2(self) -> None:
        http1 = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c", "upstream_protocol": "Http1"}}]
        world = Http2World(routes=http1, error_details=False)
        client = world.connect(**self.info("open.example"))
        fields = [field for field in GET if field[0] != b":authority"]
        number = client.ask([*fields[:3], (b":authority", b"secure.example"), *fields[3:]])
        self.assertEqual(client[number].status, 421)
        number = client.ask([*fields, (b"host", b"secure.example")])
        self.assertEqual(client[number].status, 421)
        number = client.ask([*fields[:3], (b":authority", b"open.example"), *fields[3:]])
        world.host().send(respond(b"Content-Length: 0"))
        self.assertEqual(client[number].status, 200)

    def test_where_all_is_alike_nothing_is_compared(self) -> None:
        tls = ServerTls([self.context("open.example")])
        world = World(routes=ROUTES)
        gate = self.gate(tls, "open.example")
        info = ConnectionInfo("10.9.9.9:1", "10.0.0.1:80", secure=True, gate=gate)
        self.assertIsNone(world.settings.gate_of(info))
        self.assertIsNone(world.settings.gate_of(ConnectionInfo("10.9.9.9:1", "10.0.0.1:80")))
