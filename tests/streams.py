"""The reactor as it is in a process of ours, for tests with sockets."""

from __future__ import annotations

__all__ = ["reactor"]

from typing import Any

from twisted.internet import reactor as _reactor

from reverseproxy.transport import is_supported, with_streams

reactor: Any = with_streams(_reactor) if is_supported(_reactor) else _reactor
