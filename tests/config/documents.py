"""Documents for the tests of the configuration, and a way to change them."""

from __future__ import annotations

import copy
import json
import re
from typing import Any

from reverseproxy.config.loader import Loaded, loads
from reverseproxy.errors import ConfigError

GONE: Any = object()
"""As a value: remove the key."""

TUNNEL_SERVER: dict[str, Any] = {
    "servers": [
        {
            "default_log_path": "stdout",
            "routers": [
                {
                    "router_config_name": "web",
                    "virtual_hosts": [
                        {
                            "name": "all",
                            "domains": ["*"],
                            "routers": [{"match": {"prefix": "/"}, "route": {"cluster_name": "edge"}}],
                        }
                    ],
                }
            ],
            "listeners": [
                {
                    "name": "clients",
                    "address": "127.0.0.1:2045",
                    "bind_port": True,
                    "filter_chains": [
                        {
                            "filters": [
                                {
                                    "type": "proxy",
                                    "config": {"downstream_protocol": "Http1", "router_config_name": "web"},
                                }
                            ]
                        }
                    ],
                },
                {
                    "name": "agents",
                    "address": "127.0.0.1:9999",
                    "bind_port": True,
                    "connection_idle_timeout": 0,
                    "filter_chains": [{"filters": [{"type": "tunnel"}]}],
                },
            ],
        }
    ],
    "cluster_manager": {"clusters": [{"name": "edge", "type": "SIMPLE", "lb_type": "LB_RANDOM"}]},
}
"""Clients' requests go to whatever agents join the cluster C{edge}.  No warnings."""

AGENT: dict[str, Any] = {
    "servers": [
        {
            "listeners": [
                {
                    "name": "hosted",
                    "address": "127.0.0.1:2046",
                    "bind_port": False,
                    "filter_chains": [{"filters": [{"type": "tcp_proxy", "config": {"cluster": "service"}}]}],
                }
            ]
        }
    ],
    "extends": [
        {
            "type": "tunnel_agent",
            "config": {
                "enable": True,
                "connection_num": 1,
                "cluster": "edge",
                "hosting_listener": "hosted",
                "server_list": ["127.0.0.1:9999"],
            },
        }
    ],
    "cluster_manager": {"clusters": [{"name": "service", "hosts": [{"address": "127.0.0.1:8080"}]}]},
}
"""One agent that joins C{edge} and serves from one host.  No warnings."""

LISTENER = "servers[0].listeners[0]"
CHAIN = f"{LISTENER}.filter_chains[0]"
FILTER = f"{CHAIN}.filters[0]"
ROUTER = "servers[0].routers[0]"
HOST = f"{ROUTER}.virtual_hosts[0]"
RULE = f"{HOST}.routers[0]"
CLUSTER = "cluster_manager.clusters[0]"
CONFIG = "extends[0].config"


def edited(document: dict[str, Any], *changes: tuple[str, Any]) -> dict[str, Any]:
    """
    Copy a document with changes.

    @param changes: paths such as C{a.b[0]}, and the values to put there; an
        index one past the end appends.
    """
    document = copy.deepcopy(document)
    for path, value in changes:
        *parents, last = [
            int(index) if index else name for name, index in re.findall(r"(\w+)|\[(\d+)\]", path)
        ]
        here: Any = document
        for part in parents:
            here = here[part]
        if value is GONE:
            del here[last]
        elif isinstance(here, list) and last == len(here):
            here.append(copy.deepcopy(value))
        else:
            here[last] = copy.deepcopy(value)
    return document


def parse(document: Any, file: str = "c.json") -> Loaded:
    """Load a document that is at hand as values."""
    return loads(json.dumps(document), file)


def problems(document: Any, file: str = "c.json") -> list[str]:
    """All errors of a document, without the file's name; none if it loads."""
    return text_problems(json.dumps(document), file)


def text_problems(text: str, file: str = "c.json", yaml: bool = False) -> list[str]:
    """As L{problems}, for a text."""
    try:
        loads(text, file, yaml)
    except ConfigError as error:
        return [str(problem).removeprefix(f"{file}: ") for problem in error.problems]
    return []


def warnings(document: Any, file: str = "c.json") -> list[str]:
    """All warnings of a document that loads, without the file's name."""
    return [str(warning).removeprefix(f"{file}: ") for warning in parse(document, file).warnings]
