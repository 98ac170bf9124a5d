"""C{mirror}: send several copies of each request; MOSN sends one only with this filter."""

from __future__ import annotations

__all__ = ["MirrorCopies"]

from collections.abc import Iterator

from reverseproxy.config.models import MirrorFilterConfig
from reverseproxy.proxy.filters.chain import FilteredRequest, Step


class MirrorCopies:
    """Sets how many copies of each request are sent: C{amplification}, and one at least."""

    before_route = False

    def __init__(self, config: MirrorFilterConfig) -> None:
        self._copies = max(config.amplification, 1)

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """See L{reverseproxy.proxy.filters.chain.RequestFilter}."""
        request.copies = self._copies
        yield from ()
