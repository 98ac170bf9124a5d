"""
C{payload_limit}: limit the size of requests.

As MOSN's C{pkg/filter/stream/payloadlimit}, but without waiting for the whole body:
one of unknown length is counted as it comes.
"""

from __future__ import annotations

__all__ = ["PayloadLimit"]

from collections.abc import Iterator

from reverseproxy.config.models import PayloadLimitConfig
from reverseproxy.proxy.filters.chain import BodyLimit, FilteredRequest, LocalReply, Step
from reverseproxy.proxy.flags import ResponseFlag


class PayloadLimit:
    """Refuses requests whose body is too large."""

    before_route = False

    def __init__(self, config: PayloadLimitConfig) -> None:
        self._config = config

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """See L{reverseproxy.proxy.filters.chain.RequestFilter}."""
        config = self._config
        options = None if request.result is None else request.result.filters
        if options is not None and options.payload_limit is not None:
            config = options.payload_limit
        limit = config.max_entity_size
        if not limit:
            return
        reason = f"request body larger than {limit} bytes"
        refusal = LocalReply(config.http_status, reason, f"{reason}\n".encode("ascii"), ResponseFlag.DPE)
        if request.size > limit:
            yield refusal
        elif request.size < 0 and (request.limit is None or limit < request.limit.size):
            request.limit = BodyLimit(limit, refusal)
