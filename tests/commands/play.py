"""
Plays scenes of command lines, each as it stands in the documentation.

Run as a program, in a network namespace where that can be had, so that the ports
of the examples are free: it prints a line of JSON for each command that did not do
what it should.
"""

from __future__ import annotations

__all__ = ["SCENES", "Step", "main", "prepare"]

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.commands.collect import ROOT

PATIENCE = 40.0
"""Seconds that a command may take, or a program to be ready."""


@dataclass(frozen=True)
class Step:
    """
    One command.

    @ivar line: as it is typed.
    @ivar shows: what its output has to have; with C{stays}, what it waits for.
    @ivar status: the status with which it ends.
    @ivar stays: whether it goes on until the end of the scene.
    """

    line: str
    shows: str = ""
    status: int = 0
    stays: bool = False


def stays(line: str, shows: str) -> Step:
    """A program that is ready when it shows something."""
    return Step(line, shows, stays=True)


RUN = ".venv/bin/twistd -n --pidfile= reverseproxy --config examples"
WEB = "python3 -m http.server 8080 --bind 127.0.0.1"
CURL = "curl http://127.0.0.1:2045/"
JOINED = r"host .* joined"
LISTENS = r"listening on 127\.0\.0\.1:9999"

SCENES: tuple[tuple[Step, ...], ...] = (
    (
        Step(".venv/bin/reverseproxy --help", "Commands:"),
        Step("reverseproxy --help", "Commands:"),
        Step(".venv/bin/reverseproxy check examples/plain/server.json", "clientListener"),
        Step(
            ".venv/bin/reverseproxy explain examples/plain/server.json http://www.example.com:2045/",
            "cluster clientCluster",
        ),
        Step(
            "reverseproxy explain examples/plain/server.json http://www.example.com:2045/index.html",
            "cluster clientCluster",
        ),
        Step(".venv/bin/reverseproxy reference connection_num", "How many connections to hold"),
        Step("reverseproxy doctor examples/plain/agent.json", "FAIL tunnel server", 1),
        Step("reverseproxy schema > reverseproxy.schema.json"),
        Step("reverseproxy completion bash > ~/.local/share/bash-completion/completions/reverseproxy"),
        Step("reverseproxy completion fish > ~/.config/fish/completions/reverseproxy.fish"),
        Step("reverseproxy convert frpc.toml > agent.json"),
        Step("reverseproxy convert frpc.toml --server > server.json"),
        Step(
            "reverseproxy token add tokens.json agent-2 --cluster clientCluster --output agent-2.token",
            "added a token",
        ),
        Step(
            "reverseproxy token add tokens.json laptop --domain '*.tunnels.example.com' --port 2200-2209",
            "added a token",
        ),
        Step(".venv/bin/python examples/make_certs.py"),
        Step("python -m twisted.trial examples/testing/test_tunnel.py", "PASSED"),
    ),
    (
        stays(WEB, "Serving HTTP"),
        stays(f"{RUN}/plain/server.json", LISTENS),
        stays(f"{RUN}/plain/agent.json", "serving "),
        Step(CURL, "Directory listing"),
    ),
    (
        stays(WEB, "Serving HTTP"),
        stays(f"{RUN}/mtls/server.json", LISTENS),
        stays(f"{RUN}/mtls/agent.json", "serving "),
        Step(CURL, "Directory listing"),
    ),
    (
        stays(WEB, "Serving HTTP"),
        stays(f"{RUN}/h2/server.json", LISTENS),
        stays(f"{RUN}/h2/agent.json", "serving "),
        Step(CURL, "Directory listing"),
    ),
    (
        stays(".venv/bin/python examples/bolt/echo_server.py", ""),
        stays(f"{RUN}/bolt/server.json", LISTENS),
        stays(f"{RUN}/bolt/agent.json", "serving "),
        Step(".venv/bin/python examples/bolt/client.py"),
    ),
    (
        stays("twistd -n --pidfile= reverseproxy --config examples/endpoints/server.json", LISTENS),
        stays("twist web --listen tunnel:127.0.0.1:9999:cluster=files --path .", "serving|agent of cluster"),
        stays("python examples/endpoints/klein_app.py tunnel:127.0.0.1:9999:cluster=klein", "serving "),
        stays("python examples/endpoints/line_server.py tunnel:127.0.0.1:9999:cluster=lines", "serving "),
        stays(
            "daphne -e tunnel:127.0.0.1:9999:cluster=asgi examples.endpoints.asgi_app:app",
            "Configuring endpoint",
        ),
        Step(CURL, "Directory listing"),
    ),
    (
        stays(".venv/bin/reverseproxy server", r"listening on"),
        Step(
            "reverseproxy token add ~/.local/state/reverseproxy/tokens.json laptop "
            "--domain '*.tunnels.example.com' --port 2200-2209",
            "added a token",
        ),
    ),
    (
        stays(
            "reverseproxy server --zone tunnels.example.com --http-listen 0.0.0.0:80 "
            "--ports 0.0.0.0:2200-2299",
            r"listening on .*:80\b",
        ),
    ),
    (stays("reverseproxy server", r"listening on"),),
    (
        stays('etcd --data-dir "$(mktemp -d)" --log-level error &', ""),
        Step(
            "for each in server-a server-b agent-a agent-b; do .venv/bin/twistd --pidfile=$each.pid "
            "reverseproxy --config examples/fleet/$each.yaml; done"
        ),
        Step(CURL, "agent [ab]"),
        Step("kill $(cat agent-a.pid)"),
        Step(CURL, "agent b"),
    ),
    (
        Step(
            "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 "
            '-subj "/CN=fleet" -keyout fleet-ca.key -out fleet-ca.pem'
        ),
        Step(
            'openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=server-a" '
            '-keyout server-a.key -addext "subjectAltName=URI:reverseproxy://server/server-a" | '
            "openssl x509 -req -CA fleet-ca.pem -CAkey fleet-ca.key -days 365 -copy_extensions copy "
            "-out server-a.pem",
            "ignature ok",
        ),
    ),
    (
        Step(
            """jq -r 'select(.level != "INFO" and .level != "DEBUG") | """
            """"\\(.time) \\(.level) \\(.message)"' reverseproxy.log""",
            "^2026-01-01T00:00:00Z ERROR it went wrong$",
        ),
        Step(
            """jq -r 'select(.flags) | [.time, .flags, .status, .agent // "-", .path, .flag] """
            """| @tsv' access.log""",
            "UF\t502\tedge\t/b",
        ),
        Step(
            """jq -s -r 'group_by(.agent)[] | [.[0].agent // "-", length, (map(.duration) | sort | """
            """.[length * 99 / 100 | floor])] | @tsv' access.log""",
            r"edge\t2\t0\.2",
        ),
    ),
)

