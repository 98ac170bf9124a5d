"""Replace the configuration of a supervisor and all its workers."""

from __future__ import annotations

__all__ = ["Supervised"]

import os
import socket
from contextlib import suppress
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from reverseproxy.admin.service import AdminChange, AdminServer
from reverseproxy.admin.workers_source import WorkersSource
from reverseproxy.assembly.listeners import LISTENERS, binding_of
from reverseproxy.assembly.running import Prepared, RunningConfig
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.loader import Loaded
from reverseproxy.config.models import Config
from reverseproxy.errors import ConfigError
from reverseproxy.listener import ListenerFailed
from reverseproxy.problems import DOCUMENT, Place, Problem
from reverseproxy.process.reloading import Reloader, ReloadRefused, Report
from reverseproxy.workers.handover import Handed
from reverseproxy.workers.supervisor import Supervisor

log = Logger()

Sockets = dict[str, list[socket.socket]]


class Supervised:
    """
    Replaces the configuration of all workers, or of none.

    The supervisor has built the same objects, without running them: with these it finds what is
    wrong with a configuration before any worker gets it.
    """

    def __init__(self, supervisor: Supervisor, built: RunningConfig, reactor: Any, file: str) -> None:
        self.reloading = Reloader(file, lambda: built.reloading.read(), self.take)
        self.reloading.parse = built.reloading.parse
        self.reloading.examine = built.reloading.examine
        # Events are served by the workers, each of which records this one.
        self.reloading.failed = lambda report: supervisor.ask("reload_failed", report.failure)
        self._supervisor = supervisor
        self._built = built
        self._reactor = reactor
        self._file = file

    def reload(self) -> Deferred[Report]:
        """See L{reverseproxy.admin.configuration_api.IReloadableConfiguration}."""
        self._supervisor.reload_certificates()
        if self._supervisor.admin is not None:
            self._supervisor.admin.reload_certificates()
        return self.reloading.reload()

    def examine(self, loaded: Loaded) -> Report:
        """See L{reverseproxy.admin.configuration_api.IReloadableConfiguration}."""
        return self._built.prepare(loaded, dry=True).report(self._file, self.reloading.generation)

    def take(self, loaded: Loaded, generation: int) -> Deferred[Report]:
        """
        Take another configuration into use in all workers, or in none.

        @return: fails with L{ConfigError}; nothing has changed then.
        """
        return Deferred.fromCoroutine(self._take(loaded, generation))

    async def _take(self, loaded: Loaded, generation: int) -> Report:
        supervisor = self._supervisor
        if supervisor.stopping:
            raise ReloadRefused(self._file)
        prepared = self._built.prepare(loaded, dry=True)
        if not prepared.changes:
            return prepared.report(self._file, self.reloading.generation)
        old = supervisor.loaded.config
        findings = Diagnostics(self._file)
        moved, opened = self._open(old, loaded.config, findings)
        admin: AdminChange | AdminServer | None = None
        try:
            admin = findings.attempt(DOCUMENT / "admin", partial(self._prepare_admin, loaded.config))
            findings.raise_errors()
            problems = await supervisor.prepare(Handed(loaded, moved, _counts(opened)), _flat(opened))
            if supervisor.stopping:
                raise ReloadRefused(self._file)
            if problems:
                raise ConfigError(*(each.within(Place(self._file)) for each in problems))
        except BaseException:
            supervisor.discard()
            prepared.discard()
            _close(opened)
            if isinstance(admin, AdminChange):
                admin.discard()
            elif admin is not None:
                admin.listener.stop_accepting()
            raise
        committing = supervisor.commit(loaded, moved, opened)
        self._commit_admin(admin, prepared)
        self._built.commit(prepared)
        for problem in await committing:
            log.error("{problem}", problem=str(problem.within(Place(self._file))))
        return prepared.report(self._file, generation)

    def _open(self, old: Config, new: Config, findings: Diagnostics) -> tuple[dict[str, str], Sockets]:
        """
        Bind the new addresses; those that can't be bound are added to C{findings}.

        @return: the listeners that take over the sockets of others, by name, and the new sockets by
            listener.
        """
        before = {each.name: binding_of(each) for each in old.server.listeners}
        after = {each.name: binding_of(each) for each in new.server.listeners}
        owners = {binding: name for name, binding in before.items() if binding is not None}
        moved: dict[str, str] = {}
        opened: Sockets = {}
        for index, config in enumerate(new.server.listeners):
            binding = after[config.name]
            if binding is None or before.get(config.name) == binding:
                continue
            owner = owners.get(binding)
            if owner is not None and after.get(owner) != binding:
                moved[config.name] = owner
                continue
            try:
                opened[config.name] = self._supervisor.open(config)
            except ListenerFailed as error:
                findings.add(Problem.at(LISTENERS / index / "address", str(error)))
        return moved, opened

    def _prepare_admin(self, config: Config) -> AdminChange | AdminServer | None:
        supervisor = self._supervisor
        if config.admin is None or not config.admin.bound:
            return None
        if supervisor.admin is not None:
            change: AdminChange = supervisor.admin.prepare(config)
            return change
        server = AdminServer(config, self._reactor, WorkersSource(supervisor))
        server.attach_configuration(self)
        server.privilegedStartService()
        return server

    def _commit_admin(self, admin: AdminChange | AdminServer | None, prepared: Prepared) -> None:
        supervisor = self._supervisor
        if isinstance(admin, AdminChange):
            admin.commit()
        elif admin is not None:
            supervisor.admin = admin
            admin.startService()
        elif supervisor.admin is not None:
            gone, supervisor.admin = supervisor.admin, None
            gone.listener.stop_accepting()  # its address is free at once
            self._reactor.callLater(1.0, gone.stopService)


def _close(opened: Sockets) -> None:
    """Close sockets that were bound for a configuration that is not used."""
    for each in _flat(opened):
        if each.family == socket.AF_UNIX:
            with suppress(OSError):
                os.unlink(each.getsockname())
        each.close()


def _flat(opened: Sockets) -> list[socket.socket]:
    return [each for sockets in opened.values() for each in sockets]


def _counts(opened: Sockets) -> dict[str, int]:
    return {name: len(sockets) for name, sockets in opened.items()}
