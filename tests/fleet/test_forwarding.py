"""Any server of a fleet reaches any agent: whole processes in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.config.loader import loads
from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.interfaces import PickContext
from reverseproxy.testing import Recorder
from tests.fleet.worlds import FleetWorld, get


@implementer(IHalfCloseableProtocol)
class Echo(Protocol):
    transport: Any

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(b"echo " + data)

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        pass


class FleetTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = FleetWorld()
        self.addCleanup(self.world.stop)

    def servers(self, *names: str, **more: Any) -> None:
        for name in names or ("a", "b"):
            self.world.server(name, **more)

    def answer(self, server: int, seconds: float = 0.5, **more: Any) -> str:
        """The body of an answer."""
        head, _, body = self.world.ask(server, get(**more), seconds).partition(b"\r\n\r\n")
        self.assertEqual(head[:12], b"HTTP/1.1 200", head + body)
        return body.decode()

    def peer(self, at: str, of: str) -> dict[str, Any]:
        [found] = [each for each in self.world.fleet(at).peers() if each["server"] == of]
        return found


class ReachTests(FleetTestCase):
    def test_either_server_reaches_either_agent(self) -> None:
        self.servers(cluster={"lb_type": "LB_ROUNDROBIN"})
        self.world.agent(0, answer="one")
        self.assertEqual([self.answer(0), self.answer(1)], ["one", "one"])
        self.world.agent(1, answer="two", plain=True)
        self.assertEqual([self.answer(0), self.answer(1)], ["one", "two"])
        self.world.agents[0].stopService()
        self.world.pass_time(2)
        self.assertEqual([self.answer(0), self.answer(1)], ["two", "two"])
        self.assertEqual(self.peer("a", "b")["forwarded"], 1)
        self.assertEqual(self.peer("b", "a")["received"], 1)
        self.assertEqual(self.peer("a", "b")["refused"], 0)

    def test_streams_without_requests_take_no_place(self) -> None:
        """What another server keeps open for further requests is none of this server's requests."""
        limits = [{"max_requests": 2, "max_pending_requests": 0}]
        self.servers(cluster={"circuit_breakers": limits})
        self.world.agent(0, answer="one")
        clients = [self.world.client(1) for _ in range(2)]
        for client in clients:
            client.transport.write(get())
        self.world.pass_time(1)
        for client in clients:
            self.assertIn(b"one", client.data)
            client.transport.abortConnection()
        cluster = self.world.servers["a"].clusters.get("clientCluster")
        self.assertGreater(sum(host.active for host in cluster.hosts.values()), 0)
        self.assertEqual([self.answer(0), self.answer(1)], ["one", "one"])
        self.world.agents[0].stopService()
        self.world.pass_time(2)
        self.assertEqual(cluster.active, 0)

    def test_requests_of_other_servers_are_limited_there(self) -> None:
        """A server that has all that it may have under way forwards those of others to its agents."""
        limits = [{"max_requests": 2, "max_pending_requests": 0}]
        self.servers(cluster={"circuit_breakers": limits})
        self.world.agent(0, answer="one")
        cluster = self.world.servers["a"].clusters.get("clientCluster")
        [host] = cluster.hosts.values()
        for _ in range(2):
            cluster.take(host)
        self.assertIn(b"503", self.world.ask(0, get(), 0.5))
        self.assertEqual(self.answer(1), "one")
        self.assertEqual(cluster.active, 2)

    def test_agents_that_were_there_before(self) -> None:
        self.world.server("a")
        self.world.agent(0, answer="one")
        self.world.server("b")
        self.world.pass_time(1)
        self.assertEqual(self.answer(1), "one")

    def test_many_requests_at_once_with_bodies(self) -> None:
        self.servers()
        for plain in (False, True):
            agent = self.world.agent(0, answer="one", plain=plain, connections=3)
            clients = [self.world.client(1) for _ in range(20)]
            for client in clients:
                client.transport.write(get(method="POST", body=b"x" * 1000))
            self.world.pass_time(2)
            for client in clients:
                self.assertIn(b"\r\n\r\none", client.data)
                self.assertTrue(client.data.startswith(b"HTTP/1.1 200"), client.data)
            agent.stopService()
            self.world.pass_time(2)

    def test_a_client_that_keeps_its_connection(self) -> None:
        self.servers()
        self.world.agent(0, answer="one")
        client = self.world.client(1)
        for number in range(1, 4):
            client.transport.write(get())
            self.world.pass_time(0.2)
            self.assertEqual(client.data.count(b"200 OK"), number)

    def test_bytes(self) -> None:
        for server in (False, True):
            world = self.world = FleetWorld()
            self.addCleanup(world.stop)
            for name in "ab":
                world.server(name, kind="tcp")
            world.reactor.listenTCP(7000, Factory.forProtocol(Echo), interface="127.0.0.1")
            world.agent(0, answer="", kind="tcp", backend="127.0.0.1:7000", plain=server)
            client = world.client(1)
            client.transport.write(b"hello")
            world.pass_time(0.5)
            self.assertEqual(client.data, b"echo hello")
            client.transport.write(b"again")
            world.pass_time(0.5)
            self.assertEqual(client.data, b"echo helloecho again")
            client.transport.loseConnection()
            world.pass_time(1)
            self.assertEqual([each["in_flight"] for each in world.fleet("a").peers()], [0])

    def test_an_agent_that_both_have(self) -> None:
        self.servers()
        self.world.agent(0, 1, answer="one", plain=True)
        self.assertEqual(len(self.world.fleet("a").remote.hosts), 1)
        self.assertEqual([self.answer(0), self.answer(1)], ["one", "one"])
        self.assertEqual(self.peer("a", "b")["forwarded"], 0)
        [ours] = list(self.world.fleet("a").own)
        [theirs] = list(self.world.fleet("b").own)
        self.assertEqual(ours, theirs)


