"""
Subset load balancing: restrict requests to hosts with given metadata.

A selector is a set of labels.  The hosts that have all of these labels make up
one subset for each combination of values.  A request that demands values of
exactly these labels is given to that subset (MOSN's C{lb_subset_config}).

Each subset has a load balancer of its own, so that a host is added, removed and suspended
in one for each selector, and in the one for all hosts.
"""

from __future__ import annotations

__all__ = ["ANY_HOST", "DEFAULT_SUBSET", "NO_FALLBACK", "Population", "SubsetBalancer"]

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from zope.interface import implementer

from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext

NO_FALLBACK: Final = 0
"""Fail requests whose subset has no host."""

ANY_HOST: Final = 1
"""Give such requests to any host of the cluster."""

DEFAULT_SUBSET: Final = 2
"""Give such requests to a host of the default subset."""

Labels = tuple[tuple[str, str], ...]


class Population:
    """
    The counters of hosts that could serve the same requests.

    @ivar healthy: the number of healthy hosts.
    @ivar returns_until: until when, in the clock's seconds, a host is expected to join.
    """

    __slots__ = ("healthy", "returns_until")

    def __init__(self) -> None:
        self.healthy = 0
        self.returns_until = 0.0


class Subset(Population):
    """
    One subset.

    @ivar labels: the metadata that its hosts have in common.
    @ivar balancer: its load balancer.
    @ivar size: the number of its hosts.
    """

    __slots__ = ("balancer", "labels", "size")

    def __init__(self, labels: Labels, balancer: ILoadBalancer) -> None:
        super().__init__()
        self.labels = labels
        self.balancer = balancer
        self.size = 0


@implementer(ILoadBalancer)
class SubsetBalancer:
    """
    Selects a subset for each request, whose load balancer picks the host.

    A request without demands may go to any host.  A subset without a healthy untried host
    counts as empty; one whose hosts are all busy does not.

    @ivar everyone: the subset of all hosts.
    @ivar fallbacks: the number of picks that fell back.
    """

    def __init__(
        self,
        make: Callable[[], ILoadBalancer],
        seconds: Callable[[], float],
        selectors: Iterable[Iterable[str]],
        fallback: int = NO_FALLBACK,
        default: Mapping[str, str] | None = None,
    ) -> None:
        """
        @param make: makes the balancer of one subset.
        @param seconds: returns the time in seconds.
        @param selectors: sets of labels.
        @param fallback: L{NO_FALLBACK}, L{ANY_HOST} or L{DEFAULT_SUBSET}.
        @param default: the labels of the hosts in the default subset.
        """
        self._make = make
        self._seconds = seconds
        sorted_selectors = dict.fromkeys(tuple(sorted(set(selector))) for selector in selectors)
        self._selectors = tuple(selector for selector in sorted_selectors if selector)
        self.everyone = Subset((), make())
        self._default: Subset | None = None
        if fallback == DEFAULT_SUBSET:
            self._default = Subset(_labels(default or {}), make())
        self._fallback = self.everyone if fallback == ANY_HOST else self._default
        self._subsets: dict[Labels, Subset] = {}
        self._deserted: dict[Labels, None] = {}
        """Subsets without a host, the longest empty first."""
        self._of: dict[IHost, tuple[Subset, ...]] = {}
        self.fallbacks = 0

    def __len__(self) -> int:
        """Return the number of subsets, without those of the fallback."""
        return len(self._subsets)

    # membership

    def subsets_of(self, host: IHost) -> tuple[Subset, ...]:
        """Return all subsets that a host is in; empty if it is unknown."""
        return self._of.get(host, ())

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._of:
            return
        metadata = host.metadata
        subsets = [self.everyone]
        if self._default is not None and all(metadata.get(k) == v for k, v in self._default.labels):
            subsets.append(self._default)
        subsets.extend(
            self._subset(tuple((label, metadata[label]) for label in selector))
            for selector in self._selectors
            if all(label in metadata for label in selector)
        )
        self._of[host] = tuple(subsets)
        for subset in subsets:
            subset.size += 1
            subset.balancer.add(host)
        self._forget_deserted()

    def _subset(self, labels: Labels) -> Subset:
        subset = self._subsets.get(labels)
        if subset is None:
            subset = self._subsets[labels] = Subset(labels, self._make())
        self._deserted.pop(labels, None)
        return subset

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        for subset in self._of.pop(host, ()):
            subset.size -= 1
            subset.balancer.remove(host)
            if not subset.size and self._subsets.get(subset.labels) is subset:
                self._deserted[subset.labels] = None
        self._forget_deserted()

    def _forget_deserted(self) -> None:
        """Forget empty subsets in which no host is expected, beginning with the oldest."""
        now = self._seconds()
        while self._deserted:
            labels = next(iter(self._deserted))
            if self._subsets[labels].returns_until > now:
                return
            del self._deserted[labels], self._subsets[labels]

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        for subset in self._of.get(host, ()):
            subset.balancer.suspend(host)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        for subset in self._of.get(host, ()):
            subset.balancer.resume(host)

    # picking

    def select(self, context: PickContext | None) -> Subset | None:
        """
        Find the subset whose hosts may serve a request.

        @return: L{None} if there is none, and none to fall back to.
        """
        if context is None or not context.metadata:
            return self.everyone
        subset = self._subsets.get(_labels(context.metadata))
        if self._fallback is None or (subset is not None and self._has_untried(subset, context)):
            return subset
        return self._fallback

    def _has_untried(self, subset: Subset, context: PickContext) -> bool:
        tried = sum(host.healthy and subset in self._of.get(host, ()) for host in context.tried)
        return subset.healthy > tried

    def accepts(self, host: IHost, context: PickContext | None) -> bool:
        """Return whether a host is in the subset of a request, tried or not."""
        return self.select(context) in self._of.get(host, ())

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        subset = self.select(context)
        if subset is None:
            return None
        if subset is self._fallback and context is not None and context.metadata:
            self.fallbacks += 1
        return subset.balancer.pick(context)


def _labels(metadata: Mapping[str, str]) -> Labels:
    """Return metadata sorted by key, to be compared."""
    return tuple(sorted(metadata.items()))
