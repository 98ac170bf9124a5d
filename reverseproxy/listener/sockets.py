"""Bind the addresses of listeners, and explain why that failed."""

from __future__ import annotations

__all__ = [
    "BACKLOG",
    "NO_IPV6",
    "ListenerFailed",
    "address_of",
    "is_open",
    "not_bound",
    "open_socket",
    "open_sockets",
    "remove_stale_socket",
]

import errno
import os
import socket
import stat
import sys
from contextlib import ExitStack, suppress
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress

from reverseproxy.addresses import is_unix, split_host_port
from reverseproxy.config.models import ListenerConfig
from reverseproxy.errors import ReverseProxyError
from reverseproxy.process.inherited_sockets import INHERITED

BACKLOG = 1024
"""The length of the kernel's accept queue."""

NO_IPV6 = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT, errno.ENOPROTOOPT})
"""Errors of a system without IPv6."""

SHARES_OUT: Final = sys.platform == "linux"
"""Whether the kernel distributes connections over several sockets of one port."""


class ListenerFailed(ReverseProxyError):
    """A listener could not bind its address."""


def open_sockets(config: ListenerConfig, workers: int, mode: int = 0o666) -> list[socket.socket]:
    """
    Bind a listener's address.

    @param mode: the permissions of a Unix socket.
    @return: a listening socket for each worker, or one for all, or all inherited ones.  With
        C{open_when_ready} they are bound only; see L{open_socket}.
    @raise ListenerFailed: if it can't be bound.
    """
    address = config.address
    inherited = INHERITED.take(config)
    if inherited:
        return inherited
    try:
        if config.network == "unix" or is_unix(address):
            sockets = [_open_unix(address.removeprefix("unix:"), mode)]
        else:
            sockets = _open_tcp(config, workers if SHARES_OUT else 1)
        for each in sockets:
            if not config.open_when_ready:
                each.listen(BACKLOG)
            else:
                # Otherwise another process could bind the port before it listens.
                each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        return sockets
    except OSError as error:
        raise not_bound(config, error) from error


def _open_unix(path: str, mode: int) -> socket.socket:
    remove_stale_socket(path)
    with ExitStack() as opening:
        opened = opening.enter_context(socket.socket(socket.AF_UNIX))
        opened.setblocking(False)
        opened.bind(path)
        os.chmod(path, mode)
        opening.pop_all()
    return opened


def _open_tcp(config: ListenerConfig, count: int) -> list[socket.socket]:
    host, number = split_host_port(config.address)
    if host:
        found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name with addresses of both kinds means IPv4, as with Twisted.
        family, _, _, _, name = min(found, key=lambda each: each[0] != socket.AF_INET)
        return _open_family(config, count, family, name)
    try:
        # As in Go: all addresses, of IPv6 and of IPv4.
        return _open_family(config, count, socket.AF_INET6, ("::", number), both=True)
    except OSError as error:
        if error.errno not in NO_IPV6:
            raise
    return _open_family(config, count, socket.AF_INET, ("0.0.0.0", number))  # noqa: S104


def _open_family(
    config: ListenerConfig, count: int, family: int, name: Any, both: bool = False
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    with ExitStack() as opening:
        for index in range(count):
            opened = opening.enter_context(socket.socket(family, socket.SOCK_STREAM))
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if both:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            # The first socket does not share the port with another process, unless configured.
            if index or config.reuseport:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened.bind(name)
            if count > 1:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            name = opened.getsockname()  # with the number that the kernel has picked
            sockets.append(opened)
        opening.pop_all()
    return sockets


def is_open(bound: socket.socket) -> bool:
    """Whether a socket listens."""
    return bool(bound.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def open_socket(bound: socket.socket) -> None:
    """
    Listen on a bound socket, unless another process that shares it has done so.

    @raise OSError: if that fails.
    """
    if not is_open(bound):
        # Connections inherit the option, and must not block the port at the next start.
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.listen(BACKLOG)


def address_of(family: int, name: Any) -> IAddress:
    """Convert an address of the C{socket} module to one of Twisted."""
    if family == socket.AF_UNIX:
        return UNIXAddress(os.fsencode(name))
    kind = IPv6Address if family == socket.AF_INET6 else IPv4Address
    return kind("TCP", name[0], name[1])


def remove_stale_socket(path: str) -> None:
    """
    Remove the socket file of a process that was killed.

    @raise OSError: if another process listens there, or the file is not a socket.
    """
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "there is a file of this name, and it is no socket")
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(path)
    except ConnectionRefusedError:
        with suppress(FileNotFoundError):
            os.unlink(path)
        return
    except FileNotFoundError:
        return
    except BlockingIOError:
        pass  # its accept queue is full
    raise OSError(errno.EADDRINUSE, "another process listens there")


def not_bound(config: ListenerConfig, error: CannotListenError | OSError) -> ListenerFailed:
    """Return an error that says why a listener can't bind its address, with a remedy."""
    reason = error.socketError if isinstance(error, CannotListenError) else error
    return ListenerFailed(f"listener {config.name} can't listen on {config.address}: {_explain(reason)}")


_ADVICE = {
    errno.EADDRINUSE: "stop the process that has it, or choose another address",
    errno.EACCES: "choose a port from 1024 on or a place that we may write to, or run with more privileges",
    errno.EPERM: "choose another address, or run with more privileges",
    errno.EADDRNOTAVAIL: "this machine does not have this IP address; 0.0.0.0 means all that it has",
    errno.EEXIST: "move it away, or choose another path",
    errno.ENOENT: "create the directory",
}


def _explain(error: Any) -> str:
    """Explain an error, with a remedy."""
    number = getattr(error, "errno", None)
    reason = str(getattr(error, "strerror", None) or error)
    return f"{reason}; {_ADVICE[number]}" if number in _ADVICE else reason
