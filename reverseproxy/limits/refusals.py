"""
Counts of refusals by reason, of connections, requests and log lines.

Each refusal counts here, also if its line in the log is suppressed.
"""

from __future__ import annotations

__all__ = ["REASONS", "REFUSALS", "RefusalCounts"]

from typing import Final

REASONS: Final = {
    "connection_closed": "a connection with nothing under way, closed to make room for another one",
    "connection_refused": "a connection that was not taken, as there were too many",
    "unfinished": "a connection that was closed as too much was kept for those that do not finish",
    "tls": "a TLS handshake that failed",
    "tls_waiting": "a TLS handshake that was broken off, as too many waited for their turn",
    "protocol": "a connection that spoke none of its listener's protocols",
    "fields": "a request that has lost fields which its client may not set, and went on",
    "misdirected": "a request for another host than the TLS handshake of its connection",
    "http1": "a request of HTTP/1 that could not be understood",
    "http2": "a connection of HTTP/2 that broke the rules",
    "rpc": "a connection of an RPC protocol that broke the rules",
    "streams": "a tunnel with streams that broke the rules",
    "tunnel": "a connection to a tunnel port that was closed before it had joined",
    "log": "a line of the log that was left out",
}
"""The reasons, with descriptions."""


class RefusalCounts(dict[str, int]):
    """
    Numbers of refusals by reason.

    There is one for a process, as memory, descriptors and the log belong to the process.
    """

    def __init__(self) -> None:
        super().__init__(dict.fromkeys(REASONS, 0))


REFUSALS: Final = RefusalCounts()
"""The counts of this process."""
