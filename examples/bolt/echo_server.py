"""
A bolt service that sends back what it gets, on port 8080 or the one given.

    python examples/bolt/echo_server.py [port]
"""

from __future__ import annotations

import socketserver
import sys

from reverseproxy.wire.rpc.bolt import Bolt, BoltFrame, encode_response
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder


class Echo(socketserver.BaseRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Answer everything that comes."""
        bolt = Bolt()
        decoder = RpcFrameDecoder(bolt)
        while data := self.request.recv(65536):
            for frame in decoder.feed(data):
                assert isinstance(frame, BoltFrame)
                if frame.kind is Kind.HEARTBEAT:
                    self.request.sendall(bolt.answer_heartbeat(frame))
                elif frame.kind is Kind.REQUEST:
                    print(f"request {frame.id} for {frame.service}", flush=True)
                    answer = encode_response(frame.id, content=frame.content, version=frame.version)
                    self.request.sendall(answer)
            if decoder.error is not None:
                print(f"closed: {decoder.error}", flush=True)
                return


class Server(socketserver.ThreadingTCPServer):
    """A thread for each connection."""

    allow_reuse_address = True
    daemon_threads = True


def main(port: int = 8080) -> None:
    """Serve until interrupted."""
    with Server(("127.0.0.1", port), Echo) as server:
        print(f"listening on 127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 2 or not all(each.isdecimal() for each in sys.argv[1:]):
        sys.exit(__doc__)
    try:
        main(*map(int, sys.argv[1:]))
    except (OSError, OverflowError) as error:
        sys.exit(f"no server: {error}")
