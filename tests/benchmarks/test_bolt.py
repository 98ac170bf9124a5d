from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.bolt import EchoError, answers, frames
from reverseproxy.wire.rpc.bolt import encode_request

REQUESTS = b"".join(bytes(encode_request(number, {"service": "echo"}, b"x" * number)) for number in (1, 2, 3))


class AnswersTests(SynchronousTestCase):
    """L{answers} echoes whole requests and leaves the rest for later."""

    def test_echo(self) -> None:
        out, taken = answers(REQUESTS)
        self.assertEqual(taken, len(REQUESTS))
        self.assertEqual(
            [(kind, number, status, end - begin) for kind, number, status, begin, end in frames(out)],
            [(0, 1, 0, 1), (0, 2, 0, 2), (0, 3, 0, 3)],
        )

    def test_everySplit(self) -> None:
        whole, _ = answers(REQUESTS)
        for split in range(len(REQUESTS)):
            first, taken = answers(REQUESTS[:split])
            second, _ = answers(REQUESTS[taken:])
            self.assertEqual(first + second, whole)

    def test_somethingElse(self) -> None:
        with self.assertRaises(EchoError):
            answers(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
