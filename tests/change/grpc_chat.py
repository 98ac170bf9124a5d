"""One stream of gRPC that goes on until standard input ends; the number of its answers is printed then."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import grpc


def tell(text: str) -> None:
    """Say something to the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(port: int) -> None:
    """Send a number, and the next one when it has come back."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    turn = threading.Semaphore(1)
    number = 0

    def requests() -> Iterator[bytes]:
        while not ended.is_set():
            if turn.acquire(timeout=0.1):
                yield b"%d" % number
                ended.wait(0.01)

    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_retries", 0)])
    try:
        for answer in channel.stream_stream("/test.Echo/Chat")(requests()):
            if answer != b"%d" % number:
                raise ValueError(f"{answer!r} came where {number} was due")
            number += 1
            if number == 1:
                tell("begun")
            turn.release()
    except (grpc.RpcError, ValueError) as error:
        tell(f"failed after {number}: {error!r}".replace("\n", " "))
    else:
        tell(f"answered {number}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
