"""Tests for L{reverseproxy.services.exiting}."""

from __future__ import annotations

import os
from pathlib import Path
from select import select

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.services.exiting import report_failed_start


class FailedStartTests(SynchronousTestCase):
    def test_the_file_is_gone_when_the_result_is_there(self) -> None:
        """Whoever started the daemon may look for the file as soon as twistd has ended."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        file = Path(self.mktemp())
        file.write_text("4711", "ascii")
        unlink, readable = os.unlink, []

        def remove(path: str) -> None:
            readable.append(select([reader], [], [], 0)[0])
            unlink(path)

        self.patch(os, "unlink", remove)
        report_failed_start({"statusPipe": writer, "pidfile": str(file)}, "no port")
        self.assertEqual(readable, [[]])
        self.assertFalse(file.exists())
        self.assertEqual(os.read(reader, 100), b"1 no port")

    def test_a_file_that_is_gone(self) -> None:
        """The result is there nevertheless."""
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        report_failed_start({"statusPipe": writer, "pidfile": self.mktemp()}, "no port")
        self.assertEqual(os.read(reader, 100), b"1 no port")
