"""
Finding RPC protocols by name: ours first, then those of plug-ins.

A plug-in is a module in a directory C{twisted/plugins} on C{sys.path} (without
an C{__init__.py}) that has at module level an object providing
L{twisted.plugin.IPlugin} and L{IXProtocolPlugin}.
"""

from __future__ import annotations

__all__ = ["Dialect", "dialect_of", "find_xprotocol", "key_of", "xprotocol_names"]

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from twisted.plugin import getPlugins

from reverseproxy.interfaces import IXProtocolPlugin

if TYPE_CHECKING:
    from reverseproxy.wire.rpc.xprotocol import XProtocol


def _bolt(version: int, options: Mapping[str, Any]) -> XProtocol:
    from reverseproxy.wire.rpc.bolt import Bolt

    return Bolt(version, bool(options.get("enable_bolt_goaway")))


def _dubbo(options: Mapping[str, Any]) -> XProtocol:
    from reverseproxy.wire.rpc.dubbo import Dubbo

    return Dubbo()


# Their modules are imported when a configuration has them.
_BUILT_IN: Final[dict[str, Callable[[Mapping[str, Any]], XProtocol]]] = {
    "bolt": partial(_bolt, 1),
    "boltv2": partial(_bolt, 2),
    "dubbo": _dubbo,
}


@dataclass(frozen=True, slots=True)
class Dialect:
    """
    An RPC protocol with the options of one C{proxy} filter.

    @ivar key: filters with the same key share connections to hosts: the protocol's
        name, with the options that may change how frames are read and made.
    @ivar protocol: the protocol.
    @ivar max_frame: the largest request and the largest response in bytes.
    """

    key: str
    protocol: XProtocol
    max_frame: int


def dialect_of(name: str, options: Mapping[str, Any]) -> Dialect:
    """
    Make a protocol with the options of a filter.

    @param options: the filter's, with C{max_frame_size}.
    @raise ValueError: if the protocol is unknown, or an option is invalid.
    """
    own = dict(options)
    max_frame = own.pop("max_frame_size")
    if type(max_frame) is not int or max_frame < 1:
        raise ValueError(f"max_frame_size is a number of bytes, not {max_frame!r}")
    return Dialect(key_of(name, options), find_xprotocol(name, own), max_frame)


def key_of(name: str, options: Mapping[str, Any]) -> str:
    """Say what L{Dialect.key} is for these options, without making the protocol."""
    own = {key: value for key, value in options.items() if key != "max_frame_size"}
    # Options of ours are about clients; what those of a plug-in are about we can't know.
    return name if name in _BUILT_IN or not own else f"{name} {json.dumps(own, sort_keys=True)}"


def xprotocol_names() -> tuple[str, ...]:
    """Return the names of all RPC protocols, built in and of plug-ins."""
    return tuple(dict.fromkeys([*_BUILT_IN, *(plugin.name for plugin in getPlugins(IXProtocolPlugin))]))


def find_xprotocol(name: str, options: Mapping[str, Any] | None = None) -> XProtocol:
    """
    Make a protocol.

    @param options: its options in the configuration.
    @raise ValueError: if the protocol is unknown, or an option is invalid.
    """
    make = _BUILT_IN.get(name)
    if make is not None:
        return make(options or {})
    for plugin in getPlugins(IXProtocolPlugin):
        if plugin.name == name:
            from reverseproxy.wire.rpc.xprotocol import XProtocol

            protocol = plugin.build(options or {})
            if not isinstance(protocol, XProtocol) or protocol.name != name:
                raise ValueError(f"the plug-in for the protocol {name!r} does not make one of this name")
            return protocol
    known = ", ".join(["Auto", "Http1", "Http2", *xprotocol_names()])
    raise ValueError(f"there is no protocol {name!r}, neither built in nor of a plug-in; known are: {known}")
