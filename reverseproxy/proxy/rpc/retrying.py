"""
The result of an attempt at an RPC request: a response, or another attempt.

RPC has no methods that are known to be idempotent.  So a request that a host may
have acted upon is sent again only if the route's C{retry_policy} has C{retry_on}.
"""

from __future__ import annotations

__all__ = ["RpcRetrying"]

from typing import TYPE_CHECKING, Final

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.config.durations import format_duration
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.rpc.timed import TOO_LATE, RpcTimed
from reverseproxy.routing import Cause
from reverseproxy.wire.http.unsent import Unsent

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host
    from reverseproxy.proxy.rpc.client import RpcClient
    from reverseproxy.wire.rpc.xprotocol import Frame

TERMINATED: Final = 500
"""The status of a request whose connection was lost (docs/mosn.rst 4.5)."""


class RpcRetrying(RpcTimed):
    """The layer of an exchange that decides about retries."""

    __slots__ = ("_sent_at",)

    _sent_at: float  # when the attempt began, if it is timed

    def _time_attempt(self) -> None:
        self._sent_at = self._clock.seconds()
        if self._times.attempt:
            self._set_try_deadline(self._times.attempt)

    # the answer

    def _heed(self, frame: Frame) -> bool:
        """
        Judge the host by a response, and see whether the response is for the client.

        @return: whether the response is to be dropped, as the request is sent again,
            or has been answered otherwise.
        """
        host, cluster, downstream = self.host, self.cluster, self.downstream
        assert host is not None
        assert cluster is not None
        if not host.tells:
            if downstream.info.service is not None:
                downstream.protocol.disclaim(frame)
        elif (why := downstream.protocol.unsent(frame)) is not None:
            self._go_on_unsent(why)
            return True
        if host.is_reverse:
            self._judge(host, frame)
        return False

    def _judge(self, host: Host, frame: Frame) -> None:
        """See whether the response is an agent's own, as it can't reach its service."""
        cluster = self.cluster
        assert cluster is not None
        status = self.downstream.protocol.gateway_status(frame)
        if status == TOO_LATE and self._times.asked:
            return  # the client had set this timeout
        if status and not self._is_at_fault():
            self._note_excusable_error(host)
        elif status or cluster.members.gateways.rows:
            cluster.members.gateways.note(host, status)

    def _heed_status(self, status: int) -> bool:
        """
        Report a response's status to the cluster, and see whether the route retries it.

        @return: whether the response is to be dropped, as the request is sent again.
        """
        if status != TOO_LATE or not self._times.asked:
            self._report(Outcome.of_status(status))
        if not self.retry.wants(status) or not self._may_try_again(status, False, True):
            return False
        self._note_setback().doubtful = True
        self._next_attempt(False)
        return True

    def _report(self, outcome: Outcome) -> None:
        cluster, host = self.cluster, self.host
        assert cluster is not None
        assert host is not None
        if cluster.watches_answers and (outcome < Outcome.SERVER_ERROR or self._is_at_fault()):
            cluster.report(host, outcome, self._clock.seconds() - self._sent_at)

    # no answer

    def _go_on_unsent(self, why: Unsent) -> None:
        """Try another agent, as this one has not sent the request on, or fail with that."""
        host = self.host
        assert host is not None
        if self._has_others(host, why) and self._may_try_again(Cause.UNREACHABLE, True, True):
            self._next_attempt(True)
            return
        if not self._doubtful:
            self.ending.unsent = why  # for a server that has forwarded the request to us
        self.fail(502, "the agent could not send the request on", ResponseFlag.UF)

    def upstream_lost(self, reason: str, flags: int, unsent: bool = False) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcExchange}."""
        self._client = None
        if self.try_deadline:
            self._stop_try()
        if unsent:
            self._go_on_unsent(Unsent.REQUEST)
            return
        foreign = self._is_foreign()
        if foreign and flags & ResponseFlag.UPE:
            self._go_on_unsent(Unsent.REQUEST)  # the host speaks another protocol
            return
        if not foreign:
            self._report(Outcome.RESET)
        if not self._again(Cause.LOST):
            self.fail(TERMINATED, f"the host's connection was lost: {reason}", flags)

    def try_timed_out(self) -> None:
        """See L{RpcTimed.try_timed_out}."""
        self.try_deadline = 0.0
        client = self._client
        if client is None:
            return
        left = self._time_left(client, self._sent_at)
        if left > 0:
            self._set_try_deadline(left)
            return
        self._leave(client)
        if not self._times.attempt_asked:
            self._report(Outcome.RESET)
        if not self._again(Cause.TRY_TIMEOUT):
            allowed = format_duration(self._times.attempt)
            reason = f"the host did not answer an attempt within {allowed}"
            key = "see retry_timeout of the route's retry_policy, or x-mosn-try-timeout"
            self.fail(TOO_LATE, reason, ResponseFlag.UT, key)

    def _leave(self, client: RpcClient) -> None:
        """Stop waiting for a response on a connection."""
        self._client = None
        client.forget(self._number)

    def _again(self, cause: Cause) -> bool:
        """Send the request again, to another host, if the route allows it."""
        host = self.host
        assert host is not None
        if not self._may_try_again(cause, False, True):
            return False
        self._note_setback().doubtful = True
        self._try_last(host)
        self._next_attempt(False)
        return True
