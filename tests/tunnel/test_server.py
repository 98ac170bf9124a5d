"""Tests for L{reverseproxy.tunnel.server.filter}."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.models import ClusterConfig, TunnelConfig
from reverseproxy.errors import ConfigError
from reverseproxy.identity import UNPROVED, AgentIdentity, CertificateSubject, shown_agent_id
from reverseproxy.interfaces import ConnectionInfo, Identity
from reverseproxy.logs.folding import PERIOD
from reverseproxy.problems import PART
from reverseproxy.tunnel.server.connection import HandshakePhase, TunnelConnection
from reverseproxy.tunnel.server.filter import TunnelServer
from reverseproxy.tunnel.server.guesses import FREE
from reverseproxy.wire.mosn.extensions import Announcement, CloseProof
from reverseproxy.wire.mosn.frames import (
    ConnectionInit,
    Frame,
    FrameDecoder,
    GracefulClose,
    InitResponse,
    Status,
    encode,
)
from tests.tunnel.logged import capture

SUCCESS = b'\x20\x88\x01\x02\x02\x00\x00\x0c{"status":1}'


class Judge:
    """A validator that answers what, and when, the test wants."""

    def __init__(self) -> None:
        self.verdict: Any = None

    def validate(self, credential: str, host_name: str, cluster_name: str) -> Any:
        self.asked = (credential, host_name, cluster_name)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class Connection:
    """One accepted connection and its transport."""

    def __init__(self, server: TunnelServer, info: ConnectionInfo) -> None:
        self.transport = StringTransport()
        self.transport.producerState = "producing"
        self.protocol: TunnelConnection = server.build_protocol(info)
        self.transport.registerProducer(object(), True)
        self.protocol.makeConnection(self.transport)

    def receive(self, data: bytes | Frame) -> None:
        self.protocol.dataReceived(data if isinstance(data, bytes) else encode(data))

    def answer(self) -> Frame | None:
        return FrameDecoder().feed(self.transport.value())

    @property
    def closed(self) -> bool:
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def lose(self) -> None:
        self.protocol.connectionLost(Failure(ConnectionDone()))


class ServerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.judge = Judge()
        self.built = 0
        config = ClusterConfig(name="blue")
        self.cluster = Cluster(config, make_balancer(config, Random(1)), self.clock)
        self.clusters = ClusterManager([self.cluster])
        self.port = 50000

    def server(self, **config: Any) -> TunnelServer:
        def find_validator(policy: str, options: Mapping[str, Any]) -> Judge:
            if policy not in ("judge", "other"):
                raise ValueError(f"no policy {policy}")
            self.built += 1
            return self.judge

        config.setdefault("validators", {"judge": {}})
        server = TunnelServer(
            "tunnel", TunnelConfig(**config), self.clusters, self.clock, find_validator, ("judge", "needy")
        )
        self.registry = server.registry
        return server

    def connect(self, server: TunnelServer, ip: str = "10.0.0.1", **info: Any) -> Connection:
        self.port += 1
        return Connection(server, ConnectionInfo(remote=f"{ip}:{self.port}", local="10.9.9.9:1", **info))

    def join(self, server: TunnelServer, ip: str = "10.0.0.1", init: Any = None, **info: Any) -> Connection:
        connection = self.connect(server, ip, **info)
        connection.receive(ConnectionInit("blue") if init is None else init)
        self.clock.advance(0.02)
        return connection

    # joining

    def test_a_connection_becomes_a_host(self) -> None:
        connection = self.connect(self.server())
        connection.receive(ConnectionInit("blue", weight=7, host_name="edge"))
        self.assertEqual(connection.transport.value(), SUCCESS)
        # Not before the response is out: a plain agent can't take both in one read.
        self.assertEqual(self.cluster.hosts, {})
        self.clock.advance(0.019)
        self.assertEqual(self.cluster.hosts, {})
        self.clock.advance(0.001)
        [host] = self.cluster.hosts.values()
        self.assertEqual((host.address, host.hostname, host.weight), ("10.0.0.1:50001", "edge", 7))
        self.assertFalse(connection.closed)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_phases(self) -> None:
        """How far a connection has come follows from what it waits for."""
        server = self.server()
        connection = self.connect(server)
        phases = [connection.protocol.phase]
        frame = encode(ConnectionInit("blue", credential_policy="judge", credential="x"))
        connection.receive(frame[:5])
        phases.append(connection.protocol.phase)
        self.judge.verdict = verdict = Deferred()
        connection.receive(frame[5:])
        phases.append(connection.protocol.phase)
        verdict.callback(Identity(""))
        phases.append(connection.protocol.phase)
        connection.lose()
        phases.append(connection.protocol.phase)
        self.assertEqual(
            phases,
            [
                HandshakePhase.SILENT,
                HandshakePhase.READING,
                HandshakePhase.JUDGING,
                HandshakePhase.JOINED,
                HandshakePhase.LOST,
            ],
        )
        refused = self.connect(server)
        refused.receive(b"GET / HTTP/1.1\r\n\r\n")
        self.assertIs(refused.protocol.phase, HandshakePhase.CLOSING)
        refused.receive(frame)
        self.assertIs(refused.protocol.phase, HandshakePhase.CLOSING)

    def joined_by(self, connection: Connection) -> tuple[AgentIdentity, str]:
        """Who the last host is of, and what the log says when it leaves."""
        host = list(self.cluster.hosts.values())[-1]
        assert host.identity is not None
        with capture() as events:
            connection.lose()
        return host.identity, events.text()

    def test_identity_by_token(self) -> None:
        """The proved name counts, in the log too, and the one that is claimed is marked as such."""
        server = self.server(credential_policy="judge")
        self.judge.verdict = Identity("edge-7")
        extra = Announcement("secret-id", "192.168.0.2:4000").to_extra()
        init = ConnectionInit(
            "blue", host_name="boss", credential_policy="judge", credential="x", extra=extra
        )
        with capture() as events:
            connection = self.join(server, init=init)
        who = 'of agent edge-7 (token of policy judge) that calls itself "boss"'
        self.assertEqual(
            events.text(), f"cluster blue: host 10.0.0.1:50001 {who} joined with weight 10, 1 host now"
        )
        self.assertEqual((events[0]["identity"], events[0]["claimed_host_name"]), ("token:edge-7", "boss"))
        identity, text = self.joined_by(connection)
        self.assertEqual((identity.principal, identity.version), ("token:edge-7", 1))
        self.assertEqual(identity.agent_id, shown_agent_id("secret-id"))
        self.assertNotIn("secret-id", events.text() + text)
        self.assertEqual(
            text,
            f"cluster blue: host 10.0.0.1:50001 {who} left, 0 hosts now: "
            "connection lost: the other end closed the connection",
        )

    def test_identity_by_certificate(self) -> None:
        subject = CertificateSubject("x509:ab", "CN=edge-7")
        connection = self.join(self.server(), identity=subject.key, subject=subject, secure=True)
        identity, text = self.joined_by(connection)
        self.assertEqual(identity.certificate, subject)
        self.assertIn("host 10.0.0.1:50001 of agent CN=edge-7 (certificate) left", text)

    def test_identity_of_nobody(self) -> None:
        """Neither a claim, nor a credential that is nobody's in particular, proves anything."""
        connection = self.join(self.server(), init=ConnectionInit("blue", host_name="boss"))
        identity, text = self.joined_by(connection)
        self.assertFalse(identity.proved)
        self.assertIn('of an unproved agent that calls itself "boss" left', text)
        self.judge.verdict = Identity("")
        init = ConnectionInit("blue", credential_policy="judge", credential="x")
        identity, text = self.joined_by(self.join(self.server(), init=init))
        self.assertEqual((identity.proved, identity.policy), (False, "judge"))
        self.assertIn("of an unproved agent (policy judge names nobody) left", text)

    def test_agents_that_an_operator_keeps_out(self) -> None:
        """One of ours is told when to come back; to one of MOSN's, no would be for ever."""
        server = self.server()
        server.exclusions.exclude(("address", "10.0.0.1"), 90.0, "banned by ops")
        with capture() as events:
            connection = self.join(server)
        self.assertEqual((connection.transport.value(), connection.closed), (b"", True))
        self.assertIn("closed: banned by ops; the ban ends in 90 s", events.text())
        extra = Announcement("agent-1", "192.168.0.2:4000").to_extra()
        connection = self.join(server, init=ConnectionInit("blue", extra=extra))
        answer = connection.answer()
        assert isinstance(answer, InitResponse)
        self.assertEqual(answer.status, Status.UNKNOWN)
        self.assertEqual(answer.extra, {"reverseproxy": {"version": 1, "retry_after": 60000}})
        self.assertEqual(server.tally.joins, {("blue", "banned"): 2})
        self.assertEqual(len(self.cluster.hosts), 0)
        self.join(server, "10.0.0.2")
        self.clock.advance(90)
        self.join(server)
        self.assertEqual(len(self.cluster.hosts), 2)

    def test_refusals_are_kept(self) -> None:
        """With what is known of who it was; clusters that strangers make up are not told apart."""
        server = self.server()
        for number in range(3):
            self.join(server, init=ConnectionInit(f"nowhere-{number}", host_name="boss"))
        connection = self.connect(server)
        connection.receive(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(server.tally.joins, {("", "cluster_unknown"): 3, ("", "failed"): 1})
        first, *_, last = server.tally.refusals
        self.assertEqual(
            (first["cluster"], first["claimed_host_name"], first["address"]),
            ("nowhere-0", "boss", "10.0.0.1:50001"),
        )
        self.assertIn("add the cluster", first["remedy"])
        self.assertEqual((first["identity"], first["proved"]), (UNPROVED, False))
        self.assertEqual((last["cluster"], last["result"]), ("", "failed"))

    def test_byte_by_byte(self) -> None:
        connection = self.connect(self.server())
        for byte in encode(ConnectionInit("blue")):
            connection.receive(bytes([byte]))
        self.assertEqual(connection.transport.value(), SUCCESS)

    def test_our_agent_learns_that_we_are_ours(self) -> None:
        extra = Announcement("agent-1", "192.168.0.2:4000", {"zone": "a"}).to_extra()
        connection = self.join(self.server(), init=ConnectionInit("blue", extra=extra))
        answer = connection.answer()
        assert isinstance(answer, InitResponse)
        self.assertEqual(answer.extra, {"reverseproxy": {"version": 1}})
        [host] = self.cluster.hosts.values()
        self.assertEqual(dict(host.metadata), {"zone": "a"})

    def test_bytes_behind_the_init_frame_wait_for_the_first_user(self) -> None:
        connection = self.connect(self.server())
        connection.receive(encode(ConnectionInit("blue")) + b"SSH-2.0-")
        connection.receive(b"server\r\n")
        self.clock.advance(0.02)
        [host] = self.cluster.hosts.values()
        user = Protocol()
        received = bytearray()
        user.dataReceived = received.extend  # type: ignore[method-assign]
        self.successResultOf(host.connect(Factory.forProtocol(lambda: user)))
        self.assertEqual(bytes(received), b"SSH-2.0-server\r\n")
        connection.receive(b"more")
        self.assertEqual(bytes(received), b"SSH-2.0-server\r\nmore")

    # too many at once

    OURS = ConnectionInit("blue", extra=Announcement("agent-1").to_extra())

    def test_joins_are_spread(self) -> None:
        server = self.server(max_joins_per_second=10)
        connections = [self.connect(server) for _ in range(20)]
        for connection in connections:
            connection.receive(self.OURS)
        self.assertEqual(sum(connection.answer() is not None for connection in connections), 10)
        self.assertEqual(len(server.pending), 10)
        for number in range(10):
            waiting = connections[10 + number]
            self.assertEqual(waiting.transport.producerState, "paused")
            self.clock.advance(0.099)
            self.assertIsNone(waiting.answer())
            self.clock.advance(0.001001)
            self.assertEqual(waiting.answer(), connections[0].answer())
        self.clock.advance(0.02)
        self.assertEqual((len(self.cluster.hosts), len(server.pending)), (20, 0))

    def test_our_agents_are_told_when_to_come_back(self) -> None:
        server = self.server(max_joins_per_second=10)
        for _ in range(20):
            self.connect(server).receive(self.OURS)
        for number in range(5):
            connection = self.connect(server)
            connection.receive(self.OURS)
            answer = connection.answer()
            assert isinstance(answer, InitResponse)
            self.assertEqual(answer.status, Status.UNKNOWN)
            self.assertEqual(
                answer.extra, {"reverseproxy": {"version": 1, "retry_after": 1200 + 100 * number}}
            )
            self.assertTrue(connection.closed)
        self.clock.advance(1.3)
        back = self.connect(server)
        back.receive(self.OURS)
        self.assertEqual(back.answer(), InitResponse(Status.SUCCESS, {"reverseproxy": {"version": 1}}))

    def test_others_wait_longer_and_are_never_refused(self) -> None:
        server = self.server(max_joins_per_second=10)
        connections = [self.connect(server) for _ in range(120)]
        for connection in connections:
            connection.receive(ConnectionInit("blue"))
        # The slots of MOSN's agents that are refused are dead for ever.
        closed = [connection for connection in connections if connection.closed]
        self.assertEqual(len(closed), 35)
        self.assertEqual([connection.transport.value() for connection in closed], [b""] * 35)
        for _ in range(75):
            self.clock.advance(0.1)
        self.clock.advance(0.1)
        self.assertEqual(len(self.cluster.hosts), 85)

    def test_no_more_wait_than_half_of_what_may_be_pending(self) -> None:
        server = self.server(max_joins_per_second=10, max_pending_connections=20)
        connections = [self.connect(server) for _ in range(21)]
        for connection in connections:
            connection.receive(ConnectionInit("blue"))
        self.assertEqual(sum(connection.closed for connection in connections), 1)

    def test_who_goes_while_it_waits(self) -> None:
        server = self.server(max_joins_per_second=1)
        self.join(server, init=self.OURS)
        connection = self.connect(server)
        connection.receive(self.OURS)
        self.assertFalse(connection.closed)
        connection.lose()
        self.assertEqual((self.clock.getDelayedCalls(), len(server.pending)), ([], 0))
        self.assertEqual(len(self.cluster.hosts), 1)

    def test_who_may_not_join_takes_nobody_s_place(self) -> None:
        server = self.server(max_joins_per_second=1, credential_policy="judge")
        for number in range(50):
            self.join(server, f"10.0.1.{number}", ConnectionInit("blue", credential_policy="judge"))
        self.judge.verdict = Identity("anna")
        connection = self.connect(server)
        connection.receive(ConnectionInit("blue", credential_policy="judge"))
        self.assertEqual(connection.transport.value(), SUCCESS)

    def test_sessions_that_use_connections_up(self) -> None:
        """However many there are, their places are taken at once."""
        server = self.server(max_joins_per_second=5)
        for _ in range(10):
            self.connect(server).receive(ConnectionInit("blue"))
            self.clock.advance(0.3)
        for _ in range(200):
            [host, *_] = self.cluster.hosts.values()
            self.successResultOf(host.connect(Factory.forProtocol(Protocol)))
            host.close("the session is over")
            self.clock.advance(0.01)
            connection = self.connect(server)
            connection.receive(ConnectionInit("blue"))
            self.assertEqual(connection.transport.value(), SUCCESS)
            self.clock.advance(0.02)

    def test_any_number_of_joins(self) -> None:
        server = self.server(max_joins_per_second=0)
        for _ in range(2000):
            self.connect(server).receive(ConnectionInit("blue"))
        self.clock.advance(0.02)
        self.assertEqual(len(self.cluster.hosts), 2000)

    def test_a_host_leaves_with_its_connection(self) -> None:
        connection = self.join(self.server())
        connection.lose()
        self.assertEqual(self.cluster.hosts, {})
        self.assertEqual(len(self.registry), 0)

    def test_a_connection_lost_before_it_is_published_leaves_no_ghost(self) -> None:
        connection = self.connect(self.server())
        connection.receive(ConnectionInit("blue"))
        connection.lose()
        self.clock.advance(1)
        self.assertEqual(self.cluster.hosts, {})
        self.assertEqual(len(self.registry), 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_clients_of_a_unix_socket_are_told_apart(self) -> None:
        server = self.server()
        for _ in range(2):
            connection = Connection(server, ConnectionInfo(remote="unix:", local="unix:/x"))
            connection.receive(ConnectionInit("blue"))
        self.clock.advance(1)
        self.assertEqual(len(self.cluster.hosts), 2)

    # being refused

    def refused(self, server: TunnelServer, init: ConnectionInit, status: Status) -> Connection:
        connection = self.connect(server)
        connection.receive(init)
        self.assertEqual(connection.answer(), InitResponse(status))
        self.assertTrue(connection.closed)
        self.clock.advance(60)
        self.assertEqual(self.cluster.hosts, {})
        self.assertEqual(list(server.pending), [])
        connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        return connection

    def test_who_guesses_waits(self) -> None:
        """An address that is refused again and again is judged later, on any connection; others are not."""
        server = self.server(credential_policy="judge")
        guess = ConnectionInit("blue", credential_policy="judge", credential="wrong")
        for _ in range(FREE + 1):
            self.join(server, init=guess).lose()
        self.judge.verdict = Identity("anna")
        waiting = self.connect(server)
        waiting.receive(guess)
        self.clock.advance(0.05)
        self.assertEqual(waiting.transport.value(), b"")
        self.join(server, "10.0.0.2", guess)
        self.assertEqual(len(self.cluster.hosts), 1)
        self.clock.advance(0.1)
        self.assertEqual(waiting.transport.value(), SUCCESS)
        # One that goes while it waits leaves nothing behind.
        there = self.clock.getDelayedCalls()
        leaving = self.connect(server)
        leaving.receive(guess)
        leaving.lose()
        self.clock.advance(0.02)
        self.assertEqual(self.clock.getDelayedCalls(), there)

    def test_graceful_closes_in_vain(self) -> None:
        """They are counted as guesses are, and the third one ends the connection."""
        server = self.server()
        host = self.join(server)
        self.clock.advance(1)
        close = GracefulClose(("10.0.0.9:9", "10.0.0.9:8"), "blue")
        aside = self.connect(server, "10.0.0.2")
        for closed in (False, False, True):
            aside.receive(close)
            self.assertEqual(aside.closed, closed)
        aside.lose()
        for _ in range(FREE):
            self.connect(server, "10.0.0.2").receive(close)
        late = self.connect(server, "10.0.0.2")
        late.receive(close)
        self.assertEqual(late.transport.producerState, "paused")
        self.clock.advance(1)
        self.assertEqual(late.transport.producerState, "producing")
        self.assertFalse(host.closed)

    def test_statuses(self) -> None:
        server = self.server()
        self.refused(server, ConnectionInit("green"), Status.CLUSTER_UNKNOWN)
        self.refused(server, ConnectionInit("blue", credential_policy="what"), Status.VALIDATOR_MISSING)
        self.refused(server, ConnectionInit("blue", credential_policy="judge"), Status.CREDENTIAL_REJECTED)
        # A credential is looked at before the cluster, as MOSN does.
        self.refused(server, ConnectionInit("green", credential_policy="judge"), Status.CREDENTIAL_REJECTED)

    def test_a_demanded_policy(self) -> None:
        server = self.server(credential_policy="judge")
        self.refused(server, ConnectionInit("blue"), Status.CREDENTIAL_REJECTED)
        self.judge.verdict = Identity("edge")
        self.join(server, init=ConnectionInit("blue", credential_policy="judge", credential="c"))
        self.assertEqual(len(self.cluster.hosts), 1)
        self.assertEqual(self.judge.asked, ("c", "", "blue"))

    def test_a_policy_that_is_not_configured(self) -> None:
        """Where none is demanded, an agent may use any that there is, as with MOSN."""
        server = self.server(validators={})
        with capture() as events:
            self.judge.verdict = Identity("edge")
            for _ in range(3):
                self.join(server, init=ConnectionInit("blue", credential_policy="judge", credential="c"))
        self.assertEqual(len(self.cluster.hosts), 3)
        self.assertEqual((self.judge.asked, self.built), (("c", "", "blue"), 1))
        self.assertEqual(events.levels().count(LogLevel.warn), 1)
        self.assertIn("which is not required", events.text())

    def test_a_wrong_credential_of_a_policy_that_is_not_configured(self) -> None:
        server = self.server(validators={})
        self.refused(server, ConnectionInit("blue", credential_policy="judge"), Status.CREDENTIAL_REJECTED)

    def test_a_policy_that_needs_options(self) -> None:
        """It is unknown without them, however often it is used."""
        server = self.server(validators={})
        with capture() as events:
            for policy in ("needy", "needy", "unknown"):
                init = ConnectionInit("blue", credential_policy=policy)
                self.refused(server, init, Status.VALIDATOR_MISSING)
        self.assertEqual(events.text().count("not configured here: no policy needy"), 1)

    def test_another_policy_than_the_demanded_one(self) -> None:
        """What is not configured does not count where something is demanded."""
        self.judge.verdict = Identity("edge")
        cluster = Cluster(
            ClusterConfig(name="red"), make_balancer(ClusterConfig(name="red"), Random(1)), self.clock
        )
        self.clusters = ClusterManager([self.cluster, cluster])
        server = self.server(validators={"other": {}}, cluster_credential_policies={"red": "other"})
        self.refused(server, ConnectionInit("red", credential_policy="judge"), Status.VALIDATOR_MISSING)
        self.assertEqual(self.built, 1)
        self.join(server, init=ConnectionInit("blue", credential_policy="judge"))
        self.assertEqual(len(self.cluster.hosts), 1)

    def test_a_demanded_policy_must_exist(self) -> None:
        with self.assertRaises(ConfigError) as raised:
            self.server(
                credential_policy="nobody", cluster_credential_policies={"blue": "none", "red": "judge"}
            )
        self.assertEqual(
            [problem.place for problem in raised.exception.problems],
            [
                PART / "config" / "credential_policy",
                PART / "config" / "cluster_credential_policies" / "blue",
            ],
        )

    def test_a_validator_that_fails_lets_nobody_in(self) -> None:
        self.judge.verdict = RuntimeError("out of order")
        self.refused(
            self.server(), ConnectionInit("blue", credential_policy="judge"), Status.CREDENTIAL_REJECTED
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_another_weight_before_it_is_in_its_cluster(self) -> None:
        """As when the token file changes at that moment."""
        self.judge.verdict = Identity("edge")
        server = self.server()
        connection = self.connect(server)
        connection.receive(ConnectionInit("blue", weight=9, credential_policy="judge"))
        self.assertEqual(self.cluster.hosts, {})
        self.judge.verdict = Identity("edge", max_weight=3)
        server.revocations.review(True)
        self.clock.advance(0.02)
        [host] = self.cluster.hosts.values()
        self.assertEqual(host.weight, 3)

    def test_a_validator_that_takes_time(self) -> None:
        verdict: Deferred[Identity | None] = Deferred()
        self.judge.verdict = verdict
        connection = self.connect(self.server())
        connection.receive(encode(ConnectionInit("blue", credential_policy="judge")) + b"ear")
        self.assertEqual(connection.transport.producerState, "paused")
        connection.receive(b"ly")  # was read already when reading was paused
        self.assertEqual(connection.transport.value(), b"")
        verdict.callback(Identity("edge", max_weight=3))
        self.assertEqual(connection.transport.value(), SUCCESS)
        self.assertEqual(connection.transport.producerState, "producing")
        self.clock.advance(0.02)
        [host] = self.cluster.hosts.values()
        self.assertEqual(host.weight, 3)
        user = Protocol()
        received = bytearray()
        user.dataReceived = received.extend  # type: ignore[method-assign]
        self.successResultOf(host.connect(Factory.forProtocol(lambda: user)))
        self.assertEqual(bytes(received), b"early")

    def test_a_validator_that_takes_too_long(self) -> None:
        verdict: Deferred[Identity | None] = Deferred()
        self.judge.verdict = verdict
        connection = self.connect(self.server(handshake_timeout=5.0))
        connection.receive(ConnectionInit("blue", credential_policy="judge"))
        self.clock.advance(5)
        self.assertTrue(connection.closed)
        verdict.callback(Identity("edge"))
        self.assertEqual(connection.transport.value(), b"")
        connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_an_agent_that_goes_while_it_is_judged(self) -> None:
        verdict: Deferred[Identity | None] = Deferred()
        self.judge.verdict = verdict
        connection = self.connect(self.server())
        connection.receive(ConnectionInit("blue", credential_policy="judge"))
        connection.lose()
        self.assertTrue(verdict.called)
        self.clock.advance(60)
        self.assertEqual(self.cluster.hosts, {})

    # bad peers

    def test_garbage_is_closed_at_its_first_bytes(self) -> None:
        for garbage in (b"GET / HTTP/1.1\r\n", b"\x20\x89", b"\x20\x88\x01\x07", b"\x20\x88\x01\x02"):
            connection = self.connect(self.server())
            connection.receive(garbage)
            self.assertTrue(connection.closed, garbage)
            connection.receive(b"more of it")
            connection.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_closed_peer_that_does_not_go_is_aborted(self) -> None:
        connection = self.connect(self.server())
        connection.receive(b"x")
        self.assertFalse(connection.transport.disconnected)
        self.clock.advance(15)
        self.assertTrue(connection.transport.disconnected)

    def test_a_slow_handshake_is_closed(self) -> None:
        connection = self.connect(self.server(handshake_timeout=15.0))
        self.clock.advance(100)
        connection.receive(b"\x20")
        self.clock.advance(14.9)
        connection.receive(b"\x88")
        self.assertFalse(connection.closed)
        self.clock.advance(0.1)
        self.assertTrue(connection.closed)

    def test_a_silent_connection_is_tolerated(self) -> None:
        server = self.server()
        connection = self.connect(server)
        self.clock.advance(1_000_000)
        self.assertFalse(connection.closed)
        connection.receive(ConnectionInit("blue"))
        self.clock.advance(1)
        self.assertEqual(len(self.cluster.hosts), 1)
        self.assertEqual(list(server.pending), [])

    def test_the_oldest_idler_makes_room(self) -> None:
        server = self.server(max_pending_connections=3)
        connections = [self.connect(server) for _ in range(5)]
        self.assertEqual([each.closed for each in connections], [True, True, False, False, False])
        self.assertEqual(len(server.pending), 3)
        connections[2].lose()
        self.assertEqual(len(server.pending), 2)

    def test_a_flood_does_not_fill_the_log(self) -> None:
        server = self.server()
        lines: list[str] = []
        server.peer_log._throttle.allow()
        from twisted.logger import globalLogPublisher

        def observe(event: Any) -> None:
            if event.get("log_namespace") == "reverseproxy.tunnel.server":
                lines.append(event["log_format"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)
        for _ in range(1000):
            self.connect(server).receive(b"x")
        self.assertEqual(len(lines), 1, "the same peer, and the same again and again")
        self.clock.advance(PERIOD)
        self.assertEqual(len(lines), 2)
        for number in range(1000):
            self.connect(server, f"10.0.{number >> 8}.{number & 255}").receive(b"x")
        self.assertLess(len(lines), 60)
        self.assertGreater(len(lines), 10)

    # graceful close

    def test_a_plain_agent_takes_its_own_hosts_away(self) -> None:
        server = self.server()
        first, second = self.join(server), self.join(server)
        aside = self.connect(server)
        aside.receive(GracefulClose(("10.0.0.1:50001",), "blue"))
        self.assertEqual(list(self.cluster.hosts), ["10.0.0.1:50002"])
        self.assertTrue(first.transport.disconnecting)
        self.assertFalse(second.closed)
        self.assertFalse(aside.closed)
        # One frame after the other, in one read or in several.
        aside.receive(
            encode(GracefulClose(("10.0.0.1:1",), "blue"))
            + encode(GracefulClose(("10.0.0.1:50002",), "blue"))
        )
        self.assertEqual(self.cluster.hosts, {})

    def test_a_busy_host_finishes_first(self) -> None:
        server = self.server()
        connection = self.join(server)
        host = self.cluster.acquire()
        assert host is not None
        self.successResultOf(host.connect(Factory.forProtocol(Protocol)))
        self.connect(server).receive(GracefulClose(("10.0.0.1:50001",), "blue"))
        self.assertEqual(self.cluster.hosts, {})
        self.assertFalse(connection.closed)

    def test_a_stranger_takes_nothing_away(self) -> None:
        server = self.server()
        self.join(server)
        self.connect(server, ip="10.0.0.2").receive(GracefulClose(("10.0.0.1:50001",), "blue"))
        self.connect(server).receive(GracefulClose(("10.0.0.1:50001",), "green"))
        self.assertEqual(len(self.cluster.hosts), 1)

    def test_tls_identity_owns(self) -> None:
        server = self.server()
        self.join(server, identity="CN=a", secure=True)
        close = GracefulClose(("10.0.0.1:50001",), "blue")
        self.connect(server).receive(close)
        self.connect(server, identity="CN=b", secure=True).receive(close)
        self.assertEqual(len(self.cluster.hosts), 1)
        self.connect(server, ip="10.7.7.7", identity="CN=a", secure=True).receive(close)
        self.assertEqual(self.cluster.hosts, {})

    def test_a_proven_credential_owns_and_works_behind_nat(self) -> None:
        server = self.server()
        self.judge.verdict = Identity("edge")
        extra = Announcement("agent-1", "192.168.0.2:4000").to_extra()
        self.join(server, init=ConnectionInit("blue", credential_policy="judge", credential="c", extra=extra))

        def close(credential: str = "c") -> None:
            proof = CloseProof("agent-1", "judge", credential).to_extra()
            self.connect(server, ip="10.3.3.3").receive(GracefulClose(("192.168.0.2:4000",), "blue", proof))

        self.judge.verdict = None
        close("wrong")
        self.assertEqual(len(self.cluster.hosts), 1)
        self.judge.verdict = Identity("somebody else")
        close()
        self.assertEqual(len(self.cluster.hosts), 1)
        self.judge.verdict = Identity("edge")
        close()
        self.assertEqual(self.cluster.hosts, {})

    def test_a_close_that_is_judged_slowly(self) -> None:
        server = self.server()
        self.judge.verdict = Identity("edge")
        extra = Announcement("agent-1", "192.168.0.2:4000").to_extra()
        self.join(server, init=ConnectionInit("blue", credential_policy="judge", credential="c", extra=extra))
        verdict: Deferred[Identity | None] = Deferred()
        self.judge.verdict = verdict
        aside = self.connect(server)
        proof = CloseProof("agent-1", "judge", "c").to_extra()
        aside.receive(GracefulClose((), "blue", proof))
        aside.receive(encode(GracefulClose(("192.168.0.2:4000",), "blue", proof)))
        self.judge.verdict = Identity("edge")
        verdict.callback(Identity("edge"))
        self.assertEqual(self.cluster.hosts, {})
        gone = self.connect(server)
        self.judge.verdict = Deferred()
        gone.receive(GracefulClose((), "blue", proof))
        gone.lose()
        self.assertEqual(list(server.pending), [aside.protocol])

    def test_a_close_before_the_host_is_published(self) -> None:
        server = self.server()
        connection = self.connect(server)
        connection.receive(ConnectionInit("blue"))
        self.connect(server).receive(GracefulClose(("10.0.0.1:50001",), "blue"))
        self.clock.advance(1)
        self.assertEqual(self.cluster.hosts, {})
        self.assertTrue(connection.closed)
