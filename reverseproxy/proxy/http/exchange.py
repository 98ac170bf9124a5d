"""
One HTTP request and its response.

An exchange belongs to one downstream connection, or one stream of it, and ends
when its response is complete or has failed.  It finds a route, a host and a
connection, and forwards both bodies as they come.  It drops all references when
it ends, so that later events of its connections can't reach another exchange.

It is independent of the version of HTTP: it forwards events (heads, parts of
bodies, ends), which the L{IDownstream} on one side and the L{IUpstream} on the
other read and write (L{reverseproxy.proxy.http.interfaces}).
"""

from __future__ import annotations

__all__ = ["Exchange"]

from typing import Any

from twisted.logger import LogLevel
from twisted.python.failure import Failure

from reverseproxy.errors import ForeignAnswer, HttpError
from reverseproxy.logs import loss
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.failures import Failed
from reverseproxy.proxy.filters import LocalReply
from reverseproxy.proxy.flags import NO_FLAGS, ResponseFlag, session_flags
from reverseproxy.proxy.http.discretion import is_inside
from reverseproxy.proxy.http.interfaces import IDirectAnswer, IDownstream
from reverseproxy.proxy.http.reporting import end_trace, record
from reverseproxy.proxy.http.route_finding import RouteFinding
from reverseproxy.proxy.http.sending import ACTIVE, DONE, SWITCHED, Sending
from reverseproxy.wire.http.message import END, UNKNOWN_LENGTH, End, Event, Request, Response
from reverseproxy.wire.http.upgrades import agrees


