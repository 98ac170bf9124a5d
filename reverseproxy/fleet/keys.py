"""
How keys of the store are made of names; pure.

Behind the fleet's prefix stand C{servers/ID}, C{hosts/CLUSTER/AGENT/ID} and
C{routes/CLUSTER/ID}; names of clusters, which may have any characters, as URLs have them.
"""

from __future__ import annotations

__all__ = ["MAX_KEY", "Name", "host_path", "read_path", "route_path", "server_path"]

from typing import Final
from urllib.parse import quote, unquote

from reverseproxy.fleet.records import BadRecord, HostKey, RouteKey

MAX_KEY: Final = 2048
"""Bytes of a key behind the prefix at the most."""

Name = str | HostKey | RouteKey
"""Whose record a key has: a server's, by its id, a host's, or that of an agent's routes."""


def server_path(server: str) -> str:
    """Where the record of a server is."""
    return f"servers/{server}"


def host_path(key: HostKey) -> str:
    """Where the record of a host is."""
    return f"hosts/{_quoted(key.cluster)}/{key.agent}/{key.server}"


def route_path(key: RouteKey) -> str:
    """Where the record of an agent's routes is."""
    return f"routes/{_quoted(key.cluster)}/{key.server}"


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogatepass")


def read_path(path: str) -> Name | None:
    """
    Say whose record a key has.

    @param path: the key without the fleet's prefix.
    @return: L{None} for a kind of record that is not known.
    @raise BadRecord: if it is of a kind that is known, but none.
    """
    if len(path) > MAX_KEY:
        raise BadRecord(f"a key of {len(path)} characters")
    kind, _, rest = path.partition("/")
    if kind == "servers":
        return rest
    found: HostKey | RouteKey
    match kind, rest.split("/"):
        case "hosts", [cluster, agent, server]:
            found = HostKey(unquote(cluster, errors="strict"), agent, server)
            path_of = host_path(found)
        case "routes", [cluster, server]:
            found = RouteKey(unquote(cluster, errors="strict"), server)
            path_of = route_path(found)
        case "hosts" | "routes", _:
            raise BadRecord("a key with more, or fewer, parts than there should be")
        case _:
            return None
    if path_of != path:
        # Or one record could have several keys.
        raise BadRecord("the cluster's name is not written as URLs have it")
    return found
