"""
Load balancers: which of the hosts that could take a request gets it.

They work on sets of thousands of hosts that change all the time, so nothing is
rebuilt when one comes or goes, and hosts that are busy cost nothing to skip.
Randomness is handed in; there is no clock.
"""

from __future__ import annotations

__all__ = [
    "LeastRequestBalancer",
    "RandomBalancer",
    "RoundRobinBalancer",
    "WeightedRoundRobinBalancer",
    "make_balancer",
]

import random
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.cluster.host import clamp_weight
from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext

if TYPE_CHECKING:
    from reverseproxy.config.models import ClusterConfig

log = Logger()

_COMPACT_ABOVE = 32
"""A heap with fewer entries of removed hosts than this is left as it is."""


@implementer(ILoadBalancer)
class RandomBalancer:
    """
    LB_RANDOM: every host that is not suspended is as likely as any other.

    All operations take O(1), a pick O(number of hosts tried).
    """

    def __init__(self, random: random.Random) -> None:
        self._random = random.random
        self._ready: list[IHost] = []
        self._index: dict[IHost, int] = {}
        """The place in C{_ready} of each host; -1 for a suspended one."""

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host not in self._index:
            self._append(host)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self.suspend(host)
        self._index.pop(host, None)

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        index = self._index.get(host, -1)
        if index >= 0:
            last = self._ready.pop()
            if last is not host:
                self._ready[index] = last
                self._index[last] = index
            self._index[host] = -1

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if self._index.get(host) == -1:
            self._append(host)

    def _append(self, host: IHost) -> None:
        self._index[host] = len(self._ready)
        self._ready.append(host)

    def _swap(self, left: int, right: int) -> None:
        ready = self._ready
        ready[left], ready[right] = ready[right], ready[left]
        self._index[ready[left]] = left
        self._index[ready[right]] = right

    def _untried(self, context: PickContext | None) -> int:
        """
        Move hosts that were tried to the end.

        @return: how many others there are, from the beginning.
        """
        count = len(self._ready)
        if context is not None:
            for host in context.tried:
                index = self._index.get(host, -1)
                if index >= 0:
                    count -= 1
                    self._swap(index, count)
        return count

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        count = self._untried(context)
        return self._ready[int(self._random() * count)] if count else None

    def fewest_active(self, context: PickContext | None, choices: int) -> IHost | None:
        """
        Pick the least busy one of some hosts drawn at random.

        @param choices: how many different hosts to draw.
        """
        ready = self._ready
        count = self._untried(context)
        best: IHost | None = None
        for drawn in range(min(choices, count)):
            # A shuffle that stops early: what was drawn goes to the front.
            self._swap(drawn, drawn + int(self._random() * (count - drawn)))
            host = ready[drawn]
            if best is None or host.active < best.active:
                best = host
        return best


class _Node:
    """
    A host in a queue of deadlines.

    @ivar deadline: when its next turn is due, in virtual time.
    @ivar place: orders equal deadlines; unique.
    @ivar queued: whether the heap has an entry for it.  Entries of suspended
        and removed hosts stay until they come to the top.
    """

    __slots__ = ("deadline", "host", "place", "queued", "removed", "stride", "suspended")

    def __init__(self, host: IHost, stride: float) -> None:
        self.host = host
        self.stride = stride
        self.deadline = 0.0
        self.place = 0
        self.queued = False
        self.removed = False
        self.suspended = False


