"""Ports that several workers share; see L{reverseproxy.ports}."""

from __future__ import annotations

__all__ = ["Acceptor", "SharedPort", "open_sockets"]

from reverseproxy.ports import Acceptor, SharedPort, open_sockets
