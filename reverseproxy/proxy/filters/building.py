"""Build the filters of a listener from its configuration."""

from __future__ import annotations

__all__ = ["build_chain"]

from collections.abc import Callable, Sequence

from twisted.internet.interfaces import IReactorTime

from reverseproxy.config.models import (
    FaultConfig,
    FlowControlConfig,
    HeaderToMetadataConfig,
    IpAccessConfig,
    MirrorFilterConfig,
    PayloadLimitConfig,
    StreamFilterConfig,
)
from reverseproxy.proxy.filters.chain import FilterChain, RequestFilter
from reverseproxy.proxy.filters.fault import FaultInjection
from reverseproxy.proxy.filters.flow_control import FlowControl
from reverseproxy.proxy.filters.header_to_metadata import HeaderToMetadata
from reverseproxy.proxy.filters.ip_access import IpAccess
from reverseproxy.proxy.filters.mirror import MirrorCopies
from reverseproxy.proxy.filters.payload_limit import PayloadLimit


def build_chain(
    configs: Sequence[StreamFilterConfig], clock: IReactorTime, draw: Callable[[], float], share: int = 1
) -> FilterChain | None:
    """
    Build the filters of a listener.

    @param draw: gives random numbers from 0 to 1, less than 1.
    @param share: how many processes share the listener.
    @return: L{None} if there are none.
    """
    filters = [made for each in configs if (made := _make(each, clock, draw, share)) is not None]
    return FilterChain(filters) if filters else None


def _make(
    each: StreamFilterConfig, clock: IReactorTime, draw: Callable[[], float], share: int
) -> RequestFilter | None:
    """Build a filter; return L{None} if it would do nothing, or may be left out."""
    match each.config:
        case IpAccessConfig() as config:
            return IpAccess(config)
        case PayloadLimitConfig() as config:
            return PayloadLimit(config)
        case FaultConfig() as config:
            return FaultInjection(config, draw)
        case FlowControlConfig() as config:
            return FlowControl(config, clock, share) if config.global_switch and config.rules else None
        case HeaderToMetadataConfig() as config:
            return HeaderToMetadata(config) if config.request_rules else None
        case MirrorFilterConfig() as config:
            return MirrorCopies(config) if config.amplification > 1 else None
    return None
