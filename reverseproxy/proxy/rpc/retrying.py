"""
What becomes of an attempt to have an RPC request answered: an answer, or another attempt.

RPC has no methods that are known to be safe to repeat.  So a request that a
host may have acted upon is sent again only if the route's C{retry_policy} says
C{retry_on}: who writes that knows the service.
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
    """The part of an exchange that has one host after the other."""

    __slots__ = ("_sent_at",)

    _sent_at: float  # when the attempt has begun, if somebody wants to know

    def _time_attempt(self) -> None:
        self._sent_at = self._clock.seconds()
        if self._times.attempt:
            self._set_try_deadline(self._times.attempt)

    # the answer

    def _heed(self, frame: Frame) -> bool:
        """
        See what an answer means for its host, and for the request.

        @return: whether it is to be forgotten, as the request is sent again, or was
            answered otherwise.
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
        """See whether an agent answers for a service that is gone."""
        cluster = self.cluster
        assert cluster is not None
        status = self.downstream.protocol.gateway_status(frame)
        if status == TOO_LATE and self._times.asked:
            return  # that is as long as it was to take
        if status and not self._is_at_fault():
            self._note_excusable_error(host)
        elif status or cluster.members.gateways.rows:
            cluster.members.gateways.note(host, status)

    def _heed_status(self, status: int) -> bool:
        """
        See what an answer's status means.

        @return: whether the answer is to be forgotten, as the request is sent again.
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
        """Go to another agent, as one has not sent the request on, or say so."""
        host = self.host
        assert host is not None
        if self._has_others(host, why) and self._may_try_again(Cause.UNREACHABLE, True, True):
            self._next_attempt(True)
            return
        if not self._doubtful:
            self.ending.unsent = why  # for a server of ours before us
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
            self._go_on_unsent(Unsent.REQUEST)  # it has taken the request for something else
            return
        if not foreign:
            self._report(Outcome.RESET)
        if not self._again(Cause.LOST):
            self.fail(TERMINATED, f"the host's connection was lost: {reason}", flags)

    def try_timed_out(self) -> None:
        """The time for one attempt is over."""
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
        """Wait for no answer on a connection any more."""
        self._client = None
        client.forget(self._number)

    def _again(self, cause: Cause) -> bool:
        """Send the request again, to another host, if the route says that this may be."""
        host = self.host
        assert host is not None
        if not self._may_try_again(cause, False, True):
            return False
        self._note_setback().doubtful = True
        self._try_last(host)
        self._next_attempt(False)
        return True
