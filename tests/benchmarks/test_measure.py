"""Tests for L{benchmarks.measure}."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.measure import listens


class ListensTests(SynchronousTestCase):
    """Who listens on a port is told by its socket, not by whether it can be reached."""

    def test_this_process(self) -> None:
        with socket.socket() as port:
            port.bind(("127.0.0.1", 0))
            number = port.getsockname()[1]
            self.assertFalse(listens(os.getpid(), number))
            port.listen()
            self.assertTrue(listens(os.getpid(), number))
            self.assertFalse(listens(os.getppid(), number))
            with socket.create_connection(port.getsockname()) as client:
                self.assertFalse(listens(os.getpid(), client.getsockname()[1]))
        self.assertFalse(listens(os.getpid(), number))

    def test_a_process_that_has_ended(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as port:
            child = subprocess.Popen([sys.executable, "-c", ""])
            child.wait()
            self.assertFalse(listens(child.pid, port.getsockname()[1]))
