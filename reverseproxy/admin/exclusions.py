"""Operators' bans of agents, as the admin API lists and lifts them."""

from __future__ import annotations

__all__ = ["lift_ban", "list_bans", "merge_bans"]

from collections.abc import Iterable, Mapping
from typing import Any

from reverseproxy.clock import wall_time
from reverseproxy.tunnel.server.exclusion_records import Exclusion
from reverseproxy.tunnel.server.exclusions import Exclusions


def _describe(exclusion: Exclusion, now: float) -> dict[str, Any]:
    seconds = exclusion.until - now
    return {
        "id": exclusion.id,
        "target": list(exclusion.target),
        "agents": list(exclusion.agents),
        "seconds": round(seconds, 1),
        "until": round(wall_time() + seconds, 3),
        "why": exclusion.reason,
    }


def list_bans(exclusions: Exclusions, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
    """
    Return a page of the bans in force, in the order of their ids.

    @param arguments: C{after} and C{limit}.
    """
    found = sorted((each for each in exclusions if each.id > arguments["after"]), key=lambda each: each.id)
    now = exclusions.seconds()
    return [_describe(each, now) for each in found[: arguments["limit"]]]


def lift_ban(exclusions: Exclusions, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
    """
    Lift a ban.

    @param arguments: C{id}, as in L{list_bans}.
    @return: the ban; L{None} if there is none with this id.
    """
    for each in exclusions:
        if each.id == arguments["id"]:
            exclusions.lift(each.target)
            return _describe(each, exclusions.seconds())
    return None


def merge_bans(answers: Iterable[Iterable[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Merge the bans that several workers know; of different answers about a ban, the longest one is kept."""
    found: dict[str, dict[str, Any]] = {}
    for answer in answers:
        for item in answer:
            known = found.setdefault(item["id"], item)
            if item["seconds"] > known["seconds"]:
                found[item["id"]] = item
    return [found[key] for key in sorted(found)]
