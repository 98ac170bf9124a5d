"""Tests for L{reverseproxy.command.cli}."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
from reverseproxy import __version__
from reverseproxy.command.cli import command
from reverseproxy.command.instant_commands import _target
from tests.config.documents import TUNNEL_SERVER

ROOT = Path(reverseproxy.__file__).resolve().parent.parent


def leaves(group: click.Group, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every subcommand, with its words."""
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from leaves(each, *path, name)
        yield (*path, name), each


class CliTests(SynchronousTestCase):
    def run_command(self, *arguments: str) -> Result:
        return CliRunner().invoke(command, list(arguments), prog_name="reverseproxy")

    def test_help(self) -> None:
        """Every subcommand says what it does, and every option what it is for."""
        help_ = self.run_command("--help")
        self.assertEqual(help_.exit_code, 0)
        self.assertIn("reverseproxy run --quickstart", help_.output)
        self.assertIn("Exit status", help_.output)
        for words, each in leaves(command):
            shown = self.run_command(*words, "-h")
            self.assertEqual(shown.exit_code, 0, words)
            self.assertTrue(each.help, words)
            for parameter in each.params:
                if isinstance(parameter, click.Option):
                    self.assertTrue(parameter.help, (words, parameter.name))
        self.assertNotIn("...\n", help_.output.partition("Commands:")[2])

    def test_documented(self) -> None:
        text = (ROOT / "docs" / "command.rst").read_text()
        for words, each in leaves(command):
            if not isinstance(each, click.Group):
                self.assertIn(f"{' '.join(words)}", text)

    def test_what_is_exposed(self) -> None:
        """A port, an address, a socket by either of its names, or a directory."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "s").touch()
        for target, wanted in {
            "8080": ("127.0.0.1:8080", ""),
            "10.0.0.1:80": ("10.0.0.1:80", ""),
            f"{directory}/s": (f"unix:{directory}/s", ""),
            f"unix:{directory}/s": (f"unix:{directory}/s", ""),
            str(directory): ("", str(directory)),
        }.items():
            self.assertEqual(_target(target, tcp=False), wanted)
        for target in (
            "0",
            "70000",
            "9" * 5000,
            "host",
            "a:0",
            "a:70000",
            "a b:1",
            "[x]:1",
            f"unix:{directory}",
            f"{directory}/none",
            "unix:none",
        ):
            with self.assertRaises(click.UsageError):
                _target(target, tcp=False)

    def test_version(self) -> None:
        self.assertEqual(self.run_command("--version").output, f"reverseproxy {__version__}\n")

    def test_wrong_command_lines(self) -> None:
        for arguments in (
            ["nonsense"],
            ["check"],
            ["run"],
            ["run", "a.json", "--quickstart"],
            ["run", "a.json", "--log-format", "xml"],
            ["run", "a.json", "--log-level", "loud"],
            ["run", "a.json", "--workers", "0"],
            ["run", "a.json", "--workers", "many"],
            ["server", "--listen", "a"],
            ["server", "--http-listen", "a:99999"],
            ["server", "--tcp", "a=b:c"],
            ["server", "--ports", ":"],
            ["server", "--zone", "a b"],
            ["expose", "8080", "--to", "https://a:1", "--as", "b", "--token-file", str(self.server())],
            ["completion", "csh"],
            ["expose", "8080", "--to", "a:1", "--as", "b"],
            ["expose", "8080", "--to", "a", "--as", "b", "--token-file", str(self.server())],
            ["explain", str(self.server()), "ftp://a/"],
            ["token", "add", "a.json", "agent", "--max-weight", "129"],
        ):
            result = self.run_command(*arguments)
            self.assertEqual(result.exit_code, 2, arguments)
            self.assertNotIn("twistd", result.output)

    def server(self) -> Path:
        file = Path(self.mktemp())
        file.write_text(json.dumps(TUNNEL_SERVER))
        return file

    def test_explain(self) -> None:
        good = self.run_command("explain", str(self.server()), "http://a.example:2045/")
        self.assertEqual(good.exit_code, 0, good.output)
        self.assertIn("cluster edge: hosts of tunnel agents", good.output)
        bad = self.run_command("explain", "absent.json", "http://a.example/")
        self.assertEqual(bad.exit_code, 1)
        self.assertIn("absent.json: can't be read", bad.output)

    def test_reference(self) -> None:
        found = self.run_command("reference", "connection_num")
        self.assertEqual(found.exit_code, 0)
        self.assertIn("How many connections to hold", found.output)
        absent = self.run_command("reference", "conection_num")
        self.assertEqual(absent.exit_code, 1)
        self.assertIn("did you mean connection_num", absent.output)
        everything = self.run_command("reference")
        self.assertIn("tunnel_agent", everything.output)
        self.assertNotIn("``", everything.output)

    def test_schema(self) -> None:
        schema = json.loads(self.run_command("schema").output)
        Draft202012Validator.check_schema(schema)

    def test_tokens(self) -> None:
        file = f"{self.mktemp()}.json"
        made = self.run_command("token", "add", file, "agent-1", "--cluster", "edge")
        self.assertEqual(made.exit_code, 0)
        (entry,) = json.loads(Path(file).read_text())
        self.assertIn(entry["token"], made.output)
        listed = self.run_command("token", "list", file)
        self.assertIn("agent-1: edge; fingerprints: ", listed.output)
        self.assertNotIn(entry["token"], listed.output)
        self.assertEqual(self.run_command("token", "add", file, "agent-1").exit_code, 1)
        self.assertEqual(self.run_command("token", "revoke", file, "agent-2").exit_code, 1)
        self.assertIn(
            "1 token of agent-1 revoked", self.run_command("token", "revoke", file, "agent-1").output
        )
        self.assertIn("there are no tokens", self.run_command("token", "list", file).output)


class ShellTests(SynchronousTestCase):
    def process(self, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "reverseproxy", *arguments],
            cwd=ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_check(self) -> None:
        done = self.process("check", "--strict", "examples/plain/server.json")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("clientCluster", done.stdout)
        done = self.process("check", "absent.json")
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("absent.json: can't be read", done.stderr)

    def test_doctor(self) -> None:
        done = self.process("doctor", "absent.json")
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("FAIL configuration: absent.json: can't be read", done.stdout)

    def test_completion(self) -> None:
        """What the scripts ask for, and that a shell that is there understands them."""
        for shell, word, wanted in (
            ("bash", "COMP_WORDS", "plain,check"),
            ("zsh", "COMP_WORDS", "plain\ncheck"),
            ("fish", "COMP_WORDS", "plain,check"),
        ):
            script = self.process("completion", shell)
            self.assertEqual(script.returncode, 0)
            self.assertIn(f"_REVERSEPROXY_COMPLETE={shell}_complete", script.stdout)
            if shutil.which(shell):
                done = subprocess.run([shell, "-n"], input=script.stdout, text=True, check=False, timeout=60)
                self.assertEqual(done.returncode, 0, shell)
            last = "1" if shell != "fish" else "che"
            offered = self.process(
                _REVERSEPROXY_COMPLETE=f"{shell}_complete", COMP_CWORD=last, **{word: "reverseproxy che"}
            )
            self.assertTrue(offered.stdout.startswith(wanted), (shell, offered))
