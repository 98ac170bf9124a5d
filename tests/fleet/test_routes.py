"""Routes that agents bring to one server of a fleet, at all of them; in memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar
from urllib.parse import quote

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.outgoing_link import LinkContext
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.process.inherited_sockets import INHERITED
from reverseproxy.testing import MemoryReactor, Recorder
from tests.fleet.fake_etcd import FakeEtcd, Store
from tests.tunnel.logged import capture
from tests.tunnel.test_agent_routes import TUNNELS, WEB, agent, server

NAMES = ("alpha", "beta", "gamma")


class Fleet(SynchronousTestCase):
    """Servers alpha, beta and gamma, and agents of any of them."""

    tokens: ClassVar[dict[str, Any]] = {
        "one": {"domains": ["*.x.example"], "ports": ["3000-3002"]},
        "two": {"domains": ["*.x.example"], "ports": ["3000-3002"]},
    }

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        clock: Any = self.reactor
        self.etcd = Store(clock)
        self.clients: dict[str, FakeEtcd] = {}
        self.running: dict[str, ReverseProxy] = {}
        self.directories: dict[str, FleetDirectory] = {}
        self.addCleanup(self.stop_all)
        for name in NAMES[:2]:
            self.serve(name)

    def serve(self, name: str) -> ReverseProxy:
        """Run a server."""
        number = NAMES.index(name)
        document = server(self.tokens, grace="5s", tcp_address=f"127.0.0.{number + 1}")
        web, tunnels = document["servers"][0]["listeners"]
        web["address"], tunnels["address"] = f"127.0.0.1:{WEB + number}", f"127.0.0.1:{TUNNELS + number}"
        document["fleet"] = {
            "server_id": name,
            "etcd": {"endpoints": ["127.0.0.1:1"]},
            "peers": {"address": f"127.0.0.1:{4000 + number}"},
        }
        return self.run_it(name, self.changed(name, document))

    def changed(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        """Change a server's configuration."""
        return document

    def run_it(self, name: str, document: dict[str, Any]) -> ReverseProxy:
        """Run something."""
        service = ReverseProxy(
            loads(json.dumps(document), name).config,
            self.reactor,
            Random(len(self.running)),
            make_directory=partial(self._directory, name),
        )
        service.startService()
        self.running[name] = service
        self.pass_time(1)
        return service

    def _directory(self, name: str, config: Any, who: Any, world: Any, publishes: bool) -> Any:
        etcd: Any = FakeEtcd(self.etcd)
        self.clients[name] = etcd
        settings = Settings(config.server_id, "/fleet/", 10)
        found = FleetDirectory(self.reactor, etcd, settings, Random(1), who, publishes)
        self.directories[name] = found
        return found

    def bring(self, name: str, *servers: str, cluster: str = "app", owner: str = "one", **routes: Any) -> Any:
        """Run an agent that brings routes."""
        document = agent(owner, cluster, body=name, **(routes or {"subdomains": ["app"]}))
        document["extends"][0]["config"]["server_list"] = [
            f"127.0.0.1:{TUNNELS + NAMES.index(each)}" for each in servers
        ]
        return self.run_it(name, document)

    def stop(self, name: str) -> None:
        """Stop something."""
        self.running.pop(name).stopService()
        self.pass_time(1)

    def kill(self, name: str) -> None:
        """A server has no contact any more, to anybody."""
        self.clients[name].reachable = False
        service = self.running.pop(name)
        for each in service.listeners.values():
            each.stop_accepting()
            each.abort()
        fleet: Any = service._world.fleet
        fleet.links.stop()
        fleet.incoming.close("killed")
        self.addCleanup(self._bury, service)

    def _bury(self, service: ReverseProxy) -> None:
        service.stopService()
        self.pass_time(30)

    def stop_all(self) -> None:
        """End everything."""
        for name in reversed(list(self.running)):
            self.running.pop(name).stopService()
        self.pass_time(40)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        for _ in range(max(int(seconds * 20), 1)):
            self.etcd.tick(0.05)
            self.reactor.settle()

    def get(self, name: str, host: str = "app.x.example", seconds: float = 0.3) -> bytes:
        """Ask a server for a domain."""
        client: Recorder = self.reactor.dial("127.0.0.1", WEB + NAMES.index(name), Recorder())
        client.transport.write(b"GET / HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n\r\n" % host.encode())
        self.pass_time(seconds)
        return bytes(client.data).rpartition(b"\r\n\r\n")[2]

    def cut_off(self, name: str) -> None:
        """A directory does not reach etcd any more, and hears nothing of what becomes of it."""
        self.clients[name].reachable = False
        follower = self.directories[name]._follower
        for watch in list(self.etcd.watches):
            if getattr(watch.told, "__self__", None) is follower:
                self.etcd.end(watch)

    def unlink(self, name: str) -> Callable[[], None]:
        """A server reaches no other one any more, until what is returned is called."""
        service: Any = self.running[name]
        links = service._world.fleet.links
        context = links._context

        def nothing(address: str) -> Any:
            raise ValueError(f"{address} is cut off")

        def use(now: LinkContext) -> None:
            for each in (links, *links):
                each._context = now

        use(replace(context, endpoint=nothing))
        for link in links:
            link.revoke("cut off")
        return partial(use, context)

    def stored(self) -> list[str]:
        """Whose routes are in the directory, and where."""
        prefix = "/fleet/routes/"
        return sorted(key.removeprefix(prefix) for key in self.etcd.keys if key.startswith(prefix))


