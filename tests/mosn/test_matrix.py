"""
Each end of ours against a fake MOSN, in every situation.

Protocol, TLS, connections, clients, ends and workers make hundreds of tests,
and each has a name, so that one that fails says which of them matter.
"""

from __future__ import annotations

from typing import Any

from tests.mosn.cells import PROTOCOLS, SPARE, TLS, Cell, cells
from tests.mosn.scenes import SceneTestCase

GOING_AWAY = ("Http2", "bolt", "boltv2")
"""Protocols with a word for it."""


class _ServerTestCase:
    """Our server, and a fake of MOSN's agent."""

    end = "server"
    play: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        assert issubclass(cls, SceneTestCase)
        cls.add_scenes("load", cells())
        cls.add_scenes("large", [Cell(protocol, "tls", 1, 1) for protocol in PROTOCOLS])
        cls.add_scenes("leaving", [Cell(protocol, "plain", 1, 1) for protocol in PROTOCOLS])
        cls.add_scenes("going_away", [Cell(protocol, "plain", 1, 1) for protocol in GOING_AWAY])

    def test_refused(self) -> None:
        self.play("refused", Cell("Http1", "plain", 8, 1))

    def test_stopping(self) -> None:
        self.play("stopping", Cell("", "tls", 1, 1), fresh=True)


class ServerTests(_ServerTestCase, SceneTestCase):
    mode = "own"


class ServerWorkersTests(_ServerTestCase, SceneTestCase):
    mode = "workers"


class ServerStockTests(_ServerTestCase, SceneTestCase):
    mode = "stock"


class _AgentTestCase:
    """Our agent, and a fake of MOSN's server."""

    end = "agent"
    play: Any

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        assert issubclass(cls, SceneTestCase)
        cls.add_scenes("load", cells())
        cls.add_scenes("large", [Cell(protocol, "tls", 1, 1) for protocol in PROTOCOLS])
        cls.add_scenes("interrupted", [Cell(protocol, "tls", 1, 1) for protocol in PROTOCOLS])
        for tls in TLS[:2]:
            cls.add_scenes("idle", [Cell(protocol, tls, SPARE, 1) for protocol in PROTOCOLS])
            cls.add_scenes("closed_at_once", [Cell(protocol, tls, SPARE, 1) for protocol in PROTOCOLS])

    def test_stopping(self) -> None:
        self.play("stopping", Cell("", "tls", 8, 1), fresh=True)


class AgentTests(_AgentTestCase, SceneTestCase):
    mode = "own"


class AgentWorkersTests(_AgentTestCase, SceneTestCase):
    mode = "workers"


class AgentStockTests(_AgentTestCase, SceneTestCase):
    mode = "stock"