class OnceTests(FleetTestCase):
    """Nothing is forwarded twice."""

    def ask_directly(self, header: StreamHeader, request: bytes = b"") -> tuple[Recorder, Any]:
        link = self.world.fleet("a").links.get("b")
        assert link is not None
        assert link.session is not None
        recorder = Recorder()
        link.session.open(_Made(recorder))
        recorder.transport.write(header.encode() + (request or get()))
        self.world.pass_time(0.5)
        return recorder, recorder.reason

    def test_a_server_uses_its_own_agents_only(self) -> None:
        self.servers("a", "b", "c")
        self.world.agent(2, answer="of c")
        [key] = self.world.fleet("a").remote.hosts
        recorder, reason = self.ask_directly(StreamHeader(key.cluster, key.agent, "Http1"))
        self.assertEqual(recorder.data, b"")
        self.assertIn("took no more streams", str(reason))
        self.assertEqual(self.peer("b", "c")["forwarded"], 0)

    def test_what_has_been_forwarded_is_refused(self) -> None:
        self.servers()
        self.world.agent(1, answer="of b")
        [key] = self.world.fleet("a").remote.hosts
        recorder, _ = self.ask_directly(StreamHeader(key.cluster, key.agent, "Http1"))
        self.assertIn(b"of b", recorder.data)
        recorder, _ = self.ask_directly(StreamHeader(key.cluster, key.agent, "Http1", hop=2))
        self.assertEqual(recorder.data, b"")
        self.assertEqual(self.peer("b", "a")["refused"], 1)

    def test_nonsense_costs_its_stream(self) -> None:
        self.servers()
        self.world.agent(1, answer="of b")
        link = self.world.fleet("a").links.get("b")
        assert link is not None
        assert link.session is not None
        for data in (b"\xff\xff", b"\0\x02[]", b"\0\x02{}", b'\0\x0d{"hello":"c"}'):
            recorder = Recorder()
            link.session.open(_Made(recorder))
            recorder.transport.write(data)
            self.world.pass_time(0.1)
            self.assertIsNotNone(recorder.reason)
        self.assertEqual(self.answer(0), "of b")
        self.assertEqual(self.peer("a", "b")["losses"], 0)


class _Made(Factory):
    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: object) -> Any:
        return self._protocol


