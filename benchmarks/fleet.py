"""
Two servers of a fleet and an agent of one of them: what it costs to come to the other one.

Etcd runs beside them; it has nothing to do with requests, and does not count.
"""

from __future__ import annotations

__all__ = ["LOADS", "ROWS", "FleetPair"]

import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.install import Tools
from benchmarks.load import BIG, SMALL
from benchmarks.ours import OurPair, Setup
from benchmarks.processes import LOOPBACK, Peer, PeerError, Process, free_ports

ROWS = {
    "fleet-local": ("fleet, the agent's own server", False, 1),
    "fleet-forwarded": ("fleet, another server", True, 1),
    "fleet-local-plain": ("fleet, the agent's own server, plain connections", False, 64),
    "fleet-forwarded-plain": ("fleet, another server, plain connections", True, 64),
}
"""By name: what the report calls it, whether requests are forwarded, and the agent's connections."""

LOADS = (SMALL, BIG)

_HOLDER, _ROUTER = "holder", "router"


class FleetPair(OurPair):
    """
    Two servers with a link between them, over TLS, and an agent of the first.

    @ivar forwarded: whether clients come to the other server.
    """

    def __init__(self, name: str, tools: Tools, backend: Peer) -> None:
        title, self.forwarded, connections = ROWS[name]
        setup = Setup("http", "http", connections, mux=connections == 1)
        super().__init__(name, title, tools, backend, setup)
        self._etcd: Process | None = None
        self._servers: dict[str, tuple[int, int, int]] = {}

    def start(self, directory: Path) -> None:
        """Start etcd, the servers, and the agent."""
        etcd = shutil.which("etcd")
        if etcd is None:
            raise PeerError("etcd is not installed")
        client, peer, *ports = free_ports(8)
        data = directory / f"{self.name}-etcd"
        shutil.rmtree(data, ignore_errors=True)
        self._etcd = Process(
            f"{self.name}-etcd",
            [
                *(etcd, "--data-dir", str(data), "--log-level", "fatal", "--unsafe-no-fsync"),
                *("--listen-client-urls", f"http://{LOOPBACK}:{client}"),
                *("--advertise-client-urls", f"http://{LOOPBACK}:{client}"),
                *("--listen-peer-urls", f"http://{LOOPBACK}:{peer}"),
                *("--initial-advertise-peer-urls", f"http://{LOOPBACK}:{peer}"),
                *("--initial-cluster", f"default=http://{LOOPBACK}:{peer}"),
            ],
            directory,
        )
        self._servers = {_HOLDER: tuple(ports[:3]), _ROUTER: tuple(ports[3:])}  # type: ignore[dict-item]
        certificate, key = self._link_certificate(directory)
        for name, (front, tunnel, link) in self._servers.items():
            self.front, self.tunnel = front, tunnel
            config = self._server_config()
            config["fleet"] = {
                "server_id": name,
                "etcd": {"endpoints": [f"{LOOPBACK}:{client}"]},
                "peers": {
                    "address": f"{LOOPBACK}:{link}",
                    "tls_context": {
                        "status": True,
                        "ca_cert": str(certificate),
                        "cert_chain": str(certificate),
                        "private_key": str(key),
                    },
                },
            }
            self._twistd(directory, name, config)
            self._wait_listening(tunnel)
        self.tunnel = self._servers[_HOLDER][1]
        self.front = self._servers[_ROUTER if self.forwarded else _HOLDER][0]
        self._twistd(directory, "agent", self._agent_config())

    def _link_certificate(self, directory: Path) -> tuple[Path, Path]:
        """Make one certificate for both servers, which is its own authority."""
        certificate, key = (directory / f"{self.name}.{kind}" for kind in ("pem", "key"))
        script = Path(__file__).with_name("certificate.py")
        uris = [f"reverseproxy://server/{name}" for name in self._servers]
        subprocess.run(
            [str(self._tools.python), str(script), str(certificate), str(key), *uris], check=True, timeout=30
        )
        return certificate, key

    def _twistd(self, directory: Path, role: str, config: dict[str, Any]) -> None:
        path = self._write(directory, role, config)
        command = [str(self._tools.twistd), "--nodaemon", "--pidfile=", "reverseproxy", "--config", path]
        self._run(directory, role, command)

    def stop(self) -> None:
        """End everything."""
        super().stop()
        if self._etcd is not None:
            self._etcd.kill_all()
            self._etcd = None
