"""The tunnel's frames as Go writes and reads them."""

from __future__ import annotations

__all__ = ["CLOSE", "INIT", "RESPONSE", "OneFrameReader", "close_frame", "go_json", "init_frame", "response"]

import json
import struct
from typing import Any

from tests.mosn.talk import Unexpected

INIT, RESPONSE, CLOSE = 1, 2, 3

MAGIC = b"\x20\x88"


def go_json(document: Any) -> bytes:
    """As Go's C{json.Marshal} writes it: no blanks, and nothing that HTML or JavaScript could mistake."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode()


def frame(flag: int, payload: bytes) -> bytes:
    """MOSN casts the length to 16 bits, and sends all of the payload whatever comes of it."""
    kind = 0x0200 if flag == RESPONSE else 0x0100
    return struct.pack("!2sBBHH", MAGIC, 1, flag, kind, len(payload) & 0xFFFF) + payload


def init_frame(cluster: str, **fields: Any) -> bytes:
    """What MOSN's agent says first, in the order of its structure."""
    document = {
        "cluster_name": cluster,
        "weight": 10,
        "host_name": "",
        "credential_policy": "",
        "credential": "",
        "extra": None,
        **fields,
    }
    return frame(INIT, go_json(document))


def response(status: int) -> bytes:
    """What MOSN's server answers."""
    return frame(RESPONSE, go_json({"status": status}))


def close_frame(cluster: str, addresses: list[str]) -> bytes:
    """What MOSN's agent says before it goes, on its other connection."""
    return frame(CLOSE, go_json({"addresses": addresses, "cluster_name": cluster}))


class OneFrameReader:
    """
    Takes frames from reads, one for each read event at the most, as MOSN does.

    What came behind it stays where it is until more comes.
    """

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> tuple[int, dict[str, Any]] | None:
        """
        Take in what one read has brought.

        @return: the flag and the payload of a frame, if one is complete.
        @raise Unexpected: if it is none of the tunnel's.
        """
        self._buffer += data
        if len(self._buffer) <= 8:
            return None
        end = 8 + int.from_bytes(self._buffer[6:8], "big")
        if len(self._buffer) < end:
            return None
        taken = self._buffer[:end]
        if taken[:2] != MAGIC or taken[3] not in (INIT, RESPONSE, CLOSE):
            raise Unexpected(f"no frame of the tunnel's: {self._buffer[:200]!r}")
        document = json.loads(taken[8:])
        self._buffer = self._buffer[end:]
        return taken[3], document

    @property
    def rest(self) -> bytes:
        """What came behind the last frame, for whoever reads from now on; it stays here as well."""
        return self._buffer
