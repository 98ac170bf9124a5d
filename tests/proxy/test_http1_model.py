"""
No response reaches another request than its own, whatever clients and hosts do.

Clients and hosts act at random, over connections in memory, with h11 as the
independent judge of what the proxy sends to either side.
"""

from __future__ import annotations

import random
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectError
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http1.fields import chunk
from tests import most
from tests.proxy.memory import Wire, World
from tests.wire.http1_cases import get, respond

METHODS = ("GET", "GET", "HEAD", "POST", "PUT")


def body_of(number: int) -> bytes:
    """The body that belongs to a request, or to its response."""
    return b"<%d>" % number * (number * 7919 % 50 if number % 5 else 30_000)


class Client:
    """One client: sends requests, in any pieces, and keeps what it gets."""

    def __init__(self, rng: random.Random, wire: Wire) -> None:
        self.rng = rng
        self.wire = wire
        self.requests: list[tuple[int, str]] = []
        self.outgoing = b""
        self.last = False

    def ask(self, number: int) -> None:
        if self.last:
            return
        rng = self.rng
        method = rng.choice(METHODS)
        fields = [b"X-Id: %d" % number]
        body = b""
        if method in ("POST", "PUT"):
            body = body_of(number)
            if rng.random() < 0.5:
                fields.append(b"Content-Length: %d" % len(body))
            else:
                fields.append(b"Transfer-Encoding: chunked")
                cut = rng.randrange(len(body) + 1)
                body = b"".join(chunk(part) for part in (body[:cut], body[cut:]) if part) + b"0\r\n\r\n"
            if rng.random() < 0.1:
                fields.append(b"Expect: 100-continue")
        if rng.random() < 0.1:
            fields.append(b"Connection: close")
            self.last = True
        line = f"{method} /{rng.choice(('a', 'quick', 'direct'))} HTTP/1.1".encode()
        self.requests.append((number, method))
        self.outgoing += get(*fields, line=line, body=body)

    def send(self) -> None:
        count = self.rng.choice((1, 20, 200, 5000, 100_000))
        self.wire.send(self.outgoing[:count])
        self.outgoing = self.outgoing[count:]

    def check(self) -> int:
        """
        Read the answers, in order.

        @return: how many of them came from a host, and were complete.
        """
        data = bytes(self.wire.written)
        complete = 0
        for number, method in self.requests:
            if not data:
                break
            parser = h11.Connection(h11.CLIENT)
            parser.send(h11.Request(method=method, target="/", headers=[("host", "a")]))
            parser.send(h11.EndOfMessage())
            parser.receive_data(data)
            if self.wire.lost or self.wire.write_ended:
                parser.receive_data(b"")
            body = b""
            answer: Any = None
            while True:
                try:
                    event = parser.next_event()
                except h11.RemoteProtocolError:
                    # An answer that breaks off, at the end of the connection.
                    assert self.wire.lost, "malformed response on a living connection"
                    return complete
                if isinstance(event, h11.Response):
                    answer = event
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    break
                elif event is h11.NEED_DATA:
                    return complete
            fields = dict(answer.headers)
            if b"x-id" in fields:
                assert int(fields[b"x-id"]) == number, (fields, number)
                early = answer.status_code == 413
                expected = b"" if method == "HEAD" or early else body_of(number)
                if b"x-until-close" in fields:
                    # nobody can tell whether that is all
                    expected = expected[: len(body)]
                assert body == expected, "body of another"
                complete += 1
            else:
                # Ours: a route, or an error.
                assert answer.status_code >= 400, answer
                assert fields[b"content-type"] == b"text/plain"
            if answer.status_code == 408:
                return complete  # nobody knows yet that it was HEAD, so there is a text; nothing follows
            data = parser.trailing_data[0]
        else:
            assert not data, "an answer that nobody asked for"
        return complete


