"""The pool of connections to a host that speaks HTTP/2."""

from __future__ import annotations

__all__ = ["MAX_STREAMS", "POOL", "Http2Pool"]

from dataclasses import replace
from typing import Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.message_limits import response_limits
from reverseproxy.proxy.connection_pool import SharedPool
from reverseproxy.proxy.http.http2_client import Http2Client
from reverseproxy.proxy.pools import register_pool
from reverseproxy.wire.http2.events import SHARED_RESETS, SHARED_RESETS_PER_SECOND, Http2Limits

POOL: Final = "Http2"
"""The name of our pools in L{Host.pools}."""

MAX_STREAMS: Final = 1000
"""Requests that may be under way on one connection, if the host allows that many."""

LIMITS: Final = Http2Limits(
    max_concurrent_streams=MAX_STREAMS,
    max_control_frames=10_000,
    max_resets=SHARED_RESETS,
    resets_per_second=SHARED_RESETS_PER_SECOND,
)
"""
What hosts may do.

They were chosen by the configuration or have proved who they are, so that the
bounds are wider than those for clients; but for each stream they are the same.
A cluster's configuration says how large windows are.
"""


def _limits_of(host: Host) -> Http2Limits:
    """Return the limits of what a host may send."""
    size, fields = response_limits(host)
    if host.is_reverse:
        size += 32 * fields  # which an agent that has it in HTTP/1 does not count
    limits = replace(LIMITS, max_header_list_size=size, max_fields=fields)
    if host.cluster is None:
        return limits
    windows = host.cluster.config.http2_windows
    return replace(
        limits,
        stream_window=windows.initial_window_size,
        max_window=max(windows.initial_window_size, windows.max_window_size),
        receive_budget=windows.max_window_growth,
    )


class Http2Pool(SharedPool[Http2Client]):
    """
    The connections of one host; what it gives to an exchange is an L{Http2Call}.

    @ivar limits: what the host may do.
    """

    def __init__(self, host: Host, clock: IReactorTime, idle_timeout: float | None = None) -> None:
        super().__init__(POOL, host, clock, idle_timeout)
        self.limits = _limits_of(host)
        self._set_streams(MAX_STREAMS)

    def _build(self) -> Http2Client:
        return Http2Client(self)

    def _set_streams(self, streams: int) -> None:
        """Note how many requests one connection carries at once."""
        # A connection that names its client has no room for other clients.
        self._set_capacity(1 if self.host.sends_proxy_header else streams)

    def settings_came(self, client: Http2Client) -> None:
        """The host has sent SETTINGS, and thereby how many requests it takes at once."""
        self.heard(False)
        wanted = client.http2.peer_max_streams
        self._set_streams(MAX_STREAMS if wanted is None else max(1, min(wanted, MAX_STREAMS)))


register_pool(POOL, Http2Pool)
