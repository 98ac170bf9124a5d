"""Tests for L{reverseproxy.tunnel.agent.listers}."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.tunnel.agent import listers
from reverseproxy.tunnel.agent.listers import DnsListerPlugin, FileListerPlugin
from tests.tunnel.logged import capture


class FileListerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.directory = self.mktemp()
        os.makedirs(self.directory)
        self.path = os.path.join(self.directory, "servers")
        self.lists: list[list[Any]] = []
        self.serial = 0

    def write(self, text: str, name: str = "servers") -> str:
        """Write in place; the time is set, since the clock may stand still meanwhile."""
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        self.serial += 1
        os.utime(path, (self.serial, self.serial))
        return path

    def updated(self, servers: Sequence[str]) -> None:
        self.lists.append(list(servers))

    def start(self, path: str | None = None, **options: Any) -> IServerLister:
        lister = FileListerPlugin().build("c", {"path": path or self.path, **options}, self.clock)
        verifyObject(IServerLister, lister)
        lister.start(self.updated)
        self.addCleanup(lister.stop)
        return lister

    def poll(self, times: int = 1) -> None:
        for _ in range(times):
            self.clock.advance(2)

    def test_formats(self) -> None:
        for name, text, servers in (
            ("servers", "a:1\nb:2\n", ["a:1", "b:2"]),
            ("servers.txt", "\ufeff# ours\r\na:1 # first\r\n\r\n  b:2  ", ["a:1", "b:2"]),
            ("servers", "[::1]:80\n", ["[::1]:80"]),
            ("servers", "# none\n", []),
            ("servers", "[]\n", []),
            ("list.json", '["a:1", "b:2"]', ["a:1", "b:2"]),
            ("map.json", '{"servers": ["a:1"], "other": 1}', ["a:1"]),
            ("none.json", "[]", []),
            ("list.yaml", "- a:1\n- b:2\n", ["a:1", "b:2"]),
            ("map.yml", "servers: ['a:1']\n", ["a:1"]),
        ):
            self.start(self.write(text, name))
            self.assertEqual(self.lists.pop(), servers, text)

    def test_a_change_counts_once_it_lasts(self) -> None:
        self.write("a:1\n")
        self.start()
        self.write("a:1\nb:7")
        self.poll()
        self.write("a:1\nb:70")
        self.poll()
        self.write("a:1\nb:7000\n")
        self.poll()
        self.assertEqual(self.lists, [["a:1"]])
        self.poll()
        self.assertEqual(self.lists, [["a:1"], ["a:1", "b:7000"]])
        self.poll(5)
        self.assertEqual(len(self.lists), 2)

    def test_the_same_list_is_no_change(self) -> None:
        self.write("a:1\n")
        self.start()
        self.write("# comment\na:1\n")
        self.poll(3)
        self.assertEqual(self.lists, [["a:1"]])

    def test_broken_files_keep_the_list(self) -> None:
        path = self.write('["a:1"]', "servers.json")
        self.start(path)
        for text, pattern in (
            ('["a:1", "b', "line 1, column 9: not valid JSON: unterminated string"),
            ("", "it is empty; for no servers"),
            (" \n", "it is empty"),
            ('{"server": []}', "expected a list"),
            ('"a:1"', "expected a list"),
            ("null", "expected a list"),
            ("\udcff", "not UTF-8"),
        ):
            with capture() as events:
                with open(path, "w", errors="surrogateescape") as file:
                    file.write(text)
                self.poll(6)
            self.assertEqual(events.levels(), [LogLevel.error], text)
            self.assertRegex(events.text(), f"keeping 1 server: .*{pattern}")
            reason = events.text().partition("keeping 1 server: ")[2]
            self.assertNotIn(path, reason)  # the file is named once
        self.write('["a:1", "b:2"]', "servers.json")
        self.poll(2)
        self.assertEqual(self.lists, [["a:1"], ["a:1", "b:2"]])

    def test_a_file_that_comes_later_and_goes(self) -> None:
        with capture() as events:
            self.start()
            self.poll(5)
        self.assertEqual(events.levels(), [LogLevel.error])
        self.assertIn("No such file", events.text())
        self.write("a:1\n")
        self.poll()
        self.assertEqual(self.lists, [["a:1"]])
        os.remove(self.path)
        with capture() as events:
            self.poll(5)
        self.assertEqual(len(events), 1)
        self.assertEqual(self.lists, [["a:1"]])

    def test_too_large(self) -> None:
        self.patch(listers, "MAX_LIST_FILE", 10)
        self.write("a:1\n" * 3)
        with capture() as events:
            self.start()
        self.assertIn("larger than the 10 bytes", events.text())

    def test_interval(self) -> None:
        self.write("a:1\n")
        self.start(interval=0.5)
        self.write("b:1\n")
        self.clock.pump([0.5, 0.5])
        self.assertEqual(self.lists, [["a:1"], ["b:1"]])

    def test_stop(self) -> None:
        self.write("a:1\n")
        lister = self.start()
        lister.stop()
        lister.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop_before_start(self) -> None:
        FileListerPlugin().build("c", {"path": self.path}, self.clock).stop()

    def test_whoever_is_told_may_stop_it(self) -> None:
        self.write("a:1\n")
        lister = FileListerPlugin().build("c", {"path": self.path}, self.clock)
        lister.start(lambda _: lister.stop())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_bad_config(self) -> None:
        plugin = FileListerPlugin()
        verifyObject(IServerListerPlugin, plugin)
        for config, pattern in (
            ({}, "path: must be the path of a file, not null"),
            ({"path": ""}, "path: must be"),
            ({"path": 1}, "path: must be"),
            ({"file": "x"}, "file: unknown key; the keys are path, interval"),
            (
                {"path": "x", "interval": 0},
                "interval: must be a number of seconds, 0.1 to 3600, not the number 0",
            ),
            ({"path": "x", "interval": True}, "not true"),
            ({"path": "x", "interval": "5s"}, 'not the text "5s"'),
            ({"path": "x", "interval": float("nan")}, "not the number nan"),
        ):
            self.assertRaisesRegex(ValueError, pattern, plugin.build, "c", config, self.clock)


class DnsListerTests(SynchronousTestCase):
    def test_the_name_is_listed(self) -> None:
        plugin = DnsListerPlugin()
        verifyObject(IServerListerPlugin, plugin)
        for name, server in (
            ("t.example", "t.example:9443"),
            ("::1", "[::1]:9443"),
            ("10.0.0.1", "10.0.0.1:9443"),
        ):
            clock = Clock()
            lists: list[Sequence[str]] = []
            lister = plugin.build("c", {"name": name, "port": 9443}, clock)
            verifyObject(IServerLister, lister)
            lister.start(lists.append)
            lister.stop()
            self.assertEqual(lists, [[server]])
            self.assertEqual(clock.getDelayedCalls(), [])

    def test_bad_config(self) -> None:
        for config, pattern in (
            ({"port": 1}, "name: must be a host name, not null"),
            ({"name": "t"}, "port: must be a number from 1 to 65535, not null"),
            ({"name": "t", "port": "1"}, "port: must be a number"),
            ({"name": "t", "port": True}, "port: must be a number"),
            ({"name": "t", "port": 0}, "port: must be a number from 1 to 65535, not the number 0"),
            ({"name": "", "port": 1}, "name: .*no host name"),
            ({"name": "t:1", "port": 1}, "name: .*no IPv6 address"),
            ({"host": "t"}, "host: unknown key; the keys are name, port"),
        ):
            self.assertRaisesRegex(ValueError, pattern, DnsListerPlugin().build, "c", config, Clock())