@implementer(ILoadBalancer)
class WeightedRoundRobinBalancer:
    """
    LB_WEIGHTED_ROUNDROBIN: hosts take turns, heavier ones more often.

    Each host has a deadline; the earliest is picked and its next one lies
    1/weight later, so that turns are evenly spread (earliest deadline first).
    Hosts with equal weights take turns in plain rotation.

    A host that is suspended keeps its deadline.  When it is resumed after that
    has passed, it is due at once, and only once: it does not get the turns back
    that it missed.

    Operations take O(log n), amortised.
    """

    def __init__(self) -> None:
        self._nodes: dict[IHost, _Node] = {}
        self._heap: list[tuple[float, int, _Node]] = []
        self._now = 0.0
        self._places = 0
        self._ready = 0
        self._dead = 0

    def _stride(self, host: IHost) -> float:
        return 1.0 / clamp_weight(host.weight)

    def _advance(self, node: _Node) -> float:
        """How far away a host's next turn is, when it is picked."""
        return node.stride

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._nodes:
            return
        node = self._nodes[host] = _Node(host, self._stride(host))
        self._places += 1
        node.place = self._places
        node.deadline = self._now + node.stride
        self._ready += 1
        self._push(node)

    def _push(self, node: _Node) -> None:
        node.queued = True
        heappush(self._heap, (node.deadline, node.place, node))

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        node = self._nodes.pop(host, None)
        if node is None:
            return
        node.removed = True
        if not node.suspended:
            self._ready -= 1
        if node.queued:
            self._dead += 1
            if self._dead > _COMPACT_ABOVE and self._dead * 2 > len(self._heap):
                self._heap = [entry for entry in self._heap if not entry[2].removed]
                heapify(self._heap)
                self._dead = 0

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        node = self._nodes.get(host)
        if node is not None and not node.suspended:
            node.suspended = True
            self._ready -= 1

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        node = self._nodes.get(host)
        if node is not None and node.suspended:
            node.suspended = False
            self._ready += 1
            if not node.queued:
                self._push(node)

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if not self._ready:
            return None
        tried = context.tried if context is not None else None
        aside: list[tuple[float, int, _Node]] = []
        picked: IHost | None = None
        heap = self._heap
        while heap:
            deadline, _, node = heap[0]
            if node.suspended or node.removed:
                heappop(heap)
                node.queued = False
                if node.removed:
                    self._dead -= 1
            elif tried and node.host in tried:
                aside.append(heappop(heap))
            else:
                # A host that others passed, while it was suspended or in C{tried}, is
                # late; it goes first now, but does not catch up.
                if deadline > self._now:
                    self._now = deadline
                self._places += 1
                node.place = self._places
                node.deadline = self._now + self._advance(node)
                heapreplace(heap, (node.deadline, node.place, node))
                picked = node.host
                break
        for entry in aside:
            heappush(heap, entry)
        return picked


class RoundRobinBalancer(WeightedRoundRobinBalancer):
    """LB_ROUNDROBIN: hosts take turns, whatever their weights."""

    def _stride(self, host: IHost) -> float:
        return 1.0


class _WeightedLeastRequest(WeightedRoundRobinBalancer):
    """Turns as by weight, but a host's weight shrinks with the requests under way on it."""

    def __init__(self, bias: float) -> None:
        super().__init__()
        self._bias = bias

    def _advance(self, node: _Node) -> float:
        stride: float = node.stride * (node.host.active + 1) ** self._bias
        return stride


@implementer(ILoadBalancer)
class LeastRequestBalancer:
    """
    LB_LEAST_REQUEST: hosts with fewer requests under way are preferred.

    If all weights are equal: the least busy one of C{choices} hosts drawn at
    random.  Else turns by weight, where a host's weight is divided by
    C{(active + 1) ** bias} at each turn.
    """

    def __init__(self, random: random.Random, choices: int = 2, bias: float = 1.0) -> None:
        """
        @param choices: hosts drawn at random; at least one.
        @param bias: how much requests under way count; 0 for not at all.
        """
        self._choices = max(1, choices)
        self._drawn = RandomBalancer(random)
        self._turns = _WeightedLeastRequest(max(0.0, bias))
        self._weights: dict[IHost, int] = {}
        self._counts: dict[int, int] = {}
        """How many hosts there are of each weight."""

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._weights:
            return
        weight = self._weights[host] = clamp_weight(host.weight)
        self._counts[weight] = self._counts.get(weight, 0) + 1
        self._drawn.add(host)
        self._turns.add(host)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        weight = self._weights.pop(host, None)
        if weight is None:
            return
        self._counts[weight] -= 1
        if not self._counts[weight]:
            del self._counts[weight]
        self._drawn.remove(host)
        self._turns.remove(host)

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._drawn.suspend(host)
        self._turns.suspend(host)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._drawn.resume(host)
        self._turns.resume(host)

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if len(self._counts) > 1:
            return self._turns.pick(context)
        return self._drawn.fewest_active(context, self._choices)


def make_balancer(config: ClusterConfig, random: random.Random) -> ILoadBalancer:
    """
    Make the balancer that a cluster's C{lb_type} names.

    An empty or unknown type is round robin, as in MOSN.
    """
    kind = config.lb_type
    if kind == "LB_RANDOM":
        return RandomBalancer(random)
    if kind == "LB_WEIGHTED_ROUNDROBIN":
        return WeightedRoundRobinBalancer()
    if kind == "LB_LEAST_REQUEST":
        options = config.lbconfig
        return LeastRequestBalancer(random, options.choice_count, options.active_request_bias)
    if kind not in ("", "LB_ROUNDROBIN"):
        log.warn(
            "cluster {cluster}: lb_type {kind} is not supported, hosts take turns",
            cluster=config.name,
            kind=kind,
        )
    return RoundRobinBalancer()
