"""Tests for the subcommands that query a running process; the integration tests query a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command.cli import command
from reverseproxy.command.remote import AdminClient, AdminEndpoint, AdminProblem, agent_path, find_admin
from reverseproxy.command.tables import agents_table, duration, table, unwell
from tests.integration.configs import server


class PlaceTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        for text, place in {
            "127.0.0.1:80": AdminEndpoint("127.0.0.1:80"),
            "[::1]:80": AdminEndpoint("[::1]:80"),
            "http://a:80/": AdminEndpoint("a:80"),
            "https://a:443": AdminEndpoint("a:443", True),
            "/run/x": AdminEndpoint("unix:/run/x"),
            "unix:/run/x": AdminEndpoint("unix:/run/x"),
        }.items():
            self.assertEqual(find_admin(text, None, None), place)
        self.assertEqual(find_admin("a:1", None, "ca.pem"), AdminEndpoint("a:1", True, "ca.pem"))
        for text in ("", "a", "a:b", ":80"):
            self.assertRaises(AdminProblem, find_admin, text, None, None)
        self.assertRaises(AdminProblem, find_admin, None, None, None)

    def test_file(self) -> None:
        file = Path(self.mktemp())
        for admin, wanted in (
            (None, "has no admin API"),
            ({"address": {"socket_address": {"port_value": 0}}}, "the system chooses the port"),
            ({"address": {"socket_address": {"port_value": 99}}}, AdminEndpoint("127.0.0.1:99")),
            ({"address": {"pipe": {"path": "/run/x"}}}, AdminEndpoint("unix:/run/x")),
        ):
            file.write_text(json.dumps({**server(), **({} if admin is None else {"admin": admin})}))
            if isinstance(wanted, AdminEndpoint):
                self.assertEqual(find_admin(None, str(file), None), wanted)
            else:
                error = self.assertRaises(AdminProblem, find_admin, None, str(file), None)
                self.assertIn(wanted, str(error))
        error = self.assertRaises(AdminProblem, find_admin, None, "/none.json", None)
        self.assertIn("/none.json", str(error))

    def test_token_files(self) -> None:
        file = Path(self.mktemp())
        error = self.assertRaises(AdminProblem, AdminClient.with_token_file, AdminEndpoint("a:1"), str(file))
        self.assertIn("can't be read", str(error))
        for text in ("", "\n", "two words\n", "a\nb\n"):
            file.write_text(text)
            self.assertRaises(AdminProblem, AdminClient.with_token_file, AdminEndpoint("a:1"), str(file))

    def test_paths(self) -> None:
        self.assertEqual(agent_path("a/../b", "drain"), "agents/a%2F..%2Fb/drain")


class TableTests(SynchronousTestCase):
    def test_table(self) -> None:
        self.assertEqual(
            table(("NAME", "COUNT"), [("a", 1), ("longer", 100), ("", 5)]),
            ["NAME    COUNT", "a           1", "longer    100", "-           5"],
        )
        self.assertEqual(table(("A",), []), ["A"])
        self.assertEqual(table(("A",), [("x\x1b[31m",)]), ["A", "x?[31m"])

    def test_duration(self) -> None:
        for seconds, text in {0: "0s", 59: "59s", 61: "1m 1s", 3600: "1h", 90061: "1d 1h"}.items():
            self.assertEqual(duration(seconds), text)

    def test_unwell(self) -> None:
        bound = {"name": "a", "bound": True, "fed_by_agents": False}
        dead = {"name": "b", "bound": False, "fed_by_agents": False}
        fed = {"name": "c", "bound": False, "fed_by_agents": True}
        lost = {"server": "s:1", "cluster": "c", "wanted": 1, "serving": 0}
        idle = {"server": "t:1", "cluster": "c", "wanted": 0, "serving": 0}
        self.assertEqual(unwell({"draining": False}, [bound, fed], [idle]), [])
        self.assertEqual(
            unwell({"draining": True}, [bound, dead, fed], [lost, idle]),
            ["draining", "listener b is not bound", "agent of cluster c: no serving connection to s:1"],
        )

    def test_agents(self) -> None:
        agent = {
            "id": "0d1c",
            "identity": "token:a",
            "claimed_host_name": "",
            "clusters": ["x", "y"],
            "connections": 2,
            "healthy": 2,
            "in_flight": 0,
            "since": 100.0,
            "excluded": None,
        }
        head, line = agents_table([agent], 161.0)
        self.assertEqual(head.split()[:2], ["ID", "IDENTITY"])
        self.assertEqual(
            line.split(), ["0d1c", "token:a", "-", "x,", "y", "2", "2", "0", "1m", "1s", "serving"]
        )


class CommandTests(SynchronousTestCase):
    def run_command(self, *arguments: str) -> tuple[int, str]:
        result = CliRunner().invoke(command, arguments)
        return result.exit_code, result.output

    def test_where(self) -> None:
        for name in ("status", "ready", "agents"):
            code, output = self.run_command(name)
            self.assertEqual(code, 2)
            self.assertIn("--admin ADDRESS, or --config FILE", output)
        code, output = self.run_command("drain", "x", "--admin", "a:1", "--for", "2", "--resume")
        self.assertEqual(code, 2)

    def test_empty_ids(self) -> None:
        """Every id begins with nothing, as a variable of a shell may be: the only agent is not drained."""
        for command_line in (("drain", ""), ("drain", "", "--resume"), ("exclusions", "--lift", "")):
            code, output = self.run_command(*command_line, "--admin", "a:1")
            self.assertEqual((code, "is empty" in output), (2, True), output)

    def test_nobody_there(self) -> None:
        missing = str(Path(self.mktemp()).absolute())
        for command_line in (
            ("status",),
            ("ready",),
            ("agents",),
            ("drain", "x"),
            ("drain", "x", "--resume"),
            ("exclusions",),
            ("exclusions", "--lift", "x"),
        ):
            code, output = self.run_command(*command_line, "--admin", missing)
            self.assertEqual(code, 1)
            self.assertIn("can't connect to unix:", output)

    def test_ready(self) -> None:
        """The status says it, and the reasons are told if they may be known."""
        for answer, code, output in (
            ((200, b"ready\n"), 0, "ready\n"),
            ((503, b"not ready\n"), 1, "not ready\n"),
            ((503, b"not ready\nlistener a is not bound\n"), 1, "not ready\nlistener a is not bound\n"),
            ((404, b"not found"), 1, "a:1 is not an admin API: it responds with 404\n"),
            ((200, b"<html>"), 1, "a:1 is not an admin API: it responds with 200\n"),
        ):
            self.patch(AdminClient, "_exchange", lambda *_, answer=answer: answer)
            self.assertEqual(self.run_command("ready", "--admin", "a:1"), (code, output))
        self.patch(AdminClient, "_exchange", lambda *_: (503, b"not ready\nlistener a is not bound\n"))
        code, output = self.run_command("ready", "--admin", "a:1", "--json")
        self.assertEqual(
            (code, json.loads(output)), (1, {"ready": False, "reasons": ["listener a is not bound"]})
        )

    def answers(self, **answers: Any) -> None:
        """Let the admin API answer, by the last part of the path."""

        def exchange(_: AdminClient, method: str, target: str) -> tuple[int, bytes]:
            name = target.partition("?")[0].rpartition("/")[2]
            return 200, json.dumps(answers[name]).encode()

        self.patch(AdminClient, "_exchange", exchange)

    def test_not_everywhere(self) -> None:
        """What was done, but not by all, is done, and the status says that this is not all."""
        page = {"items": [{"id": "0d1c"}], "next": None, "problems": []}
        problems = [
            {"worker": 0, "server": "b", "problem": "no link to this server"},
            {"worker": 2, "problem": "is not ready"},
        ]
        done = {
            "id": "0d1c",
            "connections": 1,
            "kept_out": {"target": None, "seconds": 60},
            "passed_on": {"c": 1},
        }
        told = "0d1c: 1 connection drained; forwarded to server c; banned for 60 s\n"
        lacks = "server b: no link to this server\nworker 2: is not ready\n"
        for found, code, said in (([], 0, ""), (problems, 3, lacks)):
            self.answers(agents=page, drain={**done, "problems": found})
            result = CliRunner().invoke(command, ("drain", "0d", "--admin", "a:1"))
            self.assertEqual((result.exit_code, result.stdout, result.stderr), (code, told, said))
            result = CliRunner().invoke(command, ("drain", "0d", "--admin", "a:1", "--json"))
            self.assertEqual((result.exit_code, json.loads(result.stdout)["problems"]), (code, found))
            bans = {"items": [{"agents": ["0d1c", "0e"]}], "next": None, "problems": []}
            self.answers(
                agents={**page, "items": []},
                exclusions=bans,
                resume={"id": "0d1c", "was_kept_out": True, "problems": found},
            )
            # It is not connected any more, so that its ban has its whole id.
            result = CliRunner().invoke(command, ("drain", "0d", "--resume", "--admin", "a:1"))
            self.assertEqual(
                (result.exit_code, result.stdout, result.stderr), (code, "0d1c: bans lifted\n", said)
            )

    def test_resuming(self) -> None:
        """The beginning of an id must be unambiguous; an id that is in no list is sent as it is."""
        asked: list[str] = []

        def exchange(_: AdminClient, method: str, target: str) -> tuple[int, bytes]:
            name = target.partition("?")[0].rpartition("/")[2]
            asked.append(f"{method} {target}")
            found: list[Any] = [{"id": "0a1"}] if name == "agents" else [{"agents": ["0a1", "0b2"]}]
            if method == "POST":
                return 200, json.dumps({"id": "x", "was_kept_out": False, "problems": []}).encode()
            return 200, json.dumps({"items": found, "next": None, "problems": []}).encode()

        self.patch(AdminClient, "_exchange", exchange)
        code, output = self.run_command("drain", "0", "--resume", "--admin", "a:1")
        self.assertEqual((code, "2 agents have an id that begins with 0" in output), (1, True), output)
        for begin, key in (("0a", "0a1"), ("0b2", "0b2"), ("0c3", "0c3")):
            code, output = self.run_command("drain", begin, "--resume", "--admin", "a:1")
            self.assertEqual((code, output), (0, f"{key}: no ban to lift\n"))
            self.assertEqual(asked[-1], f"POST /api/tunnel/v1/agents/{key}/resume")

    def test_exclusions(self) -> None:
        """Bans are listed, and lifted by the beginning of an id; one process may not know of it."""
        item = {
            "id": "5f1c09ae",
            "target": ["identity", "token:edge-7\x1b[31m"],
            "agents": ["0d1c"],
            "seconds": 90.4,
            "until": 1e9,
            "why": "banned by ops",
        }
        self.answers(exclusions={"items": [item], "next": None, "problems": []})
        _, output = self.run_command("exclusions", "--admin", "a:1")
        self.assertEqual(
            output,
            "ID        TARGET                      REMAINING  AGENTS  REASON\n"
            "5f1c09ae  identity token:edge-7?[31m  1m 30s     0d1c    banned by ops\n",
        )
        _, output = self.run_command("exclusions", "--admin", "a:1", "--json")
        self.assertEqual(json.loads(output), [item])
        lack = {"worker": 2, "problem": "is not ready"}
        for problems, code, said in (([], 0, ""), ([lack], 3, "worker 2: is not ready\n")):
            page = {"items": [item], "next": None, "problems": []}
            lifted = {"id": item["id"], "target": item["target"], "agents": ["0d1c"], "was_kept_out": True}
            answers = {"exclusions": page, "5f1c09ae": {**lifted, "problems": problems}}
            self.answers(**answers)
            result = CliRunner().invoke(command, ("exclusions", "--lift", "5f", "--admin", "a:1"))
            self.assertEqual(
                (result.exit_code, result.stdout, result.stderr),
                (code, "5f1c09ae: ban of identity token:edge-7?[31m lifted\n", said),
            )
        result = CliRunner().invoke(command, ("exclusions", "--lift", "6", "--admin", "a:1"))
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertEqual(
            result.stderr, 'no exclusions have an id that begins with 6; see "reverseproxy exclusions"\n'
        )
        self.answers(exclusions={"items": [], "next": None, "problems": []})
        result = CliRunner().invoke(command, ("exclusions", "--admin", "a:1"))
        self.assertEqual((result.exit_code, result.stdout, result.stderr), (0, "", "no bans\n"))

    def test_a_worker_does_not_answer(self) -> None:
        """Lists that lack what it has say so; and who may be in it is not simply said not to be there."""
        lack = {"worker": 2, "problem": "is not ready"}
        self.answers(agents={"items": [], "next": None, "problems": [lack]})
        result = CliRunner().invoke(command, ("agents", "--admin", "a:1", "--json"))
        self.assertEqual(
            (result.exit_code, result.stdout, result.stderr), (3, "[]\n", "worker 2: is not ready\n")
        )
        result = CliRunner().invoke(command, ("drain", "0d", "--admin", "a:1"))
        self.assertEqual((result.exit_code, result.stdout), (1, ""))
        self.assertEqual(
            result.stderr,
            'worker 2: is not ready\nno agents have an id that begins with 0d; see "reverseproxy agents"\n',
        )
