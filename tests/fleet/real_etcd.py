"""An etcd of its own for a test, where the program is installed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.gateway import EtcdError
from tests.integration.ports import free_port

ETCD = shutil.which("etcd")
"""The program; C{None} if there is none."""


class RealEtcd:
    """One node; its data are below a directory, and its ports stay the same."""

    def __init__(self, reactor: Any, directory: str, name: str = "one", options: tuple[str, ...] = ()) -> None:
        self.reactor = reactor
        self.directory = Path(directory)
        self.name = name
        self.port = free_port()
        self.peer_port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where clients dial it."""
        return f"127.0.0.1:{self.port}"
