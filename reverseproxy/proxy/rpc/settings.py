"""The settings that all RPC connections of one C{proxy} filter share."""

from __future__ import annotations

__all__ = ["RpcSettings"]

from dataclasses import dataclass, field

from reverseproxy.proxy.failures import FailureLog
from reverseproxy.proxy.settings import ProxySettings
from reverseproxy.wire.rpc.xprotocol import MAX_FRAME, XProtocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcSettings(ProxySettings):
    """
    The settings of a filter for one RPC protocol.

    @ivar protocol: the clients' protocol.
    @ivar pool_key: the key of pools of connections to hosts, see
        L{reverseproxy.proxy.rpc.protocols.Dialect.key}; if empty, the protocol's name.
    @ivar max_frame: the largest request, and the largest response, in bytes.
    @ivar failures: logs requests that fail on our side.
    """

    protocol: XProtocol
    pool_key: str = ""
    max_frame: int = MAX_FRAME
    failures: FailureLog = field(init=False, compare=False)

    def __post_init__(self) -> None:
        ProxySettings.__post_init__(self)
        object.__setattr__(self, "failures", FailureLog(self.listener, self.clock))
