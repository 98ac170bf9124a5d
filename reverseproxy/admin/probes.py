"""Whether a process lives, and whether it can do its work."""

from __future__ import annotations

__all__ = ["healthy", "ready"]

from collections.abc import Iterable

from reverseproxy.admin.messages import Reply
from reverseproxy.admin.sources import Answer


def healthy() -> Reply:
    """Say that the loop turns, as it does if this can be said."""
    return Reply.text("ok\n")


def ready(answers: Iterable[Answer], reasons: Iterable[str], may_know: bool) -> Reply:
    """
    Say whether all processes can do their work.

    @param reasons: what keeps the whole from doing it.
    @param may_know: whether the caller may know the reasons, rather than the
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
