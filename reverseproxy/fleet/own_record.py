"""This server's own record, and which process is the server, if several claim to be."""

from __future__ import annotations

__all__ = ["OwnRecord"]

from collections.abc import Callable
from dataclasses import replace
from secrets import token_hex

from twisted.logger import Logger

from reverseproxy.fleet.keys import server_path
from reverseproxy.fleet.record_fields import BadRecord
from reverseproxy.fleet.records import ServerRecord

log = Logger()


class OwnRecord:
    """
    The record of this server, as this process publishes it and as the store has it.

    @ivar path: its key without the fleet's prefix.
    @ivar draining: whether this server is about to leave.
    """

    def __init__(self, server_id: str, who: Callable[[], ServerRecord]) -> None:
        """
        @param who: returns the record without what the directory adds.
        """
        self.path = server_path(server_id)
        self.draining = False
        self._server_id = server_id
        self._who = who
        self._process = token_hex(8)
        self._incarnation = ""

    def make(self, leases: int) -> ServerRecord:
        """
        Return the record to be published.

        @param leases: how many leases this process has had.
        """
        return replace(
            self._who(),
            incarnation=f"{self._process}.{leases}",
            process=self._process,
            draining=self.draining,
        )

    def decode(self, value: bytes) -> ServerRecord | None:
        """Decode a record of this server, which any process may have written; L{None} if it is bad."""
        try:
            return ServerRecord.decode(self._server_id, value)
        except BadRecord:
            return None

    def is_foreign(self, found: ServerRecord) -> bool:
        """Return whether another process has written a record of this server."""
        return found.process != self._process

    def is_published_anew(self, found: ServerRecord) -> bool:
        """Return whether the process that publishes has got another lease since the last call."""
        before, self._incarnation = self._incarnation, found.incarnation
        return bool(before) and before != found.incarnation

    def log_replaced(self, found: ServerRecord) -> None:
        """Log that another process is this server now, or claims to be by mistake."""
        if found.address == self._who().address:
            log.info("fleet: another process is server {server} now", server=self._server_id)
        else:
            log.error(
                "fleet: the process at {address} calls itself {server}, too: while it does, this one "
                "publishes nothing; give each server an id of its own",
                address=found.address,
                server=self._server_id,
            )
