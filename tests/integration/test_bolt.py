"""bolt through a tunnel: real processes, configured as MOSN's own tunnel sample is."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tests.integration.bolt import (
    BUSY,
    CODEC,
    NO_PROCESSOR,
    SUCCESS,
    TIMEOUT,
    UNKNOWN,
    BoltClient,
    BoltService,
    heartbeat,
    heartbeat_answer,
    request,
)
from tests.integration.clients import RawPeer, connect_raw, fetch, gather, init_frame, listen_raw, threaded
from tests.integration.configs import EXAMPLES, example
from tests.integration.harness import (
    JOINED,
    LEFT,
    SERVING,
    Child,
    IntegrationTestCase,
    ReverseProxy,
    certificates,
)


def _router(name: str, cluster: str, *rules: Mapping[str, Any]) -> dict[str, Any]:
    every = {"match": {"headers": [{"name": "service", "value": ".*"}]}, "route": {"cluster_name": cluster}}
    return {
        "router_config_name": name,
        "virtual_hosts": [{"name": f"{name}_host", "domains": ["*"], "routers": [*rules, every]}],
    }


def _listener(name: str, address: str, filters: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    chain = {"filters": filters, **({"tls_context": more.pop("tls")} if more.get("tls") else {})}
    more.pop("tls", None)
    return {"name": name, "address": address, "bind_port": True, "filter_chains": [chain], **more}


def _proxy(router: str, **more: Any) -> dict[str, Any]:
    config = {
        "downstream_protocol": "X",
        "upstream_protocol": "X",
        "extend_config": {"sub_protocol": "bolt"},
        "router_config_name": router,
    }
    return {"type": "proxy", "config": {**config, **more}}


def cloud_config(
    *,
    proxy: Mapping[str, Any] | None = None,
    rules: tuple[Mapping[str, Any], ...] = (),
    cluster: Mapping[str, Any] | None = None,
    tls: Mapping[str, Any] | None = None,
    listener: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The tunnel server of the sample, with ports of the kernel's choice."""
    return {
        "close_graceful": True,
        "servers": [
            {
                "default_log_path": "stdout",
                "default_log_level": "DEBUG",
                "graceful_timeout": "15s",
                "routers": [_router("client_router", "clientCluster", *rules)],
                "listeners": [
                    _listener(
                        "clientListener",
                        "127.0.0.1:0",
                        [_proxy("client_router", **(proxy or {}))],
                        **(listener or {}),
                    ),
                    _listener(
                        "tunnel_server_listener",
                        "127.0.0.1:0",
                        [{"type": "tunnel"}],
                        connection_idle_timeout=0,
                        tls=tls,
                    ),
                ],
            }
        ],
        "cluster_manager": {
            "clusters": [
                {
                    "Name": "clientCluster",
                    "type": "SIMPLE",
                    "lb_type": "LB_RANDOM",
                    "max_request_per_conn": 1024,
                    **(cluster or {}),
                }
            ]
        },
    }


