"""
Copies of RPC requests, for C{request_mirror_policies}.

The result of a copy does not matter to the client.
"""

from __future__ import annotations

__all__ = ["RpcCopy"]

from typing import TYPE_CHECKING, Final

from reverseproxy.proxy.http.attempts import Attempts, ExchangePhase
from reverseproxy.proxy.rpc.interfaces import Batch
from reverseproxy.proxy.rpc.pool import RpcPool, rpc_pool_of
from reverseproxy.wire.rpc.xprotocol import Frame, Kind

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.narrowed import ICluster
    from reverseproxy.proxy.rpc.client import RpcClient
    from reverseproxy.proxy.rpc.settings import RpcSettings

MIRROR_TIMEOUT: Final = 60.0
"""Seconds that a copy of a request may take."""


class RpcCopy(Attempts):
    """One copy of a request."""

    __slots__ = ("_client", "_frame", "_number", "_settings", "_timer")

    def __init__(self, settings: RpcSettings, cluster: ICluster, frame: Frame) -> None:
        super().__init__(settings.clock, settings.pool_key or settings.protocol.name)
        self.cluster = cluster
        self._settings = settings
        self._frame = frame
        self._client: RpcClient | None = None
        self._number = 0
        self._timer = settings.clock.callLater(MIRROR_TIMEOUT, self._end)
        self._acquire()

    # Attempts

    def _make_pool(self, host: Host, idle_timeout: float | None) -> RpcPool:
        return rpc_pool_of(self.protocol, self._settings.protocol, host, self._clock, idle_timeout)

    @property
    def _announced_protocol(self) -> str:
        return self._settings.protocol.name

    @property
    def _client_chose(self) -> bool:
        return self._settings.protocols_differ

    def _send(self, client: RpcClient) -> None:
        self._phase = ExchangePhase.ACTIVE
        if client.max_frame < self._settings.max_frame:
            client.admit(self._settings.max_frame)
        if client.full:
            self._end()  # a copy does not wait
            return
        oneway = self._frame.kind is Kind.ONEWAY
        self._client = client
        self._number = client.send(None if oneway else self, self._frame, None)
        if oneway:
            self._client = None
            self._end()

    def fail(self, status: int, reason: str, flags: int) -> None:
        """See L{Attempts.fail}."""
        self._end()

    # IRpcExchange

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcExchange}."""
        self._client = None
        self._end()

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcExchange}."""
        self._client = None
        if not unsent:
            self._is_foreign()
        self._end()

    def _end(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.forget(self._number)
        if self._timer.active():
            self._timer.cancel()
        self._give_up()
