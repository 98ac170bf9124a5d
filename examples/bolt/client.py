"""
A bolt client: sends a few requests at once, and prints what comes back.

    python examples/bolt/client.py [port [requests]]
"""

from __future__ import annotations

import socket
import sys

from reverseproxy.wire.rpc.bolt import Bolt, BoltFrame, BoltStatus, encode_request
from reverseproxy.wire.rpc.xprotocol import RpcFrameDecoder


def main(port: int = 2045, requests: int = 3) -> int:
    """Ask; the exit status is 0 if every request was answered well."""
    decoder = RpcFrameDecoder(Bolt())
    missing = set(range(1, requests + 1))
    failed = False
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for number in sorted(missing):
            connection.sendall(
                encode_request(number, {"service": "echo"}, b"hello %d" % number, timeout=10_000)
            )
        while missing:
            data = connection.recv(65536)
            if not data:
                print("the connection was closed")
                return 1
            for frame in decoder.feed(data):
                assert isinstance(frame, BoltFrame)
                missing.discard(frame.id)
                failed |= frame.status != BoltStatus.SUCCESS
                text = frame.content.decode("utf-8", "replace")
                print(f"request {frame.id}: status {frame.status}, {text!r}")
    return int(failed)


if __name__ == "__main__":
    if len(sys.argv) > 3 or not all(each.isdecimal() for each in sys.argv[1:]):
        sys.exit(__doc__)
    try:
        sys.exit(main(*map(int, sys.argv[1:])))
    except (OSError, OverflowError) as error:
        sys.exit(f"no answer: {error}")
