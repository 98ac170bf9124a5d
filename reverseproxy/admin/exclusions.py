"""Whom operators keep out, for the admin API."""

from __future__ import annotations

__all__ = ["kept_out", "let_in", "unite_kept_out"]

from collections.abc import Iterable, Mapping
from typing import Any

from reverseproxy.clock import wall_time
from reverseproxy.tunnel.server.exclusion_records import Exclusion
from reverseproxy.tunnel.server.exclusions import Exclusions


def _shown(exclusion: Exclusion, now: float) -> dict[str, Any]:
    seconds = exclusion.until - now
    return {
        "id": exclusion.id,
        "target": list(exclusion.target),
        "agents": list(exclusion.agents),
        "seconds": round(seconds, 1),
        "until": round(wall_time() + seconds, 3),
        "why": exclusion.reason,
    }


def kept_out(exclusions: Exclusions, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Say who is kept out, in the order of ids.

    @param arguments: C{after} and C{limit} say which.
    """
    found = sorted((each for each in exclusions if each.id > arguments["after"]), key=lambda each: each.id)
    now = exclusions.seconds()
    return [_shown(each, now) for each in found[: arguments["limit"]]]


def let_in(exclusions: Exclusions, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Let somebody in again, by the C{id} that L{kept_out} has.

    @return: what was lifted; L{None} if there was nothing.
    """
    for each in exclusions:
        if each.id == arguments["id"]:
            exclusions.lift(each.target)
            return _shown(each, exclusions.seconds())
    return None


def unite_kept_out(answers: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Make one of what several workers say, which know the same as soon as they have heard of it."""
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for item in answer:
            known = found.setdefault(item["id"], item)
            if item["seconds"] > known["seconds"]:
                found[item["id"]] = item
    return [found[key] for key in sorted(found)]
