"""
Which of many servers an agent keeps connections to, where these are not all of them; pure.

Each agent ranks all servers by a hash of its own name and theirs (rendezvous hashing),
and takes the first ones.  So agents spread over the servers without knowing of each other;
of a server that is new, each agent thinks for itself, and none moves but to it; from one
that is gone, only its own agents move, and these to all of the others.

The ranking also says who comes next: while a server leaves, or does not answer, the
agent has the next one as well, until the one that ranks higher serves again.
"""

from __future__ import annotations

__all__ = ["PATIENCE", "ServerChoice", "rank", "spare_limit"]

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from reverseproxy.tunnel.agent.discovery import Target

PATIENCE: Final = 5.0
"""Seconds without a connection that serves, after which a server is not counted on."""


def rank(seed: str, addresses: Iterable[str]) -> list[str]:
    """
    Order servers as an agent prefers them.

    @param seed: the agent's name.
    @param addresses: the servers'.
    @return: all of them, the first one first; the same for the same, in whatever order they come.
    """
    start = blake2b(seed.encode("utf-8", "surrogatepass") + b"\0", digest_size=8)

    def weight(address: str) -> tuple[bytes, str]:
        each = start.copy()
        each.update(address.encode("utf-8", "surrogatepass"))
        return each.digest(), address

    return sorted(addresses, key=weight, reverse=True)


def spare_limit(count: int) -> int:
    """How many servers an agent dials at the most that is to have some: not all, if it can reach none."""
    return 2 * count + 2


class ServerChoice:
    """
    An agent's servers.

    @ivar count: how many it is to have.
    """

    def __init__(self, seed: str, count: int) -> None:
        """
        @param seed: the agent's name.
        """
        self.count = count
        self._seed = seed
        self._ranking: list[Target] = []
        self._down: dict[Target, float] = {}  # since when

    def offer(self, targets: Sequence[Target]) -> None:
        """Take the list of all servers."""
        by_address = {target.address: target for target in targets}
        self._ranking = [by_address[address] for address in rank(self._seed, by_address)]
        self._down = {target: since for target, since in self._down.items() if target in self._ranking}

    def note(self, target: Target, serves: bool, leaves: bool, now: float) -> None:
        """
        Say how it is with a server that is dialled.

        @param serves: whether a connection to it can be used.
        @param leaves: whether it has said that it is about to end.
        """
        if serves:
            self._down.pop(target, None)
        elif leaves:
            self._down[target] = now - PATIENCE
        else:
            self._down.setdefault(target, now)

    def forget(self, target: Target) -> None:
        """A server is not dialled any more."""
        self._down.pop(target, None)

    def choose(self, now: float) -> list[Target]:
        """Say which servers are to be dialled: the first ones, and the next ones for those that fail."""
        chosen: list[Target] = []
        good = 0
        for target in self._ranking[: spare_limit(self.count)]:
            if good == self.count:
                break
            chosen.append(target)
            good += not self._fails(target, now)
        return chosen

    def next_look(self, now: float) -> float | None:
        """In how many seconds a server will have failed for long enough; L{None} if none will, as it is."""
        waits = [since + PATIENCE - now for since in self._down.values() if since + PATIENCE > now]
        return min(waits, default=None)

    @property
    def wanted(self) -> int:
        """How many servers have to serve before others are left."""
        return min(self.count, len(self._ranking))

    def _fails(self, target: Target, now: float) -> bool:
        since = self._down.get(target)
        return since is not None and now - since >= PATIENCE
