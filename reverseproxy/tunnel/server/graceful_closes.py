"""
Graceful closes: an agent has its own connections removed, by a frame on another connection.

MOSN's agents keep a silent connection in reserve for this.
"""

from __future__ import annotations

__all__ = ["MOST_FUTILE_CLOSES", "GracefulCloses"]

from typing import TYPE_CHECKING, Final

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.server.registry import Requester
from reverseproxy.wire.mosn.extensions import CloseProof
from reverseproxy.wire.mosn.frames import GracefulClose

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer

MOST_FUTILE_CLOSES: Final = 3
"""Graceful closes without effect that one connection may send."""


class GracefulCloses:
    """The graceful closes of one connection."""

    __slots__ = ("_abandoned", "_address_key", "_futile", "_info", "_server")

    def __init__(self, server: TunnelServer, info: ConnectionInfo, address_key: str) -> None:
        """
        @param info: the connection that sends them.
        @param address_key: the client address, as addresses are grouped.
        """
        self._server = server
        self._info = info
        self._address_key = address_key
        self._futile = 0
        self._abandoned = False

    def abandon(self) -> None:
        """Execute nothing further, as the connection is being closed."""
        self._abandoned = True

    async def carry_out(self, frame: GracefulClose) -> str:
        """
        Remove the hosts that a frame names, as far as its sender owns them.

        @return: why the sender's connection has to be closed; empty if it may stay.
        """
        server, cluster = self._server, frame.cluster_name
        proof = CloseProof.from_extra(frame.extra)
        validator = server.admission.close_validator(proof, cluster)
        await server.judge.wait_for_turn(self._address_key)
        identity = None
        if proof is not None and not self._abandoned:
            identity = await server.judge.validate(validator, proof.credential, "", cluster)
        if self._abandoned:
            return ""
        requester = Requester.of(self._info, proof, identity)
        selection = server.evict(cluster, frame.addresses, requester)
        elsewhere = await server.workers.evict(
            cluster, [each.address for each in selection.refused], requester
        )
        selection = selection.without(elsewhere)
        if selection.refused:
            server.judge.count_refusal(self._address_key)
            server.peer_log.warn(
                "{listener}: graceful close from {peer}: {reason}",
                peer=self._info.remote,
                reason=selection.describe_refused(),
            )
        if not (selection.evict or elsewhere):
            self._futile += 1
            if self._futile >= MOST_FUTILE_CLOSES:
                return "its graceful closes name no connection of its own"
        return ""
