"""
The server lister C{etcd}: the servers of a fleet by their records in etcd.

An agent reads only the records of servers, and writes nothing.
"""

from __future__ import annotations

__all__ = ["EtcdListerPlugin"]

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from random import Random, SystemRandom
from typing import Any, ClassVar, Final

from pydantic import ValidationError
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.assembly.directory import make_client
from reverseproxy.config._messages import explain
from reverseproxy.config.models import EtcdConfig
from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import EtcdError, WatchMessage
from reverseproxy.fleet.record_fields import BadRecord
from reverseproxy.fleet.records import ServerRecord
from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.problems import PART
from reverseproxy.tls import ClientTls
from reverseproxy.tunnel.agent.backoff import Backoff
from reverseproxy.tunnel.plugin_options import Options

log = Logger()

_SERVERS: Final = "servers/"

GATHER: Final = 0.5
"""The most seconds from a change until the records are read again; random for each agent."""

RENEW: Final = 120.0
"""The most seconds of one watch, as a lost one can't be told from one without changes."""

SHORTEST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 30.0
"""The most seconds until an etcd that can't be reached is tried again."""


class _Changed(EtcdError):
    """A record of a server has changed."""


@implementer(IServerLister)
class EtcdLister:
    """Reads the records of all servers whenever one has changed; an error leaves the list as it was."""

    def __init__(self, etcd: Etcd, prefix: str, cluster: str, reactor: Any, random: Random) -> None:
        """
        @param prefix: the prefix of the fleet's keys.
        @param cluster: the agent's cluster, for logs.
        """
        self._etcd = etcd
        self._prefix = f"{prefix}{_SERVERS}"
        self._cluster = cluster
        self._reactor = reactor
        self._random = random
        self._backoff = Backoff(SHORTEST_WAIT, LONGEST_WAIT, random)
        self._running: Deferred[None] | None = None
        self._problem = ""
        self._stopped = False

    def start(self, update: Callable[[Sequence[str]], None]) -> None:
        """See L{IServerLister.start}."""
        self._stopped = False
        running = self._running = Deferred.fromCoroutine(self._run(update))
        running.addErrback(self._ended)

    def stop(self) -> None:
        """See L{IServerLister.stop}."""
        self._stopped = True
        running, self._running = self._running, None
        if running is not None:
            running.cancel()
        self._etcd.close()

    def _ended(self, reason: Any) -> None:
        if not reason.check(CancelledError):
            log.failure(
                "agent of cluster {cluster}: servers are not listed any more", reason, cluster=self._cluster
            )

    async def _run(self, update: Callable[[Sequence[str]], None]) -> None:
        while not self._stopped:
            try:
                found, revision = await self._etcd.range(self._prefix)
                if self._problem:
                    self._problem = ""
                    log.info("agent of cluster {cluster}: etcd lists servers again", cluster=self._cluster)
                self._backoff.reset()
                update(self._addresses({each.key: each.value or b"" for each in found}))
                await self._until_changed(revision)
                await deferLater(self._reactor, self._random.uniform(0.0, GATHER))
                continue
            except EtcdError as error:
                if self._stopped:
                    return  # a cancelled request may call this
                self._complain(str(error))
            await deferLater(self._reactor, self._backoff.failed())

    def _complain(self, reason: str) -> None:
        if reason != self._problem:
            self._problem = reason
            log.error(
                "agent of cluster {cluster}: etcd can't list servers, known ones stay in use: {reason}",
                cluster=self._cluster,
                reason=reason,
            )

    def _addresses(self, records: Mapping[str, bytes]) -> list[str]:
        """Return the addresses for agents of all servers that have one."""
        found: list[str] = []
        for key, value in sorted(records.items()):
            try:
                record = ServerRecord.decode(key.removeprefix(self._prefix), value)
            except BadRecord as error:
                log.warn(
                    "agent of cluster {cluster}: the record of a server is skipped: {reason}",
                    cluster=self._cluster,
                    reason=str(error),
                )
                continue
            if not record.draining:
                found += [address for address in record.agents if address not in found]
        return found

    async def _until_changed(self, revision: int) -> None:
        """
        Wait until a record may have changed.

        @raise EtcdError: if the watch is lost.
        """

        def told(message: WatchMessage) -> None:
            if message.canceled and not message.compacted:
                raise EtcdError(message.canceled)
            if message.events or message.compacted:
                raise _Changed("something is different")

        watch = self._etcd.watch(self._prefix, revision + 1, told)
        renewal = self._reactor.callLater(RENEW * self._random.uniform(0.75, 1.0), watch.stop)
        try:
            await watch.ended
        except _Changed:
            pass
        except CancelledError:
            if self._stopped:
                raise
        finally:
            if renewal.active():
                renewal.cancel()


@implementer(IServerListerPlugin)
class EtcdListerPlugin:
    """
    The servers of a fleet that have C{fleet.agents_address}.

    The keys of C{config} are those of C{fleet.etcd}, apart from C{lease_ttl}.
    """

    name: ClassVar[str] = "etcd"

    def build(self, cluster: str, config: Mapping[str, Any], reactor: Any) -> IServerLister:
        """
        Make a lister.

        @raise OptionsError: for each key that is unknown or missing, and each value that can't be used.
        """
        options = Options(config, _KEYS)
        settings = _settings(options)
        tls = None
        if settings.tls is not None:
            make = partial(ClientTls, settings.tls, "localhost", PART / "tls_context")
            tls = options.findings.attempt(PART, make)
        options.raise_errors()
        etcd = make_client(settings, tls, reactor)
        return EtcdLister(etcd, settings.prefix, cluster, reactor, SystemRandom())


_KEYS: Final = [name for name in EtcdConfig.model_fields if name != "lease_ttl"]


def _settings(options: Options) -> EtcdConfig:
    """Make the settings of the values that can be used; what is wrong is added to C{options}."""
    values = {name: value for name, value in options.values.items() if name in _KEYS}
    given = set(values)
    while True:
        try:
            settings = EtcdConfig.model_validate(values, context={"document": True})
            break
        except ValidationError as error:
            for entry in error.errors(include_url=False):
                place = options.place
                for key in entry["loc"]:
                    place /= key
                options.findings.error(place, explain(entry, False))
                values.pop(str(entry["loc"][0]), None)
    wrong = given - values.keys()
    if not settings.endpoints and "endpoints" not in wrong:
        options.error("endpoints", "is missing: where etcd takes clients")
    secrets = {"password_file", "password_env"}
    if settings.user and not (settings.password_file or settings.password_env or secrets & wrong):
        options.error("user", "has no password: write password_file or password_env")
    return settings
