"""
Sockets that somebody else has bound, the process before this one or systemd.

They are in L{INHERITED} until a listener of the configuration takes them
(L{reverseproxy.listener.sockets.open_sockets}).
"""

from __future__ import annotations

__all__ = ["AGENTS_PORT", "INHERITED", "ListenerSockets", "InheritedSockets", "name_of_port"]

import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final

from reverseproxy.addresses import is_unix, split_host_port
from reverseproxy.config.models import ListenerConfig


@dataclass(frozen=True, slots=True)
class ListenerSockets:
    """
    Listening sockets of one listener, from whoever has bound them.

    @ivar name: the listener's name there.
    @ivar address: what its configuration says there; empty if there is none, as a service manager
        has bound it.
    @ivar sockets: one, or one for each worker.
    """

    name: str
    address: str
    sockets: tuple[socket.socket, ...]


class InheritedSockets:
    """
    What this process has inherited, and nobody has taken yet.

    @ivar keeps: whether this process is to be able to bequeath its own sockets,
        so that they must be such that can be given away.
    @ivar files: of Unix sockets that a service manager has bound, and whose files are its own.
    @ivar claims: the routes that agents of the process before this one have brought, as JSON has
        them, until this one has made them its own.
    """

    def __init__(self) -> None:
        self.keeps = False
        self.claims: list[dict[str, Any]] = []
        self.files: set[str] = set()
        self._bequests: list[ListenerSockets] = []

    def add(self, bequests: Iterable[ListenerSockets]) -> None:
        """Keep sockets until somebody takes them."""
        self._bequests += bequests

    def take(self, config: ListenerConfig) -> list[socket.socket]:
        """
        Take the sockets of a listener: of the one that has its name and its address, or else of the
        one that has its address.

        @return: empty if there are none.
        """
        for suits in (_of_name, _of_address):
            for bequest in self._bequests:
                if suits(bequest, config):
                    self._bequests.remove(bequest)
                    first = bequest.sockets[0]
                    if first.family == socket.AF_UNIX and not bequest.address:
                        self.files.add(first.getsockname())
                    return list(bequest.sockets)
        return []

    def pass_on(self, address: str) -> str:
        """Give the address of a bequest: that of the configuration, if it is us who have bound it."""
        return "" if address.removeprefix("unix:") in self.files else address

    def close(self, keep: str = "") -> list[str]:
        """
        Close what nobody has taken.

        @param keep: how names of listeners begin that somebody may want later; empty for none.
        @return: the names of the listeners whose sockets are closed.
        """
        kept = [each for each in self._bequests if keep and each.name.startswith(keep)]
        left, self._bequests = [each for each in self._bequests if each not in kept], kept
        for bequest in left:
            for each in bequest.sockets:
                each.close()
        return [bequest.name for bequest in left]


AGENTS_PORT: Final = "agents' port"
"""How the names of listeners begin that agents bring."""


def name_of_port(port: int) -> str:
    """Name the listener of a port that an agent has brought."""
    return f"{AGENTS_PORT} {port}"


INHERITED: Final = InheritedSockets()
"""What this process has inherited."""


def _of_name(bequest: ListenerSockets, config: ListenerConfig) -> bool:
    # What has a name and no address comes from somebody who knows only our names.
    return bequest.name == config.name and bequest.address in ("", config.address)


def _of_address(bequest: ListenerSockets, config: ListenerConfig) -> bool:
    first = bequest.sockets[0]
    name = first.getsockname()
    if first.family == socket.AF_UNIX:
        return is_unix(config.address) and name == config.address.removeprefix("unix:")
    if config.network == "unix" or is_unix(config.address):
        return False
    host, number = split_host_port(config.address)
    if not number or name[1] != number:
        return False
    if not host:
        return name[0] in ("::", "0.0.0.0")  # noqa: S104 - as a comparison
    with suppress(ValueError):
        return ip_address(host.strip("[]")) == ip_address(name[0])
    with suppress(OSError):
        return any(found[4][0] == name[0] for found in socket.getaddrinfo(host, number))
    return False
