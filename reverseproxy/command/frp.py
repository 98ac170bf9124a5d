"""
Client files of frp to configurations of ours.  Pure.

frp's client says everything of a proxy: the service, and the port or the domain
on the server.  Here the agent's configuration has the service, and the server's
the rest, so that one file of frp's becomes two of ours.
"""

from __future__ import annotations

__all__ = ["Converted", "FrpProblem", "convert_frp"]

import configparser
import json
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import yaml

from reverseproxy.command import documents as parts
from reverseproxy.config.nesting import check_nesting

_FORMATS: Final = {".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".json": "json", ".ini": "ini"}
_CERTIFICATE: Final = {"cert_chain": "server.pem", "private_key": "server.key"}

_LEGACY: Final = {
    "server_addr": "serverAddr",
    "server_port": "serverPort",
    "token": "auth.token",
    "tls_enable": "transport.tls.enable",
    "tls_trusted_ca_file": "transport.tls.trustedCaFile",
    "tls_cert_file": "transport.tls.certFile",
    "tls_key_file": "transport.tls.keyFile",
    "tls_server_name": "transport.tls.serverName",
    "user": "user",
    "type": "type",
    "local_ip": "localIP",
    "local_port": "localPort",
    "remote_port": "remotePort",
    "custom_domains": "customDomains",
    "subdomain": "subdomain",
    "locations": "locations",
    "host_header_rewrite": "hostHeaderRewrite",
    "group": "loadBalancer.group",
}
"""Keys of frp's old INI files, and what they are called now."""

_COMMON: Final[Mapping[str, Any]] = {
    "serverAddr": True,
    "serverPort": True,
    "auth": {"method": True, "token": True},
    "transport": {
        "tls": {"enable": True, "trustedCaFile": True, "certFile": True, "keyFile": True, "serverName": True}
    },
    "user": True,
    "proxies": True,
}
_PROXY: Final[Mapping[str, Any]] = {
    "name": True,
    "type": True,
    "localIP": True,
    "localPort": True,
    "remotePort": True,
    "customDomains": True,
    "subdomain": True,
    "locations": True,
    "hostHeaderRewrite": True,
    "requestHeaders": {"set": True},
    "responseHeaders": {"set": True},
    "loadBalancer": {"group": True, "groupKey": True},
}
"""Keys that are converted; of others a warning says that they are not."""


class FrpProblem(Exception):
    """A file can't be converted; the message says why."""


@dataclass(slots=True)
class Converted:
    """
    What became of a file of frp's.

    @ivar agent: the agent's configuration.
    @ivar server: the server's.
    @ivar warnings: what could not be converted, or has to be looked at.
    """

    agent: dict[str, Any]
    server: dict[str, Any]
    warnings: list[str] = field(default_factory=list)


def convert_frp(text: str, file: str, http_port: int = 80, subdomain_host: str = "") -> Converted:
    """
    Convert a client file.

    @param file: its name, which tells the format, and is the agent's name in the
        server's list of tokens unless the file has a C{user}.
    @param http_port: C{vhostHTTPPort} of frp's server.
    @param subdomain_host: C{subDomainHost} of frp's server.
    @raise FrpProblem: if it is no such file.
    """
    document = _parse(text, file)
    return _Conversion(document, file, http_port, subdomain_host).run()


def _parse(text: str, file: str) -> Mapping[str, Any]:
    suffix = file[file.rfind(".") :].lower() if "." in file else ""
    kind = _FORMATS.get(suffix)
    if kind is None:
        raise FrpProblem(f"{file}: a client file of frp ends in {', '.join(_FORMATS)}")
    document: Any
    try:
        if kind == "toml":
            document = tomllib.loads(text)
        elif kind == "json":
            document = json.loads(text)
        elif kind == "yaml":
            check_nesting(text)
            document = yaml.safe_load(text)
        else:
            document = _legacy(text)
    except (ValueError, RecursionError, yaml.YAMLError, configparser.Error) as error:
        hint = "; frp fills templates in first, which this does not" if "{{" in text else ""
        raise FrpProblem(f"{file}: not {kind.upper()}: {' '.join(str(error).split())}{hint}") from None
    if not isinstance(document, Mapping):
        raise FrpProblem(f"{file}: is no client file of frp")
    return document


class _CaseSensitive(configparser.RawConfigParser):
    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _legacy(text: str) -> dict[str, Any]:
    """Read an INI file as what it would be today."""
    parser = _CaseSensitive(strict=False, inline_comment_prefixes=None)
    parser.read_string(text)
    document: dict[str, Any] = {"proxies": []}
    for name in parser.sections():
        into: dict[str, Any] = document
        if name != "common":
            into = {"name": name}
            if name.startswith("range:"):
                into["range"] = True  # unknown to everybody, and so warned of
            document["proxies"].append(into)
        for written, value in parser[name].items():
            if written.startswith("header_"):
                _put(into, f"requestHeaders.set.{written.removeprefix('header_')}", value, deep=True)
                continue
            place = _LEGACY.get(written, written)
            converted: Any = value
            if place in ("customDomains", "locations"):
                converted = [part.strip() for part in value.split(",")]
            elif value.isdecimal() and place.endswith("Port"):
                converted = int(value)
            elif place.endswith(".enable"):
                converted = value.lower() == "true"
            _put(into, place, converted, deep=written in _LEGACY)
    return document


def _put(into: dict[str, Any], place: str, value: Any, deep: bool) -> None:
    *above, last = place.split(".") if deep else [place]
    for name in above:
        into = into.setdefault(name, {})
    into[last] = value


def _get(document: Mapping[str, Any], place: str, default: Any = None) -> Any:
    here: Any = document
    for name in place.split("."):
        here = here.get(name) if isinstance(here, Mapping) else None
    return default if here is None else here


class _Conversion:
    """The conversion of one file."""

    def __init__(self, document: Mapping[str, Any], file: str, http_port: int, subdomain_host: str) -> None:
        self._document = document
        self._file = file
        self._http_port = http_port
        self._subdomain_host = subdomain_host
        self._warnings: list[str] = []
        self._hosts: dict[str, list[dict[str, Any]]] = {}  # what the server forwards, by domain
        self._taken: dict[int, str] = {}  # the cluster of each port of the server
        self._agent = _empty()
        self._agent["extends"] = []
        self._server = _empty()

    def run(self) -> Converted:
        """Convert it."""
        self._leave_out(self._document, _COMMON, "")
        address = self._text(self._document, "serverAddr", "serverAddr") or "0.0.0.0"  # noqa: S104 - frp's own
        port = self._port(self._document, "serverPort", "serverPort", 7000)
        if address == "0.0.0.0":  # noqa: S104 - as above
            self._warn("serverAddr", "is missing: write the server's name into server_list")
            address = "127.0.0.1"
        common = self._common(address)
        proxies = _get(self._document, "proxies", [])
        if not isinstance(proxies, list) or not all(isinstance(each, Mapping) for each in proxies):
            raise FrpProblem(f"{self._file}: proxies is no list of tables")
        names: set[str] = set()
        for index, proxy in enumerate(proxies):
            place = f"proxies[{index}]"
            name = self._text(proxy, "name", f"{place}.name")
            if not name or name in names:
                self._warn(f"{place}.name", "is missing" if not name else f"occurs twice: {name}")
                continue
            names.add(name)
            self._proxy(proxy, name, place, {**common, "server_list": [_join(address, port)]})
        if not self._agent["extends"]:
            raise FrpProblem("\n".join([*self._warnings, f"{self._file}: nothing in it can be converted"]))
        self._finish_server(port)
        return Converted(self._agent, self._server, self._warnings)

    def _warn(self, place: str, message: str) -> None:
        self._warnings.append(f"{self._file}: {place}: {message}")

    def _leave_out(self, table: Mapping[str, Any], known: Mapping[str, Any], place: str) -> None:
        """Warn of keys that nothing is made of."""
        for name, value in table.items():
            if name not in known:
                self._warn(f"{place}{name}", "is not converted")
            elif known[name] is not True and isinstance(value, Mapping):
                self._leave_out(value, known[name], f"{place}{name}.")

    def _text(self, table: Mapping[str, Any], name: str, place: str) -> str:
        value = _get(table, name, "")
        if not isinstance(value, str):
            raise FrpProblem(f"{self._file}: {place}: expected a text")
        if "{{" in value:
            self._warn(place, "has a template, which is taken as it is written")
        return value

    def _port(self, table: Mapping[str, Any], name: str, place: str, default: int) -> int:
        value = _get(table, name, default)
        if type(value) is not int or not 0 <= value <= 65535:
            raise FrpProblem(f"{self._file}: {place}: expected a port, a number up to 65535")
        return value

    def _common(self, address: str) -> dict[str, Any]:
        """What all agents of the file have: who they are, and TLS."""
        document = self._document
        common: dict[str, Any] = {"enable": True, "connection_num": 1}
        if user := self._text(document, "user", "user"):
            common["host_name"] = user
        if _get(document, "auth.method", "token") != "token":
            self._warn("auth.method", "is not converted: only tokens are")
        elif token := self._text(document, "auth.token", "auth.token"):
            common["credential_policy"] = "static"
            common["credential_config"] = {"token": token}
        else:
            self._warn("auth.token", "there is none: the server takes everybody as an agent")
        if _get(document, "transport.tls.enable", True) is False:
            self._warn("transport.tls.enable", "is false: tunnels are in plaintext, and so is the token")
            return common
        tls: dict[str, Any] = {"status": True, "min_version": "TLSv1_2"}
        tls["server_name"] = self._text(document, "transport.tls.serverName", "serverName") or address
        if ca := self._text(document, "transport.tls.trustedCaFile", "trustedCaFile"):
            tls["ca_cert"] = ca
        else:
            self._warn(
                "transport.tls.trustedCaFile",
                "there is none: frp takes any certificate of the server then, and this agent one that the "
                "system trusts; write another authority into ca_cert",
            )
        if certificate := self._text(document, "transport.tls.certFile", "certFile"):
            tls["cert_chain"] = certificate
            tls["private_key"] = self._text(document, "transport.tls.keyFile", "keyFile")
        common["tls_context"] = tls
        return common

    def _proxy(self, proxy: Mapping[str, Any], name: str, place: str, agent: dict[str, Any]) -> None:
        kind = self._text(proxy, "type", f"{place}.type") or "tcp"
        if kind not in ("tcp", "http") or "plugin" in proxy or "range" in proxy:
            what = f"type {kind}" if kind not in ("tcp", "http") else "a plugin or a range"
            self._warn(place, f"left out, {name}: {what} is not converted")
            return
        self._leave_out(proxy, _PROXY, f"{place}.")
        local_port = self._port(proxy, "localPort", f"{place}.localPort", 0)
        if not local_port:
            self._warn(f"{place}.localPort", f"is missing: {name} is left out")
            return
        cluster = self._text(proxy, "loadBalancer.group", f"{place}.loadBalancer.group") or name
        if not self._at_server(proxy, kind, name, cluster, place):
            return
        local = self._text(proxy, "localIP", f"{place}.localIP") or "127.0.0.1"
        service, listener = f"{name}-service", f"{name}-listener"
        self._agent["cluster_manager"]["clusters"].append(
            {"name": service, "lb_type": "LB_RANDOM", "hosts": [{"address": _join(local, local_port)}]}
        )
        served = parts.tcp(service)
        if kind == "http":
            served = parts.http(listener)
            self._agent["servers"][0]["routers"].append(
                parts.router(listener, [_host(["*"], [_rule("/", service, **self._rewrites(proxy, place))])])
            )
        self._agent["servers"][0]["listeners"].append(
            {
                "name": listener,
                # Nothing is bound here; it is fed by the agent.
                "address": f"127.0.0.1:{local_port}",
                "bind_port": False,
                "filter_chains": [{"filters": [served]}],
            }
        )
        self._agent["extends"].append(
            {"type": "tunnel_agent", "config": {**agent, "cluster": cluster, "hosting_listener": listener}}
        )

    def _at_server(self, proxy: Mapping[str, Any], kind: str, name: str, cluster: str, place: str) -> bool:
        """Make it reachable at the server; tell whether it could be."""
        if kind == "tcp":
            port = self._port(proxy, "remotePort", f"{place}.remotePort", 0)
            if not port:
                self._warn(f"{place}.remotePort", f"is missing, or 0 for any: {name} is left out")
                return False
            if self._taken.setdefault(port, cluster) != cluster:
                self._warn(f"{place}.remotePort", f"{port} is taken already: {name} is left out")
                return False
            return True
        domains = [each for each in _get(proxy, "customDomains", []) if isinstance(each, str) and each]
        if subdomain := self._text(proxy, "subdomain", f"{place}.subdomain"):
            if self._subdomain_host:
                domains.append(f"{subdomain}.{self._subdomain_host}")
            else:
                self._warn(f"{place}.subdomain", "needs --subdomain-host, which frp's server has")
        if not domains:
            self._warn(f"{place}.customDomains", f"there is no domain: {name} is left out")
            return False
        for domain in dict.fromkeys(domains):
            rules = self._hosts.setdefault(domain.lower(), [])
            for prefix in _get(proxy, "locations", None) or ["/"]:
                rule = _rule(prefix, cluster)
                if rule not in rules:
                    rules.append(rule)
        return True

    def _rewrites(self, proxy: Mapping[str, Any], place: str) -> dict[str, Any]:
        """What is changed in requests and responses."""
        changes: dict[str, Any] = {}
        if host := self._text(proxy, "hostHeaderRewrite", f"{place}.hostHeaderRewrite"):
            changes["host_rewrite"] = host
        for ours, theirs in (("request", "requestHeaders"), ("response", "responseHeaders")):
            headers = _get(proxy, f"{theirs}.set", {})
            if headers:
                changes[f"{ours}_headers_to_add"] = [
                    {"header": {"key": key, "value": str(value)}, "append": False}
                    for key, value in headers.items()
                ]
        return changes

    def _finish_server(self, port: int) -> None:
        """Make the server's listeners, clusters and routes."""
        server, first = self._server["servers"][0], self._agent["extends"][0]["config"]
        clusters = dict.fromkeys(each["config"]["cluster"] for each in self._agent["extends"])
        self._server["cluster_manager"]["clusters"] = [
            {"name": name, "type": "SIMPLE", "lb_type": "LB_RANDOM"} for name in clusters
        ]
        tunnel: dict[str, Any] = {}
        if "credential_policy" in first:
            token = first["credential_config"]["token"]
            entry = {"agent": first.get("host_name") or "frp", "token": token, "clusters": list(clusters)}
            tunnel = {"credential_policy": "static", "validators": {"static": {"tokens": [entry]}}}
        chain: dict[str, Any] = {"filters": [{"type": "tunnel", "config": tunnel}]}
        if "tls_context" in first:
            chain["tls_context"] = {"status": True, **_CERTIFICATE, "min_version": "TLSv1_2"}
            self._warnings.append(
                "the server's configuration needs a certificate: server.pem and server.key, for the name "
                f"{first['tls_context']['server_name']}"
            )
        server["listeners"].append(_listener("tunnels", port, chain))
        for number, cluster in self._taken.items():
            server["listeners"].append(_listener(f"port-{number}", number, {"filters": [parts.tcp(cluster)]}))
        if self._hosts:
            hosts = [
                # Longer prefixes first, as in frp.
                _host([domain], sorted(rules, key=lambda rule: -len(rule["match"]["prefix"])))
                for domain, rules in self._hosts.items()
            ]
            server["routers"].append({**parts.router("domains", hosts), "ignore_host_port": True})
            server["listeners"].append(
                _listener("http", self._http_port, {"filters": [parts.http("domains")]})
            )


def _empty() -> dict[str, Any]:
    return {
        "servers": [{"default_log_path": "stdout", "routers": [], "listeners": []}],
        "cluster_manager": {"clusters": []},
    }


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if re.fullmatch(r"[0-9a-fA-F:.]*:[0-9a-fA-F:.]*", host) else f"{host}:{port}"


def _listener(name: str, port: int, chain: dict[str, Any]) -> dict[str, Any]:
    return parts.listener(name, f"0.0.0.0:{port}", chain)


def _host(domains: list[str], rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"name": domains[0], "domains": domains, "routers": rules}


def _rule(prefix: str, cluster: str, **more: Any) -> dict[str, Any]:
    return {"match": {"prefix": prefix}, "route": {"cluster_name": cluster, **more}}
