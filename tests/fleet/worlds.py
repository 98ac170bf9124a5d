"""Whole fleets in memory: servers, their agents, and clients, with a clock that is moved."""

from __future__ import annotations

__all__ = ["FleetWorld", "get"]

import json
from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any

from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.config.models import FleetConfig
from reverseproxy.fleet.fleet import Fleet
from reverseproxy.testing import MemoryReactor, Recorder, run
from tests.fleet.stores import MemoryDirectory, MemoryStore
from tests.integration import configs

CLIENTS = 2000
TUNNELS = 3000
PEERS = 4000


def get(path: str = "/", method: str = "GET", body: bytes = b"") -> bytes:
    """A request."""
    head = f"{method} {path} HTTP/1.1\r\nHost: fleet.example\r\n"
    if body:
        head += f"Content-Length: {len(body)}\r\n"
    return head.encode() + b"\r\n" + body


class FleetWorld:
    """
    A fleet.

    @ivar servers: by their ids.
    @ivar directories: theirs.
    """

    def __init__(self) -> None:
        self.reactor = MemoryReactor()
        self.store = MemoryStore()
        self.servers: dict[str, ReverseProxy] = {}
        self.directories: dict[str, MemoryDirectory] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        self.agents: list[ReverseProxy] = []

    def server(
        self,
        name: str,
        fleet: Mapping[str, Any] | None = None,
        change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        seconds: float = 1.0,
        **more: Any,
    ) -> ReverseProxy:
        """
        Run a server; the first one listens at 2000, 3000 and 4000, the next ones behind that.

        @param change: changes its document.
        @param seconds: what passes then.
        """
        number = len(self.servers)
        document = configs.server(
            client=f"127.0.0.1:{CLIENTS + number}", tunnel=f"127.0.0.1:{TUNNELS + number}", **more
        )
        peers = {"address": f"127.0.0.1:{PEERS + number}", **(fleet or {})}
        document["fleet"] = {"server_id": name, "etcd": {"endpoints": ["127.0.0.1:1"]}, "peers": peers}
        self.documents[name] = change(document)
        loaded = loads(json.dumps(self.documents[name]), name)
        service = ReverseProxy(
            loaded.config,
            self.reactor,
            Random(number),
            make_directory=partial(self._directory, name),
        )
        service.privilegedStartService()
        service.startService()
        self.servers[name] = service
        self.pass_time(seconds)
        return service

    def _directory(
        self, name: str, config: FleetConfig, who: Any, world: Any, publishes: bool
    ) -> MemoryDirectory:
        found = self.directories[name] = MemoryDirectory(self.store, who, config.server_id)
        return found

    def fleet(self, name: str) -> Fleet:
        """A server's part in the fleet."""
        found = self.servers[name]._world.fleet
        assert found is not None
        return found

    def agent(
        self,
        *servers: int,
        answer: str,
        plain: bool = False,
        change: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        **more: Any,
    ) -> ReverseProxy:
        """Run an agent of some servers, by their places."""
        document = configs.agent(
            [f"127.0.0.1:{TUNNELS + number}" for number in servers],
            answer=answer,
            mux=not plain,
            host_name=answer.replace(" ", "-") or "agent",
            **more,
        )
        service = run(change(document), self.reactor, seed=100 + len(self.agents))
        self.agents.append(service)
        self.reactor.advance(1)
        return service

    def client(self, server: int) -> Recorder:
        """Connect a client to a server, by its place."""
        found: Recorder = self.reactor.dial("127.0.0.1", CLIENTS + server, Recorder())
        return found

    def ask(self, server: int, request: bytes = b"", seconds: float = 0.0) -> bytes:
        """Send a request, and take what is answered."""
        client = self.client(server)
        client.transport.write(request or get())
        self.reactor.settle()
        self.pass_time(seconds)
        return client.data

    def pass_time(self, seconds: float) -> None:
        """Let time pass, in small steps."""
        until = self.reactor.seconds() + seconds
        while self.reactor.seconds() < until:
            self.reactor.advance(0.05)

    def stop(self) -> None:
        """End everything."""
        for service in (*self.agents, *self.servers.values()):
            if service.running:
                service.stopService()
        self.pass_time(30)
