"""
Finding RPC protocols by name: ours first, then those of plug-ins.

A plug-in is a module in a directory C{twisted/plugins} on C{sys.path} (without
an C{__init__.py}) that has at module level an object providing
L{twisted.plugin.IPlugin} and L{IXProtocolPlugin}.
"""

from __future__ import annotations

__all__ = ["find_xprotocol", "xprotocol_names"]

from collections.abc import Callable, Mapping
from typing import Any, Final

from twisted.plugin import getPlugins

from reverseproxy.interfaces import IXProtocolPlugin
from reverseproxy.wire.bolt import Bolt
from reverseproxy.wire.dubbo import Dubbo
from reverseproxy.wire.xprotocol import XProtocol

_BUILT_IN: Final[dict[str, Callable[[Mapping[str, Any]], XProtocol]]] = {
    "bolt": lambda options: Bolt(1, bool(options.get("enable_bolt_goaway"))),
    "boltv2": lambda options: Bolt(2, bool(options.get("enable_bolt_goaway"))),
    "dubbo": lambda options: Dubbo(),
}


def xprotocol_names() -> tuple[str, ...]:
    """Look for all that there are."""
    return tuple(dict.fromkeys([*_BUILT_IN, *(plugin.name for plugin in getPlugins(IXProtocolPlugin))]))


def find_xprotocol(name: str, options: Mapping[str, Any] | None = None) -> XProtocol:
    """
    Make a protocol.

    @param options: what the configuration says of it.
    @raise ValueError: if there is none of this name, or C{options} can't be used.
    """
    make = _BUILT_IN.get(name)
    if make is not None:
        return make(options or {})
    for plugin in getPlugins(IXProtocolPlugin):
        if plugin.name == name:
            protocol = plugin.build(options or {})
            if not isinstance(protocol, XProtocol) or protocol.name != name:
                raise ValueError(f"the plug-in for the protocol {name!r} does not make one of this name")
            return protocol
    known = ", ".join(xprotocol_names())
    raise ValueError(f"there is no protocol {name!r}, neither built in nor of a plug-in; known are: {known}")
