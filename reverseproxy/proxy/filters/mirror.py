"""C{mirror}: how many copies of requests are sent, where MOSN sends one only with this filter."""

from __future__ import annotations

__all__ = ["MirrorCopies"]

from collections.abc import Iterator

from reverseproxy.config.models import MirrorFilterConfig
from reverseproxy.proxy.filters.chain import FilteredRequest, Step


class MirrorCopies:
    """The filter; of several, each adds its copies, but one alone does what there is without."""

    before_route = False

    def __init__(self, config: MirrorFilterConfig) -> None:
        self._copies = max(config.amplification, 1)

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """See L{reverseproxy.proxy.filters.chain.RequestFilter}."""
        request.copies = self._copies
        yield from ()
