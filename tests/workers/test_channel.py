"""Channels between workers, over real sockets."""

from __future__ import annotations

import errno
import os
import resource
import socket
from array import array
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import WireError
from reverseproxy.workers import channel as module
from reverseproxy.workers.channel import MAX_PACKET, Channel, decode, encode, fits
from reverseproxy.workers.sibling_sockets import KIND


class Call:
    """What is to be done later, unless it is cancelled."""

    def __init__(self, call: Any, arguments: Any) -> None:
        self.cancelled = False
        self._call = call
        self._arguments = arguments

    def __call__(self) -> None:
        if not self.cancelled:
            self._call(*self._arguments)

    def cancel(self) -> None:
        self.cancelled = True


class Short:
    """A socket for which the kernel is short of something, as often as is said."""

    def __init__(self, connection: socket.socket, error: int, times: int) -> None:
        self.times = times
        self._connection = connection
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def sendmsg(self, *arguments: Any) -> int:
        if self.times:
            self.times -= 1
            raise OSError(self._error, os.strerror(self._error))
        return self._connection.sendmsg(*arguments)


class Selector:
    """As much of a reactor as a channel needs; it watches nothing by itself."""

    def __init__(self) -> None:
        self.readers: set[Any] = set()
        self.writers: set[Any] = set()
        self.calls: list[Any] = []

    def addReader(self, reader: Any) -> None:
        self.readers.add(reader)

    def removeReader(self, reader: Any) -> None:
        self.readers.discard(reader)

    def addWriter(self, writer: Any) -> None:
        self.writers.add(writer)

    def removeWriter(self, writer: Any) -> None:
        self.writers.discard(writer)

    def callLater(self, delay: float, call: Any, *arguments: Any) -> Call:
        self.calls.append(Call(call, arguments))
        return self.calls[-1]  # type: ignore[no-any-return]

    def turn(self) -> None:
        calls, self.calls = self.calls, []
        for call in calls:
            call()
        for each in list(self.readers):
            each.doRead()
        for each in list(self.writers):
            each.doWrite()


class End:
    """A channel, and what it was told."""

    def __init__(self, selector: Selector, connection: socket.socket) -> None:
        self.messages: list[Any] = []
        self.handles: list[socket.socket] = []
        self.lost: list[str] = []
        self.channel = Channel(connection, self._received, self.lost.append, selector)
        self.channel.start()

    def _received(self, message: Any, handle: socket.socket | None) -> None:
        self.messages.append(message)
        if handle is not None:
            self.handles.append(handle)


class ChannelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.selector = Selector()
        sockets = socket.socketpair(socket.AF_UNIX, KIND)
        self.raw = sockets
        self.one, self.other = (End(self.selector, each) for each in sockets)
        self.addCleanup(self.one.channel.close)
        self.addCleanup(self.other.channel.close)

    def turn(self, times: int = 3) -> None:
        for _ in range(times):
            self.selector.turn()

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """A connection to give away: the agent's end, and ours."""
        near, far = socket.socketpair()
        near.settimeout(5)
        self.addCleanup(near.close)
        return near, far

    def test_messages_both_ways_in_their_order(self) -> None:
        for number in range(10):
            self.one.channel.send({"number": number})
        self.other.channel.send({"text": "\u00e4\n"})
        self.turn()
        self.assertEqual(self.other.messages, [{"number": number} for number in range(10)])
        self.assertEqual(self.one.messages, [{"text": "\u00e4\n"}])

    def test_a_socket_goes_along(self) -> None:
        near, far = self.pair()
        near.sendall(b"unread")
        self.one.channel.send({"before": 1})
        self.one.channel.send({"give": 1}, far)
        self.one.channel.send({"behind": 1})
        self.assertEqual(far.fileno(), -1)
        self.turn()
        self.assertEqual(self.other.messages, [{"before": 1}, {"give": 1}, {"behind": 1}])
        [arrived] = self.other.handles
        self.addCleanup(arrived.close)
        self.assertFalse(os.get_inheritable(arrived.fileno()))
        self.assertEqual(arrived.recv(100), b"unread")
        arrived.sendall(b"answer")
        self.assertEqual(near.recv(100), b"answer")

    def test_what_the_other_end_does_not_read_waits(self) -> None:
        self.selector.removeReader(self.other.channel)
        near, far = self.pair()
        for number in range(1000):
            self.one.channel.send({"number": number, "text": "x" * 1000}, far if number == 999 else None)
        self.assertEqual(self.selector.writers, {self.one.channel})
        self.other.channel.start()
        self.turn(1000)
        self.assertEqual([message["number"] for message in self.other.messages], list(range(1000)))
        self.assertEqual((self.selector.writers, len(self.other.handles)), (set(), 1))
        self.other.handles[0].close()
        self.assertEqual(near.recv(1), b"")

    def test_one_that_reads_nothing_is_given_up(self) -> None:
        self.patch(module, "MAX_QUEUED", 5)
        self.selector.removeReader(self.other.channel)
        near, far = self.pair()
        self.one.channel.send({"first": "x" * 100_000})
        self.one.channel.send({"second": "x" * 100_000})
        self.one.channel.send({"give": "x" * 100_000}, far)
        for _ in range(10):
            self.one.channel.send({"text": "x" * 100_000})
        self.assertEqual(self.one.lost, ["it does not read what it is told"])
        self.other.channel.close()  # which may have it in its queue
        self.assertEqual(near.recv(1), b"")  # its agent connects again

    def test_what_is_short_for_a_moment(self) -> None:
        """As when too many descriptors are on their way, which nobody has read yet."""
        for error in (errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM):
            short = Short(self.raw[0], error, 2)
            self.one.channel._socket = short  # type: ignore[assignment]
            near, far = self.pair()
            self.one.channel.send({"give": error}, far)
            self.one.channel.send({"behind": error})
            self.assertEqual(
                (self.selector.writers, len(self.selector.calls)), (set(), 1)
            )  # it does not spin
            self.turn()
            self.assertEqual(self.other.messages[-2:], [{"give": error}, {"behind": error}])
            self.assertEqual((short.times, self.one.lost, far.fileno()), (0, [], -1))
            self.other.handles.pop().close()
            self.assertEqual(near.recv(1), b"")

    def test_the_end_while_something_is_short(self) -> None:
        self.one.channel._socket = Short(self.raw[0], errno.ENOBUFS, 10)  # type: ignore[assignment]
        near, far = self.pair()
        self.one.channel.send({"give": 1}, far)
        self.one.channel.close()
        self.turn()
        self.assertEqual((near.recv(1), self.selector.calls), (b"", []))

    def test_what_the_kernel_does_not_carry_ends_it(self) -> None:
        self.one.channel._socket = Short(self.raw[0], errno.EMSGSIZE, 1)  # type: ignore[assignment]
        near, far = self.pair()
        self.one.channel.send({"give": 1}, far)
        self.assertEqual(near.recv(1), b"")
        self.turn()
        self.assertEqual(len(self.one.lost), 1)
        self.assertIn(os.strerror(errno.EMSGSIZE), self.one.lost[0])

    def test_no_descriptor_is_left(self) -> None:
        """What was sent comes without it, and everything behind it comes, too."""
        near, far = self.pair()
        self.one.channel.send({"give": 1}, far)
        self.one.channel.send({"behind": 1})
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            self.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        self.assertEqual(self.other.messages, [{"give": 1}, {"behind": 1}])
        self.assertEqual((self.other.handles, self.other.lost), ([], []))
        self.assertEqual(near.recv(1), b"")

    def test_the_end(self) -> None:
        self.one.channel.close()
        self.turn()
        self.assertEqual((self.one.lost, self.other.lost), ([], ["it has ended"]))
        near, far = self.pair()
        self.other.channel.send({"give": 1}, far)
        self.assertEqual(near.recv(1), b"")

    def test_an_end_that_only_sending_shows(self) -> None:
        self.selector.removeReader(self.other.channel)
        self.one.channel.close()
        self.other.channel.send({"number": 1})
        self.assertEqual(self.other.lost, [])  # not while whoever sends is busy
        self.turn()
        self.assertEqual(len(self.other.lost), 1)

    def test_a_connection_that_was_on_its_way_ends_with_the_channel(self) -> None:
        """As when a worker is killed that has not read what it was given."""
        near, far = self.pair()
        self.one.channel.send({"give": 1}, far)
        self.other.channel.close()
        self.assertEqual(near.recv(1), b"")

    def test_too_large(self) -> None:
        near, far = self.pair()
        self.assertRaises(WireError, self.one.channel.send, {"text": "x" * MAX_PACKET}, far)
        self.assertEqual(near.recv(1), b"")
        largest = {"text": "x" * (MAX_PACKET - 11)}
        self.assertEqual(len(encode(largest)), MAX_PACKET)
        self.one.channel.send(largest)
        self.turn()
        self.assertEqual(self.other.messages, [largest])

    def test_texts_of_any_script(self) -> None:
        message = {"text": "\N{EURO SIGN}" * (MAX_PACKET // 3 - 20), "half": "\ud83d", "zero": "\0"}
        self.assertTrue(fits(message))
        self.one.channel.send(message)
        self.turn()
        self.assertEqual(self.other.messages, [message])
        self.assertFalse(fits({"text": "\N{EURO SIGN}" * (MAX_PACKET // 3)}))

    def test_nonsense_ends_it(self) -> None:
        for packet in (b"{", b"[]", b"{}", b"x" * (MAX_PACKET + 100), b"[" * 100_000):
            with self.subTest(packet=packet[:10]):
                raw, connection = socket.socketpair(socket.AF_UNIX, KIND)
                end = End(self.selector, connection)
                raw.send(packet)
                self.turn()
                self.assertEqual((end.messages, len(end.lost)), ([], 1))
                raw.close()

    def test_descriptors_that_nobody_asked_for_are_closed(self) -> None:
        raw, connection = socket.socketpair(socket.AF_UNIX, KIND)
        self.addCleanup(raw.close)
        end = End(self.selector, connection)
        near, far = self.pair()
        rights = array("i", [far.fileno()])
        raw.sendmsg([b"nonsense"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        far.close()
        self.turn()
        self.assertEqual(len(end.lost), 1)
        self.assertEqual(near.recv(1), b"")

    def test_decode(self) -> None:
        self.assertEqual(decode(encode({"a": [1, None]})), {"a": [1, None]})
        for packet in (b"", b"\xff", b"null", b'"a"', b"{}"):
            self.assertRaises(WireError, decode, packet)
