from __future__ import annotations

from urllib.parse import unquote_to_bytes

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http.grpc import encode_message, error_fields, error_trailers, is_grpc, status_of_http


class IsGrpcTests(SynchronousTestCase):
    def test_table(self) -> None:
        for content_type, expected in (
            (b"application/grpc", True),
            (b"application/grpc+proto", True),
            (b"application/grpc; charset=utf-8", True),
            (b"application/grpc-web", False),
            (b"application/grpcs", False),
            (b"application/json", False),
            (b"", False),
        ):
            self.assertEqual(
                is_grpc([(b"te", b"trailers"), (b"content-type", content_type)]), expected, content_type
            )
        self.assertFalse(is_grpc([]))


class ErrorTests(SynchronousTestCase):
    def test_statuses(self) -> None:
        for status, expected in (
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (413, 8),
            (418, 2),
            (429, 14),
            (431, 8),
            (500, 14),
            (502, 14),
            (503, 14),
            (504, 4),
        ):
            self.assertEqual(status_of_http(status), expected, status)

    def test_fields(self) -> None:
        self.assertEqual(
            error_fields(503, b"too busy"),
            [
                (b":status", b"200"),
                (b"content-type", b"application/grpc"),
                (b"grpc-status", b"14"),
                (b"grpc-message", b"too busy"),
            ],
        )

    def test_trailers(self) -> None:
        self.assertEqual(
            error_trailers(504, b"too late"), [(b"grpc-status", b"4"), (b"grpc-message", b"too late")]
        )

    def test_message(self) -> None:
        self.assertEqual(encode_message("100 %\n\N{SNOWMAN}".encode()), b"100 %25%0A%E2%98%83")

    @given(st.binary())
    def test_any_message(self, text: bytes) -> None:
        """It comes back as it was, and is what a field may hold."""
        encoded = encode_message(text)
        self.assertEqual(unquote_to_bytes(encoded), text)
        self.assertTrue(all(0x20 <= byte < 0x7F for byte in encoded))
