"""
Listeners: connections come from a port or from an agent; a filter builds their protocols.

A listener with C{bind_port} false binds no address, and serves the connections that
an agent hands in.
"""

from __future__ import annotations

__all__ = [
    "BACKLOG",
    "END_TIME",
    "NO_IPV6",
    "PARTING",
    "BoundPort",
    "BuildProtocol",
    "Listen",
    "Listener",
    "ListenerFailed",
    "bind_all",
    "not_bound",
    "remove_stale_socket",
]

from reverseproxy.listener.binding import bind_all
from reverseproxy.listener.connections import END_TIME
from reverseproxy.listener.listener import PARTING, BoundPort, BuildProtocol, Listen, Listener
from reverseproxy.listener.sockets import BACKLOG, NO_IPV6, ListenerFailed, not_bound, remove_stale_socket
