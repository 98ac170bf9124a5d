"""The response to a request without a route, and its line in the log."""

from __future__ import annotations

from typing import Any

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import World
from tests.tunnel.logged import Events, capture

RULES = [{"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": "hello"}}]
HOSTS = [
    {"name": "a", "domains": ["a.example", "*.b.example"], "routers": RULES},
    {"name": "empty", "domains": ["empty.example"], "routers": []},
]


def router(ignore_host_port: bool = False, hosts: list[dict[str, Any]] = HOSTS) -> dict[str, Any]:
    return {"virtual_hosts": hosts, "ignore_host_port": ignore_host_port}


def of_http1(host: str, **keys: Any) -> tuple[int, str, Events]:
    """Ask by HTTP/1; the status, the body, and what was logged."""
    world = World(router=router(**keys))
    client = world.client()
    with capture() as events:
        client.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head, _, body = client.take().decode().partition("\r\n\r\n")
    return int(head.split()[1]), body, events


def of_http2(host: str, **keys: Any) -> tuple[int, str, Events]:
    """Ask by HTTP/2."""
    world = Http2World(router=router(**keys))
    client = world.connect()
    fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", host.encode()), (b":path", b"/")]
    with capture() as events:
        answer = client[client.ask(fields)]
    return answer.status, answer.body.decode(), events


BOTH = (of_http1, of_http2)


class NoRouteTests(SynchronousTestCase):
    def test_the_host_is_to_blame(self) -> None:
        for ask in BOTH:
            for host, hint in (
                ("a.example:8080", "without the port"),
                ("a.example.", "without the dot at its end"),
                ("x.b.example:1", 'one takes "x.b.example"'),
                ("[::1]:80", "no domain takes"),
            ):
                status, body, events = ask(host)
                self.assertEqual((status, body), (404, f'no virtual host takes the Host "{host}"\n'))
                [event] = events
                self.assertEqual(event["log_level"], LogLevel.info)
                self.assertIn(hint, events.text())
                self.assertIn("test: a request of 10.9.9.9:1234 gets 404 from the router r", events.text())
                # A stranger learns nothing but what it has sent.
                self.assertNotIn("one takes", body)

    def test_the_rules_are_to_blame(self) -> None:
        for ask in BOTH:
            status, body, events = ask("empty.example")
            self.assertEqual((status, body), (404, "no route matches this request\n"))
            self.assertEqual(events, [])

    def test_there_is_nothing(self) -> None:
        """As where the name of the router was wrong."""
        for ask in BOTH:
            status, body, events = ask("a.example", hosts=[])
            self.assertEqual((status, body), (404, 'no virtual host takes the Host "a.example"\n'))
            self.assertIn("there is no virtual host", events.text())

    def test_the_port_does_not_count(self) -> None:
        for ask in BOTH:
            for host in ("a.example", "a.example:8080", "A.example.", "a.example.:1", "x.b.example:443"):
                status, body, events = ask(host, ignore_host_port=True)
                self.assertEqual((status, body, list(events)), (200, "hello", []), host)
            self.assertEqual(ask("c.example:8080", ignore_host_port=True)[0], 404)

    def test_strangers_do_not_fill_the_log(self) -> None:
        world = World(router=router())
        client = world.client()
        with capture() as events:
            for number in range(1000):
                client.send(b"GET / HTTP/1.1\r\nHost: %d.example\r\n\r\n" % number)
            self.assertEqual(len(events), 10)
            world.clock.advance(5)
            client.send(b"GET / HTTP/1.1\r\nHost: last.example\r\n\r\n")
        self.assertEqual(len(events), 11)
        self.assertIn("(990 such lines left out before)", events.text())