class RouteTests(Fleet):
    """What clients get."""

    def test_known_everywhere_within_a_second(self) -> None:
        self.bring("mine", "alpha")
        self.assertEqual(self.stored(), ["app/alpha"])
        self.assertEqual(self.get("alpha"), b"mine")
        self.assertEqual(self.get("beta"), b"mine")
        self.assertEqual(self.get("beta", "other.x.example"), b"default")

    def test_servers_that_come_later(self) -> None:
        self.bring("mine", "alpha")
        self.serve("gamma")
        self.assertEqual(self.get("gamma"), b"mine")

    def test_agent_at_two_servers(self) -> None:
        service = self.bring("mine", "alpha", "beta")
        self.assertEqual(service.agents[0].serving, 4)
        self.assertEqual(self.stored(), ["app/alpha", "app/beta"])
        self.assertEqual({self.get(name) for name in NAMES[:2]}, {b"mine"})

    def test_gone_after_the_last_agent_and_the_grace_time(self) -> None:
        self.bring("mine", "alpha", "beta")
        self.bring("other", "beta")
        self.stop("mine")
        self.pass_time(7)
        self.assertEqual(self.stored(), ["app/beta"])
        self.assertEqual(self.get("alpha"), b"other")
        self.stop("other")
        self.pass_time(2)
        self.assertEqual(self.stored(), ["app/beta"])
        self.pass_time(5)
        self.assertEqual(self.stored(), [])
        self.assertEqual([self.get(name) for name in NAMES[:2]], [b"default", b"default"])

    def test_taken(self) -> None:
        """What somebody has at one server, nobody else gets at another one."""
        self.bring("mine", "alpha")
        self.assertEqual(self.bring("other", "beta", owner="two", cluster="theirs").agents[0].serving, 0)
        self.assertEqual(self.bring("third", "beta", owner="two").agents[0].serving, 0)
        self.assertEqual(self.get("beta"), b"mine")
        self.assertEqual(self.stored(), ["app/alpha"])

    def test_two_at_the_same_moment(self) -> None:
        """Exactly one of them gets it, and it is the same one at every server."""
        self.serve("gamma")
        self.etcd.muted = True
        mine = self.bring("mine", "alpha")
        other = self.bring("other", "beta", owner="two", cluster="theirs")
        self.assertEqual(self.stored(), ["app/alpha", "theirs/beta"])
        self.assertEqual((mine.agents[0].serving, other.agents[0].serving), (0, 0))
        self.etcd.muted = False
        self.etcd.pump()
        self.pass_time(1)
        self.assertEqual(self.stored(), ["app/alpha"])
        self.assertEqual((mine.agents[0].serving, other.agents[0].serving), (2, 0))
        self.assertEqual({self.get(name) for name in NAMES}, {b"mine"})

    def test_free_again(self) -> None:
        """Who was refused gets it when the other one is gone, at whichever server."""
        self.bring("mine", "alpha")
        other = self.bring("other", "beta", owner="two", cluster="theirs")
        self.stop("mine")
        self.pass_time(40)
        self.assertEqual(other.agents[0].serving, 2)
        self.assertEqual({self.get(name) for name in NAMES[:2]}, {b"other"})

    def test_port(self) -> None:
        """The port is the same at all servers."""
        service = self.bring("mine", "alpha", port=0, tcp=True)
        self.assertEqual(service.agents[0].serving, 2)
        for name in NAMES[:2]:
            self.assertIn("port_3000", " ".join(self.running[name].listeners).replace(" 3000", "_3000"))
        self.bring("other", "beta", port=0, tcp=True, owner="two", cluster="theirs")
        self.assertEqual(self.stored(), ["app/alpha", "theirs/beta"])
        records = [
            json.loads(found.value or b"") for key, found in self.etcd.keys.items() if "/routes/" in key
        ]
        self.assertEqual(sorted(each["port"] for each in records), [3000, 3001])

    def test_etcd_away(self) -> None:
        """What is there stays; nothing new is decided, and is when etcd is back."""
        self.bring("mine", "alpha")
        self.etcd.go_down()
        other = self.bring("other", "beta", owner="two", cluster="theirs", subdomains=["b"])
        self.pass_time(20)
        self.assertEqual(other.agents[0].serving, 0)
        self.assertEqual({self.get(name) for name in NAMES[:2]}, {b"mine"})
        self.etcd.come_back()
        self.pass_time(60)
        self.assertEqual(other.agents[0].serving, 2)
        self.assertEqual(self.get("alpha", "b.x.example"), b"other")

    def test_emptied_etcd(self) -> None:
        self.bring("mine", "alpha")
        self.etcd.wipe()
        for _ in range(8):
            self.assertEqual({self.get(name, seconds=0.5) for name in NAMES[:2]}, {b"mine"})
        self.assertEqual(self.stored(), ["app/alpha"])

    def test_planned_stop_of_the_server_that_has_it(self) -> None:
        """Agents go elsewhere, and bring their routes there: these are never gone."""
        self.bring("mine", "alpha", "beta")
        self.stop("alpha")
        for _ in range(10):
            self.assertEqual(self.get("beta", seconds=1), b"mine")
        self.assertEqual(self.stored(), ["app/beta"])

    def test_server_is_killed(self) -> None:
        """Its routes stay for a while, for an agent that is on its way to another one."""
        self.bring("mine", "alpha")
        self.kill("alpha")
        self.pass_time(11)
        self.assertEqual(self.stored(), [])
        self.assertEqual(self.bring("other", "beta", owner="two", cluster="theirs").agents[0].serving, 0)
        self.bring("again", "beta")
        self.assertEqual(self.get("beta"), b"again")
        self.assertEqual(self.stored(), ["app/beta"])

    def test_server_is_killed_and_nobody_comes(self) -> None:
        self.bring("mine", "alpha")
        self.kill("alpha")
        self.pass_time(18)
        self.assertEqual(self.get("beta"), b"default")

    def test_lost_while_away(self) -> None:
        """Who was not there for so long that others have it now, gives it up."""
        self.bring("mine", "alpha")
        alpha: Any = self.running["alpha"]._world.fleet
        back = [self.unlink(name) for name in NAMES[:2]]
        self.clients["alpha"].reachable = False
        self.pass_time(11)
        self.pass_time(6)
        other = self.bring("other", "beta", owner="two", cluster="theirs")
        self.assertEqual(other.agents[0].serving, 2)
        self.clients["alpha"].reachable = True
        for link in back:
            link()
        self.pass_time(8)
        self.assertEqual(self.stored(), ["theirs/beta"])
        self.assertEqual(alpha.directory.routes.keys(), {("theirs", "beta")})
        self.assertEqual(self.running["alpha"].answer("routes", {})[0]["cluster"], "theirs")

    def test_others_by_another_way(self) -> None:
        """Who has heard nothing until all of it was compacted takes over what is there now."""
        for more in ({"subdomains": ["b"]}, {"owner": "two", "subdomains": ["c"]}):
            self.bring("mine", "alpha")
            self.assertEqual(self.get("beta"), b"mine")
            self.cut_off("beta")
            self.stop("mine")
            self.pass_time(7)
            self.bring("again", "alpha", **more)
            self.assertEqual(self.stored(), ["app/alpha"])
            self.etcd.compact()
            self.clients["beta"].reachable = True
            self.pass_time(5)
            [domain] = more["subdomains"]
            self.assertEqual(self.get("beta", f"{domain}.x.example"), b"again")
            self.assertEqual(self.get("beta"), b"default")
            self.stop("again")
            self.pass_time(7)
            self.assertEqual(self.get("beta", f"{domain}.x.example"), b"default")

    def test_another_port(self) -> None:
        for port in (3001, 3002):
            self.bring("mine", "alpha", port=port, tcp=True)
            self.assertIn(str(port), " ".join(self.running["beta"].listeners))
            self.cut_off("beta")
            self.stop("mine")
            self.pass_time(7)
            self.etcd.compact()
            self.bring("mine", "alpha", port=3000, tcp=True)
            self.clients["beta"].reachable = True
            self.pass_time(5)
            opened = " ".join(self.running["beta"].listeners)
            self.assertEqual(("3000" in opened, str(port) in opened), (True, False))
            self.stop("mine")
            self.pass_time(7)

    def test_overwritten(self) -> None:
        """Whoever writes over what a server has published changes that for a moment."""
        self.bring("mine", "alpha")
        key = "/fleet/routes/app/alpha"
        found = self.etcd.keys[key].value
        assert found is not None
        self.etcd.commit({key: found.replace(b"app.x.example", b"b.x.example")})
        self.pass_time(0.5)
        self.assertEqual(self.etcd.keys[key].value, found)
        self.assertEqual([self.get("beta"), self.get("beta", "b.x.example")], [b"mine", b"default"])

    def test_strays(self) -> None:
        """What is called like a server's and is not is deleted by that server, wherever it comes from."""
        self.bring("mine", "alpha")
        found = self.etcd.keys["/fleet/routes/app/alpha"].value
        assert found is not None
        for name in ("evil", "evil too"):
            self.etcd.commit({f"/fleet/routes/{quote(name)}/alpha": found.replace(b"app.x", b"b.x")})
            self.pass_time(4)
            self.assertEqual(self.stored(), ["app/alpha"])
            self.assertEqual([self.get("beta"), self.get("beta", "b.x.example")], [b"mine", b"default"])

    def test_a_server_that_is_made_up(self) -> None:
        """Nothing is made of what is said in its name, as there is no link to it."""
        self.bring("mine", "alpha")
        found = self.etcd.keys["/fleet/routes/app/alpha"].value
        assert found is not None
        self.etcd.commit({"/fleet/servers/ghost": ServerRecord("ghost", "127.0.0.1:9").encode()})
        self.etcd.commit({"/fleet/routes/evil/ghost": found.replace(b"app.x", b"b.x")})
        self.pass_time(10)
        for name in NAMES[:2]:
            self.assertEqual([each["cluster"] for each in self.running[name].answer("routes", {})], ["app"])

    def test_a_server_that_is_linked_late(self) -> None:
        """What has been brought to it is made then, and stays when the link is lost."""
        link = self.unlink("beta")
        self.bring("mine", "alpha")
        self.assertEqual(self.get("beta"), b"default")
        link()
        self.pass_time(6)
        self.assertEqual(self.get("beta"), b"mine")
        self.unlink("beta")
        self.pass_time(6)
        self.assertEqual(self.running["beta"].answer("routes", {})[0]["cluster"], "app")

    def test_forged_while_its_agent_is_on_its_way(self) -> None:
        """Nobody has what stays for an agent, nor takes it away, by writing something into etcd."""
        self.bring("mine", "alpha")
        self.kill("alpha")
        self.pass_time(11)
        self.assertEqual(self.running["beta"].answer("routes", {})[0]["cluster"], "app")
        record = {
            "v": 1,
            "listener": "tunnels",
            "owner": "token:one (policy static)",
            "domains": ["b.x.example"],
        }
        self.etcd.commit({"/fleet/servers/gamma": ServerRecord("gamma", "127.0.0.1:9").encode()})
        self.etcd.commit({"/fleet/routes/app/gamma": json.dumps(record).encode()})
        self.pass_time(0.5)
        self.assertEqual(self.running["beta"].answer("routes", {})[0]["domains"], ["app.x.example"])


