"""
How evenly clients are served that the kernel has given to workers unevenly.

Runs a tunnel server with one process, and with workers whose clients are nearly all at one of them,
beside each other: an agent with few plain connections, whose service takes the same time for each
request, and clients that ask again as soon as they are answered.  Says what clients of the busy
worker get, and what the others do::

    python -m benchmarks.fairness [--workers 2] [--clients 28] [--others 4] [--seconds 5]
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import asyncio
import os
import statistics
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.workers import Setup
from reverseproxy.wire.mosn.frames import ConnectionInit, encode

CONNECTIONS = 8
"""The agent's."""

TAKES = 0.02
"""Seconds that a request takes at the service."""

_REQUEST = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def _agent(port: int) -> None:
    """Answer what comes over one plain connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(encode(ConnectionInit("edge")))
    try:
        while await reader.readuntil(b"\r\n\r\n"):
            await asyncio.sleep(TAKES)
            writer.write(_ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


class _Setup(Setup):
    """A server, whose agent is in a thread of this process."""

    def _start_agent(self, tunnel: int, hosting: int, agents: int, mux: bool, protocol: str) -> None:
        async def run() -> None:
            await asyncio.gather(*(_agent(tunnel) for _ in range(agents)))

        threading.Thread(target=asyncio.run, args=[run()], daemon=True).start()

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self._client

    def worker_of(self, port: int) -> int:
        """Which process has the connection that a client has made from a port; by /proc."""
        inode = ""
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            ends = [int(each.rpartition(":")[2], 16) for each in fields[1:3]]
            if ends == [self._client, port]:
                inode = f"socket:[{fields[9]}]"
        for pid in self._pids:
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if os.readlink(descriptor) == inode:
                        return pid
                except OSError:
                    continue
        raise RuntimeError(f"no process has the connection from port {port}")


class Client:
    """
    A client that asks again as soon as it has been answered.

    @ivar took: the seconds of each request.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.took: list[float] = []
        self.reader = reader
        self.writer = writer

    async def ask(self, until: float) -> None:
        """Ask for a while."""
        while time.monotonic() < until:
            await self.ask_once()

    async def ask_once(self) -> None:
        """Ask, and wait for the answer."""
        asked = time.monotonic()
        self.writer.write(_REQUEST)
        head = await self.reader.readuntil(b"\r\n\r\n")
        await self.reader.readexactly(2)
        if not head.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"an answer that is none: {head!r}")
        self.took.append(time.monotonic() - asked)


async def _connect(setup: _Setup, wanted: list[int]) -> list[list[Client]]:
    """
    Connect clients.

    @param wanted: how many at each worker.
    """
    found: dict[int, list[Client]] = {}
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
        port = writer.get_extra_info("sockname")[1]
        client = Client(reader, writer)
        await client.ask_once()  # so that it is accepted
        pid = setup.worker_of(port)
        places = list(found)
        place = places.index(pid) if pid in found else len(places)
        if place < len(wanted) and len(found.setdefault(pid, [])) < wanted[place]:
            found[pid].append(client)
        else:
            writer.close()
        if [len(each) for each in found.values()] == wanted:
            return list(found.values())


async def _drive(setup: _Setup, wanted: list[int], seconds: float) -> list[list[Client]]:
    groups = await _connect(setup, wanted)
    everybody = [client for group in groups for client in group]
    for length in (1.0, seconds):  # to begin with, until connections are where they are needed
        for client in everybody:
            client.took.clear()
        until = time.monotonic() + length
        await asyncio.gather(*(client.ask(until) for client in everybody))
    for client in everybody:
        client.writer.close()
    return groups


def _describe(name: str, clients: list[Client]) -> str:
    took = sorted(each for client in clients for each in client.took)
    answers = [len(client.took) for client in clients]
    each = f"{statistics.mean(answers):.0f} answers each (from {min(answers)} to {max(answers)})"
    return (
        f"{name}: {len(clients)} clients, {each}, median {statistics.median(took) * 1e3:.0f} ms, "
        f"99 % within {took[len(took) * 99 // 100] * 1e3:.0f} ms"
    )


def evenness(answers: Iterable[int]) -> float:
    """Jain's index of fairness: 1 if all have got the same, 1/n if one has got all."""
    found = list(answers)
    return sum(found) ** 2 / (len(found) * sum(each**2 for each in found))


def compare(workers: int, clients: int, others: int, seconds: float) -> None:
    """Print what clients get from one process, and from workers."""
    for number, wanted in ((1, [clients + others]), (workers, [clients, others])):
        setup: Any = _Setup(number, CONNECTIONS, mux=False)
        try:
            groups = asyncio.run(_drive(setup, wanted, seconds))
        finally:
            setup.stop()
        for place, group in enumerate(groups):
            print(_describe(f"{setup.name}, group {place + 1}", group), flush=True)
        even = evenness(len(client.took) for group in groups for client in group)
        print(f"{setup.name}: Jain's index {even:.3f}", flush=True)


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=28, help="at the busy worker")
    parser.add_argument("--others", type=int, default=4, help="at another one")
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    compare(options.workers, options.clients, options.others, options.seconds)


if __name__ == "__main__":
    main()
