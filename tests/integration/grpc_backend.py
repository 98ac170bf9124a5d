"""
A gRPC server for the scenario tests, which prints the port that it listens on.

Messages are plain bytes.  C{/test.Echo/Unary} echoes; C{Many} answers a request
of C{count,size} with that many messages of that size; C{Sum} adds up the lengths
of the messages that it is sent; C{Chat} echoes each message as it comes;
C{Stuck} takes no message until its client cancels;
C{Fail} ends with the status code that it is sent; C{Wait} ends when its client
cancels, or its deadline is over; C{Cancelled} tells how often that was.
"""

from __future__ import annotations

__all__ = ["main"]

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc


class _Echo(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self.cancelled = 0
        self._changed = threading.Condition()
        self._methods = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Many": grpc.unary_stream_rpc_method_handler(self.many),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat),
            "Stuck": grpc.stream_unary_rpc_method_handler(self.wait),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail),
            "Wait": grpc.unary_unary_rpc_method_handler(self.wait),
            "Cancelled": grpc.unary_unary_rpc_method_handler(self.count),
        }

    def service(self, details: Any) -> Any:
        service, _, method = details.method.rpartition("/")
        return self._methods.get(method) if service == "/test.Echo" else None

    def unary(self, request: bytes, context: Any) -> bytes:
        metadata = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-head", metadata.get("x-id", "")),))
        context.set_trailing_metadata((("x-trailer", metadata.get("x-id", "")), ("x-bin", b"\x00\xff")))
        return request

    def many(self, request: bytes, context: Any) -> Iterator[bytes]:
        count, size = map(int, request.split(b","))
        for number in range(count):
            yield b"%08d" % number + bytes(max(0, size - 8))

    def sum(self, requests: Iterator[bytes], context: Any) -> bytes:
        return b"%d" % sum(len(request) for request in requests)

    def chat(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        yield from requests

    def fail(self, request: bytes, context: Any) -> bytes:
        code = next(each for each in grpc.StatusCode if each.value[0] == int(request))
        context.abort(code, "as you wish: é")
        return b""

    def wait(self, request: bytes | Iterator[bytes], context: Any) -> bytes:
        ended = threading.Event()

        def over() -> None:
            with self._changed:
                self.cancelled += 1
                self._changed.notify_all()
            ended.set()

        context.add_callback(over)
        ended.wait(30)
        return b""

    def count(self, request: bytes, context: Any) -> bytes:
        """Wait until so many requests were cancelled, and tell how many."""
        with self._changed:
            self._changed.wait_for(lambda: self.cancelled >= int(request), 20)
            return b"%d" % self.cancelled


def main() -> None:
    """Serve until killed."""
    server = grpc.server(ThreadPoolExecutor(50), options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening on {port}", flush=True)  # noqa: T201
    server.wait_for_termination()


if __name__ == "__main__":
    main()
