"""
A client of etcd, by way of its JSON gateway, with Twisted's own HTTP client.

Why not a client library: those that there are for Python (etcd3, etcd3-py, aetcd,
python-etcd) speak gRPC by C extensions with threads or event loops of their own, or
version 2, and have had no release for years; the gateway is a part of every etcd since
3.3, and what is needed of it are six requests and one stream.
"""

from __future__ import annotations

__all__ = ["Etcd", "EtcdWatch"]

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.fleet.etcd_http import Poster, deliver, read_answer
from reverseproxy.fleet.etcd_json import (
    MAX_ANSWER,
    NOT_FOUND,
    UNAUTHENTICATED,
    UNAVAILABLE,
    EtcdError,
    KeyValue,
    LineReader,
    TooLong,
    WatchMessage,
    get_body,
    number_of,
    range_body,
    read_range,
    read_watch,
    revision_of,
    transaction_body,
    watch_body,
)
from reverseproxy.tls import ClientTls

log = Logger()

TIMEOUT: Final = 3.0
"""Seconds for one request to one of the endpoints, and its answer."""

PAGE: Final = 500
"""Keys that are asked for at once."""

_STALE: Final = (
    "invalid auth token",
    "auth token is not provided",
    "user name is empty",
    "auth store is old",
)
"""What is said of a token that is not good any more, with various codes."""


class EtcdWatch:
    """
    One watch, on one endpoint.

    @ivar ended: fails with an L{EtcdError} when it tells nothing any more; with
        L{CancelledError} if it is stopped.
    @ivar began: whether it has been created.
    @ivar endpoint: which one it is at.
    """

    def __init__(self, endpoint: str, told: Callable[[WatchMessage], object]) -> None:
        self.began = False
        self.endpoint = endpoint
        self.ended: Deferred[None] = Deferred()
        self._told = told
        self._lines = LineReader()

    def took(self, data: bytes) -> None:
        """
        Take in some of the stream.

        @raise EtcdError: if the watch is over.
        """
        for line in self._lines.feed(data):
            message = read_watch(line)
            self.began = self.began or message.created
            self._told(message)

    def stop(self) -> None:
        """Watch no longer."""
        self.ended.cancel()


