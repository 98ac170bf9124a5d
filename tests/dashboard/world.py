"""A server with a dashboard, and agents, in this process and on real sockets."""

from __future__ import annotations

__all__ = ["HOSTILE", "READ", "TOKEN", "Crowd", "World", "agent_facts"]

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import deferLater

from reverseproxy.admin.service import AdminServer
from reverseproxy.admin.sources import Answer
from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.metrics.latency import FINE_BOUNDS
from tests.fleet.stores import MemoryDirectory, MemoryStore
from tests.integration.configs import quick_agent, server

TOKEN, READ = "operate-" * 3, "looking-" * 3
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>"
TOKENS = [{"name": "ops", "token": TOKEN, "role": "operate"}, {"name": "eyes", "token": READ}]
ANYWHERE = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}


def make(document: Mapping[str, Any], make_directory: Any = None) -> ReverseProxy:
    """Make what a configuration says."""
    config = loads(json.dumps(document), "document").config
    return ReverseProxy(config, reactor, Random(1), make_directory=make_directory)


class World:
    """
    A server and its agents.

    @ivar url: where the dashboard is.
    @ivar document: the configuration, as it is read again.
    """

    def __init__(self, directory: str, tokens: bool = False, fleet: bool = False, **more: Any) -> None:
        """
        @param directory: of files.
        @param fleet: whether the server is in a fleet, whose directory is C{self.directory} then.
        """
        document = server(**more)
        document["admin"] = dict(ANYWHERE)
        if tokens:
            path = Path(directory).absolute()
            path.mkdir()
            (path / "tokens.json").write_text(json.dumps(TOKENS))
            document["admin"]["tokens_file"] = str(path / "tokens.json")
        self.document = document
        if fleet:
            peers = {"address": "127.0.0.1:0"}
            document["fleet"] = {"server_id": "a", "etcd": {"endpoints": ["127.0.0.1:1"]}, "peers": peers}
        self.proxy = make(document, self._directory if fleet else None)
        self.proxy.read_from(lambda: loads(json.dumps(self.document), "document"))
        self.proxy.startService()
        self.agents: list[ReverseProxy] = []
        assert self.proxy.admin is not None
        self.url = f"http://{self.proxy.admin.listener.bound}/"

    def _directory(self, config: Any, who: Any, world: Any, publishes: bool) -> MemoryDirectory:
        self.directory = MemoryDirectory(MemoryStore(), who, config.server_id)
        return self.directory

    def port(self, listener: str) -> int:
        """Where a listener listens."""
        return int(self.proxy.listeners[listener].bound.rpartition(":")[2])

    def agent(self, **more: Any) -> ReverseProxy:
        """Run an agent, which answers requests by itself."""
        agent = make(quick_agent(self.port("tunnelListener"), **more))
        agent.startService()
        self.agents.append(agent)
        return agent

    async def stop(self) -> None:
        """End all of it, at once."""
        for each in (*self.agents, self.proxy):
            stopped = each.stopService()
            each.cut_short()
            await stopped
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]


def agent_facts(number: int) -> dict[str, Any]:
    """What a process knows of one of many agents."""
    times = [0] * (len(FINE_BOUNDS) + 1)
    times[number % 40 + 10] = 100
    connections = 3 if number % 97 == 0 else 4
    return {
        "id": f"{number:016x}",
        "identity": f"token:edge-{number:05d}",
        "proved": True,
        "token": f"edge-{number:05d}",
        "policy": "static",
        "certificate": None,
        "claimed_host_name": f"box-{number}",
        "agent_id": f"{number:012x}",
        "kind": "reverseproxy",
        "version": 1,
        "tls": {"version": "TLSv1.3", "cipher": "TLS_AES_256_GCM_SHA384"},
        "clusters": [f"cluster-{number % 7}"],
        "addresses": [
            f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:{40000 + k}" for k in range(connections)
        ],
        "connections": connections,
        "most_connections": 4,
        "healthy": connections,
        "streams": number % 5,
        "mux": True,
        "in_flight": number % 3,
        "ends": {"2xx": 100 + number},
        "times": times,
        "bytes": {"received": 1000 * number, "sent": 5000 * number},
        "last_error": None,
        "weight": 10,
        "since": 1785412800.0,
        "last_seen": 1785412800.0,
        "rtt_seconds": 0.001 + number % 50 / 1000,
        "excluded": None,
        "targets": {},
        "workers": [],
    }


class Crowd:
    """
    A process that says what it is told to say of its agents.

    @ivar agents: by their ids, in order.
    @ivar asked: how many agents were described, by request.
    @ivar url: where the dashboard is.
    """

    draining = False

    def __init__(
        self, agents: Iterable[Mapping[str, Any]], document: Mapping[str, Any] | None = None
    ) -> None:
        """
        @param document: the configuration.
        """
        self.agents = {each["id"]: each for each in sorted(agents, key=lambda each: each["id"])}
        self.asked: list[int] = []
        self.proxy = make({**(server() if document is None else document), "admin": ANYWHERE})
        self.admin = AdminServer(self.proxy.config, reactor, self)
        self.admin.startService()
        self.url = f"http://{self.admin.listener.bound}/"

    def facts(self) -> Mapping[str, Any]:
        return {"workers": []}

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[Answer]]:
        return succeed([Answer(0, self.answer(question, arguments))])

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Answer a question about the process."""
        value: Any = self.proxy.inspector.answer(question, arguments)
        if question == "summary":
            value |= {"agents": len(self.agents), "connections": 4 * len(self.agents)}
        if question in ("agents", "agent"):
            page = self._page(arguments)
            whole = "after" not in arguments or len(page) < arguments["limit"]
            value = {"agents": page, "last": None if whole else page[-1]["id"]}
            self.asked.append(len(page))
        return value

    def _page(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        ids = arguments.get("ids", [arguments["id"]] if "id" in arguments else None)
        if ids is None:
            after = arguments["after"]
            ids = [key for key in self.agents if key > after][: arguments["limit"]]
        return [dict(self.agents[key]) for key in ids if key in self.agents]

    async def stop(self) -> None:
        """End it."""
        await self.admin.stopService()
        await deferLater(reactor, 0.05)  # type: ignore[arg-type]
