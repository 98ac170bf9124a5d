"""
A fleet under load while its parts fail one after the other: etcd, links, servers.

The processes and etcd are real; connections between them go through relays, which can be held, cut
and slowed down.  Clocks differ by hours all the while.
"""

from __future__ import annotations

import struct
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet import reactor as global_reactor

from reverseproxy.fleet.etcd import Etcd
from tests.fleet.processes import FleetCase
from tests.fleet.real_etcd import ETCD
from tests.integration.clients import Load, gather
from tests.integration.harness import JOINED, SLOW_MACHINE, ReverseProxy

reactor: Any = global_reactor

NOTICED = 5.0
"""Seconds within which a server that can't be reached is left out."""

LATE = 2.0
"""Seconds that a request may take at the most that had to be repeated, beside that."""

PREFIX = "/reverseproxy/fleet/"
HOURS = 5 * 3600.0


class FaultTests(FleetCase):
    """
    Two servers with an agent each, and agents of which nobody asks anything.

    All that clients ask of server a is for the agent of b; and half of what they ask of b is for that of a.
    """

    timeout = 240
    logs = False

    async def start(self) -> None:
        """Start everything."""
        await self.begin()
        self.client = Etcd(reactor, [self.etcd.endpoint])
        self.addCleanup(self.client.close)
        offset = self.directory / "offset"
        offset.write_bytes(struct.pack("d", HOURS))
        ahead = {
            "WALL_CLOCK_OFFSET": str(offset),
            "PYTHONPATH": str(Path(__file__).resolve().parent.parent / "wall_clock"),
        }
        self.options = ("--takeover", f"{tempfile.mkdtemp(prefix='fleet')}/socket")
        await gather([self.relay(name) for name in "ab"])
        one, two, self.a, self.b = await gather(
            [
                self.run_backend("one"),
                self.run_backend("two"),
                self.server("a", *self.options),
                self.server("b", environ=ahead),
            ]
        )
        await gather(
            [
                self.agent("one", "a", backend=one.address, connections=6),
                self.agent("two", "b", backend=two.address, connections=2, clusters=("otherCluster",)),
            ]
        )
        self.spares = [await self.spare("a") for _ in range(2)]
        await self.has("b", "a", 3)
        await self.has("a", "b", 2)
        self.loads: dict[str, Load] = {}
        self.load("a")
        self.load("b")
        await self.served()
        self.assertEqual(set(self.loads["a"].backends), {"two"})
        self.assertEqual(set(self.loads["b"].backends), {"one", "two"})

    def document(self, name: str, **more: Any) -> dict[str, Any]:
        """Send clients of a to a cluster whose only agent b has."""
        document = super().document(name, **more)
        if name == "a":
            [router] = document["servers"][0]["routers"]
            router["virtual_hosts"][0]["routers"][0]["route"]["cluster_name"] = "otherCluster"
        return document

    def load(self, name: str) -> None:
        """Let clients ask a server for something, one time after the other."""
        self.loads[name] = Load(self.ports[name][0], clients=3, method="GET").start()

    async def unload(self, name: str) -> None:
        """Let them ask no more."""
        load = self.loads.pop(name)
        await load.stop()
        self.assertEqual(load.failures, [])

    async def served(self, answers: int = 20) -> None:
        """Requests are answered at both servers, and none has failed."""
        await gather([load.answers(answers) for load in self.loads.values()])
        for name, load in self.loads.items():
            self.assertEqual(load.failures, [], f"at server {name}")

    def say(self, text: str) -> None:
        """Print a figure."""
        slowest = ", ".join(f"{name} {load.slowest:.2f} s" for name, load in self.loads.items())
        print(f"{text}; slowest request at {slowest}")  # noqa: T201
        for load in self.loads.values():
            load.slowest = 0.0

    async def known(self, what: str, within: float) -> None:
        """An agent that joins a is known at b soon."""
        self.spares.append(await self.spare("a"))
        took = await self.has("b", "a", 1 + len(self.spares))
        self.say(f"{what}: an agent is known after {took:.2f} s")
        self.assertLess(took, within + SLOW_MACHINE)

    async def lose_spare(self) -> None:
        """One of the agents of which nobody asks anything is gone."""
        self.spares.pop(0).transport.abortConnection()

    async def stored(self, name: str, there: bool) -> None:
        """Wait until etcd has a server's record, or has none."""

        async def look() -> bool:
            return (await self.client.get(f"{PREFIX}servers/{name}") is not None) is there

        await self.until(look, f"etcd should know {name}: {there}")

    async def lost(self, server: ReverseProxy, other: str, mark: int, began: float) -> float:
        """A server notices in time that it does not reach another one."""
        await server.logged(f"^fleet: the link to server {other} is lost", mark)
        took = float(reactor.seconds() - began)
        self.assertLess(took, NOTICED + SLOW_MACHINE)
        return took

    def nobody_waited_for_longer(self) -> None:
        """Requests that were under way where nobody answers any more were repeated in time."""
        for load in self.loads.values():
            self.assertLess(load.slowest, NOTICED + LATE + SLOW_MACHINE)

    async def test_faults(self) -> None:
        await self.start()
        await self.known("all is well", 1)
        await self.etcd_fails()
        await self.ways_fail()
        await self.server_stands_still()
        await self.server_is_replaced()
        for name in list(self.loads):
            await self.unload(name)

    async def etcd_fails(self) -> None:
        """Nothing fails at all."""
        # Etcd is killed, and comes back with nothing in it, when one agent has left.
        self.etcd.kill()
        self.etcd.wipe()
        await self.lose_spare()
        await self.served(50)
        self.assertEqual((await self.peer("b", "a"))["hosts"], 1 + len(self.spares))
        await self.etcd.start()
        await self.known("etcd was killed, and is empty", 5)

        async def published() -> bool:
            found, _ = await self.client.range(f"{PREFIX}hosts/")
            return len(found) == 3 + len(self.spares)

        await self.until(published, "everything should be published anew, and nothing else")
        # Compacted while nobody watches.
        for relay in self.stores.values():
            relay.hold(True)
            relay.cut()
        await self.lose_spare()
        await self.client.change([("/unrelated", b"")])
        await self.client.call("kv/compaction", {"revision": str(await self.client.revision("/"))})
        for relay in self.stores.values():
            relay.hold(False)
            relay.cut()
        await self.known("etcd was compacted, and cut off", 5)
        # Slow.
        for relay in self.stores.values():
            relay.delay, relay.rate = 0.2, 40_000
        await self.known("etcd is slow", 3)
        for relay in self.stores.values():
            relay.delay = relay.rate = 0
        # Everything is deleted by hand.
        found, _ = await self.client.range(PREFIX)
        await self.client.change([], [each.key for each in found])
        await self.until(published, "everything should be there again")
        self.assertEqual((await self.peer("b", "a"))["hosts"], 1 + len(self.spares))
        await self.served()

    async def ways_fail(self) -> None:
        """Server b does not reach etcd, nor a, which reaches b all the while."""
        mark, began = self.b.mark(), reactor.seconds()
        self.stores["b"].hold(True)
        self.ways["a"].hold(True)
        took = await self.lost(self.b, "a", mark, began)
        await self.served()
        self.assertEqual(await self.backends("b"), {"two"})
        await self.stored("b", False)
        self.assertEqual(await self.backends("a"), {"two"}, "what is reached is kept")
        self.say(f"no way from b to a, nor to etcd: noticed after {took:.1f} s")
        # No way in either direction.
        await self.unload("a")
        mark, began = self.a.mark(), reactor.seconds()
        self.ways["b"].hold(True)
        took = await self.lost(self.a, "b", mark, began)
        await self.served()
        self.say(f"no way from a to b: noticed after {took:.1f} s")
        self.nobody_waited_for_longer()
        for relay in (*self.ways.values(), self.stores["b"]):
            relay.hold(False)
        began = reactor.seconds()
        await self.has("b", "a", 1 + len(self.spares))
        await self.has("a", "b", 2)
        self.say(f"all ways are there again: known and linked after {reactor.seconds() - began:.1f} s")
        await self.stored("b", True)
        self.load("a")
        await self.served()

    async def server_stands_still(self) -> None:
        """Its lease lapses; when it goes on it is the same, without the agent that has left meanwhile."""
        await self.unload("a")
        mark, began = self.b.mark(), reactor.seconds()
        self.a.signal("STOP")
        await self.lose_spare()
        took = await self.lost(self.b, "a", mark, began)
        await self.served()
        await self.stored("a", False)
        await self.b.logged("^fleet: server a at .* has left: ", mark)
        self.say(f"server a stands still: noticed after {took:.1f} s")
        self.nobody_waited_for_longer()
        self.a.signal("CONT")
        began = reactor.seconds()
        await self.has("b", "a", 1 + len(self.spares))
        self.say(f"server a goes on: known and linked after {reactor.seconds() - began:.1f} s")
        self.assertEqual(await self.backends("b"), {"one", "two"})

    async def server_is_replaced(self) -> None:
        """A new process takes over; what may not be repeated does not fail either."""
        load = self.loads["posts"] = Load(self.ports["b"][0], clients=4).start()
        await self.served()
        old, mark = self.a, self.b.mark()
        self.a = await self.server("a", *self.options)
        await self.a.counted(JOINED, 2)
        self.assertEqual(await old.ended(), 0)
        await self.served(50)
        self.assertEqual(await self.backends("b"), {"one", "two"})
        left = [each["message"] for each in self.b.entries(mark) if "has left" in each["message"]]
        self.assertEqual(left, [], "it is never gone in between")
        self.say(f"a new process has taken over: {load.answered} POST, none failed")


if ETCD is None:
    del FaultTests
