"""Configurations in which HTTP/2 is spoken, for the scenario tests."""

from __future__ import annotations

__all__ = ["spoken"]

from typing import Any


def spoken(config: dict[str, Any], protocol: str, upstream: str = "", **options: Any) -> dict[str, Any]:
    """
    Change what the C{proxy} filters of a configuration speak.

    @param protocol: with clients.
    @param upstream: with hosts; as with clients if empty.
    @param options: of HTTP/2.
    """
    for server in config["servers"]:
        for listener in server["listeners"]:
            for each in listener["filter_chains"][0]["filters"]:
                if each["type"] == "proxy":
                    each["config"]["downstream_protocol"] = protocol
                    if options:
                        each["config"]["extend_config"] = {"Http2": options}
        for router in server["routers"]:
            for host in router["virtual_hosts"]:
                for rule in host["routers"]:
                    if upstream and "route" in rule:
                        rule["route"]["upstream_protocol"] = upstream
    return config
