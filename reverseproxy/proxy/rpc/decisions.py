"""Lines of level C{DEBUG} about decisions on RPC requests; see L{reverseproxy.proxy.http.decisions}."""

from __future__ import annotations

__all__ = ["LoggedRpcExchange", "rpc_exchange_class"]

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from reverseproxy.proxy.http.decisions import (
    Choice,
    LoggedAttempts,
    describe_end,
    describe_route,
    describe_sending,
)
from reverseproxy.proxy.rpc.exchange import RpcExchange

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.client import RpcClient
    from reverseproxy.routing import ClusterRoute, RouteInput, RouteResult

log = Logger()


class LoggedRpcExchange(LoggedAttempts, RpcExchange):
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

    def _send(self, client: RpcClient) -> None:
        self._say(describe_sending("the connection", client.local_address))
        super()._send(client)

    def _log_end(self) -> None:
        self._say(describe_end(self.status, self._clock.seconds() - self.started, self.flags, self.flag))

    def _finish(self) -> None:
        super()._finish()
        self._log_end()

    def _end(self) -> None:
        super()._end()
        self._log_end()


rpc_exchange_class: Final[Choice[RpcExchange]] = Choice(RpcExchange, LoggedRpcExchange)
"""The class of new exchanges: it depends on whether lines of level C{DEBUG} are logged."""
