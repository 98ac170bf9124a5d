"""
Keys of the store; pure.

Behind the fleet's prefix stand C{servers/ID}, C{hosts/CLUSTER/AGENT/ID} and C{routes/CLUSTER/ID}. Names
of clusters, which may contain any character, are percent-encoded.
"""

from __future__ import annotations

__all__ = ["MAX_KEY", "Name", "host_path", "read_path", "route_path", "server_path"]

from typing import Final
from urllib.parse import quote, unquote

from reverseproxy.fleet.record_fields import BadRecord
from reverseproxy.fleet.records import HostKey, RouteKey

MAX_KEY: Final = 2048
"""Bytes of a key without the prefix, at most."""

Name = str | HostKey | RouteKey
"""What a key identifies: a server by its id, a host, or an agent's routes."""


def server_path(server: str) -> str:
    """Return the path of a server's record."""
    return f"servers/{server}"


def host_path(key: HostKey) -> str:
    """Return the path of a host's record."""
    return f"hosts/{_quoted(key.cluster)}/{key.agent}/{key.server}"


def route_path(key: RouteKey) -> str:
    """Return the path of the record of an agent's routes."""
    return f"routes/{_quoted(key.cluster)}/{key.server}"


def _quoted(name: str) -> str:
    return quote(name, safe="", errors="surrogatepass")


def read_path(path: str) -> Name | None:
    """
    Parse a path.

    @param path: the key without the fleet's prefix.
    @return: what it identifies; L{None} for an unknown kind of record.
    @raise BadRecord: if it is malformed.
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
        # Otherwise, one record could have several keys.
        raise BadRecord("the cluster's name is not written as URLs have it")
    return found