class Exchange(RouteFinding):
    """See the module's text."""

    __slots__ = ("_direct",)

    def __init__(
        self, downstream: IDownstream, head: Request, now: float, direct: IDirectAnswer | None = None
    ) -> None:
        """@param direct: sends the response by the shorter ways, if the downstream connection can."""
        Sending.__init__(self, downstream, head, now)
        # The parts behind that do not each have their own: this runs for every request.
        self._begun = now
        self._direct = direct
        self._answered = False
        self._facts = self._passage = self._try_timer = self._watch = self.response_head = self.usual = None
        self._sent_at = 0.0
        self.sent = 0

    # the response

    def upstream_events(self, events: list[Event]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        self._answered = True
        complete = False
        for index, event in enumerate(events):
            if type(event) is bytes:
                self.sent += len(event)
            elif isinstance(event, Response):
                if not self._accept_head(events, index, event):
                    return
            elif type(event) is End:
                complete = True
            else:
                assert isinstance(event, HttpError)
                if isinstance(event, ForeignAnswer) and self._heed_foreign():
                    return
                if index:
                    self.downstream.send(self, events[:index])
                self.fail(event.status, str(event), ResponseFlag.UPE)
                return
        self.downstream.send(self, events)
        if complete:
            self._finish()

    def _accept_head(self, events: list[Event], index: int, head: Response) -> bool:
        """
        Take the head of a response, and replace it among the events if it has to be changed.

        @return: whether the response goes on to the client; if not, all its events are dealt with.
        """
        if head.status != 200:
            if head.status < 200:
                self._interim(events, index)
                return False
            self._note_unusual()
            if head.status >= 500:
                if self._heed_unsent(events, index):
                    return False
                changed = events[index]
                assert isinstance(changed, Response)
                head = changed
        if self._stop_try(head.status, type(events[-1]) is End):
            return False
        self.response_head = head
        self.status = head.status
        if self.notes is not None:
            self.notes.answered_at = self._clock.seconds()
        if self._facts is not None and self._route is not None:
            mutation = self._route.response_mutation
            if mutation is not None:
                events[index] = head.rewritten(mutation.apply(head.headers, self._facts), mutation.names)
        return True

    def upstream_whole(self, head: Response, data: bytes, begin: int) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDirectReader}."""
        cluster = self.cluster
        status = head.status
        if (
            self._facts is not None
            or self._trace is not None
            or self._try_timer is not None
            or (status != 200 and self._note_status(status))
            or self.retry.status_codes
            or cluster is None
            or cluster.watches_answers
        ):
            body = data[begin:]
            self.upstream_events([head, body, END] if body else [head, END])
            return
        # As upstream_events does, for the answers that there is nothing to say about.
        self._answered = True
        self.response_head = head
        self.status = status
        self.sent += len(data) - begin
        if self.notes is not None:
            self.notes.answered_at = self._clock.seconds()
        if self._direct is not None:
            self._direct.send_whole(self, head, data, begin)
        else:
            body = data[begin:]
            self.downstream.send(self, [head, body, END] if body else [head, END])
        self._finish()

    def _note_status(self, status: int) -> bool:
        """Note a status other than 200, and return whether it says that the host has failed."""
        self._note_unusual()
        return status >= 500

    def response_sink(self) -> Any:
        """See L{reverseproxy.proxy.http.interfaces.IDirectReader}."""
        direct = self._direct
        return None if direct is None or self._phase != ACTIVE else direct.response_sink()

    @property
    def response_waiting(self) -> int:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        return self.downstream.backlog().size

    def response_passed(self, size: int) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IDirectReader}."""
        self.sent += size

    def _finish(self) -> None:
        """End the exchange, whose response is complete and sent."""
        client, self._client = self._client, None
        if client is None:
            return  # the client was given up while the response was sent, as it could not be
        self._phase = DONE
        client.finish(self.request_complete)
        if not self.request_complete:
            for mirror in self._mirrors:
                mirror.cut_off(False)
        self._release()
        self.downstream.exchange_done(self)

    # interim responses, and other protocols

    def _interim(self, events: list[Event], index: int) -> None:
        """Forward a 1xx response if the client can use it, and go on behind it."""
        head = events[index]
        assert isinstance(head, Response)
        self._watched().interims += 1
        request = self.head
        if head.status == SWITCHED:
            chosen = (head.lookup("upgrade") or "").encode("utf-8", "surrogateescape")
            if not request.upgrade:
                self.fail(502, "the host switched protocols without being asked", ResponseFlag.UPE)
            elif not agrees(request.upgrade, chosen):
                self.fail(502, "the host switched to a protocol that was not asked for", ResponseFlag.UPE)
            else:
                self._upgrade(head)
            return
        info = self.downstream.info
        # A MOSN server takes the first head for the final one, and loses track of what follows.
        wanted = info.announced or not info.reverse
        if wanted and request.takes_interim and (head.status != 100 or request.awaits_continue):
            self.downstream.send(self, [head])
        if events[index + 1 :] and self._phase == ACTIVE:
            self.upstream_events(events[index + 1 :])

    def _upgrade(self, head: Response) -> None:
        """
        Accept the host's switch of protocols, and switch the client's connection behind its request.

        What is left of a body of known length goes to the host as it comes, as
        does what follows it: there is no need to tell them apart.  A chunked
        one has to come to its end first, and what the host sends waits for that.
        """
        if self._stop_try(head.status, False):
            return
        self.downstream.send(self, [head])
        client = self._client
        if self._phase != ACTIVE or client is None:
            return
        self.response_head = head
        self.status = SWITCHED
        self._note_unusual()
        if self.request_complete or self.head.length != UNKNOWN_LENGTH:
            self._switch()
        else:
            client.pause()

    def _switch(self) -> None:
        client, self._client = self._client, None
        assert client is not None
        self._phase = DONE
        self.downstream.upgraded(self, client)

    def tunnel_closed(self, reason: Failure) -> None:
        """Note that the host's connection of an accepted upgrade is lost."""
        self.session_ended(reason, ResponseFlag.UC)
        self._release()

    def session_ended(self, reason: Failure, lost: int) -> None:
        """
        Note that one side of an accepted upgrade has ended.

        @param lost: what stands for a connection that broke off.
        """
        flags = NO_FLAGS if self.flag else session_flags(reason, lost)
        if flags:
            self.flags |= flags
            self.flag = (
                f"the {'host' if lost == ResponseFlag.UC else 'client'}'s connection was lost: {loss(reason)}"
            )

    # endings

    def fail(self, status: int, reason: str, flags: int, remedy: str = "") -> None:
        """
        Answer with an error of our own, or break the response off if it has begun.

        @param reason: a sentence for the access log, and for the client as far as
            it is about its request; it tells nothing of what the client sent.
        @param flags: the same as codes; see L{reverseproxy.proxy.flags}.
        @param remedy: what to do about it, for the log; empty for what the flags
            say.
        """
        if self._phase == DONE:
            return
        self.flags |= flags
        if self.response_started:
            self._break(status, reason, remedy)
            return
        self.flag = reason
        self._note_unsent(status)
        told = self._tell(status, reason, remedy, False)
        self._answer(status, told.encode("utf-8", "replace") + b"\n")

    def _refuse(self, refusal: LocalReply) -> None:
        """Answer as a filter demands, or break the response off if it has begun."""
        self.flags |= refusal.flags
        if self.response_started:
            self._break(refusal.status, refusal.flag)
        else:
            self.flag = refusal.flag
            if is_inside(refusal.status):
                self.downstream.settings.discretion.failures.note(
                    self._failed(refusal.status, refusal.flag, "", False)
                )
            self._answer(refusal.status, refusal.body)

    def _failed(self, status: int, reason: str, remedy: str, broken: bool) -> Failed:
        """Describe a failure for the log."""
        head, host, cluster = self.head, self.host, self.cluster
        target = head.target.partition(b"?")[0]
        return Failed(
            (head.method + b" " + target).decode("ascii", "replace").strip(),
            self.downstream.info.remote,
            status,
            reason,
            self.flags,
            "" if cluster is None else cluster.name,
            "" if host is None else host.address,
            remedy,
            "",
            head.lookup("x-request-id"),
            self.trace_id,
            broken=broken,
        )

    def _tell(self, status: int, reason: str, remedy: str, broken: bool) -> str:
        """Log a failure unless the client caused it, and return the text of the response."""
        failed = self._failed(status, reason, remedy, broken)
        discretion = self.downstream.settings.discretion
        if (remedy or broken) and not is_inside(status):
            discretion.failures.note(failed, LogLevel.info)
        return discretion.text(failed)

    def _answer(self, status: int, body: bytes, location: bytes = b"") -> None:
        self._end()
        self.status = status
        self._note_unusual()
        self.downstream.reply(self, status, body, b"text/plain", location)

    def _break(self, status: int, reason: str, remedy: str = "") -> None:
        ending = self.ending
        ending.reason = reason
        ending.status = status
        ending.message = self._tell(status, reason, remedy, True)
        self._end()
        self.downstream.exchange_broken(self)

    def unsent_field(self) -> bytes:
        """Return the header that tells another server that no host got the request; empty for none."""
        unsent = self._unsent_for(self.downstream.info.service)
        return b"" if unsent is None else unsent.text

    def cancel(self, reason: str, flags: int) -> None:
        """
        Abandon the request, as its client is gone.

        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        """
        if self._phase != DONE:
            self.flag = reason
            self.flags |= flags
            client = self._client
            if client is not None and not self.response_started:
                self._client = None
                self._leave(client)
            self._end()

    def _end(self) -> None:
        """Let go of the host, its connection and all copies."""
        self._phase = DONE
        self._stop_try_timer()
        for mirror in self._mirrors:
            mirror.cut_off(self.request_complete)
        self._out = []
        self._full = False
        client, self._client = self._client, None
        if client is not None:
            client.abort("the exchange was broken off")
        self._give_up()

    # reports

    def end_trace(self) -> None:
        """End the spans of the exchange."""
        if self._trace is not None:
            end_trace(self._trace, self)

    def record(self) -> AccessRecord:
        """Return the record of the exchange for the access log."""
        return record(self)
