"""The service of a process that has workers."""

from __future__ import annotations

__all__ = ["SupervisorService"]

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from reverseproxy.assembly.supervised import Supervised
from reverseproxy.errors import Problem
from reverseproxy.process.reloading import Report
from reverseproxy.services.process_service import AGENTS_LOOK, AGENTS_TIME, ProcessService
from reverseproxy.workers.shared_log import SharedLog
from reverseproxy.workers.supervisor import Supervisor


class _ReloadableSupervisor(Supervisor):
    """
    A supervisor whose workers can change to another configuration.

    @ivar supervised: applies another configuration to the workers.
    """

    supervised: Supervised

    def share_log(self, shared: SharedLog) -> None:
        """Let workers that start later write the log as this process does then."""
        self.shared_log = shared
        self._starter.log_settings = shared.settings

    def reload(self) -> Deferred[Report]:
        """Read the configuration again, and let all workers use it, or none."""
        return self.supervised.reload()


class SupervisorService(ProcessService, _ReloadableSupervisor):
    """The service of a process that has workers."""

    warnings: list[Problem]

    def startService(self) -> None:
        """Start the workers, and report that we serve once all of them are ready."""
        self.on_settled = self._settled_once
        super().startService()

    def _settled_once(self) -> None:
        Deferred.fromCoroutine(self._when_agents_serve(self.main_reactor.seconds() + AGENTS_TIME))

    async def _when_agents_serve(self, until: float) -> None:
        """Report that we serve; if we take over another process, once the agents of all workers connect."""
        reactor = self.main_reactor
        if self.lifecycle.takes_over and self.loaded.config.agents:
            while self.running and reactor.seconds() < until:
                answers = await self.ask("unserved", {})
                if all(each.value == [] for each in answers):
                    break
                await deferLater(reactor, AGENTS_LOOK)
        if self.running:
            self.serves()
