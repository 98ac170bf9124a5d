"""
Send copies of requests, for C{request_mirror_policies}.

A copy goes to another cluster, independently of the client's request: its
response is dropped, and a host that is slow or can't be reached fails the copy
only.

While its request is still being received, a copy ends with the exchange.
"""

from __future__ import annotations

__all__ = ["BACKLOG", "Mirrored"]

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.attempts import Attempts, ExchangePhase
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.message import End, Event, Request, Response

if TYPE_CHECKING:
    from reverseproxy.cluster.narrowed import ICluster
    from reverseproxy.proxy.http.interfaces import IUpstream

log = Logger()

BACKLOG: Final = 65536
"""Bytes of a body that are kept for a host that does not take them; the copy is given up beyond them."""

TIMEOUT: Final = 60.0
"""Seconds that a copy may take once all of the request has come."""


class Mirrored(Attempts):
    """The copy of one request."""

    response_waiting = 0
    """Bytes of the response that wait for a client: none, as it is discarded."""

    __slots__ = (
        "_backlog",
        "_by_client",
        "_client",
        "_deadline",
        "_forwarding",
        "_full",
        "_head",
        "_others",
        "_out",
        "_whole",
    )

    def __init__(
        self,
        clock: IReactorTime,
        protocol: str,
        cluster: ICluster,
        head: Request,
        events: Sequence[Event],
        forwarding: tuple[ForwardedBy | None, bytes],
        chosen: bool = False,
        others: Sequence[str] = (),
    ) -> None:
        """
        @param events: what has come behind the head so far.
        @param forwarding: what to tell the host about the client, and the
            authority of a request that names none.
        @param chosen: whether it is the client who has chosen the protocol.
        @param others: those that the request can be turned into.
        """
        super().__init__(clock, protocol)
        self._by_client = chosen
        self._others = others
        self.cluster = cluster
        self._head = head
        self._forwarding = forwarding
        self._out: list[Event] = []
        self._backlog = 0
        self._full = False
        self._whole = False  # all of the request is there
        self._client: IUpstream | None = None
        self._deadline: IDelayedCall | None = None
        for event in events:
            self._add(event)
        if self._phase != ExchangePhase.DONE:
            self._acquire()

    def add(self, event: Event) -> None:
        """Forward another part of the request."""
        if self._phase == ExchangePhase.DONE:
            return
        self._add(event)
        self._flush()

    def cut_off(self, whole: bool) -> None:
        """End the copy, as nothing more of its request will come."""
        if not whole and self._phase != ExchangePhase.DONE:
            self.fail(499, "the client has gone", ResponseFlag.DC)

    def _add(self, event: Event) -> None:
        self._out.append(event)
        if type(event) is bytes:
            self._backlog += len(event)
            if self._backlog > BACKLOG:
                self.fail(413, "the host does not take it fast enough", ResponseFlag.LR)
        elif type(event) is End and self._phase != ExchangePhase.DONE:
            self._whole = True
            self._deadline = self._clock.callLater(
                TIMEOUT, self.fail, 504, "it took too long", ResponseFlag.UT
            )

    def _flush(self) -> None:
        client = self._client
        if client is not None and not self._full and self._out:
            out, self._out = self._out, []
            self._backlog = 0
            client.send(out)

    # Attempts

    @property
    def _client_chose(self) -> bool:
        return self._by_client

    def _alternatives(self) -> Sequence[str]:
        return self._others

    def fail(self, status: int, reason: str, flags: int) -> None:
        """Abandon the copy; its failure concerns no client."""
        if self._phase == ExchangePhase.DONE:
            return
        log.debug(
            "cluster {cluster}: a copy of a request was given up: {reason}",
            cluster="" if self.cluster is None else self.cluster.name,
            reason=reason,
        )
        client = self._end()
        if client is not None:
            client.abort("the copy was given up")
        self._give_up()

    def _send(self, client: IUpstream) -> None:
        self._phase = ExchangePhase.ACTIVE
        self._client = client
        self._full = client.full
        out, self._out = self._out, []
        self._backlog = 0
        client.begin(self, self._head, out, *self._forwarding)

    def _end(self) -> IUpstream | None:
        if self._deadline is not None:
            if self._deadline.active():
                self._deadline.cancel()
            self._deadline = None
        self._out = []
        client, self._client = self._client, None
        return client

    # what the connection to the host tells

    def upstream_full(self, full: bool) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        self._full = full
        if not full:
            self._flush()

    def upstream_events(self, events: list[Event]) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}: all that counts is where the answer ends."""
        for event in events:
            if isinstance(event, Response):
                if event.status == 101:
                    self.fail(502, "the host switched protocols", ResponseFlag.UPE)
                    return
            elif type(event) is End:
                client = self._end()
                self._phase = ExchangePhase.DONE
                if client is not None:
                    client.finish(self._whole)
                self._release()
                return
            elif type(event) is not bytes:
                self.fail(502, str(event), ResponseFlag.UPE)
                return

    def upstream_lost(
        self,
        reason: str,
        unsent: bool = False,
        code: int = 0,
        terminated: bool = False,
        flags: int = ResponseFlag.UC,
    ) -> None:
        """See L{reverseproxy.proxy.http.interfaces.IExchange}."""
        self._client = None
        self._is_foreign()
        self.fail(502, reason, flags)
