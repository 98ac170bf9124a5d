"""
The command line clients of docker and Kubernetes, through tunnels, where they are installed.

They can't be had from a package index, so that each has its tests only where
there is a program of its name: a machine without one runs fewer tests, and
C{.ci/run} says so.  What they ask for is asked for in C{test_upgrades} by
docker's library and by hand, on every machine.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any

from tests.integration.clients import threaded
from tests.integration.containers import CONTAINER
from tests.integration.harness import DEADLINE
from tests.integration.test_upgrades import UpgradeTestCase

WAYS: dict[str, dict[str, Any]] = {
    "plain connections": {"agent": {"mux": False, "connections": 3}, "joined": 3},
    "streams": {},
    "HTTP/2": {"tunnel": "Http2", "agent": {"mux": False}},
    "workers": {"options": ("--workers", "2"), "joined": 2},
}


class ClientTestCase(UpgradeTestCase):
    """
    Runs a program with some input.

    @cvar environ: what it finds in its environment.
    """

    environ: dict[str, str] = {}  # noqa: RUF012

    def run_client(self, *command: str, data: bytes) -> tuple[int, bytes, bytes]:
        """
        Run it in an environment that has nothing of ours.

        @return: its exit status, its output and its errors.
        """
        home = str(self.directory)
        environ = {"PATH": os.environ["PATH"], "HOME": home, "DOCKER_CONFIG": home, "KUBECONFIG": os.devnull}
        done = subprocess.run(
            command,
            input=data,
            capture_output=True,
            timeout=DEADLINE,
            env={**environ, **self.environ},
            check=False,
        )
        return done.returncode, done.stdout, done.stderr


if shutil.which("docker"):

    class DockerTests(ClientTestCase):
        """C{docker exec} and C{docker attach}, which upgrade POSTs to C{tcp}."""

        def docker(self, port: int) -> None:
            start = ("docker", "--host", f"tcp://127.0.0.1:{port}")
            execute, attach = ("exec", "-i", CONTAINER, "cat"), ("attach", CONTAINER)
            big = b"x" * 1_000_000
            for command, data in ((execute, b"hello"), (execute, big), (attach, big), (attach, b"")):
                code, output, errors = self.run_client(*start, *command, data=data)
                # Its input ends, and then its output.
                assert errors == b"%d bytes of input\n" % len(data), (command, len(output), errors)
                assert (code, len(output), output) == (7, len(data), data), (command, code, len(output))

        async def test_over_every_way(self) -> None:
            for name, way in WAYS.items():
                port = await self.start(**way)
                with self.subTest(name):
                    await threaded(self.docker, port)


if shutil.which("kubectl"):

    class KubernetesTests(ClientTestCase):
        """C{kubectl exec}, of late with a WebSocket."""

        def kubectl(self, port: int) -> None:
            start = ("kubectl", "--server", f"http://127.0.0.1:{port}")
            data = b"x" * 1_000_000
            code, output, errors = self.run_client(*start, "exec", "-i", CONTAINER, "--", "cat", data=data)
            assert (code, output) == (0, data), (code, output[:100], errors)
            assert b"%d bytes of input\n" % len(data) in errors, errors

        async def test_over_every_way(self) -> None:
            for name, way in WAYS.items():
                port = await self.start(**way)
                with self.subTest(name):
                    await threaded(self.kubectl, port)

    class KubernetesSpdyTests(KubernetesTests):
        """C{kubectl exec} as it was before, with SPDY/3.1."""

        environ = {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false"}  # noqa: RUF012
