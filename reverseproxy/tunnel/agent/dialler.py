"""Dials connections to one address of a tunnel server."""

from __future__ import annotations

__all__ = ["Dialler"]

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import CallableFactory, make_endpoint
from reverseproxy.net.lenient_timeouts import add_lenient_timeout
from reverseproxy.tunnel.agent.dial_turns import DialTurn, DialTurns
from reverseproxy.tunnel.agent.discovery import Target
from reverseproxy.tunnel.agent.leaving import too_late
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.tunnel.agent.plan import AgentPlan


class Dialler:
    """
    Dials an address: with a credential, when it is the connection's turn, and when it is of use.

    @ivar endpoint: the address's.
    @ivar streams: whether connections to the server carry streams, as far as that is known.
    """

    def __init__(self, plan: AgentPlan, target: Target, prepare: Callable[[AgentLink], object]) -> None:
        """
        @param prepare: called with each new link, to set its hooks.
        """
        self.streams = False
        self._plan = plan
        self._target = target
        self._prepare = prepare
        self._turns = DialTurns()
        self.endpoint = self._make_endpoint()

    def _make_endpoint(self) -> Any:
        plan = self._plan
        # The certificate must match the name that was configured.
        tls = None if plan.client_tls is None else plan.client_tls(self._target.server)
        timeout = plan.config.connect_timeout_duration
        return make_endpoint(plan.reactor, self._target.address, timeout, tls)

    def adapt(self, plan: AgentPlan) -> None:
        """Use other settings for further attempts."""
        before, self._plan = self._plan.config, plan
        if plan.config.connect_timeout_duration != before.connect_timeout_duration:
            self.endpoint = self._make_endpoint()

    def close(self) -> None:
        """Give no further attempt a turn; see L{DialTurns.close}."""
        self._turns.close()

    def dial(self) -> Deferred[Any]:
        """
        Dial a connection.

        Where connections carry no streams, and the hosting listener relays bytes, one is of use only while
        the service can be reached: the attempt waits for that.

        @return: fires with an L{AgentLink}; cancelling ends the attempt.
        """
        plan = self._plan
        if plan.service is None or not plan.raw or self.streams:
            return self._take_turn()
        waiting: Deferred[Any] = plan.service.until_well()
        return waiting.addCallback(self._take_turn)

    def _take_turn(self, _: object = None) -> Deferred[Any]:
        return self._turns.take().addCallback(self._dial)

    def _dial(self, turn: DialTurn) -> Deferred[Any]:
        plan = self._plan
        dialling: Deferred[Any] = plan.fetch_credential().addCallback(self._connect, turn)
        add_lenient_timeout(dialling, plan.config.connect_timeout_duration, plan.reactor, too_late)
        return dialling.addErrback(self._failed, turn)

    def _connect(self, credential: str, turn: DialTurn) -> Deferred[IProtocol]:
        connecting: Deferred[IProtocol] = self.endpoint.connect(
            CallableFactory(partial(self._make_link, credential, turn))
        )
        return connecting

    def _make_link(self, credential: str, turn: DialTurn) -> AgentLink:
        plan, config = self._plan, self._plan.config
        link = AgentLink(
            partial(plan.make_init, credential),
            plan.sink,
            plan.reactor,
            config.connect_timeout_duration,
            plan.client_tls is not None,
            config.dead_peer_timeout,
            plan.streams,
            plan.service,
            plan.marks,
        )
        link.greeted = turn.end
        self._prepare(link)
        return link

    def _failed(self, reason: Failure, turn: DialTurn) -> Failure:
        turn.end()
        return reason
