"""
How keys of the store are made of names; pure.

Behind the fleet's prefix stand C{servers/ID} and C{hosts/CLUSTER/AGENT/ID}; names of
clusters, which may have any characters, as URLs have them.
"""

from __future__ import annotations

__all__ = ["MAX_KEY", "Name", "host_path", "read_path", "server_path"]

from typing import Final
from urllib.parse import quote, unquote

from reverseproxy.fleet.records import BadRecord, HostKey

MAX_KEY: Final = 2048
"""Bytes of a key behind the prefix at the most."""

Name = str | HostKey
"""Whose record a key has: a server's, by its id, or a host's."""


def server_path(server: str) -> str:
    """Where the record of a server is."""
    return f"servers/{server}"


def host_path(key: HostKey) -> str:
    """Where the record of a host is."""
    return f"hosts/{quote(key.cluster, safe='', errors='surrogatepass')}/{key.agent}/{key.server}"


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
    if kind != "hosts":
        return None
    parts = rest.split("/")
    if len(parts) != 3:
        raise BadRecord("not CLUSTER/AGENT/SERVER")
    key = HostKey(unquote(parts[0], errors="strict"), parts[1], parts[2])
    if host_path(key) != path:
        # Or one host could have several keys.
        raise BadRecord("the cluster's name is not written as URLs have it")
    return key
