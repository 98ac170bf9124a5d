"""
Parsing the strings of endpoints.

C{tunnel:HOST:PORT:cluster=NAME}, or with keys alone; see C{docs/endpoints.rst}.
"""

from __future__ import annotations

__all__ = ["parse_client", "parse_server", "server_settings"]

from collections.abc import Mapping, Sequence
from typing import Any, Final

from reverseproxy.addresses import join_host_port
from reverseproxy.endpoints.client import ClusterEndpoint
from reverseproxy.endpoints.server import TunnelServerEndpoint

_YES: Final = frozenset({"yes", "true", "1", "on"})
_NO: Final = frozenset({"no", "false", "0", "off"})

_TEXTS: Final[Mapping[str, str]] = {
    "cluster": "cluster",
    "name": "host_name",
    "timeout": "connect_timeout_duration",
    "drain": "graceful_close_max_wait_duration",
}
_NUMBERS: Final[Mapping[str, str]] = {"weight": "weight", "connections": "connection_num"}
_TLS: Final[Mapping[str, str]] = {
    "caCert": "ca_cert",
    "serverName": "server_name",
    "fingerprint": "fingerprint",
    "certificate": "cert_chain",
    "privateKey": "private_key",
}
_CREDENTIALS: Final[Mapping[str, str]] = {
    "credential": "token",
    "credentialFile": "file",
    "credentialEnv": "env",
}
_OTHERS: Final = ("host", "port", "path", "servers", "tls", "credentialPolicy", "streams")

_KEYS: Final = (*_OTHERS, *_TEXTS, *_NUMBERS, *_TLS, *_CREDENTIALS)


def server_settings(args: Sequence[str], kwargs: Mapping[str, str]) -> dict[str, Any]:
    """
    Return the settings of an agent, given the arguments of C{tunnel:}.

    @param args: the arguments without a key.
    @param kwargs: the arguments with a key.
    @raise ValueError: with the first problem.
    """
    given = _named(args, kwargs)
    for key in given:
        if key not in _KEYS:
            raise ValueError(f"tunnel: unknown key {key!r}; the keys are {', '.join(sorted(_KEYS))}")
    settings: dict[str, Any] = {"server_list": _servers(given)}
    settings |= {theirs: given[ours] for ours, theirs in _TEXTS.items() if ours in given}
    if "cluster" not in settings:
        raise ValueError("tunnel: cluster=NAME is missing, the cluster of the server to serve")
    for key in ("timeout", "drain"):
        if given.get(key, "").isdecimal():
            settings[_TEXTS[key]] += "s"
    settings |= {theirs: _number(ours, given[ours]) for ours, theirs in _NUMBERS.items() if ours in given}
    if "streams" in given:
        settings["mux"] = _truth("streams", given["streams"])
    tls = {theirs: given[ours] for ours, theirs in _TLS.items() if ours in given}
    if _truth("tls", given.get("tls", "yes" if tls else "no")):
        if tls.get("ca_cert") == "system":
            del tls["ca_cert"]
        settings["tls_context"] = {"status": True, **tls}
    elif tls:
        raise ValueError(f"tunnel: tls=no, but there is {', '.join(key for key in _TLS if key in given)}")
    return settings | _credential(given)


def _named(args: Sequence[str], kwargs: Mapping[str, str]) -> dict[str, str]:
    """Return all arguments by key: without one are the server's host and port, and the word C{tls}."""
    given = dict(kwargs)
    for key, value in zip(("host", "port"), [each for each in args if each != "tls"], strict=False):
        if key in given:
            raise ValueError(f"tunnel: {key} is given twice, {value!r} and {given[key]!r}")
        given[key] = value
    if len(args) - args.count("tls") > 2:
        raise ValueError(f"tunnel: {args[-1]!r} has no key; only the server's host and port need none")
    if "tls" in args and given.setdefault("tls", "yes") not in _YES:
        raise ValueError("tunnel: tls, but tls=no")
    return given


def _servers(given: Mapping[str, str]) -> list[str]:
    """Return the addresses of the servers."""
    ways = [key for key in ("host", "path", "servers") if key in given]
    if len(ways) != 1:
        found = f", not {' and '.join(ways)}" if ways else ""
        raise ValueError(f"tunnel: say one of host=...:port=..., path=... and servers=...{found}")
    if "path" in given:
        return [f"unix:{given['path']}"]
    if "servers" in given:
        return [each.strip() for each in given["servers"].split(",") if each.strip()]
    if "port" not in given:
        raise ValueError("tunnel: port=... is missing, the server's for agents")
    return [join_host_port(given["host"].strip("[]"), _number("port", given["port"]))]


def _credential(given: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of the agent's credential."""
    found = {theirs: given[ours] for ours, theirs in _CREDENTIALS.items() if ours in given}
    if len(found) > 1:
        raise ValueError(f"tunnel: say one of {', '.join(_CREDENTIALS)}")
    policy = given.get("credentialPolicy", "static" if found else "")
    return {"credential_policy": policy, "credential_config": found} if policy else {}


def _number(key: str, text: str) -> int:
    if not (text.isascii() and text.isdecimal()):
        raise ValueError(f"tunnel: {key}={text} is no number")
    return int(text)


def _truth(key: str, text: str) -> bool:
    if text.lower() not in _YES | _NO:
        raise ValueError(f"tunnel: {key}={text} is neither yes nor no")
    return text.lower() in _YES


def parse_server(reactor: Any, args: Sequence[str], kwargs: Mapping[str, str]) -> TunnelServerEndpoint:
    """
    Make the endpoint of a string.

    @raise ValueError: if something is wrong with it.
    """
    return TunnelServerEndpoint(reactor, server_settings(args, kwargs))


def parse_client(args: Sequence[str], kwargs: Mapping[str, str]) -> ClusterEndpoint:
    """
    Make the endpoint of a string: C{tunnel:NAME}, or C{tunnel:cluster=NAME:timeout=10}.

    @raise ValueError: if something is wrong with it.
    """
    given = dict(kwargs)
    if len(args) > 1 or (args and "cluster" in given):
        raise ValueError("tunnel: as a client, name one cluster of this process: tunnel:NAME")
    if args:
        given["cluster"] = args[0]
    for key in given:
        if key not in ("cluster", "timeout"):
            raise ValueError(f"tunnel: unknown key {key!r}; a client's keys are cluster and timeout")
    if not given.get("cluster"):
        raise ValueError("tunnel: as a client, name one cluster of this process: tunnel:NAME")
    timeout = given.get("timeout")
    return ClusterEndpoint(given["cluster"], None if timeout is None else _number("timeout", timeout))
