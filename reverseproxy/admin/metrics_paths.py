"""The metrics of all processes, for Prometheus: C{/metrics} and C{/metrics/agents}."""

from __future__ import annotations

__all__ = ["MetricsPaths"]

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.admin.configuration_api import reload_families
from reverseproxy.admin.exposition import Exposition
from reverseproxy.admin.families import Family, merge
from reverseproxy.admin.messages import Call, Reply
from reverseproxy.admin.slices import in_slices
from reverseproxy.admin.sources import Answer, ISource
from reverseproxy.process.reloading import Reloader

CERTIFICATES: Final = "reverseproxy_certificate_not_after_timestamp_seconds"
"""The metric of the expiry of certificates."""


class MetricsPaths:
    """
    Answers requests for metrics.

    @ivar reloading: reloads the configuration; L{None} if it can't be reloaded.
    """

    reloading: Reloader | None = None

    def __init__(
        self, source: ISource, clock: IReactorTime, certificates: Callable[[], list[dict[str, Any]]]
    ) -> None:
        """
        @param certificates: returns the certificates of the admin API itself, which no worker has; see
            L{reverseproxy.admin.lists.describe_certificates}.
        """
        self._source = source
        self._clock = clock
        self._certificates = certificates
        self._exposition = Exposition()

    async def metrics(self, call: Call) -> Reply:
        """Answer with all metrics but those of single agents."""
        answers, families = await self._families("metrics")
        for family in families:
            if family.name == CERTIFICATES:
                for each in self._certificates():
                    family.add(each["not_after"], each["use"], each["name"])
        families += self._worker_families(answers)
        if self.reloading is not None:
            families += reload_families(self.reloading)
        return await self._expose(families, call)

    async def agent_metrics(self, call: Call) -> Reply:
        """Answer with the metrics of single agents."""
        _, families = await self._families("agent_metrics")
        return await self._expose(families, call)

    async def _families(self, question: str) -> tuple[list[Answer], list[Family]]:
        """Ask all processes for metrics, and merge them."""
        answers = await self._source.ask(question, {})
        values = [answer.value for answer in answers if answer.value is not None]
        return answers, await in_slices(merge(values), self._clock)

    def _worker_families(self, answers: list[Answer]) -> list[Family]:
        """Return the metrics of the worker processes; none without workers."""
        workers = self._source.facts()["workers"]
        if not workers:
            return []
        up = Family("reverseproxy_worker_up", "gauge", "1 if the worker answers, else 0.", ("worker",))
        restarts = Family(
            "reverseproxy_worker_restarts_total", "counter", "Restarts of a worker.", ("worker",)
        )
        good = {answer.worker for answer in answers if answer.value is not None}
        for worker in workers:
            up.add(int(worker["worker"] in good), str(worker["worker"]))
            restarts.add(worker["restarts"], str(worker["worker"]))
        return [up, restarts]

    async def _expose(self, families: list[Family], call: Call) -> Reply:
        steps = self._exposition.encode(families, call.headers("accept"))
        return Reply(200, *await in_slices(steps, self._clock))
