"""
Take over another process at the same addresses, without losing a connection.

Both processes are started with the same path of a Unix socket, on which the old one
listens.  The new one connects, and gets the listening sockets themselves (SCM_RIGHTS), not
only their addresses: connections in the kernel's accept queue are accepted by either
process, and none is reset as it would be if a socket were closed.  When the new process
serves, it says so; then the old one stops accepting, notifies its agents, drains and ends,
while the new one listens at the path for its own successor.

The protocol: four bytes with the length of a JSON list of C{[name, address, number of
sockets]}, the list, and the sockets in the order of the list, as ancillary data of the list's
bytes and of blanks behind it, at most L{_AT_ONCE} with one message.  If agents have brought
routes, C{{"sockets": the list, "claims": [...]}} replaces the list; and C{{"problem": text}}, if
the request is refused.  The new process answers C{serving} and a newline; anything else, or
the end of the connection, means that it could not be started.

Only root and the user of the old process may connect.
"""

from __future__ import annotations

__all__ = ["TakeoverClient", "TakeoverFailed", "TakeoverServer", "take_over"]

import array
import errno
import json
import os
import socket
import struct
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from twisted.internet.interfaces import ILoggingContext, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.errors import ReverseProxyError
from reverseproxy.process.inherited_sockets import ListenerSockets
from reverseproxy.process.takeover_socket import is_other_file, listen_at, try_to_bind

log = Logger()

TIMEOUT: Final = 10.0
"""Seconds that the old process has to send its sockets."""

MOST_SOCKETS: Final = 4096
"""The most sockets that are accepted."""

MAX_LIST: Final = 1 << 20
"""Bytes of the list at the most."""

MAX_CLAIMS: Final = 64 * 1024
"""Bytes for routes that agents have brought, as all has to fit into the socket's buffer."""

OTHER: Final = "another process is about to take its place; wait for that"
"""The refusal of a second process."""

_AT_ONCE: Final = 200
_SERVING: Final = b"serving\n"
_LENGTH: Final = struct.Struct(">L")
_CREDENTIALS: Final = struct.Struct("3i")


class TakeoverFailed(ReverseProxyError):
    """The sockets of another process could not be taken."""


# the new process


class TakeoverClient:
    """
    The new process's connection to the old one.

    @ivar bequests: the sockets of the old process.
    @ivar claims: the routes that agents have brought to the old process, as JSON.
    """

    def __init__(
        self, connection: socket.socket, bequests: Sequence[ListenerSockets], claims: Sequence[dict[str, Any]]
    ) -> None:
        self.bequests = bequests
        self.claims = claims
        self._connection = connection

    def serves(self) -> None:
        """Tell the old process that the new one serves."""
        with self._connection, suppress(OSError):
            self._connection.sendall(_SERVING)


def take_over(path: str) -> TakeoverClient | None:
    """
    Take the sockets of the process that listens at a path.

    @return: L{None} if there is no such process.
    @raise TakeoverFailed: if there is one, and it does not give them; or if this process could not listen at
        the path later, so that no other one could take over from it.
    """
    if is_other_file(path):
        raise TakeoverFailed(f"what is at {path} is no socket; choose another path")
    try:
        try_to_bind(path)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise TakeoverFailed(f"no socket can be made at {path}: {reason}") from error
    with ExitStack() as closing:
        connection = closing.enter_context(socket.socket(socket.AF_UNIX))
        connection.settimeout(TIMEOUT)
        try:
            connection.connect(path)
            bequests, claims = _receive(connection)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except (OSError, TypeError, ValueError) as error:
            raise TakeoverFailed(f"the process at {path} gives no sockets: {error}") from error
        closing.pop_all()
        return TakeoverClient(connection, bequests, claims)


def _receive(connection: socket.socket) -> tuple[list[ListenerSockets], list[dict[str, Any]]]:
    received, descriptors = bytearray(), array.array("i")
    try:
        wanted = _LENGTH.size
        while len(received) < wanted or len(descriptors) < _announced(received):
            data, ancillary, _, _ = connection.recvmsg(
                65536, socket.CMSG_SPACE(_AT_ONCE * descriptors.itemsize)
            )
            for content in filter(None, map(_rights, ancillary)):
                descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "it ended before it had given all of them")
            received += data
            if len(received) >= _LENGTH.size:
                (size,) = _LENGTH.unpack_from(received)
                if size > MAX_LIST:
                    raise ValueError(f"its list has {size} bytes")
                wanted = _LENGTH.size + size
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
    except BaseException:
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    bequests = []
    for name, address, count in _listed(received):
        mine, sockets = sockets[:count], sockets[count:]
        for each in mine:
            each.setblocking(False)
        bequests.append(ListenerSockets(name, address, tuple(mine)))
    said = _said(received)
    claims = said.get("claims", []) if isinstance(said, dict) else []
    return [bequest for bequest in bequests if bequest.sockets], claims


def _rights(ancillary: tuple[int, int, bytes]) -> bytes:
    """Return the descriptors in a piece of ancillary data; empty for other kinds."""
    level, kind, content = ancillary
    return content if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) else b""


def _said(received: bytearray) -> Any:
    (size,) = _LENGTH.unpack_from(received)
    return json.loads(received[_LENGTH.size : _LENGTH.size + size])


def _listed(received: bytearray) -> list[tuple[str, str, int]]:
    listed = _said(received)
    if isinstance(listed, dict):
        if "problem" in listed:
            raise ValueError(str(listed["problem"]))
        listed = listed["sockets"]
    return [(str(n), str(a), int(c)) for n, a, c in listed]


