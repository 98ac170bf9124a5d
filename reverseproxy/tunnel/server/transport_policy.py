"""Whether a connection's transport is what its listener demands now: TLS, and a valid certificate."""

from __future__ import annotations

__all__ = ["TransportPolicy"]

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tls import ServerTls, verify_again


class TransportPolicy:
    """
    What one listener demands of transports.

    @ivar tls: its TLS; L{None} for plaintext.
    """

    def __init__(self) -> None:
        self.tls: ServerTls | None = None
        self._takes_plaintext = False
        self._seen: tuple[ServerTls, int] | None = None

    def demand(self, tls: ServerTls | None, takes_plaintext: bool) -> None:
        """
        Set what the listener demands from now on.

        @param takes_plaintext: whether it accepts plaintext besides TLS.
        """
        self.tls = tls
        self._takes_plaintext = takes_plaintext

    def changed(self) -> bool:
        """Return whether anything has changed since the last call, files of certificates included."""
        tls = self.tls
        seen = None if tls is None else (tls, tls.version)
        changed, self._seen = seen != self._seen, seen
        return changed

    def objection(self, info: ConnectionInfo, transport: object) -> str:
        """Return why a connection may not stay as it is; empty if it may."""
        tls = self.tls
        if tls is None or tls.plaintext:
            return ""
        if info.secure:
            return verify_again(transport, tls)
        return "" if self._takes_plaintext else "it is not encrypted, and has to be now"