class FaultTests(FleetTestCase):
    def test_an_agent_that_is_gone_before_it_is_known(self) -> None:
        """A POST goes to another agent, as nothing of it was passed on."""
        self.servers()
        self.world.agent(0, answer="one")
        self.world.agent(0, answer="two")
        self.world.pass_time(1)
        # b does not hear any more of what becomes of them.
        self.world.directories["b"].cut = True
        fleet = self.world.fleet("a")
        fleet.incoming.announce = lambda agent: None  # type: ignore[method-assign]
        self.world.agents[0].stopService()
        self.world.pass_time(2)
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 2)
        for _ in range(4):
            self.assertEqual(self.answer(1, method="POST", body=b"x"), "two")
        self.assertGreater(self.peer("a", "b")["refused"], 0)

    def test_an_agent_that_leaves_while_requests_wait_for_it(self) -> None:
        """They wait at its server, which has other agents, and go to one of these."""
        self.servers(kind="tcp")
        world = self.world
        world.reactor.listenTCP(7000, Factory.forProtocol(Echo), interface="127.0.0.1")
        edge = world.agent(0, answer="one", kind="tcp", backend="127.0.0.1:7000", plain=True)
        first = world.client(1)
        first.transport.write(b"1")
        world.pass_time(0.2)
        self.assertEqual(first.data, b"echo 1")
        clients = [world.client(1) for _ in range(3)]
        for client in clients:
            client.transport.write(b"2")
        world.pass_time(0.2)
        world.agent(0, answer="two", kind="tcp", backend="127.0.0.1:7000")
        edge.stopService()
        first.transport.loseConnection()
        world.pass_time(2)
        self.assertEqual([client.data for client in clients], [b"echo 2"] * 3)

    def test_what_comes_while_a_request_waits(self) -> None:
        """All of it arrives, in its order, and the end as well."""
        self.servers(kind="tcp")
        world = self.world
        world.reactor.listenTCP(7000, Factory.forProtocol(Echo), interface="127.0.0.1")
        world.agent(0, answer="one", kind="tcp", backend="127.0.0.1:7000", plain=True)
        for count, ends in ((40_000, False), (5_000, True)):
            first = world.client(0)
            first.transport.write(b"1")
            world.pass_time(0.2)
            self.assertEqual(first.data, b"echo 1")
            client = world.client(1)
            sent = b"".join(b"%06d" % number for number in range(count))
            for start in range(0, len(sent), 5000):
                client.transport.write(sent[start : start + 5000])
                world.pass_time(0.02)
            if ends:
                client.transport.loseWriteConnection()
            world.pass_time(0.2)
            self.assertEqual(client.data, b"")
            first.transport.loseConnection()
            world.pass_time(2)
            self.assertEqual(client.data.replace(b"echo ", b""), sent)
            self.assertEqual(client.reason is not None, ends)
            client.transport.loseConnection()
            world.pass_time(1)

    def test_plaintext_goes_nowhere_else(self) -> None:
        """Whatever stands in the directory."""
        self.servers()
        self.world.fleet("a").links.add(ServerRecord("far", "192.0.2.1:4000"))
        self.world.pass_time(1)
        self.assertIn("is not on this machine", self.peer("a", "far")["problem"])

    def test_links_tell_what_the_directory_does_not(self) -> None:
        self.servers()
        self.world.agent(0, answer="one")
        for directory in self.world.directories.values():
            directory.cut = True
        self.assertEqual(self.answer(1), "one")
        self.world.agents[0].stopService()
        self.world.pass_time(2)
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 0)

    def test_a_server_that_says_nothing_any_more(self) -> None:
        """A link that is dead is noticed within 5 s, and its hosts are not used then."""
        self.servers()
        self.world.agent(0, answer="one")
        link = self.world.fleet("b").links.get("a")
        assert link is not None
        assert link.session is not None
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 1)
        # What it sends is lost from now on.
        link.session.dataReceived = lambda data: None  # type: ignore[method-assign, assignment]
        began = self.world.reactor.seconds()
        while self.world.fleet("b").remote.hosts:
            self.world.reactor.advance(0.05)
            self.assertLess(self.world.reactor.seconds() - began, 5.0)
        self.assertEqual(self.world.directories["b"].lost_links, ["a"])
        # It is linked again, and so are its agents.
        self.world.pass_time(6)
        self.assertEqual(self.answer(1), "one")
        self.assertEqual(self.peer("b", "a")["losses"], 1)

    def test_a_planned_stop(self) -> None:
        """Agents move, and no request fails."""
        self.servers("a", "b", "c")
        self.world.agent(0, 2, answer="one")
        self.world.agent(0, answer="two")
        self.world.pass_time(1)
        stopping = self.world.servers["a"].stopService()
        self.assertIsNotNone(stopping)
        for _ in range(40):
            self.assertIn(self.answer(1, seconds=0.1, method="POST", body=b"x"), ("one", "two"))
        self.world.pass_time(20)
        self.assertEqual(self.answer(1), "one")
        self.assertNotIn("a", self.world.fleet("b").links.all)

    def test_agents_that_leave_under_load(self) -> None:
        """Kept streams are closed by who has opened them, so that no POST is lost on one."""
        for plain in (False, True):
            world = self.world = FleetWorld()
            self.addCleanup(world.stop)
            self.servers(cluster={"lb_type": "LB_ROUNDROBIN"})
            edges = [world.agent(0, answer=name, plain=plain, connections=2) for name in ("one", "two")]
            clients = [world.client(1) for _ in range(6)]
            asked = [0] * len(clients)
            for step in range(120):
                for number, client in enumerate(clients):
                    if client.data.count(b"HTTP/1.1") == asked[number]:
                        client.transport.write(get(method="POST", body=b"x" * 100))
                        asked[number] += 1
                world.reactor.advance(0.02)
                if step == 40:
                    edges[0].stopService()
                    world.agent(0, answer="three", plain=plain)
                elif step == 80:
                    edges[1].stopService()
            world.pass_time(1)
            for number, client in enumerate(clients):
                self.assertGreater(asked[number], 50)
                self.assertEqual(client.data.count(b"HTTP/1.1 200"), asked[number], client.data[-300:])

    def test_what_is_under_way_is_finished_when_its_server_stops(self) -> None:
        self.servers(kind="tcp")
        self.world.reactor.listenTCP(7000, Factory.forProtocol(Echo), interface="127.0.0.1")
        self.world.agent(0, answer="", kind="tcp", backend="127.0.0.1:7000")
        client = self.world.client(1)
        client.transport.write(b"1")
        self.world.pass_time(0.2)
        self.world.servers["a"].stopService()
        for _ in range(5):
            self.world.pass_time(1)
            client.transport.write(b"2")
        self.world.pass_time(0.2)
        self.assertEqual(client.data, b"echo 1" + 5 * b"echo 2")
        client.transport.loseConnection()
        self.world.pass_time(3)
        self.assertFalse(self.world.fleet("a").incoming.all)

    def test_health_is_judged_by_the_owner(self) -> None:
        self.servers(
            cluster={"health_check": {"protocol": "Http1", "interval": "1s", "healthy_threshold": 1}}
        )
        self.world.agent(0, answer="one")
        self.world.agent(0, answer="two")
        self.world.pass_time(2)
        remote = self.world.fleet("b").remote
        self.assertEqual([host.health.check for host in remote.hosts.values()], [None, None])
        own = self.world.fleet("a").own
        cluster = self.world.servers["a"].clusters.get("clientCluster")
        cluster, agent = cluster, next(iter(own))[1]
        [host] = own.find("clientCluster", agent)
        self.world.directories["b"].cut = True
        cluster.set_health(host, False, "a test")
        self.world.pass_time(0.1)
        found = [each for key, each in remote.hosts.items() if key.agent == agent]
        self.assertEqual([each.healthy for each in found], [False])
        cluster.set_health(host, True, "a test")
        self.world.pass_time(0.1)
        self.assertEqual([each.healthy for each in found], [True])

    def test_failures_are_counted_where_the_agent_is(self) -> None:
        """And it is left out by all servers, if it fails for one of them."""

        def failing(document: dict[str, Any]) -> dict[str, Any]:
            [rule] = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
            rule["direct_response"]["status"] = 500
            return document

        cluster = {
            "lb_type": "LB_ROUNDROBIN",
            "outlier_detection": {"consecutive_5xx": 3, "max_ejection_percent": 100},
        }
        self.servers("a", "b", "c", cluster=cluster)
        self.world.agent(0, answer="bad", change=failing)
        self.world.agent(0, answer="good")
        answers = [self.world.ask(1, get(), 0.1)[9:12] for _ in range(8)]
        self.assertEqual(answers.count(b"500"), 3, answers)
        self.assertEqual({self.answer(2) for _ in range(6)}, {"good"})
        remote = self.world.fleet("c").remote.hosts.values()
        self.assertEqual(sorted(host.healthy for host in remote), [False, True])
        self.assertEqual(self.world.servers["b"].clusters.get("clientCluster").ejector.total, 0)
        self.assertEqual(self.world.servers["a"].clusters.get("clientCluster").ejector.total, 1)

    def test_successes_between_failures_count_as_well(self) -> None:
        self.servers(cluster={"outlier_detection": {"consecutive_5xx": 3}})
        self.world.agent(0, answer="one")
        self.world.agent(0, answer="two")
        self.answer(1)
        fleet = self.world.fleet("b")
        for host in fleet.remote.hosts.values():
            for outcome in 2 * (Outcome.SERVER_ERROR, Outcome.SERVER_ERROR, Outcome.SUCCESS, Outcome.SUCCESS):
                host.judge(outcome)
        self.world.pass_time(0.1)
        self.assertEqual(self.world.servers["a"].clusters.get("clientCluster").ejector.total, 0)
        self.assertEqual(self.peer("b", "a")["losses"], 0)

    def test_nonsense_about_agents_ends_the_link(self) -> None:
        self.servers()
        self.world.agent(0, answer="one")
        link = self.world.fleet("b").links.get("a")
        assert link is not None
        for number, outcome in enumerate((99, [], "x", True), 1):
            link.send({"outcome": outcome, "cluster": "clientCluster", "agent": "x"})
            self.world.pass_time(2)
            self.assertEqual(self.peer("b", "a")["losses"], number)
        link.send({"later": 1})
        self.world.pass_time(1)
        self.assertEqual(self.answer(1), "one")

    def test_a_token_that_is_not_good_here(self) -> None:
        """What an agent may do is up to the server that has let it in, and to the one that routes."""
        tokens = Path(self.mktemp())
        entry = {"agent": "alice", "token": "secret", "clusters": ["clientCluster"]}

        def write(*entries: dict[str, Any]) -> None:
            fresh = tokens.with_suffix(".new")
            fresh.write_text(json.dumps(entries))
            fresh.replace(tokens)

        write(entry)
        here = {
            "credential_policy": "static",
            "validators": {"static": {"tokens": [entry]}},
        }
        there = {"credential_policy": "static", "validators": {"static": {"file": str(tokens)}}}
        self.world.server("a", tunnel_config=here)
        self.world.server("b", tunnel_config=there)
        self.world.agent(0, answer="one", credential_policy="static", credential_config={"token": "secret"})
        self.world.agent(0, answer="two", credential_policy="static", credential_config={"token": "secret"})
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 2)
        for entries in ((), ({**entry, "clusters": ["another"]},), ({**entry, "agent": "bob"},)):
            write(*entries)
            self.world.pass_time(2.5)
            self.assertEqual(len(self.world.fleet("b").remote.hosts), 0, entries)
            write(entry)
            self.world.pass_time(2.5)
            self.assertEqual(len(self.world.fleet("b").remote.hosts), 2)

    def test_an_agent_that_is_kept_out_here(self) -> None:
        """It may not join; while its own server has it, it is sent requests as by all others."""
        self.servers()
        self.world.agent(0, answer="one")
        fleet = self.world.fleet("b")
        [host] = fleet.remote.hosts.values()
        identity = host.identity
        assert identity is not None
        exclusions = self.world.servers["b"]._world.exclusions
        exclusions.exclude(("process", identity.agent_id), 10.0, "somebody says so")
        self.assertIsNotNone(exclusions.find(identity, ""))
        self.world.pass_time(1.1)
        self.assertEqual(list(fleet.remote.hosts.values()), [host])


