"""
The channel between the supervisor and one worker.

It is a pair of connected sockets, of which the worker inherits one.  What comes
first is the version of the supervisor, and the worker's L{Setup}, which thus shows up
neither in a list of processes nor on a disk.  Then there are messages, both ways:

    supervisor                          worker
    {"do": "watch", "slots": [0, 2]}    which sockets to accept from
    {"do": "drain"}                     finish what is under way, and end
    {"do": "cut"}                       wait for it no longer
    {"do": "finish"}                    all others have finished theirs, too
    {"do": "ping"}                      whether it is there
    {"do": "replace"}                   drain, alone: another one will take its place
    {"do": "reload"}                    look for new certificates
    {"do": "prepare", "turn": 3,        get ready for the configuration that has been handed over,
     "descriptors": 2}                  with so many descriptors
                                        {"is": "prepared", "turn": 3}, or with "problems"
    {"do": "commit", "turn": 3}         go on with it
                                        {"is": "committed", "turn": 3}
    {"do": "discard", "turn": 3}        forget it
    {"do": "reopen"}                    open log files anew
    {"do": "answer", "number": 7,       a question of the admin API
     "question": "metrics",
     "arguments": {}}
                                        {"is": "answer", "number": 7, "value": ...}, or with a "problem"
    {"do": "bring"}, {"do": "take_away"},
    {"do": "claimed"}                   routes that agents bring, see
                                        L{reverseproxy.workers.route_arbiter}
                                        {"is": "claim"}, {"is": "brought"}, {"is": "held"}
    {"do": "keep_out"}, {"do": "let_in"}
                                        whom operators keep out, see
                                        L{reverseproxy.workers.exclusions}
                                        {"is": "kept_out"}, {"is": "let_in"}
                                        {"is": "there"}
                                        {"is": "ready"}
                                        {"is": "draining"}   on its own, after a signal to it alone
                                        {"is": "drained"}    waits for "finish"

When the channel is lost, the supervisor is gone, and the worker drains.

A worker that is started after another version was installed has that version's code, and
the supervisor the code of its own.  Neither setups nor messages are kept compatible between
versions, so such a worker ends, and leaves the sockets to the other ones.
"""

from __future__ import annotations

__all__ = ["CONTROL_FD", "OTHER_VERSION", "Control", "Setup", "dump_setup", "receive_setup"]

import os
import pickle
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy import __version__
from reverseproxy.config.loader import Loaded
from reverseproxy.errors import VersionMismatch, WireError
from reverseproxy.workers.messages import ControlMessageReader, Message, encode, encode_answer

log = Logger()

CONTROL_FD: Final = 3
"""The number of the channel's descriptor in the worker."""

OTHER_VERSION: Final = os.EX_PROTOCOL
"""The status of a worker's process whose code is of another version than the supervisor's."""

_SIZE: Final = 8

_MAX_VERSION: Final = 64
"""Bytes of a version at the most; anything longer is none."""


@dataclass(frozen=True)
class Setup:
    """
    Everything that a worker needs to start.

    @ivar number: its number, from 0.
    @ivar workers: how many there are.
    @ivar loaded: the configuration as the supervisor has read it, so that all
        workers have the same one.
    @ivar file: the name of the configuration in messages.
    @ivar listening: the descriptors of the sockets of each listener, by its name.
    @ivar link: the descriptor of the socket on which siblings connect.
    @ivar directory: the directory of the siblings' sockets.
    @ivar watch: the numbers of the sockets to accept from at first.
    @ivar handover: the descriptor of the socket that carries configurations and sockets later; see
        L{reverseproxy.workers.handover}.
    @ivar settings: for L{run_worker<reverseproxy.services.worker.run_worker>}.
    """

    number: int
    workers: int
    loaded: Loaded
    file: str
    listening: Mapping[str, tuple[int, ...]]
    link: int
    directory: str
    watch: tuple[int, ...]
    settings: Mapping[str, Any]
    handover: int = -1


def dump_setup(setup: Setup) -> bytes:
    """Encode the version of this program, and a setup."""
    return _block(__version__.encode("ascii")) + _block(pickle.dumps(setup))


def _block(data: bytes) -> bytes:
    return len(data).to_bytes(_SIZE, "big") + data


def receive_setup(channel: socket.socket) -> Setup:
    """
    Read the setup, blocking; later data stays in the channel.

    @raise WireError: if the supervisor ends before.
    @raise VersionMismatch: if the supervisor runs another version.
    """
    channel.setblocking(True)
    size = _receive_size(channel)
    version = _receive(channel, min(size, _MAX_VERSION)).decode("ascii", "backslashreplace")
    if size > _MAX_VERSION:
        raise VersionMismatch(_remedy("is not the supervisor's, which does not say its own"))
    if version != __version__:
        raise VersionMismatch(_remedy(f"is not the supervisor's, {version}"))
    body = _receive(channel, _receive_size(channel))
    channel.setblocking(False)
    try:
        # From the process that has started us, over a channel that no other process has.
        setup = pickle.loads(body)  # noqa: S301
    except Exception as error:
        # Between two releases, code changes and the version does not.
        raise VersionMismatch(_remedy(f"can't read the supervisor's setup ({error!r})")) from error
    if not isinstance(setup, Setup):
        raise VersionMismatch(_remedy(f"can't read the supervisor's setup (a {type(setup).__name__})"))
    return setup


def _remedy(problem: str) -> str:
    return (
        f"the installed version, {__version__}, {problem}: "
        "let the installed one take over from the supervisor, or install the supervisor's again"
    )


def _receive_size(channel: socket.socket) -> int:
    return int.from_bytes(_receive(channel, _SIZE), "big")


def _receive(channel: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        data = channel.recv(size - len(received))
        if not data:
            raise WireError("the supervisor is gone")
        received += data
    return bytes(received)


class Control(Protocol):
    """One end of the channel."""

    transport: Any

    def __init__(self, received: Callable[[Message], object], lost: Callable[[], object]) -> None:
        """
        @param received: takes each message.
        @param lost: called when the channel is lost.
        """
        self._take = received
        self._gone = lost
        self._reader = ControlMessageReader()

    def send(self, message: Message) -> None:
        """Send a message, if the channel is open."""
        if self.connected:
            self.transport.write(encode(message))

    def send_answer(self, number: int, value: Iterable[bytes]) -> None:
        """
        Send an answer to a question of the admin API, if the channel is open; see L{encode_answer}.

        @raise WireError: if it is too long.
        """
        pieces = encode_answer(number, value)
        if self.connected:
            self.transport.writeSequence(pieces)

    def mute(self) -> None:
        """Ignore further messages, as the process has ended."""
        self._take = lambda message: None

    def dataReceived(self, data: bytes) -> None:
        """Receive messages."""
        self._reader.feed(data)
        try:
            while (message := self._reader.next()) is not None:
                self._take(message)
        except WireError as error:
            log.error("{reason}", reason=str(error))
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Report that the channel is lost."""
        super().connectionLost(reason)
        self._gone()
