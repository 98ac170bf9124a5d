"""
The choice of some servers among many that an agent keeps connections to; pure.

Each agent ranks all servers by a hash of its own name and theirs (rendezvous hashing), and takes the
first ones. So agents spread over the servers without coordination. When a server is added, agents move
to it only; when one is removed, only its own agents move, and spread over all others.

The ranking also gives the substitutes: while a server leaves or does not answer, the agent dials the
next one as well, until the one that ranks higher serves again.
"""

from __future__ import annotations

__all__ = ["PATIENCE", "ServerChoice", "rank", "spare_limit"]

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

from reverseproxy.tunnel.agent.discovery import Target

PATIENCE: Final = 5.0
"""Seconds without a serving connection after which a server counts as failed."""


def rank(seed: str, addresses: Iterable[str]) -> list[str]:
    """
    Rank servers for an agent.

    @param seed: the agent's name.
    @param addresses: the servers'.
    @return: all addresses, best first; independent of their order.
    """
    start = blake2b(seed.encode("utf-8", "surrogatepass") + b"\0", digest_size=8)

    def weight(address: str) -> tuple[bytes, str]:
        each = start.copy()
        each.update(address.encode("utf-8", "surrogatepass"))
        return each.digest(), address

    return sorted(addresses, key=weight, reverse=True)


def spare_limit(count: int) -> int:
    """
    Return how many servers an agent dials at most that should have C{count}: not all, if it can reach
    none.
    """
    return 2 * count + 2


class ServerChoice:
    """
    An agent's choice.

    @ivar count: how many servers it should have.
    """

    def __init__(self, seed: str, count: int) -> None:
        """@param seed: the agent's name."""
        self.count = count
        self._seed = seed
        self._ranking: list[Target] = []
        self._down: dict[Target, float] = {}  # since when they do not serve

    def offer(self, targets: Sequence[Target]) -> None:
        """Set the list of all servers."""
        by_address = {target.address: target for target in targets}
        self._ranking = [by_address[address] for address in rank(self._seed, by_address)]
        self._down = {target: since for target, since in self._down.items() if target in self._ranking}

    def note(self, target: Target, serves: bool, leaves: bool, now: float) -> None:
        """
        Note the state of a server that is dialled.

        @param serves: whether a connection to it serves.
        @param leaves: whether it has announced that it is about to leave.
        """
        if serves:
            self._down.pop(target, None)
        elif leaves:
            self._down[target] = now - PATIENCE
        else:
            self._down.setdefault(target, now)

    def forget(self, target: Target) -> None:
        """Forget the state of a server that is not dialled any more."""
        self._down.pop(target, None)

    def choose(self, now: float) -> list[Target]:
        """
        Return the servers to dial: the first ones of the ranking, and substitutes for those that have
        failed.
        """
        chosen: list[Target] = []
        good = 0
        for target in self._ranking[: spare_limit(self.count)]:
            if good == self.count:
                break
            chosen.append(target)
            good += not self._fails(target, now)
        return chosen

    def next_look(self, now: float) -> float | None:
        """Return the seconds until another server counts as failed; L{None} if none will."""
        waits = [since + PATIENCE - now for since in self._down.values() if since + PATIENCE > now]
        return min(waits, default=None)

    @property
    def wanted(self) -> int:
        """How many servers must serve before the agent leaves others."""
        return min(self.count, len(self._ranking))

    def _fails(self, target: Target, now: float) -> bool:
        since = self._down.get(target)
        return since is not None and now - since >= PATIENCE
