"""A server, an agent and the admin API, all in memory."""

from __future__ import annotations

__all__ = ["ADMIN", "CLIENT", "PORT", "STATIC", "TUNNEL", "Answer", "World", "parse_answer"]

import json
from random import Random
from typing import Any, NamedTuple

from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.testing import MemoryReactor, Recorder, run
from tests.integration.configs import quick_agent, server

CLIENT, TUNNEL, PORT = 2000, 3000, 9900
STATIC = {
    "credential_policy": "static",
    "validators": {"static": {"tokens": [{"agent": "edge-7", "token": "very secret"}]}},
}
ADMIN = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": PORT}}}


class Answer(NamedTuple):
    """What came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


def parse_answer(data: bytes) -> Answer:
    """Take an answer apart."""
    head, _, body = data.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
    return Answer(int(line.split()[1]), headers, body)


class World:
    """
    A server with an admin API.

    @ivar proxy: the server.
    @ivar document: its configuration.
    """

    def __init__(self, admin: Any = ADMIN, **more: Any) -> None:
        self.reactor = MemoryReactor()
        document = server(client=f"127.0.0.1:{CLIENT}", tunnel=f"127.0.0.1:{TUNNEL}", **more)
        document["admin"] = admin
        self.document = document
        config = loads(json.dumps(document), "document").config
        self.proxy = ReverseProxy(config, self.reactor, Random(1))
        self.proxy.startService()
        self.agents: list[ReverseProxy] = []

    def agent(self, **more: Any) -> ReverseProxy:
        """Run an agent, which answers requests by itself."""
        agent = run(quick_agent(TUNNEL, **more), self.reactor)
        self.agents.append(agent)
        self.reactor.advance(0.1)
        self.reactor.settle()
        return agent

    def connect(self, port: int = PORT) -> Recorder:
        """Connect to a port."""
        client: Recorder = self.reactor.dial("127.0.0.1", port, Recorder())
        return client

    def ask(
        self, target: str, method: str = "GET", body: bytes = b"", port: int = PORT, **headers: str
    ) -> Answer:
        """Make a request."""
        client = self.connect(port)
        fields = {
            "Host": "localhost",
            "Connection": "close",
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        if body:
            fields["Content-Length"] = str(len(body))
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        client.transport.write(f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode() + body)
        self.reactor.settle()
        return parse_answer(client.data)

    def request(self, path: str = "/") -> Answer:
        """Make a request through the tunnel."""
        return self.ask(path, port=CLIENT)