class ReloadTests(FleetTestCase):
    """Another configuration, while links are up."""

    def take(self, name: str, change: Any) -> None:
        service = self.world.servers[name]
        document = json.loads(json.dumps(self.world.documents[name]))
        change(document)
        service.living.take(loads(json.dumps(document), name), 2)
        self.world.pass_time(0.5)

    def test_links_stay(self) -> None:
        self.servers()
        self.world.agent(0, answer="one")
        link = self.world.fleet("b").links.get("a")
        assert link is not None
        session = link.session

        def change(document: dict[str, Any]) -> None:
            document["cluster_manager"]["clusters"][0]["lb_type"] = "LB_MAGLEV"
            document["servers"][0]["listeners"][0]["connection_idle_timeout"] = "5s"

        self.take("b", change)
        self.assertIs(link.session, session)
        self.assertEqual(self.answer(1), "one")
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 1)

    def test_a_cluster_that_goes_and_comes_back(self) -> None:
        self.servers()
        self.world.agent(0, answer="one")

        def rename(document: dict[str, Any]) -> None:
            document["cluster_manager"]["clusters"][0]["name"] = "another"

        self.take("b", rename)
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 0)
        self.take("b", lambda document: None)
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 1)
        self.assertEqual(self.answer(1), "one")
        self.take("a", rename)
        self.world.pass_time(12)
        self.assertEqual(len(self.world.fleet("b").remote.hosts), 0)

    def test_a_cluster_that_comes_back_while_a_request_waits_in_the_old_one(self) -> None:
        self.servers()
        self.world.agent(0, answer="one", plain=True, connections=1)

        def rename(document: dict[str, Any]) -> None:
            document["cluster_manager"]["clusters"][0]["name"] = "another"

        cluster = self.world.servers["b"].clusters.get("clientCluster")
        waiter = cluster.queue.add(PickContext(among=()), 5)
        waiter.addErrback(lambda reason: None)
        self.take("b", rename)
        self.take("b", lambda document: None)
        [host] = self.world.fleet("b").remote.hosts.values()
        self.assertIs(host.cluster, self.world.servers["b"].clusters.get("clientCluster"))
        self.assertIsNot(host.cluster, cluster)
        self.assertEqual(self.answer(1), "one")


