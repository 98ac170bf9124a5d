"""
A gRPC client for the scenario tests: runs one scenario, and prints what it has seen as JSON.

It has a process of its own because gRPC's threads and a process that forks do
not go together.  Usage: C{python -m tests.integration.grpc_client PORT SCENARIO}.
"""

from __future__ import annotations

__all__ = ["main"]

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

import grpc

TIMEOUT = 30.0


class Client:
    def __init__(self, port: int) -> None:
        self.channel = grpc.insecure_channel(
            f"127.0.0.1:{port}",
            options=[("grpc.max_receive_message_length", -1), ("grpc.enable_retries", 0)],
        )

    def unary(self, method: str, request: bytes, **more: Any) -> Any:
        call = self.channel.unary_unary(f"/test.Echo/{method}")
        return call(request, **{"timeout": TIMEOUT, **more})

    def kinds(self) -> dict[str, Any]:
        """Every kind of call, with small and large messages."""
        large = bytes(range(256)) * 12_000
        response, call = self.channel.unary_unary("/test.Echo/Unary").with_call(
            b"hello", timeout=TIMEOUT, metadata=(("x-id", "42"),)
        )
        chat = self.channel.stream_stream("/test.Echo/Chat")
        return {
            "unary": response.decode(),
            "initial": dict(call.initial_metadata()).get("x-head"),
            "trailing": {k: v if isinstance(v, str) else list(v) for k, v in call.trailing_metadata()},
            "large": self.unary("Unary", large) == large,
            "many": [
                len(message)
                for message in self.channel.unary_stream("/test.Echo/Many")(b"50,100000", timeout=TIMEOUT)
            ]
            == [100_000] * 50,
            "sum": self.channel.stream_unary("/test.Echo/Sum")(
                iter([large, b"abc", b"", large]), timeout=TIMEOUT
            ).decode(),
            "chat": self._ping_pong(chat),
            "chat at once": [len(m) for m in chat((bytes(i * 1000) for i in range(100)), timeout=TIMEOUT)]
            == [i * 1000 for i in range(100)],
            "parallel": self._parallel(),
        }

    def _ping_pong(self, chat: Any) -> list[str]:
        """Each message only after the answer to the one before it."""
        turn: list[bytes] = [b"0"]

        def requests() -> Iterator[bytes]:
            for _ in range(20):
                while not turn:
                    time.sleep(0.001)
                yield turn.pop()

        seen = []
        for answer in chat(requests(), timeout=TIMEOUT):
            seen.append(answer.decode())
            turn.append(b"%d" % (int(answer) + 1))
        return seen

    def _parallel(self) -> bool:
        call = self.channel.unary_unary("/test.Echo/Unary")
        futures = [call.future(b"%d" % i, timeout=TIMEOUT) for i in range(300)]
        return [future.result() for future in futures] == [b"%d" % i for i in range(300)]

    def statuses(self) -> dict[str, Any]:
        """Calls that fail, in as many ways as there are."""
        seen = {}
        for code in (5, 7, 14, 16):
            try:
                self.unary("Fail", b"%d" % code)
            except grpc.RpcError as error:
                seen[str(code)] = [error.code().value[0], error.details()]
        try:
            self.unary("Nonsense", b"")
        except grpc.RpcError as error:
            seen["unknown"] = [error.code().name, ""]
        return seen

    def endings(self) -> dict[str, Any]:
        """A deadline, and a client that cancels: the server hears of both."""
        seen: dict[str, Any] = {}
        try:
            self.unary("Wait", b"", timeout=0.5)
        except grpc.RpcError as error:
            seen["deadline"] = error.code().name
        seen["after the deadline"] = self.unary("Cancelled", b"1").decode()
        waiting = self.channel.unary_unary("/test.Echo/Wait").future(b"", timeout=TIMEOUT)
        self.unary("Unary", b"")
        waiting.cancel()
        seen["after the cancel"] = self.unary("Cancelled", b"2").decode()
        endless = self.channel.unary_stream("/test.Echo/Many")(b"1000000,10000", timeout=TIMEOUT)
        next(endless)
        endless.cancel()
        seen["after a stream"] = self.unary("Unary", b"fine").decode()
        return seen

    def stalled(self) -> dict[str, Any]:
        """Calls of every kind go on while streams stand whose messages nobody takes, at either end."""

        def endless() -> Iterator[bytes]:
            for _ in range(1000):
                self.given += 1
                yield bytes(500_000)

        self.given = 0
        stuck = self.channel.stream_unary("/test.Echo/Stuck").future(endless(), timeout=3 * TIMEOUT)
        streams = [
            self.channel.unary_stream("/test.Echo/Many")(b"200,500000", timeout=3 * TIMEOUT) for _ in range(5)
        ]
        for stream in streams:
            next(stream)
        time.sleep(0.5)  # until every window is closed
        begun = time.monotonic()
        for number in range(200):
            assert self.unary("Unary", b"%d" % number) == b"%d" % number
        chat = self.channel.stream_stream("/test.Echo/Chat")
        turns = self._ping_pong(chat)
        total = sum(len(message) for message in chat((bytes(50_000) for _ in range(100)), timeout=TIMEOUT))
        took = time.monotonic() - begun
        lengths = [len(message) for message in streams[0]]
        for stream in streams[1:]:
            stream.cancel()
        given, done = self.given, stuck.done()
        stuck.cancel()
        return {
            "took": took,
            "rest": len(lengths),
            "sizes": sorted(set(lengths)),
            "turns": len(turns),
            "total": total,
            "given": given,
            "stuck": not done,
        }

    def unreachable(self) -> dict[str, Any]:
        """What a call sees that can't be served."""
        try:
            self.unary("Unary", b"")
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details()}
        return {}

    def cut_off(self) -> dict[str, Any]:
        """Take the messages of a stream until it fails; prints a line when the first is there."""
        taken = 0
        try:
            for _ in self.channel.unary_stream("/test.Echo/Many")(b"10000000,1000", timeout=TIMEOUT):
                taken += 1
                if taken == 1:
                    print("begun", flush=True)  # noqa: T201
        except grpc.RpcError as error:
            return {"code": error.code().name, "taken": taken > 0, "details": error.details()}
        return {}

    def until_told(self) -> dict[str, Any]:
        """One call after the other until a line is read; prints a line when the first is done."""
        import threading

        told = threading.Event()
        threading.Thread(target=lambda: (sys.stdin.readline(), told.set()), daemon=True).start()
        done, failed = 0, []
        while not told.is_set():
            try:
                assert self.unary("Unary", b"%d" % done) == b"%d" % done
            except grpc.RpcError as error:
                failed.append(f"{error.code().name}: {error.details()}")
            done += 1
            if done == 1:
                print("begun", flush=True)  # noqa: T201
        return {"done": done, "failed": failed}


def main() -> None:
    """Run a scenario."""
    client = Client(int(sys.argv[1]))
    result = getattr(client, sys.argv[2])()
    client.channel.close()
    print("result " + json.dumps(result), flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
