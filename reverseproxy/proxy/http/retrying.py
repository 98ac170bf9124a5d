"""Decide whether the response of an attempt counts, or another attempt follows."""

from __future__ import annotations

__all__ = ["Retrying"]

from typing import Final

from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.config.durations import format_duration
from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.sending import ACTIVE
from reverseproxy.proxy.http.timed import Timed
from reverseproxy.routing import Cause
from reverseproxy.wire.http.message import End, Event, Response
from reverseproxy.wire.http.unsent import UNSENT_FIELD, UNSENT_HEADER, Unsent

TERMINATED: Final = 500
"""The status of a request that was lost with a connection of many requests (docs/mosn.rst 4.5)."""

# A request with one of these may be sent twice (RFC 9110 9.2.2).  PUT and DELETE
# could be as well, but who sends one twice and gets 404 or 412 is not amused.
_IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"TRACE"})


class Retrying(Timed):
    """
    The part of an exchange that tries one host after the other.

    @ivar response_head: the head of the last one's response.
    """

    __slots__ = ("_answered", "_sent_at", "_try_timer", "response_head")

    response_head: Response | None

    _answered: bool  # the host has sent something
    _sent_at: float  # when the attempt has begun, if its outcome is reported, or its timeout set
    _try_timer: LenientTimeout | None

    def _time_attempt(self) -> None:
        limit = self._times.attempt
        self._sent_at = self._clock.seconds()
        if limit:
            self._try_timer = LenientTimeout(self._clock, limit, self._try_timed_out)

    def _stop_try(self, status: int, complete: bool) -> bool:
        """
        Take a host's status: stop the attempt's timeout, report the outcome, and retry if the route wants
        that.

        @param complete: whether the answer has come to its end.
        @return: whether the answer is to be forgotten, as the request is sent again.
        """
        self._stop_try_timer()
        if self._trace is not None:
            self._trace.answered(status)
        cluster, host = self.cluster, self.host
        if cluster is None or host is None:
            return False
        if status >= 500 and not self._is_at_fault():
            self._note_excusable_error(host)
        elif (cluster.watches_answers or status >= 500) and not (status == 504 and self._times.asked):
            if cluster.watches_answers:
                cluster.report(host, Outcome.of_status(status), self._clock.seconds() - self._sent_at)
            if host.is_reverse:
                cluster.members.gateways.note(host, status)
        if (status < 500 and not self.retry.status_codes) or not self.retry.wants(status):
            return False
        client = self._client
        if client is None or not self._may_try_again(status, False, self._repeatable):
            return False
        self._client = None
        self._note_setback().doubtful = True
        if complete and client.persists:
            client.finish(True)
        else:
            client.abort("its answer is not wanted")
        self._begin_again(False)
        return True

    def _heed_unsent(self, events: list[Event], index: int) -> bool:
        """
        Check whether an agent says that it did not forward the request.

        Other hosts are not believed, and the field is never forwarded.

        @param index: where the head of the response is.
        @return: whether the response is to be forgotten.
        """
        head, host, client = events[index], self.host, self._client
        assert isinstance(head, Response)
        text = head.lookup(UNSENT_HEADER)
        if text is None:
            return False
        headers = [field for field in head.headers if field[0].lower() != UNSENT_FIELD]
        events[index] = head.rewritten(headers, frozenset({UNSENT_FIELD}))
        why = Unsent.of_text(text)
        if why is None or host is None or not host.tells or client is None:
            return False
        self._stop_try_timer()
        others = self._has_others(host, why)
        whole = client.persists and type(events[-1]) is End
        if (
            others
            and self._sent is not None
            and self._may_try_again(Cause.UNREACHABLE, True, self._repeatable)
        ):
            self._client = None
            if whole and self.request_complete:
                client.finish(True)
            else:
                client.abort("its agent has not sent the request on")
            self._begin_again(True)
            return True
        if not self._doubtful:
            self.ending.unsent = why  # for a server of ours before us
        if not (whole or client.multiplexed):
            return False
        self._client = None
        if whole:
            client.finish(self.request_complete)
        else:
            client.abort("its agent has not sent the request on")
        reason = b"".join([event for event in events if type(event) is bytes]).decode("utf-8", "replace")
        text = reason.strip()
        self.fail(
            head.status, f"the agent could not send the request on{text and f': {text}'}", ResponseFlag.UF
        )
        return True

    def _heed_foreign(self) -> bool:
        """
        Retry a request that the host did not understand, as it speaks another protocol.

        @return: whether the request is sent again, in another protocol or elsewhere.
        """
        client = self._client
        if client is None or not self._is_foreign():
            return False
        self._stop_try_timer()
        self._client = None
        client.abort("it does not speak HTTP/1")
        return self._again(Cause.STALE, True)

    def upstream_lost(
        self,
        reason: str,
        unsent: bool = False,
        code: int = 0,
        terminated: bool = False,
        flags: int = ResponseFlag.UC,
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        client, self._client = self._client, None
        if self._phase != ACTIVE or client is None:
            return
        self._stop_try_timer()
        foreign = not self._answered and self._is_foreign()
        if not foreign and self._is_at_fault():
            self._report_reset()
        cause = Cause.STALE if (client.reused or foreign) and not self._answered else Cause.LOST
        if foreign and (flags & ResponseFlag.UPE or self.protocol == "Http2"):
            # It has taken the request for something else, or has not even greeted, as HTTP/2 begins.
            unsent = True
        begun = self.response_started or (self._answered and not unsent)
        if begun or not self._again(cause, unsent):
            if code:
                self.ending.code = code
            if unsent and not self._doubtful:
                self.ending.unsent = Unsent.REQUEST
            status = TERMINATED if terminated else 502
            self.fail(status, f"the host's connection was lost: {reason}", flags)

    @property
    def _repeatable(self) -> bool:
        """Whether the request is idempotent, and buffered completely."""
        head = self.head
        if head.upgrade and head.length:
            return False  # it begins something, whatever its method is
        return self._sent is not None and head.method in _IDEMPOTENT

    def _again(self, cause: Cause, unsent: bool) -> bool:
        """Retry the request if the host did not see it, or may see it twice."""
        if self._sent is None or not self._may_try_again(cause, unsent, self._repeatable):
            return False
        host = self.host
        if not unsent:
            self._note_setback().doubtful = True
        if cause is Cause.STALE:
            # Where one idle connection was closed, others will be.
            self._note_setback().new_connection = True
        if host is not None and (
            host.exclusive
            or host.closed
            or (unsent and host.is_reverse)
            or not (unsent or cause is Cause.STALE)
        ):
            # One that has a single connection is gone with it, and an agent that has refused a stream will
            # refuse the next; others can be connected to again.
            self._try_last(host)
        self._begin_again(unsent or cause is Cause.STALE)
        return True

    def _begin_again(self, at_once: bool) -> None:
        self._full = False
        self._answered = False
        if self._sent:
            self._out = [*self._sent, *self._out]
            self._sent = ()
        self._next_attempt(at_once)

    def _try_timed_out(self) -> None:
        """
        End an attempt whose timeout has expired, or go on waiting if sending the request took some of it.
        """
        self._try_timer = None
        client = self._client
        if self._phase != ACTIVE or client is None:
            return
        now, limit = self._clock.seconds(), self._times.attempt
        left = self._watched().attempt_ends(now, limit, self._sent_at, self._state(client)) - now
        if left > 0:
            self._try_timer = LenientTimeout(self._clock, left, self._try_timed_out)
            return
        if self._times.attempt_asked:
            self._leave(client)
        else:
            if self._is_at_fault():
                self._report_reset()
            client.abort("an attempt took too long")
        self._client = None
        reason = f"the host did not answer within {format_duration(limit)}, the time for one attempt"
        if not self._again(Cause.TRY_TIMEOUT, False):
            key = "see retry_timeout of the route's retry_policy, or x-mosn-try-timeout"
            self.fail(504, reason, ResponseFlag.UT, key)

    def _report_reset(self) -> None:
        """Report to the cluster that the host failed the request."""
        cluster, host = self.cluster, self.host
        if cluster is not None and host is not None and cluster.watches_answers:
            cluster.report(host, Outcome.RESET)

    def _stop_try_timer(self) -> None:
        timer, self._try_timer = self._try_timer, None
        if timer is not None:
            timer.cancel()