class ImpostorTests(FleetTestCase):
    """Who is not who it says."""

    def test_two_servers_of_one_name(self) -> None:
        self.servers()
        record = ServerRecord("b2", "127.0.0.1:4001")
        self.world.fleet("a").links.add(record)
        self.world.pass_time(2)
        link = self.world.fleet("a").links.get("b2")
        assert link is not None
        self.assertIn("it says that it is b", link.problem)
        self.assertFalse(link.usable)

    def test_somebody_who_says_nothing(self) -> None:
        self.servers()
        stranger = self.world.reactor.dial("127.0.0.1", 4000, Recorder())
        self.world.pass_time(6)
        self.assertIsNotNone(stranger.reason)

    def test_somebody_who_speaks_something_else(self) -> None:
        self.servers()
        stranger = self.world.reactor.dial("127.0.0.1", 4000, Recorder())
        stranger.transport.write(get())
        self.world.pass_time(1)
        self.assertIsNotNone(stranger.reason)


class SeenTests(FleetTestCase):
    """What an operator sees."""

    def test_hosts_of_others_are_shown_with_their_server(self) -> None:
        self.servers()
        self.world.agent(0, answer="one")
        [host] = self.world.servers["b"].answer("hosts", {"cluster": "clientCluster"})["items"]
        self.assertEqual((host["server"], host["healthy"]), ("a", True))
        self.assertTrue(host["address"].startswith("a/"))
        [own] = self.world.servers["a"].answer("hosts", {"cluster": "clientCluster"})["items"]
        self.assertIsNone(own["server"])
        weigh = {"cluster": "clientCluster", "address": host["address"], "weight": 7}
        self.assertIsNone(self.world.servers["b"].answer("weigh", weigh))


