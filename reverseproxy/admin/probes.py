"""Liveness and readiness probes."""

from __future__ import annotations

__all__ = ["healthy", "ready"]

from collections.abc import Iterable

from reverseproxy.admin.messages import Reply
from reverseproxy.admin.sources import Answer


def healthy() -> Reply:
    """Return the answer of the liveness probe: that there is an answer shows that the event loop runs."""
    return Reply.text("ok\n")


def ready(answers: Iterable[Answer], reasons: Iterable[str], may_know: bool) -> Reply:
    """
    Return the answer of the readiness probe.

    @param answers: each process's reasons for not being ready.
    @param reasons: the reasons that concern all processes together.
    @param may_know: whether the caller may see the reasons, rather than the
        status alone.
    """
    found = list(reasons)
    for answer in answers:
        who = f"worker {answer.worker}: " if answer.worker else ""
        found += [f"{who}{reason}" for reason in ([answer.problem] if answer.problem else answer.value)]
    if not found:
        return Reply.text("ready\n")
    text = "".join(f"{reason}\n" for reason in dict.fromkeys(found)) if may_know else ""
    return Reply.text(f"not ready\n{text}", 503)
