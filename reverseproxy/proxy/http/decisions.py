"""
Log each step of each request, at level C{DEBUG}.

While such lines are logged, new requests get a L{LoggedExchange}, and an
L{Exchange} otherwise, which knows nothing about that.  So the log level may
change at any time, and the lines cost nothing while they are not logged.
"""

from __future__ import annotations

__all__ = [
    "Choice",
    "LoggedAttempts",
    "LoggedExchange",
    "describe_end",
    "describe_route",
    "describe_sending",
    "exchange_class",
]

from typing import TYPE_CHECKING, Final, Generic, TypeVar

from twisted.logger import Logger

from reverseproxy.config.durations import format_duration
from reverseproxy.logs import DEBUGGING
from reverseproxy.proxy.flags import short_names
from reverseproxy.proxy.http.attempts import Attempts
from reverseproxy.proxy.http.exchange import Exchange
from reverseproxy.proxy.http.interfaces import IUpstream

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.routing import Cause, ClusterRoute, RouteInput, RouteResult

log = Logger()

_T = TypeVar("_T")


def describe_route(route: ClusterRoute) -> str:
    """Describe where a route leads."""
    text = f"route {route.route or '(unnamed)'} leads to cluster {route.cluster_name}"
    if route.timeout:
        text += f", timeout {format_duration(route.timeout)}"
    if route.retry.try_timeout:
        text += f", {format_duration(route.retry.try_timeout)} for an attempt"
    return f"{text}, {route.retry.retries} retries at the most"


def describe_sending(connection: str, local_address: str) -> str:
    """
    Describe over which connection a request is sent.

    @param local_address: empty for a connection without one, such as a stream to another worker.
    """
    return f"sent over {connection}{f' from {local_address}' if local_address else ''}"


def describe_end(status: int, seconds: float, flags: int, reason: str) -> str:
    """Describe how a request ended."""
    text = f" with {status}" if status else ""
    why = f", {short_names(flags)}: {reason}" if flags else ""
    return f"ended{text} after {seconds:.3f} s{why}"


class LoggedAttempts(Attempts):
    """Base of exchanges of every protocol that log their attempts, ahead of the class of these exchanges."""

    __slots__ = ()

    def _say(self, what: str) -> None:
        """Log a step."""
        raise NotImplementedError

    def _connect(self, host: Host) -> None:
        agent = "" if host.identity is None else f" of {host.identity}"
        waited = f", after a wait of {self.waited:.3f} s" if self.waited else ""
        self._say(f"attempt {self.attempts} goes to host {host.address}{agent}{waited}")
        super()._connect(host)

    def _may_try_again(self, outcome: Cause | int, unsent: bool, idempotent: bool) -> bool:
        again = super()._may_try_again(outcome, unsent, idempotent)
        name = f"status {outcome}" if isinstance(outcome, int) else outcome.name.lower()
        then = "another one" if again else "no other one"
        self._say(f"attempt {self.attempts} has failed ({name}): {then}")
        return again


class LoggedExchange(LoggedAttempts, Exchange):
    """An exchange that logs each of its steps."""

    __slots__ = ()

    def _say(self, what: str) -> None:
        downstream, head = self.downstream, self.head
        log.debug(
            "{listener}: {method} {path} of {peer}: {what}",
            listener=downstream.settings.listener,
            method=head.method.decode("ascii", "replace"),
            path=head.target.partition(b"?")[0].decode("ascii", "replace"),
            peer=downstream.info.remote,
            what=what,
        )

    def _follow(self, route: ClusterRoute, facts: RouteInput | None) -> None:
        self._say(describe_route(route))
        super()._follow(route, facts)

    def _answer_for(self, result: RouteResult | None, facts: RouteInput) -> None:
        if result is None:
            self._say("no route takes it")
        else:
            self._say(f"route {result.route or '(unnamed)'} answers it")
        super()._answer_for(result, facts)

    def _send(self, client: IUpstream) -> None:
        connection = "an idle connection" if client.reused else "a new connection"
        self._say(describe_sending(connection, client.local_address))
        super()._send(client)

    def _log_end(self) -> None:
        self._say(describe_end(self.status, self._clock.seconds() - self.started, self.flags, self.flag))

    def _finish(self) -> None:
        self._log_end()
        super()._finish()

    def _end(self) -> None:
        super()._end()
        self._log_end()

    def _answer(self, status: int, body: bytes, location: bytes = b"") -> None:
        super()._answer(status, body, location)
        self._say(f"gets {status}")


class Choice(Generic[_T]):
    """
    Chooses the class of new exchanges by the log level.

    @ivar kind: the class of the exchanges that begin now.
    """

    __slots__ = ("_logged", "_plain", "kind")

    def __init__(self, plain: type[_T], logged: type[_T]) -> None:
        """
        @param logged: the class that logs its steps.
        """
        self._plain, self._logged = plain, logged
        self.kind = plain
        DEBUGGING.watch(self._changed)

    def _changed(self, on: bool) -> None:
        self.kind = self._logged if on else self._plain


exchange_class: Final[Choice[Exchange]] = Choice(Exchange, LoggedExchange)
"""Which kind of exchange is made now."""
