"""Listening sockets that belong to the supervisor, so that they outlive workers."""

from __future__ import annotations

__all__ = ["BoundSockets"]

import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from reverseproxy.config.models import ListenerConfig
from reverseproxy.listener import bind_all
from reverseproxy.listener.binding import say_bound
from reverseproxy.listener.sockets import address_of, is_open, open_sockets
from reverseproxy.net.formatting import format_address
from reverseproxy.process.inherited_sockets import INHERITED, ListenerSockets

log = Logger("reverseproxy.workers.supervisor")


class BoundSockets:
    """
    The sockets of listeners.

    @ivar by_listener: sockets by the listener's name: one for each worker, or one for all.
    @ivar leave_files: whether to keep the files of Unix sockets, as another process uses them.
    """

    def __init__(self, workers: int) -> None:
        self.by_listener: dict[str, list[socket.socket]] = {}
        self.leave_files = False
        self._workers = workers

    def bind(self, listeners: Iterable[ListenerConfig], admin: Any, file: str) -> None:
        """
        Bind the addresses of listeners, and that of the admin API.

        @param admin: its service; L{None} if there is none.
        @param file: what to call the configuration in messages.
        @raise ConfigError: naming each address that can't be bound.
        """
        bind_all(listeners, self._bind, admin, file)

    def _bind(self, config: ListenerConfig) -> None:
        if config.bind_port:
            self.by_listener[config.name] = self.open(config)

    def open(self, config: ListenerConfig) -> list[socket.socket]:
        """
        Bind the address of a listener, without adding it to L{by_listener}.

        @raise ListenerFailed: if it can't be bound.
        """
        sockets = open_sockets(config, self._workers)
        first = sockets[0]
        address = format_address(address_of(first.family, first.getsockname()))
        say_bound(log.info, config, address, bool(config.filter_chain.tls_contexts), not is_open(first))
        return sockets

    def change(
        self,
        listeners: Iterable[ListenerConfig],
        moved: Mapping[str, str],
        opened: Mapping[str, list[socket.socket]],
    ) -> dict[str, list[socket.socket]]:
        """
        Assign sockets to the listeners of another configuration.

        @param moved: names of listeners that take the sockets of another one, and its name.
        @param opened: new sockets, by listener.
        @return: sockets that no listener uses any more; pass them to L{drop}.
        """
        old, self.by_listener = self.by_listener, {}
        for config in listeners:
            sockets = opened.get(config.name) or old.get(moved.get(config.name, config.name))
            if config.bind_port and sockets is not None:
                self.by_listener[config.name] = list(sockets)
        kept = {id(each) for sockets in self.by_listener.values() for each in sockets}
        return {name: sockets for name, sockets in old.items() if id(sockets[0]) not in kept}

    def bequeath(self, listeners: Iterable[ListenerConfig]) -> list[ListenerSockets]:
        """Return duplicates of the sockets for the process that takes over from this one."""
        addresses = {config.name: INHERITED.pass_on(config.address) for config in listeners}
        return [
            ListenerSockets(name, addresses.get(name, ""), tuple(each.dup() for each in sockets))
            for name, sockets in self.by_listener.items()
        ]

    def close(self) -> None:
        """Close all sockets."""
        dropped, self.by_listener = self.by_listener, {}
        self.drop(dropped)

    def drop(self, dropped: Mapping[str, list[socket.socket]]) -> None:
        """Close sockets of listeners."""
        for name, sockets in dropped.items():
            file = sockets[0].getsockname() if sockets[0].family == socket.AF_UNIX else ""
            if file and not self.leave_files and file not in INHERITED.files:
                with suppress(OSError):
                    os.unlink(file)
            for each in sockets:
                each.close()
            log.info("listener {listener} no longer listening", listener=name)
