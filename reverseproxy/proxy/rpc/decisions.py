"""Lines of level C{DEBUG} about decisions on RPC requests; see L{reverseproxy.proxy.http.decisions}."""

from __future__ import annotations

__all__ = ["ToldRpcExchange", "rpc_exchange_class"]

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from reverseproxy.proxy.http.decisions import (
    Choice,
    describe_end,
    describe_host,
    describe_outcome,
    describe_route,
)
from reverseproxy.proxy.rpc.exchange import RpcExchange

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.proxy.rpc.client import RpcClient
    from reverseproxy.routing import Cause, ClusterRoute, RouteInput, RouteResult

log = Logger()


class ToldRpcExchange(RpcExchange):
    """An exchange that logs its decisions."""

    __slots__ = ()

    def _say(self, what: str) -> None:
        downstream, request = self.downstream, self.name
        log.debug(
            "{listener}: {protocol} request {id}{request} of {peer}: {what}",
            listener=downstream.settings.listener,
            protocol=downstream.protocol.name,
            id=self.id,
            request=f" for {request}" if request else "",
            peer=downstream.info.remote,
            what=what,
        )

    def _follow(self, route: ClusterRoute, facts: RouteInput) -> None:
        self._say(describe_route(route))
        super()._follow(route, facts)

    def _answer_for(self, result: RouteResult | None) -> None:
        self._say(
            "no route takes it" if result is None else f"route {result.route or '(unnamed)'} answers it"
        )
        super()._answer_for(result)

    def _connect(self, host: Host) -> None:
        self._say(describe_host(self, host))
        super()._connect(host)

    def _send(self, client: RpcClient) -> None:
        self._say(f"sent over the connection from {client.local_address}")
        super()._send(client)

    def _may_try_again(self, outcome: Cause | int, unsent: bool, idempotent: bool) -> bool:
        again = super()._may_try_again(outcome, unsent, idempotent)
        self._say(describe_outcome(self, outcome, again))
        return again

    def _log_end(self) -> None:
        self._say(describe_end(self.status, self._clock.seconds() - self.started, self.flags, self.flag))

    def _finish(self) -> None:
        super()._finish()
        self._log_end()

    def _end(self) -> None:
        super()._end()
        self._log_end()


rpc_exchange_class: Final[Choice[RpcExchange]] = Choice(RpcExchange, ToldRpcExchange)
"""The class of new exchanges: it depends on whether lines of level C{DEBUG} are logged."""
