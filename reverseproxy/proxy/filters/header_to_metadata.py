"""C{header_to_metadata}: demand labels of hosts by headers, as MOSN does."""

from __future__ import annotations

__all__ = ["HeaderToMetadata"]

from collections.abc import Iterator

from reverseproxy.config.models import HeaderToMetadataConfig
from reverseproxy.proxy.filters.chain import FilteredRequest, Step


class HeaderToMetadata:
    """Demands labels of hosts by headers."""

    before_route = False

    def __init__(self, config: HeaderToMetadataConfig) -> None:
        self._rules = [(rule.header.lower(), rule) for rule in config.request_rules]

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """See L{reverseproxy.proxy.filters.chain.RequestFilter}."""
        removed = request.removed
        for name, rule in self._rules:
            value = None if name in removed else request.facts.headers(name)
            label = rule.on_header_missing if value is None else rule.on_header_present
            if label is not None:
                request.labels[label.name] = label.value or value or ""
            if rule.remove and value is not None:
                removed.add(name)
        yield from ()
