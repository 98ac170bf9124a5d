"""Operators' actions on agents at one server of a fleet are carried out at the others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import WireError
from reverseproxy.fleet.orders import Order, Orders
from reverseproxy.testing import Recorder
from reverseproxy.tunnel.server.exclusion_records import LONGEST, MOST_IDS
from reverseproxy.tunnel.server.exclusions import MOST, Exclusions
from tests.admin.world import STATIC, parse_answer
from tests.fleet.test_whole import ADMIN, with_admin
from tests.fleet.worlds import FleetWorld
from tests.tunnel.logged import capture

TOKEN = "a token of an operator's"


class OrdersTestCase(SynchronousTestCase):
    """
    Three servers, with an admin API each.

    @cvar more: what else they are configured with.
    """

    more: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.world = FleetWorld()
        self.addCleanup(self.world.stop)
        self.tokens = Path(self.mktemp())
        self.tokens.write_text(json.dumps([{"name": "ops", "token": TOKEN, "role": "operate"}]))
        for name in "abc":
            self.serve(name)

    def serve(self, name: str, seconds: float = 1.0) -> None:
        """Run a server."""

        def change(document: dict[str, Any]) -> dict[str, Any]:
            document = with_admin(len(self.world.servers), document)
            document["admin"]["tokens_file"] = str(self.tokens)
            return document

        self.world.server(name, change=change, seconds=seconds, **self.more)

    def ask(self, number: int, path: str, method: str = "GET", body: bytes = b"") -> Any:
        """Ask the admin API of a server."""
        client: Recorder = self.world.reactor.dial("127.0.0.1", ADMIN + number, Recorder())
        head = f"{method} /api/tunnel/v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        head += f"Authorization: Bearer {TOKEN}\r\n\r\n"
        if body:
            head = head[:-2] + f"Content-Length: {len(body)}\r\n\r\n"
        client.transport.write(head.encode() + body)
        self.world.pass_time(0.2)
        return parse_answer(client.data)

    def agents(self, number: int) -> dict[str, dict[str, Any]]:
        """All agents that a server knows, by what they call themselves."""
        answer = self.ask(number, "agents")
        self.assertEqual(answer.status, 200, answer.body)
        return {each["claimed_host_name"]: each for each in answer.json["items"]}

    def exclusions(self, name: str) -> list[tuple[str, ...]]:
        """Whom a server keeps out."""
        return [each.target for each in self.world.servers[name]._world.exclusions]


class OrderTests(OrdersTestCase):
    """Agents that have proved nothing."""

    def test_each_server_lists_all_agents(self) -> None:
        """With where they are, and the same id everywhere."""
        self.world.agent(0, answer="one", connections=2)
        self.world.agent(0, 1, answer="two", plain=True)
        self.world.pass_time(1)
        found = [self.agents(number) for number in range(3)]
        for each in found:
            self.assertEqual(sorted(each), ["one", "two"])
            self.assertEqual(each["one"]["id"], found[0]["one"]["id"])
        at_a, at_b, at_c = found
        self.assertEqual((at_a["one"]["connections"], at_a["one"]["elsewhere"]), (2, {}))
        self.assertEqual(at_b["one"]["connections"], 0)
        there = {"connections": 2, "healthy": True, "clusters": ["clientCluster"]}
        self.assertEqual(at_b["one"]["elsewhere"], {"a": there})
        self.assertEqual(list(at_a["two"]["elsewhere"]), ["b"])
        self.assertEqual(list(at_b["two"]["elsewhere"]), ["a"])
        self.assertEqual(sorted(at_c["two"]["elsewhere"]), ["a", "b"])
        one = self.ask(2, f"agents/{at_c['one']['id']}").json
        self.assertEqual((one["elsewhere"], one["requests"], one["since"]), ({"a": there}, 0, None))
        listed = self.ask(2, f"agents?ids={one['id']}").json["items"]
        self.assertEqual([each["id"] for each in listed], [one["id"]])
        self.assertEqual(self.ask(2, "agents?cluster=nothing").json["items"], [])
        self.assertEqual(len(self.ask(2, "agents?identity=unproved&limit=500").json["items"]), 2)

    def test_pages(self) -> None:
        """Each agent once, in the order of ids, wherever it is."""
        for number in range(5):
            self.world.agent(number % 2, answer=f"agent {number}")
        for server in range(3):
            found: list[str] = []
            after = ""
            while True:
                page = self.ask(server, f"agents?limit=2&after={after}").json
                found += [each["id"] for each in page["items"]]
                after = page["next"]
                if after is None:
                    break
            self.assertEqual(len(found), 5)
            self.assertEqual(found, sorted(set(found)))

    def test_kick_elsewhere(self) -> None:
        """The server that has the agent closes its connections, and both say who wanted that."""
        agent = self.world.agent(0, answer="one", connections=2)
        self.world.pass_time(1)
        key = self.agents(1)["one"]["id"]
        answer = self.ask(1, f"agents/{key}?ban=60", "DELETE")
        self.assertEqual(answer.status, 202)
        self.assertEqual((answer.json["connections"], answer.json["passed_on"]), (0, {"a": 2}))
        self.assertEqual(answer.json["problems"], [])
        self.world.pass_time(3)
        self.assertEqual(agent.agents[0].serving, 0)
        [mine] = self.ask(1, "audit").json["items"]
        [its] = self.ask(0, "audit").json["items"]
        [heard] = self.ask(2, "audit").json["items"]
        self.assertEqual((heard["what"], heard["agent"], heard["connections"]), ("ban", key, 0))
        self.assertIn("banned for 60 s by server a", heard["told"])
        for each in (mine, its):
            self.assertEqual((each["what"], each["agent"]), ("kick", key))
        self.assertIn("forwarded to server a", mine["told"])
        self.assertEqual((its["caller"], its["connections"]), (f"{mine['caller']} at server b", 2))
        self.assertEqual(self.ask(0, "agents").json["items"], [])

    def test_a_ban_counts_at_all_servers(self) -> None:
        """Nobody lets the agent in, wherever it dials, and a server that is new does not either."""
        self.world.agent(0, answer="one")
        self.world.pass_time(1)
        key = self.agents(2)["one"]["id"]
        self.ask(2, f"agents/{key}?ban=60", "DELETE")
        self.assertEqual({name: len(self.exclusions(name)) for name in "abc"}, dict.fromkeys("abc", 1))
        self.serve("d")
        self.world.pass_time(1)
        self.assertEqual(self.exclusions("d"), self.exclusions("a"))
        other = self.world.agent(0, 1, 2, 3, answer="one")
        self.world.pass_time(5)
        self.assertEqual(other.agents[0].serving, 0)
        # Whoever lets it in again does that for all, though it was another one that kept it out.
        self.assertTrue(self.ask(1, f"agents/{key}/resume", "POST").json["was_kept_out"])
        self.assertEqual([self.exclusions(name) for name in "abcd"], [[], [], [], []])
        self.world.pass_time(65)
        self.assertEqual(other.agents[0].serving, 4)

    def test_a_server_that_has_just_started(self) -> None:
        """It lets nobody in before it has heard of whom the others keep out."""
        self.world.agent(0, answer="one")
        self.world.pass_time(1)
        key = self.agents(1)["one"]["id"]
        self.ask(1, f"agents/{key}?ban=600", "DELETE")
        self.serve("d", 0.0)
        cluster = self.world.servers["d"].clusters.get("clientCluster")
        other = self.world.agent(3, answer="one")
        self.world.pass_time(3)
        self.assertEqual((other.agents[0].serving, cluster.joined), (0, 0))
        [server] = self.world.servers["d"]._world.tunnels.values()
        self.assertEqual(server.tally.refusals[-1]["result"], "banned")

    def test_a_ban_ends_everywhere(self) -> None:
        agent = self.world.agent(0, answer="one")
        key = self.agents(1)["one"]["id"]
        self.ask(1, f"agents/{key}?ban=20", "DELETE")
        self.world.pass_time(25)
        self.assertEqual([self.exclusions(name) for name in "abc"], [[], [], []])
        self.world.pass_time(31)
        self.assertEqual(agent.agents[0].serving, 1)

    def test_drain_at_all_servers_that_have_it(self) -> None:
        """Also where it is asked for; and only this process of the agent is kept out."""
        agent = self.world.agent(0, 1, answer="one")
        other = self.world.agent(0, answer="other")
        self.world.pass_time(1)
        key = self.agents(0)["one"]["id"]
        answer = self.ask(0, f"agents/{key}/drain?for=600", "POST")
        self.assertEqual((answer.json["connections"], answer.json["passed_on"]), (1, {"b": 1}))
        self.world.pass_time(5)
        self.assertEqual((agent.agents[0].serving, other.agents[0].serving), (0, 1))
        self.assertEqual([target[0] for target in self.exclusions("c")], ["process"])
        for number in range(3):
            self.assertEqual(list(self.agents(number)), ["other"])

    def test_let_in_again_while_a_server_was_away(self) -> None:
        """It does not bring back what has been lifted."""
        self.world.agent(0, answer="one")
        key = self.agents(1)["one"]["id"]
        self.ask(1, f"agents/{key}?ban=600", "DELETE")
        for one in "ab":
            self.world.fleet("c").links.all[one].revoke("a test")
            self.world.fleet(one).links.all["c"].revoke("a test")
        self.ask(0, f"agents/{key}/resume", "POST")
        self.world.pass_time(8)
        self.assertEqual([self.exclusions(name) for name in "abc"], [[], [], []])

    def test_a_server_that_can_not_be_told(self) -> None:
        """That is said, and nothing is written down."""
        self.world.agent(0, answer="one")
        key = self.agents(1)["one"]["id"]
        for link in list(self.world.fleet("b").incoming.all):
            link.server = ""
        answer = self.ask(1, f"agents/{key}", "DELETE")
        self.assertEqual(answer.status, 502)
        self.assertIn(
            "the agent is connected to server a, which has no link to this server", answer.body.decode()
        )
        self.assertEqual(self.ask(1, "audit").json["items"], [])

    def test_nothing_is_looked_at_again(self) -> None:
        """While somebody is kept out: it says nothing of agents of other servers."""
        self.world.pass_time(1.5)
        looks: list[int] = []
        self.patch(self.world.fleet("b").remote, "review", lambda: looks.append(1))
        self.world.servers["b"]._world.exclusions.exclude(("address", "::1"), 3.0, "banned by ops")
        self.world.pass_time(5)
        self.assertEqual(looks, [])

    def test_the_list_of_any_server(self) -> None:
        """Has whom others keep out, and what it calls them lets them in; whoever does it, all have that."""
        self.world.agent(0, answer="one")
        key = self.agents(1)["one"]["id"]
        self.ask(1, f"agents/{key}?ban=600", "DELETE")
        lists = [self.ask(number, "exclusions").json["items"] for number in range(3)]
        for [each] in lists:
            self.assertEqual((each["id"], each["agents"]), (lists[0][0]["id"], [key]))
            self.assertIn("banned by ops at server b", each["why"])
        answer = self.ask(2, f"exclusions/{lists[0][0]['id']}", "DELETE")
        self.assertEqual(answer.status, 200, answer.body)
        self.world.pass_time(0.5)
        self.assertEqual([self.exclusions(name) for name in "abc"], [[], [], []])
        [entry] = [each for each in self.ask(0, "audit").json["items"] if each["what"] == "lift ban"]
        self.assertEqual((entry["caller"], entry["agent"]), ("server c", key))

    def test_a_server_without_an_admin_api(self) -> None:
        """It does what is ordered elsewhere all the same."""
        self.world.server("d")
        agent = self.world.agent(3, answer="one")
        self.world.pass_time(1)
        key = self.agents(0)["one"]["id"]
        answer = self.ask(0, f"agents/{key}?ban=60", "DELETE")
        self.assertEqual((answer.json["passed_on"], answer.json["problems"]), ({"d": 1}, []))
        self.world.pass_time(1)
        self.assertEqual(agent.agents[0].serving, 0)
        self.assertEqual(len(self.exclusions("d")), 1)

    def test_a_server_that_does_not_answer(self) -> None:
        """It is waited for no longer than a second, and named."""
        self.world.agent(0, answer="one", connections=2)
        self.world.pass_time(1)
        key = self.agents(1)["one"]["id"]
        self.patch(self.world.fleet("a").orders, "obey", lambda order: (5, "it is full"))
        self.patch(self.world.fleet("b").orders, "done", lambda link, message: None)
        client: Recorder = self.world.reactor.dial("127.0.0.1", ADMIN + 1, Recorder())
        head = f"DELETE /api/tunnel/v1/agents/{key} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        client.transport.write(f"{head}Authorization: Bearer {TOKEN}\r\n\r\n".encode())
        self.world.pass_time(0.9)
        self.assertEqual(client.data, b"")
        self.world.pass_time(0.2)
        answer = parse_answer(client.data)
        self.assertEqual((answer.status, answer.json["passed_on"]), (202, {"a": 2}))
        [problem] = answer.json["problems"]
        self.assertEqual((problem["server"], problem["problem"]), ("a", "no answer yet"))

    def test_a_weight_elsewhere(self) -> None:
        """It is said where it may be changed."""
        self.world.agent(0, answer="one")
        [host] = self.ask(1, "clusters/clientCluster/hosts").json["items"]
        path = f"clusters/clientCluster/hosts/{host['address'].replace('/', '%2F')}/weight"
        answer = self.ask(1, path, "PUT", b'{"weight": 5}')
        self.assertEqual(answer.status, 409, answer.body)
        self.assertIn("its agent is at server a", answer.body.decode())
        self.assertEqual(self.ask(1, path.replace("a%2F", "x%2F"), "PUT", b'{"weight": 5}').status, 404)

    def test_nobody(self) -> None:
        for method, path in (("DELETE", "agents/x"), ("POST", "agents/x/drain"), ("POST", "agents/x/resume")):
            self.assertEqual(self.ask(0, path, method).status, 404)

    def test_nonsense_ends_the_link(self) -> None:
        link = next(each for each in self.world.fleet("a").incoming.all if each.server == "b")
        link.send({"keep_out": [], "seconds": 5})
        self.world.pass_time(2)
        [peer] = [each for each in self.world.fleet("b").peers() if each["server"] == "a"]
        self.assertEqual((peer["losses"], peer["state"]), (1, "up"))


class ProvedTests(OrdersTestCase):
    """Agents that prove by a token who they are, which all servers know of one another."""

    more: ClassVar[dict[str, Any]] = {"tunnel_config": STATIC}

    def certain(self, *servers: int, answer: str, **more: Any) -> Any:
        """Run an agent that proves by a token that it is the edge."""
        return self.world.agent(
            *servers,
            answer=answer,
            credential_policy="static",
            credential_config={"token": "very secret"},
            **more,
        )

    def test_who_is_connected_stays(self) -> None:
        """At all servers alike, whose token is kept out; but not the very agent that was kicked."""
        kicked = self.certain(0, answer="kicked")
        other = self.certain(1, answer="other")
        self.world.pass_time(1)
        key = self.agents(2)["kicked"]["id"]
        answer = self.ask(2, f"agents/{key}?ban=600", "DELETE")
        self.assertEqual(answer.json["kept_out"]["target"], ["token", "static", "edge-7"])
        with_hosts = {name: list(self.world.fleet(name).remote.hosts) for name in "ac"}
        self.world.pass_time(5)
        self.assertEqual((kicked.agents[0].serving, other.agents[0].serving), (0, 1))
        for name, hosts in with_hosts.items():
            self.assertEqual([each.server for each in hosts if each.server == "b"], ["b"], name)
            self.assertEqual([each.server for each in self.world.fleet(name).remote.hosts], ["b"], name)
        for number in range(3):
            self.assertIn(b"other", self.world.ask(number, seconds=0.1))
        # It does not get in again, though.
        again = self.certain(0, 1, 2, answer="again")
        self.world.pass_time(5)
        self.assertEqual(again.agents[0].serving, 0)

    def test_an_agent_that_has_moved(self) -> None:
        """Whoever has the agent that was banned lets go of it, even if nobody knew that it was there."""
        agent = self.certain(1, answer="one")
        self.world.pass_time(1)
        key = self.agents(1)["one"]["id"]
        self.world.servers["a"]._world.exclusions.exclude(
            ("token", "static", "edge-7"), 600.0, "banned by ops", "1", key
        )
        self.world.pass_time(0.5)
        self.assertEqual(agent.agents[0].serving, 1)
        self.world.pass_time(1)
        self.assertEqual(agent.agents[0].serving, 0)
        [entry] = [each for each in self.ask(1, "audit").json["items"] if each["what"] == "kick"]
        self.assertEqual((entry["agent"], entry["caller"]), (key, "ops at server a"))
        self.assertEqual((entry["connections"], entry["kept_out"]["seconds"]), (1, 600.0))
        leaves = self.world.servers["b"].inspector.parts.leaves.leaves
        self.assertEqual([reason for _, reason in leaves], ["operator"])

    def test_a_server_that_can_not_be_told_of_a_ban(self) -> None:
        """Everybody else hears of it, so that it is no failure; who was not told is named."""
        self.certain(0, answer="one")
        self.world.pass_time(1)
        key = self.agents(1)["one"]["id"]
        for link in list(self.world.fleet("b").incoming.all):
            link.server = ""
        answer = self.ask(1, f"agents/{key}?ban=600", "DELETE")
        self.assertEqual((answer.status, answer.json["passed_on"]), (202, {}))
        self.assertEqual([each["server"] for each in answer.json["problems"]], ["a"])


class HeardTests(SynchronousTestCase):
    """What another server says, and what of that counts."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.exclusions = Exclusions(self.clock.seconds)
        self.said: list[dict[str, Any]] = []
        entrance: Any = self
        self.links: set[Any] = set()
        self.orders = Orders(self.exclusions, lambda: entrance, self.clock)
        self.obeyed: list[Order] = []
        self.orders.obey = self.obey

    def send(self, message: dict[str, Any]) -> None:
        """Take the place of an entrance."""
        self.said.append(json.loads(json.dumps(message)))

    def obey(self, order: Order) -> tuple[int, str]:
        """Have two connections of any agent."""
        self.obeyed.append(order)
        return 2, ""

    def keep_out(self, **more: Any) -> None:
        message = {"keep_out": ["token", "p", "x"], "seconds": 60, "ids": ["1"], "why": "banned by ops"}
        self.orders.heard("b", {**message, "agents": [], **more})

    def left(self) -> list[float]:
        """For how long somebody is kept out."""
        return [each.until - self.clock.seconds() for each in self.exclusions]

    def test_what_is_heard_is_not_told_on(self) -> None:
        self.keep_out()
        self.assertEqual(self.said, [])
        [found] = self.exclusions
        self.assertEqual(found.reason, "banned by ops at server b")

    def test_who_has_heard_tells_whoever_links(self) -> None:
        self.keep_out()
        self.exclusions.lift(("token", "p", "x"))
        self.assertEqual(self.said, [{"let_in": ["1"], "seconds": 60.0}])
        self.exclusions.exclude(("address", "::1"), 5.0, "x")
        self.said.clear()
        self.orders.greet(self)  # type: ignore[arg-type]
        self.assertEqual([next(iter(each)) for each in self.said], ["let_in", "keep_out"])

    def test_again(self) -> None:
        """What is known already makes nothing longer."""
        self.keep_out()
        self.clock.advance(30)
        self.keep_out()
        self.assertEqual(self.left(), [30.0])

    def test_two_operators(self) -> None:
        """The longer one counts, unless somebody has decided who knew of the other."""
        self.keep_out()
        self.keep_out(ids=["2"], seconds=10)
        self.assertEqual(self.left(), [60.0])
        self.keep_out(ids=["1", "2", "3"], seconds=5)
        self.assertEqual(self.left(), [5.0])

    def test_lifted(self) -> None:
        self.keep_out()
        self.orders.heard("b", {"let_in": ["1", "7"]})
        self.assertEqual(self.left(), [])
        self.keep_out()
        self.assertEqual(self.left(), [])
        self.keep_out(ids=["1", "2"])
        self.assertEqual(self.left(), [60.0])

    def test_what_others_would_not_take(self) -> None:
        """It costs no link: the rest is told, and there is a line about it."""
        for target in (("token", "p", "x" * 513), ("token", "p", "a\nb"), ("address", "")):
            with capture() as events:
                self.exclusions.exclude(target, 60.0, "x")
            self.assertIn("can't be sent to other servers", events.text())
        self.keep_out()
        self.assertEqual(self.said, [])
        with capture() as events:
            self.orders.greet(self)  # type: ignore[arg-type]
        self.assertEqual([each["keep_out"] for each in self.said], [["token", "p", "x"]])
        self.assertEqual(events.text().count("can't be sent to other servers"), 3)
        self.said.clear()
        self.exclusions.exclude(("address", "::1"), 60.0, "banned by a\nb" + 300 * "x")
        [message] = self.said
        self.assertEqual((message["why"][:13], len(message["why"])), ("banned by a?b", 256))
        entrance: Any = self
        other = Orders(Exclusions(self.clock.seconds), lambda: entrance, self.clock)
        other.heard("b", message)

    def test_what_is_too_long_for_a_message(self) -> None:
        def refuse(message: object) -> None:
            raise WireError("9000 bytes can't be told to another server, 8192 are the most")

        self.send = refuse  # type: ignore[method-assign,assignment]
        self.exclusions.exclude(("address", "::1"), 60.0, "x")
        self.orders.greet(self)  # type: ignore[arg-type]

    def test_crossing(self) -> None:
        """What an operator here has decided at the same time stays."""
        self.keep_out()
        self.exclusions.exclude(("token", "p", "x"), 60.0, "banned by ops", "2")
        self.orders.heard("b", {"let_in": ["1"], "seconds": 60})
        self.assertEqual(self.left(), [60.0])
        self.orders.heard("b", {"let_in": ["2"]})
        self.assertEqual(self.left(), [])

    def test_what_is_to_be_written_down(self) -> None:
        heard: list[Any] = []
        self.orders.kept_out = lambda server, exclusion: heard.append((server, exclusion.ids))
        self.orders.let_in = lambda server, exclusion: heard.append((server, exclusion.target))
        self.keep_out()
        self.keep_out()
        self.orders.heard("c", {"let_in": ["1"]})
        self.orders.heard("c", {"let_in": ["1"]})
        self.assertEqual(heard, [("b", ("1",)), ("c", ("token", "p", "x"))])

    def test_bound(self) -> None:
        for number in range(MOST):
            self.keep_out(keep_out=["address", str(number)], ids=[f"i{number}"])
        self.keep_out(keep_out=["address", "x"], ids=["x"])
        self.assertEqual(len(self.exclusions), MOST)

    def test_orders(self) -> None:
        kick = {"order": "kick", "id": "1", "agent": "a", "seconds": 5, "who": "ops"}
        answer = self.orders.heard("b", kick)
        self.assertEqual(answer, {"done": "1", "connections": 2, "problem": ""})
        self.orders.heard("b", {"order": "drain", "id": "2", "agent": "a"})
        self.assertEqual(
            self.obeyed,
            [
                Order("kick", "1", "a", 5.0, "ops at server b"),
                Order("drain", "2", "a", 0.0, "somebody at server b"),
            ],
        )

    def test_nonsense(self) -> None:
        for more in (
            {"keep_out": "x"},
            {"keep_out": []},
            {"keep_out": ["a"] * 4},
            {"keep_out": [1]},
            {"keep_out": ["x" * 600]},
            {"seconds": None},
            {"seconds": -1},
            {"seconds": True},
            {"seconds": LONGEST + 1},
            {"seconds": float("nan")},
            {"ids": []},
            {"ids": ["x"] * 100},
            {"ids": {}},
            {"why": "\n"},
            {"agents": {}},
            {"agents": [""]},
            {"ids": ["x" * 65]},
            {"ids": ["\n"]},
            {"keep_out": ["dance", "x"]},
            {"keep_out": ["token", "x"]},
            {"keep_out": ["address", "x", "y"]},
            {"keep_out": ["address", ""]},
            {"keep_out": ["token", "p", "a\nb"]},
            {"ids": [str(each) for each in range(MOST_IDS + 1)]},
        ):
            with self.assertRaises(WireError, msg=more):
                self.keep_out(**more)
        for message in (
            {"order": "dance"},
            {"order": []},
            {"order": "kick", "id": 1},
            {"let_in": "x"},
            {"let_in": ["1"], "seconds": -1},
        ):
            with self.assertRaises(WireError, msg=message):
                self.orders.heard("b", message)
        self.assertEqual((self.left(), self.obeyed), ([], []))