class HostConnection:
    """One connection to a host: answers the requests that come, in any pieces."""

    def __init__(self, rng: random.Random, wire: Wire) -> None:
        self.rng = rng
        self.wire = wire
        self.parser = h11.Connection(h11.SERVER)
        self.mark = 0
        self.number = -1
        self.method = ""
        self.body = b""
        self.outgoing = b""
        self.answered = True
        self.whole = True
        self.close = False

    def read(self) -> None:
        """Take what the proxy has sent; it must be in order, and one request at a time."""
        if self.wire.lost:
            return
        data = self.wire.written[self.mark : self.wire.received]
        self.mark = self.wire.received
        if data:
            assert not self.close or not self.whole, "a request on a connection that is to be closed"
            self.parser.receive_data(bytes(data))
        while True:
            event = self.parser.next_event()
            if isinstance(event, h11.Request):
                assert self.answered, "a request before the last one was answered"
                fields = dict(event.headers)
                self.number = int(fields[b"x-id"])
                self.method = event.method.decode()
                self.body = b""
                self.answered = self.whole = False
            elif isinstance(event, h11.Data):
                self.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self.whole = True
                assert self.body == (body_of(self.number) if self.method in ("POST", "PUT") else b"")
            else:
                break

    def answer(self) -> None:
        """Begin to answer, if there is something to answer."""
        rng = self.rng
        self.read()
        if self.wire.lost or self.answered or self.number < 0:
            return
        if not self.whole:
            if rng.random() < 0.9:
                return
            # before the end of the request
            self.outgoing += respond(
                b"X-Id: %d" % self.number, b"Content-Length: 0", line=b"HTTP/1.1 413 Content Too Large"
            )
            self.answered = self.close = True
            return
        body = body_of(self.number)
        fields = [b"X-Id: %d" % self.number]
        kind = rng.choice(("length", "length", "chunked", "close"))
        self.close = rng.random() < 0.1 or kind == "close"
        if kind == "length":
            fields.append(b"Content-Length: %d" % len(body))
        elif kind == "chunked":
            fields.append(b"Transfer-Encoding: chunked")
            body = b"".join(chunk(part) for part in (body[:10], body[10:]) if part) + b"0\r\n\r\n"
        else:
            fields.append(b"X-Until-Close: yes")
        if self.close:
            fields.append(b"Connection: close")
        if rng.random() < 0.2:
            self.outgoing += b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        self.outgoing += respond(*fields, body=b"" if self.method == "HEAD" else body)
        if kind != "close" and rng.random() < 0.02:
            self.outgoing += respond(b"X-Id: 999999", b"Content-Length: 0")  # which nobody asked for
            self.close = True
        self.answered = True
        if not self.close:
            self.parser.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            self.parser.send(h11.EndOfMessage())
            self.parser.start_next_cycle()

    def send(self) -> None:
        count = self.rng.choice((1, 20, 200, 5000, 100_000))
        self.wire.send(self.outgoing[:count])
        self.outgoing = self.outgoing[count:]
        if self.close and self.answered and not self.outgoing and not self.wire.lost:
            self.wire.end()