class ConfigTests(FleetTestCase):
    def test_labels(self) -> None:
        self.servers(
            cluster={
                "lb_type": "LB_ROUNDROBIN",
                "lb_subset_config": {"subset_selectors": [["zone"]], "fall_back_policy": 0},
            }
        )
        self.world.agent(0, answer="one", metadata={"zone": "x"})
        [host] = self.world.fleet("b").remote.hosts.values()
        self.assertEqual(dict(host.metadata), {"zone": "x"})

    def test_connections_are_weight(self) -> None:
        self.servers(cluster={"lb_type": "LB_WEIGHTED_ROUNDROBIN"})
        self.world.agent(0, answer="one", connections=3, plain=True, weight=5)
        self.world.pass_time(1)
        [host] = self.world.fleet("b").remote.hosts.values()
        self.assertEqual((host.weight, host.capacity), (15, 3))

    def test_another_weight(self) -> None:
        self.servers(cluster={"lb_type": "LB_WEIGHTED_ROUNDROBIN"})
        self.world.agent(0, answer="one", weight=5)
        self.world.pass_time(1)
        [own] = self.world.servers["a"].answer("hosts", {"cluster": "clientCluster"})["items"]
        weigh = {"cluster": "clientCluster", "address": own["address"], "weight": 7}
        self.assertEqual(self.world.servers["a"].answer("weigh", weigh), 5)
        self.world.pass_time(1)
        [host] = self.world.fleet("b").remote.hosts.values()
        self.assertEqual(host.weight, 7)


