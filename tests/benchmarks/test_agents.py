from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.agents import response, whole_requests


class AgentsTests(SynchronousTestCase):
    """What light agents say."""

    def test_requestsAreCounted(self) -> None:
        request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
        self.assertEqual(whole_requests(request * 2 + request[:-1]), (2, request[:-1]))
        self.assertEqual(whole_requests(b""), (0, b""))

    def test_responseIsWhole(self) -> None:
        head, _, body = response(1024).partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: 1024", head)
        self.assertEqual(len(body), 1024)
