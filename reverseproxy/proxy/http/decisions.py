"""
What becomes of each request, step by step, in lines of C{DEBUG}.

As long as such lines are not written, an exchange knows nothing of them: what
is made for a request is an L{Exchange}, and a L{ToldExchange} otherwise, of
requests that begin from then on.  So the level may be changed at any time, and
costs nothing where it is another one.
"""

from __future__ import annotations

__all__ = ["ToldExchange", "exchange_class"]

from typing import TYPE_CHECKING

from twisted.logger import Logger

from reverseproxy.config.durations import format_duration
from reverseproxy.logs import DEBUGGING
from reverseproxy.proxy.flags import short_names
from reverseproxy.proxy.http.exchange import Exchange, IUpstream

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.routing import Cause, ClusterRoute, RequestFacts, RouteResult

log = Logger()


class ToldExchange(Exchange):
    """An exchange that says what it decides."""

    __slots__ = ()

    def _say(self, what: str) -> None:
        downstream, head = self._downstream, self.head
        log.debug(
            "{listener}: {method} {path} of {peer}: {what}",
            listener=downstream.settings.listener,
            method=head.method.decode("ascii", "replace"),
            path=head.target.partition(b"?")[0].decode("ascii", "replace"),
            peer=downstream.info.remote,
            what=what,
        )

    def _follow(self, route: ClusterRoute, facts: RequestFacts | None) -> None:
        text = f"route {route.route or '(unnamed)'} leads to cluster {route.cluster_name}"
        if route.timeout:
            text += f", timeout {format_duration(route.timeout)}"
        if route.retry.try_timeout:
            text += f", {format_duration(route.retry.try_timeout)} for an attempt"
        self._say(f"{text}, {route.retry.retries} retries at the most")
        super()._follow(route, facts)

    def _answer_for(self, result: RouteResult | None, facts: RequestFacts) -> None:
        if result is None:
            self._say("no route takes it")
        else:
            self._say(f"route {result.route or '(unnamed)'} answers it")
        super()._answer_for(result, facts)

    def _connect(self, host: Host) -> None:
        agent = "" if host.identity is None else f" of {host.identity}"
        waited = f", after a wait of {self.waited:.3f} s" if self.waited else ""
        self._say(f"attempt {self.attempts} goes to host {host.address}{agent}{waited}")
        super()._connect(host)

    def _send(self, client: IUpstream) -> None:
        self._say(
            f"sent over {'an idle' if client.reused else 'a new'} connection from {client.local_address}"
        )
        super()._send(client)

    def _may_try_again(self, outcome: Cause | int, unsent: bool, idempotent: bool) -> bool:
        again = super()._may_try_again(outcome, unsent, idempotent)
        name = f"status {outcome}" if isinstance(outcome, int) else outcome.name.lower()
        self._say(
            f"attempt {self.attempts} has failed ({name}): {'another one' if again else 'no other one'}"
        )
        return again

    def _end_told(self) -> None:
        seconds = self._clock.seconds() - self.started
        flags = f", {short_names(self.flags)}: {self.flag}" if self.flags else ""
        self._say(f"ended{(self.status and f' with {self.status}') or ''} after {seconds:.3f} s{flags}")

    def _finish(self) -> None:
        self._end_told()
        super()._finish()

    def _end(self) -> None:
        super()._end()
        self._end_told()

    def _answer(self, status: int, body: bytes, location: bytes = b"") -> None:
        super()._answer(status, body, location)
        self._say(f"gets {status}")


class _Choice:
    """
    Which kind of exchange is made for a request.

    @ivar kind: the class.
    """

    __slots__ = ("kind",)

    def __init__(self) -> None:
        self.kind: type[Exchange] = Exchange
        DEBUGGING.watch(self._changed)

    def _changed(self, on: bool) -> None:
        self.kind = ToldExchange if on else Exchange


exchange_class = _Choice()
"""Which kind of exchange is made now."""