class AgreeTests(FleetTestCase):
    """All servers mean the same by weights, keys and labels."""

    def by_route(self, **route: Any) -> Any:
        def change(document: dict[str, Any]) -> dict[str, Any]:
            [rule] = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"]
            rule["route"] |= route
            return document

        return change

    def test_keys(self) -> None:
        policy = [{"header": {"key": "x-user"}}]
        self.servers(
            "a", "b", "c", cluster={"lb_type": "LB_MAGLEV"}, change=self.by_route(hash_policy=policy)
        )
        for number in range(6):
            self.world.agent(
                number % 2, answer=f"agent {number}", plain=number > 3, connections=1 + number % 2
            )
        found: dict[bytes, set[bytes]] = {}
        for user in range(20):
            request = b"GET / HTTP/1.1\r\nHost: a\r\nx-user: %d\r\n\r\n" % user
            answers = {self.world.ask(server, request, 0.1).rpartition(b"\n")[2] for server in range(3)}
            found[request] = answers
            self.assertEqual(len(answers), 1, answers)
        self.assertGreater(len(set.union(*found.values())), 3)
        # Another agent comes: only keys that are its own move, and on all servers alike.
        self.world.agent(2, answer="agent 6")
        moved = 0
        for request, before in found.items():
            answers = {self.world.ask(server, request, 0.1).rpartition(b"\n")[2] for server in range(3)}
            self.assertEqual(len(answers), 1, answers)
            if answers != before:
                moved += 1
                self.assertEqual(answers, {b"agent 6"})
        self.assertLess(moved, 18)  # a seventh, but for chance: ids of agents are drawn

    def test_weights(self) -> None:
        self.servers("a", "b", cluster={"lb_type": "LB_WEIGHTED_ROUNDROBIN"})
        self.world.agent(0, answer="light", weight=10)
        self.world.agent(1, answer="heavy", weight=30)
        answers = [self.answer(number % 2, seconds=0.05) for number in range(80)]
        self.assertApproximates(answers.count("light"), 20, 8)

    def test_many_connections(self) -> None:
        """An agent with many weighs as much at the other server as it does at its own."""
        for kind in ("LB_WEIGHTED_ROUNDROBIN", "LB_LEAST_REQUEST", "LB_ROUNDROBIN"):
            world = self.world = FleetWorld()
            self.addCleanup(world.stop)
            self.servers("a", "b", cluster={"lb_type": kind})
            world.agent(0, answer="many", weight=100, plain=True, connections=3)
            world.agent(1, answer="few", weight=100, plain=True, connections=1)
            world.pass_time(1)
            [host] = world.fleet("b").remote.hosts.values()
            self.assertEqual(host.weight, 3 if kind == "LB_ROUNDROBIN" else 300)
            answers = [self.answer(1, seconds=0.05) for _ in range(80)]
            # b has a quarter of the weight, so it keeps half of its requests, and a all of its own.
            self.assertApproximates(answers.count("few"), 40, 16)

    def test_labels(self) -> None:
        cluster = {
            "lb_type": "LB_ROUNDROBIN",
            "lb_subset_config": {"subset_selectors": [["zone"]], "fall_back_policy": 0},
        }
        change = self.by_route(metadata_match={"filter_metadata": {"mosn.lb": {"zone": "x"}}})
        self.servers(cluster=cluster, change=change)
        self.world.agent(0, answer="of x", metadata={"zone": "x"})
        self.world.agent(1, answer="of y", metadata={"zone": "y"})
        self.assertEqual({self.answer(number % 2, seconds=0.05) for number in range(8)}, {"of x"})

    def test_an_agent_that_an_operator_drains(self) -> None:
        """At the server that has it; nobody uses it after that."""
        self.servers(cluster={"lb_type": "LB_ROUNDROBIN"})
        cluster = self.world.servers["a"].clusters.get("clientCluster")
        self.world.agent(0, answer="one")
        self.world.agent(0, answer="two")
        self.assertEqual({self.answer(1, seconds=0.05) for _ in range(4)}, {"one", "two"})
        for host in list(cluster.hosts.values()):
            if host.hostname == "two":
                assert host.identity is not None
                exclusions = self.world.servers["a"]._world.exclusions
                exclusions.exclude(("process", host.identity.agent_id), 60.0, "drained")
                cluster.remove_host(host, "an operator drains it")
        self.assertEqual({self.answer(1, seconds=0.05) for _ in range(6)}, {"one"})
