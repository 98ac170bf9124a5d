"""
Pictures of the dashboard for the documentation.

    python -m tests.dashboard.screenshots docs/images

They are of a process that is made up, so that they are the same each time but for
the time; the page is the one that comes with the package.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from twisted.internet import task

from reverseproxy.clock import wall_time
from reverseproxy.metrics.history import KEPT, PERIOD
from reverseproxy.metrics.latency import FINE_BOUNDS, class_names
from tests.dashboard.browser import shared_browser
from tests.dashboard.world import Crowd, agent_facts
from tests.integration.configs import server

CLUSTERS = {"shops": 420, "factories": 96, "clinics": 58, "ships": 31}
"""Clusters, and how many agents each has."""

ONE = {"shops": "shop", "factories": "factory", "clinics": "clinic", "ships": "ship"}
"""What one agent of each is called."""

PLACES = {
    "shops": ("lyon", "porto", "gent", "turin", "malmo", "graz", "cork", "brno"),
    "factories": ("line", "press", "kiln", "paint"),
    "clinics": ("north", "south", "harbour"),
    "ships": ("aurora", "borealis", "calypso", "delphin"),
}

SPEED = {"shops": 6.0, "factories": 18.0, "clinics": 4.0, "ships": 2.5}
"""Requests in a second that an agent of a cluster has, more or less."""


def rule(prefix: str, cluster: str) -> dict[str, Any]:
    """A rule of the router."""
    return {"match": {"prefix": prefix}, "route": {"cluster_name": cluster}}


def document() -> dict[str, Any]:
    """A configuration with these clusters."""
    made = server()
    [router] = made["servers"][0]["routers"]
    router["virtual_hosts"] = [
        {
            "name": f"{name}.example",
            "domains": [f"{name}.example"],
            "routers": [rule("/api/", name), rule("/", name)],
        }
        for name in CLUSTERS
    ]
    [cluster] = made["cluster_manager"]["clusters"]
    made["cluster_manager"]["clusters"] = [{**cluster, "name": name} for name in ("clientCluster", *CLUSTERS)]
    return made


class Demo(Crowd):
    """A process with some hundred agents that have something to do."""

    def __init__(self) -> None:
        self._random = random.Random(7)
        self._now = wall_time()
        self._rates: dict[str, float] = {}
        super().__init__(self._made_up(), document())
        first = sorted(self.agents.values(), key=lambda facts: -facts["ends"]["2xx"])
        first[2] |= {"connections": 3, "healthy": 3}

    def _made_up(self) -> Iterator[dict[str, Any]]:
        draw, number = self._random, 0
        for cluster, many in CLUSTERS.items():
            for index in range(many):
                number += 1
                place = PLACES[cluster][index % len(PLACES[cluster])]
                facts = agent_facts(number)
                name = f"{place}-{index // len(PLACES[cluster]) + 1:02d}"
                key = f"{draw.getrandbits(64):016x}"
                self._rates[key] = SPEED[cluster] * draw.lognormvariate(0, 0.5)
                times = [0] * (len(FINE_BOUNDS) + 1)
                for _ in range(200):
                    times[min(len(times) - 1, max(0, int(draw.gauss(24 + 6 * (cluster == "ships"), 5))))] += 1
                lacks = draw.random() < 0.01
                facts |= {
                    "id": key,
                    "identity": f"token:{ONE[cluster]}-{name}",
                    "token": f"{ONE[cluster]}-{name}",
                    "claimed_host_name": f"{name}.local",
                    "clusters": [cluster],
                    "connections": 3 if lacks else 4,
                    "healthy": 3 if lacks else 4,
                    "ends": {"2xx": draw.randrange(20000, 90000), "5xx": draw.randrange(3)},
                    "times": times,
                    "since": self._now - draw.expovariate(1 / 400000) - 300,
                    "last_seen": self._now,
                    "rtt_seconds": 0.012 * draw.lognormvariate(0, 0.5) * (9 if cluster == "ships" else 1),
                }
                yield facts

    def pass_time(self, seconds: float) -> None:
        """Let agents have some more requests."""
        for key, facts in self.agents.items():
            rate = self._rates[key] * self._random.lognormvariate(0, 0.3)
            facts["ends"] = {**facts["ends"], "2xx": facts["ends"]["2xx"] + round(rate * seconds)}

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        value = super().answer(question, arguments)
        if question == "summary":
            return value | self._summary()
        if question == "clusters":
            by_name = [each for each in value["items"] if each["name"] in CLUSTERS]
            for each in by_name:
                members = self._of(each["name"])
                each |= {
                    "hosts": sum(facts["most_connections"] for facts in members),
                    "healthy": sum(facts["healthy"] for facts in members),
                    "in_flight": self._random.randrange(3, 40),
                }
            return {"items": by_name, "last": None}
        if question == "by_route":
            return [self._route(name, index) for name in CLUSTERS for index in (0, 1)]
        if question == "refused":
            return {"items": refused(self._now), "more": False}
        return value

    def _of(self, cluster: str) -> list[Mapping[str, Any]]:
        return [facts for facts in self.agents.values() if facts["clusters"] == [cluster]]

    def _summary(self) -> dict[str, Any]:
        agents = list(self.agents.values())
        waves = random.Random(3)
        shape = [1 + 0.25 * waves.random() + 0.2 * (i % 17 > 11) for i in range(KEPT)]
        totals = {
            name: sum(self._rates[facts["id"]] for facts in self._of(name)) * PERIOD for name in CLUSTERS
        }
        return {
            "agents": len(agents),
            "connections": sum(facts["connections"] for facts in agents),
            "requests": sum(sum(facts["ends"].values()) for facts in agents),
            "errors": sum(facts["ends"]["5xx"] for facts in agents),
            "in_flight": 71,
            "times": [sum(column) for column in zip(*(facts["times"] for facts in agents), strict=True)],
            "uptime_seconds": 19 * 86400 + 7300,
            "refused": 2,
            "history": {
                "period": PERIOD,
                "requests": [round(sum(totals.values()) * each) for each in shape],
                "errors": [round(3 * waves.random() ** 6) for _ in shape],
                "agents": [len(agents) - (i < 20) - (i < 33) for i in range(KEPT)],
                "clusters": {
                    name: [round(total * (1 + 0.4 * waves.random())) for _ in range(KEPT)]
                    for name, total in totals.items()
                },
            },
        }

    def _route(self, cluster: str, index: int) -> dict[str, Any]:
        ends: dict[int, int] = {2: 0, 4: 40 + index, 5: 0}
        times = [0] * (len(FINE_BOUNDS) + 1)
        for facts in self._of(cluster):
            ends[2] += facts["ends"]["2xx"] // (1 + 2 * index)
            ends[5] += facts["ends"]["5xx"] // (1 + 2 * index)
            times = [a + b for a, b in zip(times, facts["times"], strict=True)]
        return {
            "listener": "clientListener",
            "virtual_host": f"{cluster}.example",
            "route": f"{cluster}.example[{index}]",
            "ends": class_names(ends),
            "times": times,
            "received": 10**9,
            "sent": 10**11,
        }


def refused(now: float) -> list[dict[str, Any]]:
    """Joins that were refused."""
    return [
        {
            "time": now - 40 * number,
            "listener": "tunnelListener",
            "address": f"198.51.100.{7 + number}:50122",
            "certificate": None,
            "cluster": cluster,
            "claimed_host_name": name,
            "policy": "static",
            "result": "credential_rejected",
            "reason": "refused with status 401: the credential of policy 'static' is not known",
            "remedy": "give the agent a valid credential of the required policy",
        }
        for number, (cluster, name) in enumerate((("shops", "till-4"), ("clinics", "scanner")), 1)
    ]


async def main(reactor: Any, directory: str) -> None:
    """Take the pictures."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    demo = Demo()

    def look(page: Any, scheme: str) -> None:
        page.wait_for_selector("#live[data-state=live]")
        page.select_option("#sort", "requests")
        page.evaluate("document.activeElement.blur()")
        for _ in range(32):
            demo.pass_time(2.0)
            page.clock.run_for(2000)
            page.wait_for_timeout(30)
        page.screenshot(path=f"{directory}/dashboard-{scheme}.png")
        if scheme == "light":
            page.keyboard.press("2")
            page.wait_for_selector("#routes td")
            page.fill("#explain-host", "shops.example")
            page.fill("#explain-path", "/api/stock")
            page.keyboard.press("Enter")
            page.wait_for_selector("#routes tr.hit")
            for _ in range(3):
                demo.pass_time(3.0)
                page.clock.run_for(3000)
                page.wait_for_timeout(50)
            page.screenshot(path=f"{directory}/dashboard-routes.png")

    for scheme in ("light", "dark"):
        await shared_browser().see(
            demo.url,
            lambda page, scheme=scheme: look(page, scheme),
            frozen=True,
            color_scheme=scheme,
            reduced_motion="reduce",
        )
    await demo.stop()


if __name__ == "__main__":
    task.react(main, sys.argv[1:] or ["docs/images"])
