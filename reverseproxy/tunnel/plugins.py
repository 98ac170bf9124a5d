"""
Credential policies and server listers by name: first those of this project, then those of plug-ins.

A plug-in is a module in a directory C{twisted/plugins} on C{sys.path} (without an C{__init__.py}) that
has at module level an object providing L{twisted.plugin.IPlugin} and one of L{IValidatorPlugin},
L{ICredentialPlugin} and L{IServerListerPlugin}.
"""

from __future__ import annotations

__all__ = [
    "BuiltInLister",
    "PluginNames",
    "add_lister",
    "find_credential_source",
    "find_lister",
    "find_validator",
    "names",
]

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.plugin import getPlugins

from reverseproxy.errors import PluginUnknown
from reverseproxy.interfaces import (
    IConnectionValidator,
    ICredentialPlugin,
    ICredentialSource,
    IServerLister,
    IServerListerPlugin,
    IValidatorPlugin,
)
from reverseproxy.tunnel.sample_policy import SampleCredentialPlugin, SampleValidatorPlugin
from reverseproxy.tunnel.static_credentials import StaticCredentialPlugin
from reverseproxy.tunnel.static_tokens import StaticValidatorPlugin

_P = TypeVar("_P", IValidatorPlugin, ICredentialPlugin, IServerListerPlugin)


class BuiltInLister:
    """
    A server lister of this project, whose module is imported for a configuration that names it.

    @ivar name: its name in configurations.
    """

    def __init__(self, name: str, module: str, plugin: str) -> None:
        """
        @param module: the name of the module that has it.
        @param plugin: the name of its plug-in's class there.
        """
        self.name = name
        self._module = module
        self._plugin = plugin

    def build(self, *arguments: Any) -> Any:
        """Do what the plug-in's own C{build} does."""
        return getattr(import_module(self._module), self._plugin)().build(*arguments)


_VALIDATORS: tuple[IValidatorPlugin, ...] = (StaticValidatorPlugin(), SampleValidatorPlugin())
_CREDENTIALS: tuple[ICredentialPlugin, ...] = (StaticCredentialPlugin(), SampleCredentialPlugin())
_LISTERS: list[Any] = [
    BuiltInLister("file", "reverseproxy.tunnel.agent.listers", "FileListerPlugin"),
    BuiltInLister("dns", "reverseproxy.tunnel.agent.listers", "DnsListerPlugin"),
    BuiltInLister("srv", "reverseproxy.tunnel.agent.srv_lister", "SrvListerPlugin"),
    BuiltInLister("http", "reverseproxy.tunnel.agent.http_lister", "HttpListerPlugin"),
]


def add_lister(plugin: BuiltInLister) -> None:
    """Register a built-in server lister that a higher layer implements."""
    if all(each.name != plugin.name for each in _LISTERS):
        _LISTERS.append(plugin)


class PluginNames(NamedTuple):
    """
    The names of all plug-ins, built-in ones first.

    @ivar validators: credential policies of servers.
    @ivar credential_sources: credential policies of agents.
    @ivar listers: dynamic server listers.
    """

    validators: tuple[str, ...]
    credential_sources: tuple[str, ...]
    listers: tuple[str, ...]


def _all(built_in: Sequence[_P], interface: Any) -> Iterator[_P]:
    yield from built_in
    yield from getPlugins(interface)


def _names(built_in: Sequence[_P], interface: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(plugin.name for plugin in _all(built_in, interface)))


def names() -> PluginNames:
    """Return the names of all plug-ins that can be found."""
    return PluginNames(
        _names(_VALIDATORS, IValidatorPlugin),
        _names(_CREDENTIALS, ICredentialPlugin),
        _names(_LISTERS, IServerListerPlugin),
    )


def _find(what: str, name: str, built_in: Sequence[_P], interface: Any) -> _P:
    for plugin in _all(built_in, interface):
        if plugin.name == name:
            return plugin
    known = ", ".join(_names(built_in, interface))
    raise PluginUnknown(f"there is no {what} {name!r}, neither built in nor of a plug-in; known are: {known}")


def find_validator(name: str, config: Mapping[str, Any]) -> IConnectionValidator:
    """
    Make the validator of a credential policy.

    @param config: its entry in the tunnel filter's C{validators}.
    @raise ValueError: if there is none of this name, or C{config} is invalid.
    """
    return _find("credential policy", name, _VALIDATORS, IValidatorPlugin).build(config)


def find_credential_source(name: str, config: Mapping[str, Any]) -> ICredentialSource:
    """
    Make the credential source of a credential policy.

    @param config: the agent's C{credential_config}.
    @raise ValueError: if there is none of this name, or C{config} is invalid.
    """
    return _find("credential policy", name, _CREDENTIALS, ICredentialPlugin).build(config)


def find_lister(name: str, cluster: str, config: Mapping[str, Any], reactor: IReactorTime) -> IServerLister:
    """
    Make a dynamic server lister.

    @param cluster: the cluster that the agent's connections join.
    @param config: the C{config} of C{dynamic_server_list_config}.
    @raise ValueError: if there is none of this name, or C{config} is invalid.
    """
    found: IServerListerPlugin = _find("server lister", name, _LISTERS, IServerListerPlugin)
    return found.build(cluster, config, reactor)