class TakeoverTests(Fleet):
    """A new process in the place of a server, while agents are on their way to it."""

    def take_over(self, change: Callable[[dict[str, Any]], object] = lambda claim: None) -> None:
        """Have another process take over from alpha, whose agents have not noticed yet."""
        service = self.running.pop("alpha")
        claims = json.loads(json.dumps(service.claims()))
        for claim in claims:
            change(claim)
        service.succeed()
        for each in service.listeners.values():
            each.stop_accepting()
            each.abort()
        fleet: Any = service._world.fleet
        fleet.links.stop()
        fleet.incoming.close("killed")
        self.clients["alpha"].reachable = False
        self.addCleanup(self._bury, service)
        INHERITED.claims = claims
        self.serve("alpha")
        self.assertEqual(INHERITED.claims, [])

    def clusters(self) -> list[str]:
        """Those that agents have brought, as alpha knows them."""
        [server] = self.running["alpha"]._world.tunnels.values()
        assert server.routes is not None
        return [each["cluster"] for each in server.routes.describe()]

    def test_until_its_agent_is_back(self) -> None:
        agent = self.bring("mine", "alpha")
        self.running.pop("mine")
        agent.stopService()
        self.pass_time(0.1)
        self.take_over()
        self.assertEqual(self.clusters(), ["app"])
        client: Recorder = self.reactor.dial("127.0.0.1", WEB, Recorder())
        client.transport.write(b"GET / HTTP/1.1\r\nHost: app.x.example\r\nConnection: close\r\n\r\n")
        self.pass_time(0.5)
        self.assertEqual(bytes(client.data), b"")  # it waits
        self.bring("again", "alpha")
        self.assertTrue(bytes(client.data).endswith(b"again"))
        self.pass_time(20)
        self.assertEqual([self.get(name) for name in NAMES[:2]], [b"again"] * 2)
        self.assertEqual(len(self.directories["beta"].routes), 1)
        self.stop("again")
        self.pass_time(10)
        self.assertEqual(self.clusters(), [])

    def test_its_agent_does_not_come_back(self) -> None:
        agent = self.bring("mine", "alpha")
        self.running.pop("mine")
        agent.stopService()
        self.pass_time(0.1)
        self.take_over()
        self.assertEqual(self.clusters(), ["app"])
        self.pass_time(6)
        self.assertEqual(self.clusters(), [])
        self.assertEqual(len(self.directories["beta"].routes), 0)

    def test_its_agent_is_elsewhere_as_well(self) -> None:
        self.bring("mine", "alpha", "beta")
        self.take_over()
        self.pass_time(20)
        self.assertEqual([self.get(name) for name in NAMES[:2]], [b"mine"] * 2)
        self.assertEqual(self.clusters(), ["app"])

    def test_of_another_server(self) -> None:
        """It is told of them by that one."""
        self.bring("mine", "beta")
        self.assertEqual(self.running["alpha"].claims(), [])

    def test_what_is_not_allowed_any_more(self) -> None:
        self.bring("mine", "alpha")

        def other(claim: dict[str, Any]) -> None:
            claim["domains"] = ["app.y.example"]

        with capture() as events:
            self.take_over(other)
        self.assertIn("the routes of cluster app are not handed on:", events.text())
        self.pass_time(10)
        self.assertEqual(self.get("alpha"), b"mine")