def edge_config(
    tunnel: int,
    service: str,
    *,
    connections: int = 1,
    proxy: Mapping[str, Any] | None = None,
    rules: tuple[Mapping[str, Any], ...] = (),
    tls: Mapping[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The agent of the sample."""
    agent = {
        "hosting_listener": "serverListener",
        "server_list": [f"127.0.0.1:{tunnel}"],
        "cluster": "clientCluster",
        "enable": True,
        "connection_num": connections,
        "reconnect_base_duration": "100ms",
        **({"tls_context": tls} if tls else {}),
    }
    return {
        "close_graceful": True,
        "servers": [
            {
                "default_log_path": "stdout",
                "default_log_level": "DEBUG",
                "routers": [_router("server_router", "serverCluster", *rules)],
                "listeners": [
                    # bound as well, as in the sample
                    _listener("serverListener", "127.0.0.1:0", [_proxy("server_router", **(proxy or {}))])
                ],
            }
        ],
        "extends": [{"type": "tunnel_agent", "config": agent}],
        "cluster_manager": {
            "clusters": [
                {
                    "Name": "serverCluster",
                    "type": "SIMPLE",
                    "lb_type": "LB_RANDOM",
                    "hosts": [{"address": service}],
                    **(cluster or {}),
                }
            ]
        },
    }


class BoltTestCase(IntegrationTestCase):
    """
    Agents like MOSN's, whose connections carry nothing but bolt.
    """

    mux = False
    cloud: ReverseProxy
    edge: ReverseProxy

    async def tunnel(
        self,
        service: BoltService,
        cloud: Mapping[str, Any] | None = None,
        edge: Mapping[str, Any] | None = None,
    ) -> int:
        """Start both ends before a service; the port for clients."""
        self.cloud = self.run_proxy(cloud_config(**(cloud or {})), "server")
        port = await self.cloud.port("tunnel_server_listener")
        self.edge = self.run_proxy(edge_config(port, service.address, **(edge or {})), "agent")
        await self.cloud.counted(JOINED, (edge or {}).get("connections", 1))
        return await self.cloud.port("clientListener")

    async def client(self, port: int) -> BoltClient:
        client = await connect_raw(self, port, BoltClient)
        assert isinstance(client, BoltClient)
        return client


class RequestTests(BoltTestCase):
    async def test_the_sample_with_tls(self) -> None:
        ca = certificates(self.directory)
        chain, key = ca.issue("127.0.0.1")
        server_tls = {
            "status": True,
            "ca_cert": ca.ca_file,
            "cert_chain": chain,
            "private_key": key,
            "verify_client": False,
            "require_client_cert": False,
        }
        client_tls = {"status": True, "ca_cert": ca.ca_file, "server_name": "127.0.0.1"}
        service = await BoltService().listen(self)
        port = await self.tunnel(service, {"tls": server_tls}, {"tls": client_tls})
        client = await self.client(port)
        answer = await client.ask(b"hello")
        self.assertEqual((answer.extra, answer.content), (SUCCESS, b"hello"))
        big = random.Random(1).randbytes(3_000_000)
        answer = await client.ask(big)
        self.assertEqual(answer.content, big)

    async def test_only_ids_change_on_the_way(self) -> None:
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        client = await self.client(port)
        headers = {"service": "echo", "x": "\N{SNOWMAN}", "": ""}
        sent = request(4_000_000_000, b"\0\xff" * 100, headers, timeout=12345)
        answer = await client.send(4_000_000_000, sent)
        [seen] = service.seen
        self.assertEqual(seen.raw[:5] + seen.raw[9:], sent[:5] + sent[9:])
        self.assertEqual(answer.number, 4_000_000_000)
        self.assertEqual(seen.extra, 12345)

    async def test_ten_thousand_requests_at_once(self) -> None:
        """All of them are under way on one reverse connection before the first one is answered."""
        # This process reads the logs, too, and may have no time for some of ten thousand lines.
        self.expected_errors += ["lines of this log could not be written"]
        service = await BoltService().listen(self)
        service.holding = True
        port = await self.tunnel(service)
        clients = [await self.client(port) for _ in range(4)]
        answers: list[tuple[bytes, Deferred[Any]]] = []
        for number in range(10_000):
            content = b"request %d " % number + b"x" * (number % 100)
            answers.append((content, clients[number % 4].ask(content, timeout=100_000)))
        await service.came(10_000, 60)
        self.assertEqual(len(service.connections), 1)
        random.Random(2).shuffle(service.held)
        service.release()
        for content, waited in answers:
            answer = await waited
            self.assertEqual((answer.extra, answer.content), (SUCCESS, content))
        self.assertEqual(len([e for e in self.cloud.entries() if " joined " in e["message"]]), 1)

    async def test_both_versions_and_oneway(self) -> None:
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        client = await self.client(port)
        client.transport.write(
            request(77, b"no answer", kind=2) + request(78, b"none either", kind=2, version=2)
        )
        answers = await gather([client.ask(b"v1"), client.ask(b"v2", version=2)])
        self.assertEqual([(a.version, a.content) for a in answers], [(1, b"v1"), (2, b"v2")])
        await service.came(4)
        self.assertEqual({m.content for m in service.seen if m.kind == 2}, {b"no answer", b"none either"})

    async def test_local_answers(self) -> None:
        service = await BoltService().listen(self)
        rules = (
            {
                "match": {"headers": [{"name": "service", "value": "nowhere"}]},
                "route": {"cluster_name": "nobody"},
            },
            {
                "match": {"headers": [{"name": "service", "value": "quick"}]},
                "route": {"cluster_name": "clientCluster", "timeout": "200ms"},
            },
        )
        cluster = {"connect_timeout": "1s"}
        port = await self.tunnel(service, {"rules": rules, "cluster": cluster})
        client = await self.client(port)
        self.assertEqual((await client.ask(headers={})).extra, NO_PROCESSOR)
        self.assertEqual((await client.ask(headers={"service": "nowhere"})).extra, NO_PROCESSOR)
        broken = request(99, b"x").replace(b"\0\0\0\x04echo", b"\0\0\0\x05echo")
        self.assertEqual((await client.send(99, broken)).extra, CODEC)
        service.holding = True
        self.assertEqual((await client.ask(headers={"service": "quick"})).extra, TIMEOUT)
        self.assertEqual((await client.ask(timeout=300)).extra, TIMEOUT)
        service.release()  # too late for both
        service.holding = False
        self.assertEqual((await client.ask(b"still here")).content, b"still here")
        mark = self.cloud.mark()
        await self.edge.kill()
        await self.cloud.counted(LEFT, 1, mark)
        self.assertEqual((await client.ask()).extra, BUSY)  # an agent is expected back for a while

    async def test_undecodable_bytes_cost_one_connection(self) -> None:
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        bad, good = await self.client(port), await self.client(port)
        bad.transport.write(b"GET / HTTP/1.1\r\n\r\n")
        await bad.closed()
        await self.cloud.logged("sent what is no bolt")
        self.assertEqual((await good.ask(b"fine")).content, b"fine")

    async def test_access_log(self) -> None:
        service = await BoltService().listen(self)
        file = self.directory / "access.log"
        line = "%protocol% %x-mosn-rpc-service% %x-mosn-rpc-method% %response_code% %upstream_cluster%"
        logs = {"access_logs": [{"log_path": str(file), "log_format": line}]}
        port = await self.tunnel(service, {"listener": logs})
        client = await self.client(port)
        await client.ask(headers={"service": "echo", "sofa_head_method_name": "say"})
        await client.ask(headers={})
        await self.cloud.stop()
        self.assertEqual(file.read_text(), "bolt echo say 200 clientCluster\nbolt - - 404 -\n")


class StreamTests(BoltTestCase):
    """Agents of our own, whose connections carry bolt on one of many streams."""

    mux = True

    async def test_many_requests_at_once(self) -> None:
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        clients = [await self.client(port) for _ in range(4)]
        contents = [b"request %d " % number + b"x" * number for number in range(2000)]
        answers = await gather([clients[number % 4].ask(content) for number, content in enumerate(contents)])
        self.assertEqual([answer.content for answer in answers], contents)
        self.assertEqual(len(service.connections), 1)
        big = random.Random(1).randbytes(3_000_000)
        self.assertEqual((await clients[0].ask(big)).content, big)
        mark = self.cloud.mark()
        await self.edge.stop()
        await self.cloud.counted(LEFT, 1, mark)


class HeartbeatTests(BoltTestCase):
    async def raw_agent(self, port: int) -> BoltClient:
        """An agent that the test plays."""
        raw = await connect_raw(self, port, RawPeer)
        raw.transport.write(init_frame("clientCluster"))
        kind, answer = await raw.frame()
        self.assertEqual((kind, answer["status"]), (2, 1))
        agent = BoltClient()
        agent.transport = raw.transport
        raw.dataReceived = agent.dataReceived
        if raw.received:
            agent.dataReceived(raw.received)
        raw.connectionLost = agent.connectionLost
        return agent

    async def test_clients_are_answered(self) -> None:
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        client = await self.client(port)
        client.transport.write(heartbeat(5))
        await client.came(1)
        self.assertEqual(client.others[0].raw, heartbeat_answer(5))
        self.assertEqual(service.heartbeats, 0)

    async def test_before_the_first_request(self) -> None:
        self.cloud = self.run_proxy(
            cloud_config(cluster={"keepalive": {"interval": "100ms", "timeout": "1s"}}), "server"
        )
        agent = await self.raw_agent(await self.cloud.port("tunnel_server_listener"))
        for number in range(1, 11):
            await agent.came(number)
            self.assertEqual(agent.others[-1].raw, heartbeat(number))
            agent.transport.write(heartbeat_answer(number))
        self.assertFalse(agent.lost)
        self.assertEqual([e for e in self.cloud.entries() if " left, " in e["message"]], [])

    async def test_an_agent_that_does_not_answer(self) -> None:
        keepalive = {"keepalive": {"interval": "100ms", "timeout": "50ms"}}
        self.cloud = self.run_proxy(cloud_config(cluster=keepalive), "server")
        agent = await self.raw_agent(await self.cloud.port("tunnel_server_listener"))
        await agent.closed()
        await self.cloud.logged("has not answered 6 heartbeats")
        await self.cloud.counted(LEFT, 1)

    async def test_health_checks(self) -> None:
        """Agents are asked over their own connections, services over connections for that alone."""
        check = {"protocol": "bolt", "service_name": "any", "interval": "200ms"}
        check["initial_delay_seconds"] = "100ms"
        service = await BoltService().listen(self)
        port = await self.tunnel(
            service, {"cluster": {"health_check": check}}, {"cluster": {"health_check": check}}
        )
        mute = await self.raw_agent(await self.cloud.port("tunnel_server_listener"))
        await mute.came(1)
        await self.cloud.counted(
            r"^cluster clientCluster: host .* is unhealthy: a health check has failed", 1
        )
        client = await self.client(port)
        answers = await gather([client.ask(b"%d" % number) for number in range(20)])
        self.assertEqual([a.content for a in answers], [b"%d" % number for number in range(20)])
        self.assertTrue(all(message.command == 0 for message in mute.others))
        self.assertGreater(service.heartbeats, 0)
        self.assertGreater(len(service.connections), 1)

    async def test_they_keep_an_idle_tunnel(self) -> None:
        """The hosting listener would close a connection that is idle for half a second."""
        service = await BoltService().listen(self)
        self.cloud = self.run_proxy(cloud_config(cluster={"keepalive": {"interval": "100ms"}}), "server")
        config = edge_config(await self.cloud.port("tunnel_server_listener"), service.address)
        config["servers"][0]["listeners"][0]["connection_idle_timeout"] = "500ms"
        self.edge = self.run_proxy(config, "agent")
        await self.edge.logged(SERVING)
        await self.cloud.counted(JOINED, 1)
        # A second one, without heartbeats, is closed meanwhile, again and again.
        other = self.run_proxy(cloud_config(), "other-server")
        config["extends"][0]["config"]["server_list"] = [
            f"127.0.0.1:{await other.port('tunnel_server_listener')}"
        ]
        self.run_proxy(config, "other-agent")
        await other.counted(LEFT, 3)
        self.assertEqual([e for e in self.cloud.entries() if " left, " in e["message"]], [])
        client = await self.client(await self.cloud.port("clientListener"))
        self.assertEqual((await client.ask(b"x")).content, b"x")


class LossTests(BoltTestCase):
    async def test_agent_killed(self) -> None:
        first = await BoltService(b"first ").listen(self)
        second = await BoltService(b"second ").listen(self)
        port = await self.tunnel(first)
        client = await self.client(port)
        first.holding = True
        waiting = [client.ask(b"x") for _ in range(100)]
        await first.came(100)
        mark = self.cloud.mark()
        tunnel = await self.cloud.port("tunnel_server_listener")
        self.run_proxy(edge_config(tunnel, second.address), "second")
        await self.cloud.counted(JOINED, 1, mark)
        await self.edge.kill()
        answers = await gather(waiting)
        self.assertEqual({answer.extra for answer in answers}, {UNKNOWN})
        await self.cloud.counted(LEFT, 1, mark)
        answers = await gather(client.ask(b"x") for _ in range(100))
        self.assertEqual({answer.content for answer in answers}, {b"second x"})

    async def test_service_lost(self) -> None:
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        client = await self.client(port)
        service.holding = True
        waiting = client.ask(b"x")
        await service.came(1)
        service.connections[0].transport.abortConnection()
        self.assertEqual((await waiting).extra, UNKNOWN)
        service.holding = False
        self.assertEqual((await client.ask(b"y")).content, b"y")


class DrainTests(BoltTestCase):
    async def test_agent_stops_under_load(self) -> None:
        """Not one request fails while one of two agents stops."""
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        mark = self.cloud.mark()
        tunnel = await self.cloud.port("tunnel_server_listener")
        self.run_proxy(edge_config(tunnel, service.address), "second")
        await self.cloud.counted(JOINED, 1, mark)
        client = await self.client(port)
        state = {"failed": 0, "answered": 0, "stopping": False, "asking": 50}
        done: Deferred[None] = Deferred()

        def lost(reason: Failure) -> None:
            if not done.called:
                done.errback(reason)

        def again(answer: Any = None) -> None:
            if answer is not None:
                state["answered"] += 1
                state["failed"] += answer.extra != SUCCESS
            if not state["stopping"]:
                client.ask(b"x").addCallbacks(again, lost)
                return
            state["asking"] -= 1
            if not state["asking"] and not done.called:
                done.callback(None)

        for _ in range(50):
            again()
        await service.came(500)
        self.assertEqual(await self.edge.stop(), 0)
        await service.came(len(service.seen) + 500)
        state["stopping"] = True
        await done
        self.assertEqual(state["failed"], 0)

    async def test_server_stops(self) -> None:
        """What is under way is answered, and clients that understand it are told."""
        service = await BoltService().listen(self)
        options = {"downstream_protocol": "bolt", "extend_config": {"bolt": {"enable_bolt_goaway": True}}}
        port = await self.tunnel(service, {"proxy": options}, {"proxy": options})
        client, idle = await self.client(port), await self.client(port)
        service.holding = True
        waiting = client.ask(b"x")
        await service.came(1)
        self.cloud.signal("TERM")
        await gather([client.came(1), idle.came(1)])
        self.assertEqual([(m.kind, m.command) for m in client.others + idle.others], [(1, 100), (1, 100)])
        service.release()
        self.assertEqual((await waiting).content, b"x")
        await gather([client.closed(), idle.closed()])
        self.assertEqual(await self.cloud.ended(), 0)

    async def test_server_stops_and_clients_do_not_know_goaway(self) -> None:
        service = await BoltService().listen(self)
        port = await self.tunnel(service)
        client, idle = await self.client(port), await self.client(port)
        service.holding = True
        waiting = client.ask(b"x")
        await service.came(1)
        self.cloud.signal("TERM")
        await idle.closed()
        service.release()
        self.assertEqual((await waiting).content, b"x")
        await client.closed()
        self.assertEqual(client.others, [])
        self.assertEqual(await self.cloud.ended(), 0)


class DetectionTests(BoltTestCase):
    HTTP = ({"match": {"prefix": "/"}, "route": {"cluster_name": "clientCluster"}},)
    ANSWER = (
        {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": "answered by the agent"}},
    )

    async def both(self, protocol: str, connections: int = 2) -> None:
        """HTTP/1 and bolt on one port, each with a reverse connection of its own."""
        service = await BoltService().listen(self)
        proxy = {"downstream_protocol": protocol, "upstream_protocol": "", "extend_config": {}}
        port = await self.tunnel(
            service,
            {"proxy": proxy, "rules": self.HTTP},
            {"proxy": proxy, "rules": self.ANSWER, "connections": connections},
        )
        client = await self.client(port)
        for _ in range(3):
            self.assertEqual((await client.ask(b"x")).content, b"x")
            answer = await fetch(port)
            self.assertEqual((answer.status, answer.body), (200, b"answered by the agent"))
        bad = await connect_raw(self, port)
        bad.transport.write(b"\x16\x03\x01")
        await bad.closed()
        await self.cloud.logged("it speaks none of")

    async def test_auto(self) -> None:
        await self.both("Auto")

    async def test_a_list(self) -> None:
        await self.both("Http1,bolt")


class OtherProtocolTests(BoltTestCase):
    """Protocols beside bolt, with frames that the test writes out."""

    async def exchange(self, protocol: str, frame: bytes, id_at: int, **environ: str) -> None:
        """Send a frame through both ends, and the same one back."""
        service = await listen_raw(self)
        proxy = {"downstream_protocol": protocol, "upstream_protocol": protocol, "extend_config": {}}
        self.cloud = self.run_proxy(cloud_config(proxy=proxy), "server", **environ)
        tunnel = await self.cloud.port("tunnel_server_listener")
        address = f"127.0.0.1:{service.port}"
        self.edge = self.run_proxy(edge_config(tunnel, address, proxy=proxy), "agent", **environ)
        await self.cloud.counted(JOINED, 1)
        client = await connect_raw(self, await self.cloud.port("clientListener"))
        client.transport.write(frame)
        host = await service.next()
        await host.bytes(len(frame))
        seen = host.received
        self.assertEqual(seen[:id_at] + seen[id_at + 4 :], frame[:id_at] + frame[id_at + 4 :])
        self.assertEqual(seen[id_at : id_at + 4], b"\0\0\0\1")
        answer = self.answer(seen)
        host.transport.write(answer)
        await client.bytes(len(answer))
        self.assertEqual(client.received, answer[:id_at] + frame[id_at : id_at + 4] + answer[id_at + 4 :])

    def answer(self, frame: bytes) -> bytes:
        if frame[:2] == b"EX":
            return b"EXA\0" + frame[4:]
        return frame[:2] + b"\x02\x14" + frame[4:12] + b"\0\0\0\1\x91"

    async def test_dubbo(self) -> None:
        body = b"\x052.0.2" + b"\x10com.example.Demo" + b"\x051.0.0" + b"\x05hello" + b"\x00H" + b"Z"
        frame = b"\xda\xbb\xc2\0" + b"\0\0\0\0\0\0\1\x07" + len(body).to_bytes(4, "big") + body
        await self.exchange("dubbo", frame, 8)

    async def test_a_plug_in(self) -> None:
        frame = b"EXQ\0" + b"\0\0\1\x07" + b"\0\0\0\x0a" + b"echo\nhello"
        await self.exchange("example", frame, 4, PYTHONPATH=str(EXAMPLES / "plugins"))


class ExampleTests(IntegrationTestCase):
    async def test_example(self) -> None:
        service = Child("echo")
        self.spawn(service, str(EXAMPLES / "bolt" / "echo_server.py"), "0")
        backend = int((await service.wait_for(r"listening on 127\.0\.0\.1:(\d+)")).group(1))
        cloud = self.run_proxy(
            example("bolt/server.json", {"127.0.0.1:2045": 0, "127.0.0.1:9999": 0}), "server"
        )
        tunnel = await cloud.port("tunnel_server_listener")
        self.run_proxy(
            example("bolt/agent.json", {"127.0.0.1:9999": tunnel, "127.0.0.1:8080": backend}), "agent"
        )
        await cloud.counted(JOINED, 1)
        port = await cloud.port("clientListener")
        script = str(EXAMPLES / "bolt" / "client.py")
        result = await threaded(
            subprocess.run,
            [sys.executable, script, str(port), "5"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={"PYTHONPATH": str(EXAMPLES.parent)},
        )
        self.assertEqual(result.returncode, 0, result)
        self.assertEqual(
            sorted(result.stdout.splitlines()), [f"request {n}: status 0, 'hello {n}'" for n in range(1, 6)]
        )