PROGRAMS = ("etcd", "jq", "openssl")
"""What scenes begin with that may not be there: they are not played then."""


def prepare(directory: Path) -> dict[str, str]:
    """Make a directory like a clone in which everything is installed; the environment for it."""
    shutil.copytree(ROOT / "examples", directory / "examples", ignore=shutil.ignore_patterns("certs"))
    tools = {
        "python": "",
        "python3": "",
        "reverseproxy": "-m reverseproxy",
        "twistd": "-c 'from twisted.scripts.twistd import run; run()'",
        "twist": "-c 'from twisted.application.twist._twist import Twist; Twist.main()'",
        "daphne": "-m daphne",
    }
    for place in (directory / ".venv" / "bin", directory / "bin"):
        place.mkdir(parents=True)
        for name, what in tools.items():
            (place / name).write_text(f'#!/bin/sh\nexec {sys.executable} {what} "$@"\n')
            (place / name).chmod(0o755)
    for place in (".local/share/bash-completion/completions", ".config/fish/completions"):
        (directory / place).mkdir(parents=True)
    (directory / "frpc.toml").write_text(
        'serverAddr = "tunnels.example.com"\n[[proxies]]\nname = "ssh"\ntype = "tcp"\n'
        "localPort = 22\nremotePort = 2222\n"
    )
    lines = (
        {"time": "2026-01-01T00:00:00Z", "level": "INFO", "message": "it went well"},
        {"time": "2026-01-01T00:00:00Z", "level": "ERROR", "message": "it went wrong"},
    )
    requests = (
        {"time": "1", "status": 200, "agent": "edge", "path": "/a", "duration": 0.1},
        {
            "time": "2",
            "status": 502,
            "agent": "edge",
            "path": "/b",
            "duration": 0.2,
            "flags": "UF",
            "flag": "why",
        },
    )
    for name, entries in (("reverseproxy.log", lines), ("access.log", requests)):
        (directory / name).write_text(
            "".join(json.dumps({"agent": "edge", **each}) + "\n" for each in entries)
        )
    return {
        "HOME": str(directory),
        "PATH": f"{directory / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "LANG": "C.UTF-8",
    }


