"""
One RPC request and its response.

An exchange belongs to one client connection, and ends when the response has been
passed on, or the request has failed.  As with HTTP
(L{reverseproxy.proxy.http.exchange}), it is made of layers, each of which uses only
the ones below it.
"""

from __future__ import annotations

__all__ = ["RpcExchange"]

from reverseproxy.errors import RpcHeaderError
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.rpc.interfaces import Batch, IRpcOwner
from reverseproxy.proxy.rpc.reporting import end_trace, failed, record
from reverseproxy.proxy.rpc.retrying import TERMINATED
from reverseproxy.proxy.rpc.route_finding import RpcRouteFinding
from reverseproxy.proxy.rpc.sending import DONE, RpcSending
from reverseproxy.wire.rpc.xprotocol import Frame, Kind


class RpcExchange(RpcRouteFinding):
    """
    A request, from its frame to its response.

    @ivar response: the host's response; L{None} without one.
    @ivar sent: bytes of the response to the client.
    """

    __slots__ = ("response", "sent")

    response: Frame | None
    sent: int

    def __init__(self, downstream: IRpcOwner, frame: Frame, now: float) -> None:
        RpcSending.__init__(self, downstream, frame, now)
        # The attributes of all layers: this runs for every request.
        self._begun = now
        self.deadline = self.try_deadline = self._sent_at = 0.0
        self._facts = self._passage = self._route = self._watch = self.response = self.rule = None
        self.sent = 0

    # the response

    def upstream_response(self, frame: Frame, batch: Batch) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IRpcExchange}."""
        client, self._client = self._client, None
        downstream = self.downstream
        settings = downstream.settings
        if self.try_deadline:
            self._stop_try()
        if self._heed(frame):
            return
        self.sent = size = len(frame.data)
        if size > settings.max_frame and size > self._max_response:
            self._refuse_large(size)
            return
        notes = self.notes
        if notes is not None:
            notes.answered_at = self._clock.seconds()
        status = downstream.protocol.http_status(frame)
        cluster = self.cluster
        if (
            self.retry.heeds_status or (cluster is not None and cluster.watches_answers)
        ) and self._heed_status(status):
            return
        frame.set_id(self.id)
        if self._facts is not None:
            self._change(frame)
            self.sent = len(frame.data)
        self.response = frame
        self.status = status
        if self._trace is not None:
            self._trace.answered(status)
        downstream.answers.add(frame.data, batch, client)
        self._finish()

    def _refuse_large(self, size: int) -> None:
        """Refuse a response that is too large for this listener, but not for others on the connection."""
        reason = f"a response of {size} bytes is more than max_frame_size, which is {self._max_response}"
        self.fail(TERMINATED, reason, ResponseFlag.UPE, "raise max_frame_size, if the host is right")

    def _change(self, frame: Frame) -> None:
        """Change a response's headers as the route says; headers that can't be read stay as they are."""
        route, facts = self._route, self._facts
        assert route is not None
        assert facts is not None
        mutation = route.response_mutation
        assert mutation is not None
        try:
            fields = frame.fields()
            if fields is not None:
                frame.set_fields(mutation.apply(fields, facts))
        except RpcHeaderError:
            pass

    # endings

    def _finish(self) -> None:
        self._phase = DONE
        self._release()
        self.downstream.exchange_done(self)

    def fail(self, status: int, reason: str, flags: int, remedy: str = "") -> None:
        """See L{RpcSending.fail}."""
        if self._phase == DONE:
            return
        self.ending.reason = reason
        self.flags |= flags
        self._note_unsent(status)
        if status >= 500 or flags & ResponseFlag.NC:
            self.downstream.settings.failures.note(failed(self, status, reason, remedy))
        self._answer(status)

    def cancel(self, reason: str, flags: int) -> None:
        """
        End the exchange without a response, as the client's connection is lost.

        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        """
        if self._phase != DONE:
            self.ending.reason = reason
            self.flags |= flags
            self._end()

    def _answer(self, status: int) -> None:
        self._end()
        self.status = status or 400
        downstream = self.downstream
        if self.frame.kind is not Kind.ONEWAY:
            self.frame.set_id(self.id)
            reply = self._say_unsent() or downstream.protocol.reply(self.frame, status)
            self.sent = len(reply)
            downstream.answers.add(reply, downstream.batch, None)
        downstream.exchange_done(self)

    def _say_unsent(self) -> bytes:
        """Return the response that tells another server that the request was not sent on; else nothing."""
        downstream = self.downstream
        unsent = self._unsent_for(downstream.info.service)
        return b"" if unsent is None else downstream.protocol.reply_unsent(self.frame, unsent)

    def _end(self) -> None:
        """Release the host and the connection to it."""
        client = self._client
        if client is not None:
            self._leave(client)
        if self.try_deadline:
            self._stop_try()
        self._give_up()

    # observability

    def end_trace(self) -> None:
        """End the exchange's spans, if it is traced."""
        if self._trace is not None:
            end_trace(self._trace, self)

    def record(self) -> AccessRecord:
        """Return the access log's record of an exchange that has ended."""
        return record(self)