class Play:
    """A world, and who acts in it."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.world = World(hosts=rng.choice((0, 1, 2)), cluster={"idle_timeout": "30s"})
        self.clients: list[Client] = []
        self.hosts: dict[int, HostConnection] = {}
        self.agents: list[Wire] = []
        self.number = 0
        self.acts = [
            *[self.new_client] * 2,
            *[self.ask] * 10,
            *[self.client_sends] * 20,
            *[self.client_reads] * 5,
            *[self.host_answers] * 20,
            *[self.host_sends] * 20,
            *[self.host_reads] * 5,
            *[self.time_passes] * 5,
            self.client_leaves,
            self.host_breaks,
            self.agent_joins,
            self.agent_joins,
            self.dials_change,
            self.drain,
        ]

    def connections(self) -> list[HostConnection]:
        wires = [wire for endpoint in self.world.endpoints for wire in endpoint.wires] + self.agents
        for wire in wires:
            if id(wire) not in self.hosts:
                self.hosts[id(wire)] = HostConnection(self.rng, wire)
        return [self.hosts[id(wire)] for wire in wires if not wire.lost]

    def new_client(self) -> None:
        if len(self.living()) < 6:
            wire = self.world.client(automatic=self.rng.random() < 0.7, reverse=self.rng.random() < 0.3)
            self.clients.append(Client(self.rng, wire))

    def living(self) -> list[Client]:
        return [client for client in self.clients if not client.wire.lost]

    def a_client(self) -> Client:
        if not self.living():
            self.new_client()
        return self.rng.choice(self.living())

    def ask(self) -> None:
        self.number += 1
        self.a_client().ask(self.number)

    def client_sends(self) -> None:
        self.a_client().send()

    def client_reads(self) -> None:
        self.a_client().wire.receive(self.rng.choice((1, 1000, 100_000)))

    def client_leaves(self) -> None:
        client = self.a_client()
        client.last = True
        if self.rng.random() < 0.5:
            client.wire.end()
        else:
            client.wire.reset()

    def host_answers(self) -> None:
        if connections := self.connections():
            self.rng.choice(connections).answer()

    def host_sends(self) -> None:
        if connections := self.connections():
            self.rng.choice(connections).send()

    def host_reads(self) -> None:
        if connections := self.connections():
            connection = self.rng.choice(connections)
            connection.wire.receive(self.rng.choice((1, 1000, 100_000)))

    def host_breaks(self) -> None:
        if connections := self.connections():
            wire = self.rng.choice(connections).wire
            self.rng.choice((wire.end, wire.reset))()

    def agent_joins(self) -> None:
        name = f"agent:{self.rng.randrange(3)}"
        self.agents.append(self.world.agent(name, automatic=self.rng.random() < 0.7))

    def dials_change(self) -> None:
        for endpoint in self.world.endpoints:
            endpoint.answer = self.rng.choice(("connect", "connect", "wait", ConnectError(string="no")))
            endpoint.automatic = self.rng.random() < 0.7
            for dial in endpoint.dials:
                if not dial.deferred.called and not dial.cancelled and self.rng.random() < 0.5:
                    dial.succeed()

    def time_passes(self) -> None:
        self.world.turn(self.rng.choice((0, 0, 0.01, 1, 20)))

    def drain(self) -> None:
        self.a_client().wire.protocol.drain()

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.rng.choice(self.acts)()
            if self.rng.random() < 0.5:
                self.world.turn()
        for connection in self.connections():
            connection.read()

    def finish(self) -> int:
        """Let everything end that has begun, and check that it did."""
        for _ in range(200):
            for client in self.clients:
                client.send()
                client.wire.receive()
            for connection in self.connections():
                connection.wire.receive()
                connection.answer()
                connection.send()
            self.world.turn(0.5)
        complete = sum(client.check() for client in self.clients)
        for client in self.clients:
            client.wire.reset()
        self.world.turn(100)
        self.world.check_idle(_fail)
        for connection in self.connections():
            connection.wire.reset()
        self.world.turn(100)
        calls = [call for call in self.world.clock.getDelayedCalls() if "Cluster" not in repr(call)]
        assert not calls, calls
        return complete


def _fail(message: str) -> None:
    raise AssertionError(message)


class ModelTests(SynchronousTestCase):
    @settings(deadline=None, max_examples=most(100))
    @given(st.integers(0, 2**32))
    def test_short_plays(self, seed: int) -> None:
        play = Play(random.Random(seed))
        play.run(200)
        play.finish()

    def test_long_plays(self) -> None:
        complete = 0
        for seed in range(10):
            play = Play(random.Random(seed))
            play.run(3000)
            complete += play.finish()
        self.assertGreater(complete, 200)