def _raise_loopback() -> None:
    """Let a new network namespace have 127.0.0.1; elsewhere it has it."""
    with suppress(OSError), socket.socket() as any_socket:
        request = struct.pack("16sh", b"lo", 1)  # IFF_UP
        fcntl.ioctl(any_socket, 0x8914, request)  # SIOCSIFFLAGS


class _Scene:
    def __init__(self, directory: Path, environ: dict[str, str]) -> None:
        self._directory = directory
        self._environ = environ
        self._staying: list[subprocess.Popen[bytes]] = []
        self.failed: list[dict[str, str]] = []

    def play(self, steps: tuple[Step, ...]) -> None:
        """Play one scene to its end."""
        try:
            for number, step in enumerate(steps):
                if step.stays:
                    self._begin(step, number)
                else:
                    self._run(step)
        finally:
            for child in reversed(self._staying):
                child.terminate()
            for child in self._staying:
                child.wait(PATIENCE)
            self._staying.clear()
            for file in self._directory.glob("*.pid"):  # of those that went into the background
                with suppress(OSError, ValueError):
                    os.kill(int(file.read_text()), signal.SIGKILL)

    def _fail(self, step: Step, output: str) -> None:
        self.failed.append({"line": step.line, "output": output[-2000:]})

    def _run(self, step: Step) -> None:
        end = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                ["bash", "-c", step.line],
                cwd=self._directory,
                env=self._environ,
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            output = (done.stdout + done.stderr).decode("utf-8", "replace")
            if done.returncode == step.status and re.search(step.shows, output):
                return
            # What a tunnel leads to may take a moment longer than its server.
            if not step.line.startswith("curl") or time.monotonic() > end:
                self._fail(step, f"status {done.returncode}\n{output}")
                return
            time.sleep(0.2)

    def _begin(self, step: Step, number: int) -> None:
        path = self._directory / f"output-{number}"
        with path.open("wb") as output:
            child = subprocess.Popen(
                ["bash", "-c", f"exec {step.line.removesuffix('&')}"],
                cwd=self._directory,
                env=self._environ,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        self._staying.append(child)
        end = time.monotonic() + PATIENCE
        while not re.search(step.shows, text := path.read_text("utf-8", "replace")):
            if child.poll() is not None or time.monotonic() > end:
                self._fail(step, f"status {child.poll()}\n{text}")
                return
            time.sleep(0.05)


def main(directory: str) -> None:
    """Play all scenes, and print what has failed."""
    _raise_loopback()
    place = Path(directory)
    scene = _Scene(place, prepare(place))
    for steps in SCENES:
        program = steps[0].line.split()[0]
        if program not in PROGRAMS or shutil.which(program):
            scene.play(steps)
    for each in scene.failed:
        sys.stdout.write(json.dumps(each) + "\n")
    sys.stdout.write("played\n")


if __name__ == "__main__":
    main(sys.argv[1])