def _announced(received: bytearray) -> int:
    """Return the number of sockets in the list."""
    total = sum(count for *_, count in _listed(received))
    if total > MOST_SOCKETS:
        raise ValueError(f"it has {total} sockets")
    return total


# the old process


@implementer(IReadDescriptor, ILoggingContext)
class _Watched:
    """Calls a function when a socket is readable."""

    def __init__(
        self, watched: socket.socket, reactor: Any, readable: Callable[[socket.socket], object]
    ) -> None:
        self.socket = watched
        self._reactor = reactor
        self._readable = readable
        reactor.addReader(self)

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return self.socket.fileno()

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return "takeover"

    def doRead(self) -> None:  # noqa: N802 - Twisted's name
        """See L{IReadDescriptor}."""
        self._readable(self.socket)

    def connectionLost(self, reason: Failure) -> None:
        """See L{IReadDescriptor}."""
        self.close()

    def close(self) -> None:
        """Stop, and close the socket."""
        self._reactor.removeReader(self)
        self.socket.close()


class TakeoverServer:
    """
    The old process's side: gives its sockets to a new process.

    @ivar path: the Unix socket on which it listens.
    """

    def __init__(
        self,
        path: str,
        reactor: Any,
        bequeath: Callable[[], Iterable[ListenerSockets]],
        succeeded: Callable[[], object],
        claims: Callable[[], Iterable[dict[str, Any]]] = list,
    ) -> None:
        """
        @param bequeath: returns duplicates of the listening sockets, which are closed after sending.
        @param succeeded: called once another process serves.
        @param claims: returns the routes that agents have brought, as JSON.
        """
        self._claims = claims
        self.path = path
        self._reactor = reactor
        self._bequeath = bequeath
        self._succeeded = succeeded
        self._listening: _Watched | None = None
        self._heirs: set[_Watched] = set()
        self._over = False

    def start(self) -> None:
        """
        Listen at the path, in place of any process before.

        @raise OSError: if that fails.
        """
        self._listening = _Watched(listen_at(self.path), self._reactor, self._accept)

    @property
    def open(self) -> bool:
        """Whether another process may take over, and none is doing so."""
        return self._listening is not None and not self._heirs

    def stop(self) -> None:
        """Stop listening; the path stays if another process has it now."""
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.close()
            if not self._over:
                with suppress(OSError):
                    os.unlink(self.path)
        for heir in list(self._heirs):
            heir.close()
        self._heirs.clear()

    def _accept(self, listening: socket.socket) -> None:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        connection.setblocking(False)
        pid, uid, _ = _CREDENTIALS.unpack(
            connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        if uid not in (0, os.geteuid()):
            log.warn("a process of user {uid} wants our sockets, and gets none", uid=uid)
            connection.close()
            return
        if self._heirs:
            # Both would serve, but only one of them could be taken over later.
            log.warn("process {pid} wants our sockets, but another one is about to take our place", pid=pid)
            with connection, suppress(OSError):
                connection.send(_encode({"problem": OTHER}))
            return
        try:
            _give(connection, list(self._bequeath()), _fitting(self._claims()))
        except OSError as error:
            log.error("process {pid} could not be given our sockets: {reason}", pid=pid, reason=str(error))
            connection.close()
            return
        log.info("process {pid} is given our sockets, to take our place", pid=pid)
        heir = _Watched(connection, self._reactor, lambda _: self._hear(heir, pid))
        self._heirs.add(heir)

    def _hear(self, heir: _Watched, pid: int) -> None:
        try:
            said = heir.socket.recv(64)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        heir.close()
        self._heirs.discard(heir)
        if said != _SERVING:
            log.error("process {pid} has not taken our place: it ended before, and this one goes on", pid=pid)
        elif not self._over:
            self._over = True
            log.info("process {pid} serves in our place, so this one drains and ends", pid=pid)
            self._succeeded()


def _encode(listed: object) -> bytes:
    encoded = json.dumps(listed).encode()
    return _LENGTH.pack(len(encoded)) + encoded


def _fitting(claims: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return as many claims as fit into the message."""
    fitting, size = [], 0
    for claim in claims:
        size += len(json.dumps(claim))
        if size > MAX_CLAIMS:
            log.warn(
                "not all routes that agents have brought can be handed over: agents bring the rest again"
            )
            break
        fitting.append(claim)
    return fitting


def _give(
    connection: socket.socket, bequests: Sequence[ListenerSockets], claims: Sequence[dict[str, Any]]
) -> None:
    """
    Send sockets without waiting.

    @raise OSError: if they don't fit into the connection's buffer.
    """
    with ExitStack() as closing:
        sockets = [closing.enter_context(each) for bequest in bequests for each in bequest.sockets]
        listed = [[each.name, each.address, len(each.sockets)] for each in bequests]
        message = _encode({"sockets": listed, "claims": claims} if claims else listed)
        # The first ones go beside the list, the others beside blanks behind it.
        parts = [sockets[begin : begin + _AT_ONCE] for begin in range(0, len(sockets), _AT_ONCE)] or [[]]
        for index, part in enumerate(parts):
            rights = array.array("i", [each.fileno() for each in part])
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if part else []
            data = message if index == 0 else b" "
            if connection.sendmsg([data], ancillary) < len(data):
                raise BlockingIOError(errno.EAGAIN, "it does not take all of the list")