class AllowanceTests(Fleet):
    """What a token allows is up to the server that the agent is connected to, and to each that routes."""

    def setUp(self) -> None:
        self.files: dict[str, Path] = {}
        super().setUp()
        self.allow("beta", domains=["*.x.example"], ports=["3000"])

    def allow(self, name: str, agent: str = "one", **entry: Any) -> None:
        """Write a server's file of tokens."""
        fresh = self.files[name].with_suffix(".new")
        fresh.write_text(json.dumps([{"agent": agent, "token": f"token of {agent}", **entry}]))
        fresh.replace(self.files[name])
        self.pass_time(2.5)

    def changed(self, name: str, document: dict[str, Any]) -> dict[str, Any]:
        path = self.files[name] = Path(self.mktemp())
        entry = {"agent": "one", "token": "token of one", "domains": ["*.x.example"], "ports": ["3000"]}
        path.write_text(json.dumps([entry]))
        for listener in document["servers"][0]["listeners"]:
            for each in listener["filter_chains"][0]["filters"]:
                if each["type"] == "tunnel":
                    each["config"]["validators"] = {"static": {"file": str(path)}}
        return document

    def test_domains(self) -> None:
        self.bring("mine", "alpha")
        self.assertEqual([self.get(name) for name in NAMES[:2]], [b"mine", b"mine"])
        for entry in ({"domains": ["*.y.example"]}, {}, {"agent": "two", "domains": ["*"]}):
            self.allow("beta", **entry)
            self.assertEqual([self.get(name) for name in NAMES[:2]], [b"mine", b"default"], entry)
            self.allow("beta", domains=["app.x.example"])
            self.assertEqual(self.get("beta"), b"mine")

    def test_a_token_for_certain_clusters(self) -> None:
        """A cluster that an agent brings is its own, at all servers."""
        for name in NAMES[:2]:
            self.allow(name, clusters=["another"], domains=["*.x.example"])
        self.bring("mine", "alpha")
        self.assertEqual([self.get(name) for name in NAMES[:2]], [b"mine", b"mine"])

    def test_port(self) -> None:
        self.allow("beta", ports=["3001"])
        service = self.bring("mine", "alpha", port=0, tcp=True)
        self.assertEqual(service.agents[0].serving, 2)
        opened = [" ".join(self.running[name].listeners) for name in NAMES[:2]]
        self.assertEqual(["3000" in each for each in opened], [True, False])

    def test_a_policy_that_nothing_judges(self) -> None:
        """Nobody has anything by a policy that he makes up."""
        record = {
            "v": 1,
            "listener": "tunnels",
            "owner": "token:n (policy none-such)",
            "domains": ["b.x.example"],
            "port": 3000,
            "identity": {"name": "n", "policy": "none-such"},
        }
        self.etcd.commit({"/fleet/routes/evil/alpha": json.dumps(record).encode()})
        self.pass_time(0.5)
        self.assertEqual(self.running["beta"].answer("routes", {}), [])
        self.assertEqual(self.get("beta", "b.x.example"), b"default")
        self.assertNotIn("3000", " ".join(self.running["beta"].listeners))

    def test_what_the_directory_says_is_not_believed(self) -> None:
        """Somebody who can write there has no routes by that."""
        self.etcd.commit(
            {
                "/fleet/routes/evil/alpha": json.dumps(
                    {
                        "v": 1,
                        "listener": "tunnels",
                        "owner": "token:one (policy static)",
                        "domains": ["b.x.example"],
                    }
                ).encode()
            }
        )
        self.pass_time(1)
        self.assertEqual(self.get("beta", "b.x.example"), b"default")