class Etcd:
    """
    Endpoints of one etcd, of which one is asked, and the next one if it does not answer.

    Every request has a deadline.  What is asked for may have been done although no
    answer came; so all of it may be asked for twice.

    @ivar endpoint: which one is asked at present.
    @ivar requests: how many have been sent.
    @ivar failures: how many endpoints have not answered, or could not.
    @ivar on_left: called with an endpoint that is not asked any more, as it has not answered.
    """

    on_left: Callable[[str], object] = staticmethod(lambda endpoint: None)

    def __init__(
        self,
        reactor: Any,
        endpoints: Sequence[str],
        *,
        tls: ClientTls | None = None,
        user: str = "",
        password: Callable[[], str] = lambda: "",
        timeout: float = TIMEOUT,
    ) -> None:
        """
        @param endpoints: each C{host:port}.
        @param tls: for all of them; L{None} for plaintext.
        @param password: asked for whenever a token is needed; raises what is to be logged.
        """
        self._reactor = reactor
        self._endpoints = list(endpoints)
        self._user = user
        self._password = password
        self._timeout = timeout
        self._tokens: dict[str, str] = {}
        self._place = 0
        self._poster = Poster(reactor, self._endpoints, timeout, tls)
        self.requests = 0
        self.failures = 0

    @property
    def endpoint(self) -> str:
        """Which one is asked at present."""
        return self._endpoints[self._place]

    def next_endpoint(self) -> None:
        """Ask another one from now on."""
        left = self.endpoint
        self._place = (self._place + 1) % len(self._endpoints)
        self.on_left(left)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        return self._poster.close()

    # requests

    async def range(self, prefix: str) -> tuple[list[KeyValue], int]:
        """
        Read all keys with a prefix, as they are at one revision.

        @return: and that revision.
        @raise EtcdError: if they can't be had.
        """
        found: list[KeyValue] = []
        return found, await self.read(prefix, found.extend)

    async def read(self, prefix: str, took: Callable[[list[KeyValue]], object]) -> int:
        """
        Read all keys with a prefix, as they are at one revision.

        @param took: called with some of them at a time, in their order.
        @return: that revision.
        @raise EtcdError: if they can't be had.
        """
        revision = 0
        after = ""
        limit = PAGE
        while True:
            body = range_body(prefix, limit, after, revision)
            try:
                page, more, now = read_range(await self.call("kv/range", body))
            except TooLong:
                # Somebody has written large values, which are no records, but have to be read like them.
                if limit == 1:
                    raise
                limit = max(limit // 4, 1)
                continue
            took(page)
            revision = revision or now
            if not more or not page:
                return revision
            after = page[-1].key
            if sum(len(each.value or b"") for each in page) < MAX_ANSWER // 8:
                limit = min(2 * limit, PAGE)

    async def get(self, key: str) -> KeyValue | None:
        """Read one key."""
        found, _, _ = read_range(await self.call("kv/range", get_body(key)))
        return found[0] if found else None

    async def revision(self, prefix: str) -> int:
        """Ask which revision the store has: all of its members, not only the endpoint."""
        return read_range(await self.call("kv/range", range_body(prefix, 1)))[2]

    async def change(
        self,
        puts: Iterable[tuple[str, bytes]],
        deletes: Iterable[str] = (),
        lease: int = 0,
        absent: Iterable[str] = (),
    ) -> tuple[bool, int]:
        """
        Change keys at once; see L{transaction_body}.

        @return: whether that has been done, which it has unless keys are there that should
            be absent; and the store's revision.
        @raise EtcdError: with C{NOT_FOUND} if there is no such lease.
        """
        answer = await self.call("kv/txn", transaction_body(puts, deletes, lease, absent))
        return answer.get("succeeded") is True, revision_of(answer)

    async def grant(self, ttl: int) -> int:
        """
        Get a lease.

        @param ttl: seconds that it lasts without L{keep}.
        """
        answer = await self.call("lease/grant", {"TTL": str(ttl), "ID": "0"})
        lease = number_of(answer, "ID")
        if not lease:
            raise EtcdError("etcd has given no lease")
        return lease

    async def keep(self, lease: int) -> float:
        """
        Let a lease go on.

        @return: for how many seconds; 0 if there is none any more.
        """
        answer = await self.call("lease/keepalive", {"ID": str(lease)})
        result = answer.get("result")
        return float(number_of(result, "TTL")) if isinstance(result, dict) else 0.0

    async def revoke(self, lease: int) -> None:
        """End a lease, and all keys that go with it."""
        try:
            await self.call("lease/revoke", {"ID": str(lease)})
        except EtcdError as error:
            if error.code != NOT_FOUND:
                raise

    async def call(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        Send a request, to another endpoint if one does not answer.

        @raise EtcdError: with the last reason if none does.
        """
        problem = EtcdError("there is no endpoint")
        # An idle connection may be closed at the moment that it is used: so one endpoint is asked twice.
        for _ in range(max(2, len(self._endpoints))):
            endpoint = self.endpoint
            try:
                return await self._authenticated(endpoint, path, body)
            except EtcdError as error:
                if error.code not in (0, 4, UNAVAILABLE) or isinstance(error, TooLong):
                    raise
                problem = error
            self.failures += 1
            if endpoint == self.endpoint:
                self.next_endpoint()
        raise problem

    async def _authenticated(self, endpoint: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        if self._user and endpoint not in self._tokens:
            await self._log_in(endpoint)
        try:
            return await self._within(self._ask(endpoint, path, body))
        except EtcdError as error:
            if not self._is_stale(error):
                raise
        self._tokens.pop(endpoint, None)
        await self._log_in(endpoint)
        return await self._within(self._ask(endpoint, path, body))

    def _is_stale(self, error: EtcdError) -> bool:
        stale = error.code == UNAUTHENTICATED or any(each in str(error) for each in _STALE)
        return bool(self._user) and stale

    async def _log_in(self, endpoint: str) -> None:
        try:
            password = self._password()
        except (OSError, ValueError) as error:
            raise EtcdError(f"the password of {self._user} can't be had: {error}", UNAUTHENTICATED) from None
        body = {"name": self._user, "password": password}
        answer = await self._within(self._ask(endpoint, "auth/authenticate", body))
        token = answer.get("token")
        if not isinstance(token, str) or not token.isascii() or not token.isprintable():
            raise EtcdError("etcd has given no token", UNAUTHENTICATED)
        self._tokens[endpoint] = token

    async def _within(self, asking: Any) -> Mapping[str, Any]:
        found: Mapping[str, Any] = await self._in_time(asking)
        return found

    async def _in_time(self, asking: Any) -> Any:
        """
        Wait for something, but not for too long.

        @raise EtcdError: if it takes too long.
        """
        waiting: Deferred[Any] = Deferred.fromCoroutine(asking)
        try:
            return await waiting.addTimeout(self._timeout, self._reactor)
        except TooLate:
            raise EtcdError(f"no answer within {self._timeout:g} s") from None

    async def _ask(self, endpoint: str, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        response = await self._send(endpoint, path, body)
        found = bytearray()

        def took(data: bytes) -> None:
            found.extend(data)
            if len(found) > MAX_ANSWER:
                raise TooLong(f"etcd sends an answer of more than {MAX_ANSWER} bytes")

        await deliver(response, took)
        return read_answer(response.code, bytes(found))

    async def _send(self, endpoint: str, path: str, body: Mapping[str, Any]) -> Any:
        self.requests += 1
        return await self._poster.post(endpoint, path, body, self._tokens.get(endpoint))

    # watching

    def watch(self, prefix: str, start: int, told: Callable[[WatchMessage], object]) -> EtcdWatch:
        """
        Be told of changes, by the endpoint that is asked at present.

        It ends by itself if it can't be had in time, or the connection is lost; and with
        what C{told} raises.

        @param start: the first revision to be told of.
        """
        endpoint = self.endpoint
        watch = EtcdWatch(endpoint, told)
        watch.ended = Deferred.fromCoroutine(self._stream(endpoint, prefix, start, watch))

        def over(reason: Failure) -> Failure:
            if not watch.began and not reason.check(CancelledError):
                self.failures += 1
                if endpoint == self.endpoint:
                    self.next_endpoint()
            return reason

        watch.ended.addErrback(over)
        return watch

    async def _stream(self, endpoint: str, prefix: str, start: int, watch: EtcdWatch) -> None:
        if self._user and endpoint not in self._tokens:
            await self._log_in(endpoint)
        response = await self._in_time(self._send(endpoint, "watch", watch_body(prefix, start)))
        if response.code != 200:
            found = bytearray()
            await self._in_time(deliver(response, found.extend))
            read_answer(response.code, bytes(found))
        try:
            await deliver(response, watch.took)
        except EtcdError as error:
            if self._is_stale(error):
                self._tokens.pop(endpoint, None)
            raise
        raise EtcdError("etcd has ended the watch")
