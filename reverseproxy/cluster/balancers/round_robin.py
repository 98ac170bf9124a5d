"""
Round robin load balancers.

Nothing is rebuilt when a host is added or removed, and busy hosts cost nothing to skip.
"""

from __future__ import annotations

__all__ = [
    "LoadScaledRoundRobinBalancer",
    "RequestRoundRobinBalancer",
    "RoundRobinBalancer",
    "ScaledWeightedRoundRobinBalancer",
    "WeightedRoundRobinBalancer",
]

from collections.abc import Callable
from heapq import heapify, heappop, heappush, heapreplace

from zope.interface import implementer

from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext

_COMPACT_ABOVE = 32
"""A heap with fewer entries of removed hosts than this is left as it is."""


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
    LB_WEIGHTED_ROUNDROBIN: hosts take turns in proportion to their weights.

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
        return 1.0 / max(1, host.weight)

    def _advance(self, node: _Node) -> float:
        """Return the time to a host's next turn, when it joins or is picked."""
        return node.stride

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._nodes:
            return
        node = self._nodes[host] = _Node(host, self._stride(host))
        self._places += 1
        node.place = self._places
        node.deadline = self._now + self._advance(node)
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
        aside: list[tuple[float, int, _Node]] | None = None
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
                if aside is None:
                    aside = []
                aside.append(heappop(heap))
            else:
                picked = node.host
                if len(heap) == 1 == len(self._nodes):
                    break  # no two deadlines are equal
                # A host that others passed, while it was suspended or in C{tried}, is
                # late; it goes first now, but does not catch up.
                if deadline > self._now:
                    self._now = deadline
                self._places += 1
                node.place = self._places
                node.deadline = self._now + self._advance(node)
                heapreplace(heap, (node.deadline, node.place, node))
                break
        if aside is not None:
            for entry in aside:
                heappush(heap, entry)
        return picked


class RoundRobinBalancer(WeightedRoundRobinBalancer):
    """LB_ROUNDROBIN: hosts take turns, whatever their weights."""

    def _stride(self, host: IHost) -> float:
        return 1.0


class LoadScaledRoundRobinBalancer(WeightedRoundRobinBalancer):
    """Weighted round robin, where requests in progress reduce a host's weight."""

    def __init__(self, bias: float) -> None:
        """
        @param bias: a host's weight is divided by C{(active + 1) ** bias}.
        """
        super().__init__()
        self._bias = bias

    def _advance(self, node: _Node) -> float:
        stride: float = node.stride * (node.host.active + 1) ** self._bias
        return stride


class ScaledWeightedRoundRobinBalancer(WeightedRoundRobinBalancer):
    """
    Weighted round robin with further factors.

    The time to a host's next turn is multiplied by the factor that each scale returns
    at that moment: 2 halves its share.
    """

    def __init__(self, *scales: Callable[[IHost], float]) -> None:
        """
        @param scales: each returns a factor above 0 for a host.
        """
        super().__init__()
        self._scales = scales

    def _advance(self, node: _Node) -> float:
        stride = node.stride
        for scale in self._scales:
            stride *= scale(node.host)
        return stride


class _Ordered:
    """
    An ordered set of numbers: a tree of bit sets.

    Each level has a bit for each non-empty word of the level below, so that every
    operation takes one step per level, however many numbers there are.
    """

    _SHIFT = 9
    _MASK = (1 << _SHIFT) - 1
    _LEVELS = 5  # for 2 ** 45 numbers

    __slots__ = ("_levels",)

    def __init__(self) -> None:
        self._levels: tuple[dict[int, int], ...] = tuple({} for _ in range(self._LEVELS))

    def __contains__(self, number: int) -> bool:
        return bool(self._levels[0].get(number >> self._SHIFT, 0) >> (number & self._MASK) & 1)

    def add(self, number: int) -> None:
        """Add a number; one that is there already is ignored."""
        for level in self._levels:
            index = number >> self._SHIFT
            word = level.get(index, 0)
            level[index] = word | 1 << (number & self._MASK)
            if word:
                return
            number = index

    def remove(self, number: int) -> None:
        """Remove a number, which must be there."""
        for level in self._levels:
            index = number >> self._SHIFT
            word = level[index] ^ 1 << (number & self._MASK)
            if word:
                level[index] = word
                return
            del level[index]
            number = index

    def after(self, number: int) -> int:
        """Find the lowest number above this one; -1 if there is none."""
        number += 1
        for height, level in enumerate(self._levels):
            word = level.get(number >> self._SHIFT, 0) >> (number & self._MASK)
            if word:
                number += (word & -word).bit_length() - 1
                for lower in reversed(self._levels[:height]):
                    word = lower[number]
                    number = number << self._SHIFT | ((word & -word).bit_length() - 1)
                return number
            number = (number >> self._SHIFT) + 1
        return -1


@implementer(ILoadBalancer)
class RequestRoundRobinBalancer:
    """
    LB_REQUEST_ROUNDROBIN: every request begins with the first host.

    Hosts are ordered by when they joined.  A retry continues after the host of the
    previous attempt, and starts over after the last: C{PickContext.position} is the
    position of that host.

    Operations take O(log n), a pick that for each tried host.
    """

    def __init__(self) -> None:
        self._places: dict[IHost, int] = {}
        self._hosts: dict[int, IHost] = {}
        self._ready = _Ordered()
        self._last = -1

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host not in self._places:
            self._last += 1
            self._places[host] = self._last
            self._hosts[self._last] = host
            self._ready.add(self._last)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self.suspend(host)
        place = self._places.pop(host, None)
        if place is not None:
            del self._hosts[place]

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        place = self._places.get(host)
        if place is not None and place in self._ready:
            self._ready.remove(place)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        place = self._places.get(host)
        if place is not None:
            self._ready.add(place)

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        after = self._ready.after
        place = after(-1 if context is None else context.position)
        if place < 0 and context is not None:
            place = after(-1)
        if place < 0:
            return None
        if context is None:
            return self._hosts[place]
        first = place
        while (host := self._hosts[place]) in context.tried:
            place = after(place)
            if place < 0:
                place = after(-1)
            if place == first:
                return None
        context.position = place
        return host
