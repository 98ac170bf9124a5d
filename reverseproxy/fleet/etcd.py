"""
A client of etcd's JSON gateway, with Twisted's HTTP client.

Why not a client library: those for Python (etcd3, etcd3-py, aetcd, python-etcd) use gRPC through C
extensions with threads or event loops of their own, or speak version 2, and have had no release for
years. The gateway is part of every etcd since 3.3, and this project needs six kinds of requests and one
stream of it.
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
"""Seconds for one request to one endpoint, its response included."""

PAGE: Final = 500
"""Keys in one page of a range request."""

_STALE: Final = (
    "invalid auth token",
    "auth token is not provided",
    "user name is empty",
    "auth store is old",
)
"""Parts of the messages with which etcd rejects an expired token; their codes vary."""


class EtcdWatch:
    """
    One watch, at one endpoint.

    @ivar ended: fails with an L{EtcdError} when the watch has ended; with L{CancelledError} if it was
        stopped here.
    @ivar began: whether etcd has confirmed the watch.
    @ivar endpoint: the endpoint's address.
    """

    def __init__(self, endpoint: str, told: Callable[[WatchMessage], object]) -> None:
        self.began = False
        self.endpoint = endpoint
        self.ended: Deferred[None] = Deferred()
        self._told = told
        self._lines = LineReader()

    def took(self, data: bytes) -> None:
        """
        Parse a part of the response body, and hand its messages to the callback.

        @raise EtcdError: if the body is malformed, or reports an error.
        """
        for line in self._lines.feed(data):
            message = read_watch(line)
            self.began = self.began or message.created
            self._told(message)

    def stop(self) -> None:
        """Cancel the watch."""
        self.ended.cancel()


class Etcd:
    """
    The endpoints of one etcd cluster: requests go to one of them, and to the next one when it fails.

    Every request has a deadline. A request without a response may have been executed nevertheless; as it
    is sent again, it may be executed twice.

    @ivar endpoint: the endpoint that requests go to at present.
    @ivar requests: how many requests have been sent.
    @ivar failures: how many requests have failed because an endpoint did not answer, or was unavailable.
    @ivar on_left: called with the address of an endpoint when requests go to another one from now on.
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
        @param endpoints: addresses, each C{host:port}.
        @param tls: for all of them; L{None} for plaintext.
        @param user: the name to log in with; empty for no authentication.
        @param password: called whenever a token is needed; may raise L{OSError} or L{ValueError} with a
            message for the log.
        @param timeout: seconds; see L{TIMEOUT}.
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
        """The endpoint that requests go to at present."""
        return self._endpoints[self._place]

    def next_endpoint(self) -> None:
        """Send requests to the next endpoint from now on."""
        left = self.endpoint
        self._place = (self._place + 1) % len(self._endpoints)
        self.on_left(left)

    def close(self) -> Deferred[None]:
        """Close idle connections."""
        return self._poster.close()

    # requests

    async def range(self, prefix: str) -> tuple[list[KeyValue], int]:
        """
        Read all keys with a prefix, as of one revision.

        @return: the keys with their values, and the revision.
        @raise EtcdError: if they can't be read.
        """
        found: list[KeyValue] = []
        return found, await self.read(prefix, found.extend)

    async def read(self, prefix: str, took: Callable[[list[KeyValue]], object]) -> int:
        """
        Read all keys with a prefix page by page, as of one revision.

        @param took: called with each page, in the order of the keys.
        @return: the revision.
        @raise EtcdError: if they can't be read.
        """
        revision = 0
        after = ""
        limit = PAGE
        while True:
            body = range_body(prefix, limit, after, revision)
            try:
                page, more, now = read_range(await self.call("kv/range", body))
            except TooLong:
                # Other clients may write large values under the prefix, which have to be read before
                # they can be rejected.
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
        """
        Read one key.

        @return: L{None} if it does not exist.
        """
        found, _, _ = read_range(await self.call("kv/range", get_body(key)))
        return found[0] if found else None

    async def revision(self, prefix: str) -> int:
        """
        Return the current revision of the store: by a linearizable read, not only as the endpoint knows
        it.
        """
        return read_range(await self.call("kv/range", range_body(prefix, 1)))[2]

    async def change(
        self,
        puts: Iterable[tuple[str, bytes]],
        deletes: Iterable[str] = (),
        lease: int = 0,
        absent: Iterable[str] = (),
    ) -> tuple[bool, int]:
        """
        Change several keys in one transaction; see L{transaction_body}.

        @return: whether the transaction was executed, which it is unless a key exists that is to be
            absent; and the store's revision.
        @raise EtcdError: with C{NOT_FOUND} if the lease does not exist.
        """
        answer = await self.call("kv/txn", transaction_body(puts, deletes, lease, absent))
        return answer.get("succeeded") is True, revision_of(answer)

    async def grant(self, ttl: int) -> int:
        """
        Create a lease.

        @param ttl: seconds after which it expires unless L{keep} renews it.
        @return: its id.
        """
        answer = await self.call("lease/grant", {"TTL": str(ttl), "ID": "0"})
        lease = number_of(answer, "ID")
        if not lease:
            raise EtcdError("etcd has given no lease")
        return lease

    async def keep(self, lease: int) -> float:
        """
        Renew a lease.

        @return: its remaining seconds; 0 if it has expired.
        """
        answer = await self.call("lease/keepalive", {"ID": str(lease)})
        result = answer.get("result")
        return float(number_of(result, "TTL")) if isinstance(result, dict) else 0.0

    async def revoke(self, lease: int) -> None:
        """Revoke a lease, and with it all keys that are attached to it."""
        try:
            await self.call("lease/revoke", {"ID": str(lease)})
        except EtcdError as error:
            if error.code != NOT_FOUND:
                raise

    async def call(self, path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """
        Send a request, and send it to another endpoint if one does not answer.

        @raise EtcdError: with the last error if none does, or with the error that etcd has answered.
        """
        problem = EtcdError("there is no endpoint")
        # An idle connection may be closed just when it is used: so a single endpoint is tried twice.
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
        Wait for a coroutine, for at most the timeout.

        @raise EtcdError: if it takes longer.
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
        Watch all keys with a prefix, at the present endpoint.

        The watch ends when it can't be established in time, when its connection is lost, and with any
        exception that C{told} raises.

        @param start: the first revision whose changes are reported.
        @param told: called with each message.
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
