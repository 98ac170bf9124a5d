"""Tests for L{reverseproxy.proxy.http.exchange}, attempts and mirroring: what routes say beyond a cluster."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectError

from reverseproxy.cluster.manager import LOG_BURST
from reverseproxy.proxy.http.trust import Trust
from reverseproxy.routing import RETRY_PAUSE
from reverseproxy.routing.variables import EXCHANGE_VARIABLES, LATE_VARIABLES
from tests.proxy.memory import Wire, World
from tests.proxy.test_http1 import Http1TestCase
from tests.tunnel.logged import capture
from tests.wire.http1_cases import GOOD, get, respond

OK = respond(b"Content-Length: 2", body=b"ok")
BUSY = respond(b"Content-Length: 4", line=b"HTTP/1.1 503 Busy", body=b"busy")


def routes(route: dict[str, Any] | None = None, **rule: Any) -> list[dict[str, Any]]:
    """One rule for everything."""
    return [{"match": {"prefix": "/"}, "route": {"cluster_name": "c", **(route or {})}, **rule}]


def retrying(**policy: Any) -> list[dict[str, Any]]:
    return routes({"retry_policy": {"retry_on": True, **policy}})


class RetryTests(Http1TestCase):
    def wires(self, world: World) -> list[Wire]:
        return [wire for endpoint in world.endpoints for wire in endpoint.wires]

    def test_a_status_is_reason_enough_if_the_route_says_so(self) -> None:
        for reusable in (True, False):
            world = World(hosts=2, routes=retrying())
            client = self.ask(world)
            [first] = self.wires(world)
            answer = BUSY if reusable else BUSY[:-1]
            first.send(answer)
            self.assertEqual(client.take(), b"")
            self.assertEqual(len(self.wires(world)), 1)
            world.turn(RETRY_PAUSE)
            [second] = [wire for wire in self.wires(world) if wire is not first]
            self.assertEqual(first.aborted, not reusable)
            self.assertEqual(second.take(), GOOD)
            second.send(OK)
            self.assertEqual(client.take(), OK)
            world.check_idle(self.fail)

    def test_without_a_policy_it_is_not(self) -> None:
        world = World(hosts=2)
        client = self.ask(world)
        self.wires(world)[0].send(BUSY)
        self.assertEqual(client.take(), BUSY)
        world.check_idle(self.fail)

    def test_only_these_statuses(self) -> None:
        world = World(hosts=1, routes=retrying(status_codes=[404]))
        client = self.ask(world)
        world.host().send(BUSY)
        self.assertEqual(client.take(), BUSY)
        self.ask(world, client=client)
        world.host().send(respond(b"Content-Length: 0", line=b"HTTP/1.1 404 Not Found"))
        world.turn(RETRY_PAUSE)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def test_the_budget_ends(self) -> None:
        world = World(routes=retrying())
        client = self.ask(world)
        for _ in range(4):
            self.assertEqual(client.take(), b"")
            self.assertEqual(world.host().take(), GOOD)
            world.host().send(BUSY)
            world.turn(RETRY_PAUSE)
        self.assertEqual(client.take(), BUSY)
        world.check_idle(self.fail)

    def test_the_budget_of_the_cluster(self) -> None:
        world = World(routes=retrying(), cluster={"circuit_breakers": [{"max_retries": 1}]})
        first, second = self.ask(world), self.ask(world)
        one, other = world.endpoint.wires
        one.send(BUSY)
        other.send(BUSY)
        self.assertEqual(world.cluster.retries, 1)
        self.assertEqual((first.take(), second.take()), (b"", BUSY))
        world.turn(RETRY_PAUSE)
        self.assertEqual(world.cluster.retries, 1)
        one.send(OK)
        other.send(OK)
        self.assertEqual(first.take(), OK)
        world.check_idle(self.fail)

    def test_what_may_not_happen_twice_does_not(self) -> None:
        for request in (get(line=b"POST / HTTP/1.1"), get(line=b"DELETE / HTTP/1.1")):
            world = World(hosts=2, routes=retrying())
            client = self.ask(world, request)
            self.wires(world)[0].send(BUSY)
            self.assertEqual(client.take(), BUSY)
            client = self.ask(world, request)
            self.wires(world)[-1].reset()
            self.assert_status(client, 502)
            world.check_idle(self.fail)

    def test_a_lost_connection(self) -> None:
        world = World(hosts=2, routes=retrying())
        client = self.ask(world)
        [first] = self.wires(world)
        first.reset()
        world.turn(RETRY_PAUSE)
        [second] = [wire for wire in self.wires(world) if wire is not first]
        second.send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_a_body_is_sent_again(self) -> None:
        world = World(hosts=2, routes=retrying())
        request = get(b"Content-Length: 4", body=b"body")
        client = self.ask(world, request[:-2])
        client.send(request[-2:])
        [first] = self.wires(world)
        self.assertEqual(first.take(), request)
        first.reset()
        world.turn(RETRY_PAUSE)
        [second] = [wire for wire in self.wires(world) if wire is not first]
        self.assertEqual(second.take(), request)
        second.send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_a_large_body_is_not(self) -> None:
        world = World(hosts=2, routes=retrying())
        client = self.ask(world, get(b"Content-Length: 100000", body=b"x" * 100_000))
        self.wires(world)[0].reset()
        self.assert_status(client, 502)
        world.check_idle(self.fail)

    def test_a_client_that_goes_during_the_pause(self) -> None:
        world = World(routes=retrying())
        client = self.ask(world)
        world.host().send(BUSY)
        client.reset()
        world.turn(1)
        self.assertEqual(len(world.endpoint.wires), 1)
        world.check_idle(self.fail)

    def test_an_attempt_that_takes_too_long(self) -> None:
        world = World(hosts=2, routes=retrying(retry_timeout="1s"))
        client = self.ask(world)
        [first] = self.wires(world)
        world.turn(1)
        self.assertTrue(first.aborted)
        world.turn(RETRY_PAUSE)
        [second] = [wire for wire in self.wires(world) if wire is not first]
        world.turn(0.9)
        second.send(OK[:-1])
        world.turn(5)  # the time is for the beginning of the answer
        second.send(OK[-1:])
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_an_attempt_that_takes_too_long_and_is_the_last(self) -> None:
        world = World(routes=routes({"retry_policy": {"retry_timeout": "1s"}}))
        client = self.ask(world)
        world.turn(1)
        self.assert_status(client, 504, b"attempt")
        world.check_idle(self.fail)

    def test_the_only_host_is_tried_again(self) -> None:
        world = World(routes=retrying(retry_timeout="1s", num_retries=3))
        client = self.ask(world)
        world.turn(1)
        world.turn(RETRY_PAUSE)
        world.host().reset()
        world.turn(RETRY_PAUSE)
        self.assertEqual(len(world.endpoint.wires), 3)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_the_only_host_always_takes_too_long(self) -> None:
        world = World(routes=retrying(retry_timeout="1s"))
        client = self.ask(world)
        for _ in range(10):
            world.turn(1)
            world.turn(RETRY_PAUSE)
        self.assert_status(client, 504, b"attempt")
        world.check_idle(self.fail)

    def test_headers_say_how_long(self) -> None:
        world = World(routes=routes(), trust=Trust(["10.9.9.9"]))
        client = self.ask(world, get(b"X-Mosn-Global-Timeout: 1500"))
        world.turn(1.4)
        self.assertEqual(client.take(), b"")
        world.turn(0.1)
        self.assert_status(client, 504)

    def test_unreachable_hosts_are_reported(self) -> None:
        world = World(hosts=1)
        world.endpoint.answer = ConnectError()
        self.assert_status(self.ask(world), 502)
        world.check_idle(self.fail)

    def test_a_host_that_is_down_does_not_fill_the_log(self) -> None:
        world = World(hosts=1)
        world.endpoint.answer = ConnectError()
        with capture() as events:
            for _ in range(LOG_BURST + 7):
                self.assert_status(self.ask(world), 502)
            lines = events.text().split("\n")
            # One for the host, and one for each request that fails, up to a bound.
            self.assertEqual(
                sum(line.startswith("cluster c: host 10.1.0.0:80 can't be reached: ") for line in lines), 1
            )
            self.assertEqual(sum("gets 502" in line for line in lines), LOG_BURST)
            world.turn(10)
            self.ask(world)
        self.assertRegex(events.text(), r"gets 502: .* \(7 such lines left out before\)")
        world.check_idle(self.fail)


class MutationTests(Http1TestCase):
    def test_nothing_to_do(self) -> None:
        world = World(routes=routes())
        self.ask(world)
        self.assertEqual(world.host().take(), GOOD)

    def test_request(self) -> None:
        world = World(
            routes=routes(
                {
                    "prefix_rewrite": "/new/",
                    "host_rewrite": "inside.example",
                    "request_headers_to_add": [
                        {"header": {"name": "X-Client", "value": "%downstream_remote_address%"}},
                    ],
                    "request_headers_to_remove": ["x-secret"],
                }
            ),
            options={"x_forwarded": "replace"},
        )
        self.ask(
            world,
            get(b"X-Secret: 1", b"Connection: x-client", line=b"GET /a?b=c HTTP/1.1"),
        )
        sent = world.host().take()
        self.assertTrue(sent.startswith(b"GET /new/a?b=c HTTP/1.1\r\n"), sent)
        lower = sent.lower()
        self.assertIn(b"\r\nhost: inside.example\r\n", lower)
        self.assertIn(b"\r\nx-client: 10.9.9.9:1234\r\n", lower)
        self.assertIn(b"\r\nx-mosn-original-path: /a\r\n", lower)
        self.assertIn(b"\r\nx-forwarded-host: a\r\n", lower)
        self.assertNotIn(b"x-secret", lower)

    def test_response(self) -> None:
        world = World(
            routes=routes(
                {
                    "response_headers_to_add": [
                        {"header": {"name": "x-status", "value": "%response_code%"}},
                        {"header": {"name": "x-host", "value": "%upstream_host%"}},
                        {"header": {"name": "x-cluster", "value": "%upstream_cluster%"}},
                    ],
                    "response_headers_to_remove": ["server"],
                }
            )
        )
        client = self.ask(world)
        world.host().send(respond(b"Content-Length: 2", b"Server: s", body=b"ok"))
        answer = client.take()
        self.assertIn(b"\r\nx-status: 200\r\n", answer)
        self.assertIn(b"\r\nx-host: 10.1.0.0:80\r\n", answer)
        self.assertIn(b"\r\nx-cluster: c\r\n", answer)
        self.assertNotIn(b"Server", answer)
        self.assertTrue(answer.endswith(b"\r\n\r\nok"))

    def test_every_variable(self) -> None:
        names = [
            *sorted(EXCHANGE_VARIABLES | LATE_VARIABLES),
            "response_header_server",
            "response_header_none",
        ]
        add = [{"header": {"name": f"x-{name}", "value": f"%{name}%"}} for name in names]
        world = World(routes=routes({"response_headers_to_add": add}))
        client = self.ask(world)
        world.host().send(respond(b"Content-Length: 0", b"Server: s"))
        fields = dict(line.split(b": ", 1) for line in client.take().split(b"\r\n")[1:-2])
        self.assertEqual(fields[b"x-response_header_server"], b"s")
        self.assertEqual(fields[b"x-response_code"], b"200")
        self.assertEqual(
            {name for name in names if fields[b"x-" + name.encode()] in (b"", b"-")},
            {"response_header_none", "x-mosn-rpc-method", "x-mosn-rpc-service"},
        )

    def test_a_protocol_that_is_not_there(self) -> None:
        world = World(routes=routes({"upstream_protocol": "nonsense"}))
        self.assert_status(self.ask(world), 502, b"nonsense")


class MirrorTests(Http1TestCase):
    def world(self, percent: int = 100, **options: Any) -> World:
        policy = {"cluster": "mirror", "percent": percent}
        return World(mirrors=1, routes=routes(request_mirror_policies=policy), **options)

    def test_a_copy_goes_to_another_cluster(self) -> None:
        world = self.world()
        request = get(b"Content-Length: 4", line=b"POST / HTTP/1.1", body=b"body")
        client = self.ask(world, request[:-2])
        client.send(request[-2:])
        copy = world.endpoints[1].wires[0]
        self.assertEqual(world.host().take(), request)
        self.assertEqual(copy.take(), request)
        copy.send(BUSY)
        self.assertEqual(client.take(), b"")
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        world.turn()
        world.check_idle(self.fail)
        # The connection of the copy is used again.
        self.ask(world, client=client)
        self.assertEqual(copy.take(), GOOD)
        self.assertEqual(len(world.endpoints[1].wires), 1)

    def test_a_copy_may_take_longer(self) -> None:
        world = self.world()
        client = self.ask(world)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        copy = world.endpoints[1].wires[0]
        copy.send(OK)
        world.turn()
        world.check_idle(self.fail)

    def test_a_copy_that_takes_too_long(self) -> None:
        world = self.world()
        client = self.ask(world)
        world.host().send(OK)
        client.take()
        world.turn(60)
        self.assertTrue(world.endpoints[1].wires[0].aborted)
        world.check_idle(self.fail)

    def test_faults_of_the_copy_do_not_matter(self) -> None:
        for fault in (
            lambda wire: wire.reset(),
            lambda wire: wire.send(b"nonsense\r\n\r\n"),
            lambda wire: wire.send(OK[:-1]) or wire.end(),
            lambda wire: wire.send(respond(b"Upgrade: x", b"Connection: upgrade", line=b"HTTP/1.1 101 S")),
        ):
            world = self.world()
            client = self.ask(world)
            fault(world.endpoints[1].wires[0])
            world.turn()
            world.host().send(OK)
            self.assertEqual(client.take(), OK)
            world.turn()
            world.check_idle(self.fail)

    def test_a_cluster_that_can_not_be_reached(self) -> None:
        world = self.world()
        world.endpoints[1].answer = ConnectError()
        client = self.ask(world)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_a_client_that_goes_takes_its_copy_along(self) -> None:
        world = self.world()
        client = self.ask(world, get(b"Content-Length: 4", body=b"bo"))
        client.reset()
        self.assertTrue(world.endpoints[1].wires[0].aborted)
        world.turn()
        world.check_idle(self.fail)

    def test_an_answer_before_the_end_of_the_request_ends_the_copy(self) -> None:
        """No more of the request will come, which the copy's host would wait for."""
        world = self.world()
        client = self.ask(world, get(b"Content-Length: 4", body=b"bo"))
        copy = world.endpoints[1].wires[0]
        self.assertTrue(copy.take().endswith(b"bo"))
        world.host().send(OK)
        self.assertIn(b"200 OK", client.take())
        self.assertTrue(copy.aborted)
        world.turn()
        world.check_idle(self.fail)

    def test_a_slow_host_of_the_copy_holds_nothing_up(self) -> None:
        world = self.world()
        world.endpoints[1].automatic = False
        client = self.ask(world, get(b"Content-Length: 1000000", line=b"POST / HTTP/1.1"))
        for _ in range(10):
            client.send(b"x" * 100_000)
        self.assertEqual(
            len(world.host().take()),
            1_000_000 + len(get(b"Content-Length: 1000000", line=b"POST / HTTP/1.1")),
        )
        self.assertTrue(world.endpoints[1].wires[0].aborted)
        world.host().send(OK)
        self.assertEqual(client.take(), OK)
        world.turn()
        world.check_idle(self.fail)

    def test_percent(self) -> None:
        draws = iter([0.29, 0.3, 0.99, 0.0])
        world = self.world(percent=30, random=lambda: next(draws))
        for _ in range(4):
            self.ask(world)
        self.assertEqual(len(world.endpoints[1].dials), 2)
