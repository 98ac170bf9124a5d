"""Format the answers of a running process as tables; pure."""

from __future__ import annotations

__all__ = ["agents_table", "duration", "exclusions_table", "printable", "status_lines", "table", "unwell"]

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from reverseproxy.logs import counted


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table, with numbers aligned to the right."""
    cells = [list(head), *([_cell(each) for each in row] for row in rows)]
    numeric = [
        len(cells) > 1 and all(row[column].replace(".", "").isdecimal() for row in cells[1:])
        for column in range(len(head))
    ]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    lines = []
    for row in cells:
        parts = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(parts).rstrip())
    return lines


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.1f}"
    return printable(str(value))


def printable(text: str) -> str:
    """Return a text in which nothing moves the cursor or changes colours."""
    return text if text.isprintable() else "".join(each if each.isprintable() else "?" for each in text)


def duration(seconds: float) -> str:
    """Format a duration with its two largest units."""
    units = (("d", 86400), ("h", 3600), ("m", 60), ("s", 1))
    rest = int(seconds)
    parts: list[str] = []
    for name, size in units:
        if rest >= size or (name == "s" and not parts):
            parts.append(f"{rest // size}{name}")
            rest %= size
    return " ".join(parts[:2])


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1000:.0f} ms"


def status_lines(
    summary: Mapping[str, Any],
    clusters: Sequence[Mapping[str, Any]],
    listeners: Sequence[Mapping[str, Any]],
    servers: Sequence[Mapping[str, Any]],
) -> list[str]:
    """Return the status of a process as lines of text."""
    workers = f", {summary['workers']} workers" if summary["workers"] else ""
    state = "draining" if summary["draining"] else "running"
    lines = [
        f"reverseproxy {summary['version']}, {state} for {duration(summary['uptime_seconds'])}{workers}",
        f"{counted(summary['agents'], 'agent')}, {counted(summary['connections'], 'connection')}; "
        f"{counted(summary['requests'], 'request')}, {counted(summary['errors'], 'error')}, "
        f"{summary['in_flight']} in progress, "
        f"{summary['waiting']} waiting; p50 {_milliseconds(summary['p50_seconds'])}, "
        f"p99 {_milliseconds(summary['p99_seconds'])}",
    ]
    if listeners:
        lines += ["", *table(("LISTENER", "ADDRESS", "STATE", "CONNECTIONS"), map(_listener, listeners))]
    if clusters:
        head = ["CLUSTER", "HOSTS", "HEALTHY", "IN PROGRESS", "WAITING"]
        keys = ["name", "hosts", "healthy", "in_flight", "waiting"]
        lines += ["", *table(head, [[each[key] for key in keys] for each in clusters])]
    if servers:
        head = ["TUNNEL SERVER", "CLUSTER", "SERVING", "WANTED"]
        keys = ["server", "cluster", "serving", "wanted"]
        lines += ["", *table(head, [[each[key] for key in keys] for each in servers])]
    return lines


def unwell(
    summary: Mapping[str, Any], listeners: Sequence[Mapping[str, Any]], servers: Sequence[Mapping[str, Any]]
) -> list[str]:
    """Return the problems of a process; empty if there are none."""
    reasons = ["draining"] if summary["draining"] else []
    reasons += [
        f"listener {each['name']} is not bound"
        for each in listeners
        if not each["bound"] and not each["fed_by_agents"]
    ]
    reasons += [
        f"agent of cluster {each['cluster']}: no serving connection to {each['server']}"
        for each in servers
        if each["wanted"] and not each["serving"]
    ]
    return reasons


def _listener(item: Mapping[str, Any]) -> list[object]:
    state = "bound" if item["bound"] else "hosting" if item["fed_by_agents"] else "not bound"
    tls = " (TLS)" if item["tls"] else ""
    return [
        item["name"],
        "-" if item["fed_by_agents"] else item["address"],
        f"{state}{tls}",
        item["connections"],
    ]


def agents_table(agents: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    """Return a table of the joined agents."""
    head = (
        "ID",
        "IDENTITY",
        "CLAIMED NAME",
        "CLUSTERS",
        "CONNECTIONS",
        "HEALTHY",
        "IN PROGRESS",
        "SINCE",
        "STATE",
        "ALSO AT",
    )
    rows = [
        [
            each["id"],
            each["identity"],
            each["claimed_host_name"],
            ", ".join(each["clusters"]),
            each["connections"],
            each["healthy"],
            each["in_flight"],
            None if each["since"] is None else duration(max(now - each["since"], 0)),
            "banned" if each["excluded"] else "serving" if each["connections"] else "elsewhere",
            ", ".join(f"{server} ({at['connections']})" for server, at in each.get("elsewhere", {}).items()),
        ]
        for each in agents
    ]
    if not any(each.get("elsewhere") for each in agents):
        return table(head[:-1], [row[:-1] for row in rows])
    return table(head, rows)


def exclusions_table(exclusions: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a table of bans."""
    head = ("ID", "TARGET", "REMAINING", "AGENTS", "REASON")
    rows = [
        [
            each["id"],
            " ".join(each["target"]),
            duration(each["seconds"]),
            ", ".join(each["agents"]),
            each["why"],
        ]
        for each in exclusions
    ]
    return table(head, rows)
