"""
The service behind everything, and plain proxies of one hop in front of it.
"""

from __future__ import annotations

__all__ = ["Direct", "HaproxyHop", "Nginx", "NginxHop"]

import os
from pathlib import Path

from benchmarks.install import Tools
from benchmarks.load import RESOURCES
from benchmarks.processes import LOOPBACK, Peer, free_ports


def _nginx_config(directory: Path, name: str, http: str) -> str:
    """Write the configuration of one nginx process; returns its path."""
    temporary = "\n".join(
        f"  {kind}_temp_path {directory}/{name}-{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    path = directory / f"{name}.conf"
    path.write_text(f"""
daemon off;
master_process off;
pid {directory}/{name}.pid;
error_log stderr warn;
worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off;
{temporary}
{http}
}}
""")
    return str(path)


class Nginx(Peer):
    """The backend: static files from one nginx process."""

    def __init__(self, tools: Tools) -> None:
        super().__init__("nginx", "nginx")
        self._program = tools.nginx

    def start(self, directory: Path) -> None:
        """Start it with the resources of all loads."""
        [self.front] = free_ports(1)
        root = directory / "www"
        root.mkdir(exist_ok=True)
        for number, (path, size) in enumerate(RESOURCES.items()):
            place = root / path.lstrip("/")
            with place.open("wb") as file:
                if size <= 16 * 1024 * 1024:
                    file.write(b"x" * size)
                else:
                    # a hole: it takes no room on the disk
                    file.truncate(size)
            # times of their own, so that the heads of answers differ
            os.utime(place, (1.7e9 + number, 1.7e9 + number))
        # As many requests on a connection as come, and an hour for connections on
        # which no request came yet: an agent that relays bytes opens those in advance.
        config = _nginx_config(
            directory,
            self.name,
            f"""
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  client_header_timeout 1h;
  open_file_cache max=128 inactive=1h;
  open_file_cache_valid 1h;
  server {{
    listen {LOOPBACK}:{self.front} backlog=4096;
    root {root};
  }}
""",
        )
        # -e: its built-in log may be out of our reach
        self._run(directory, "", [str(self._program), "-e", "stderr", "-p", str(directory), "-c", config])


class Direct(Peer):
    """No proxy at all: the backend as the client sees it, to know what the rest can be compared with."""

    def __init__(self, backend: Peer) -> None:
        super().__init__("direct", "nginx, direct")
        self._backend = backend

    def start(self, directory: Path) -> None:
        """Nothing to start."""
        self.front = self._backend.front


class NginxHop(Peer):
    """nginx as an ordinary proxy, one process, with connections to the service kept."""

    def __init__(self, tools: Tools, backend: Peer) -> None:
        super().__init__("nginx-hop", "nginx, proxy of one hop")
        self._program = tools.nginx
        self._backend = backend

    def start(self, directory: Path) -> None:
        """Start it with a port for each version of HTTP."""
        self.front, self.front_h2 = free_ports(2)
        location = """
    location / {
      proxy_pass http://service;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_max_temp_file_size 0;
    }
"""
        config = _nginx_config(
            directory,
            self.name,
            f"""
  keepalive_requests 1000000000;
  keepalive_timeout 1h;
  upstream service {{
    server {LOOPBACK}:{self._backend.front};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {LOOPBACK}:{self.front} backlog=4096;
{location}
  }}
  server {{
    listen {LOOPBACK}:{self.front_h2} http2 backlog=4096;
{location}
  }}
""",
        )
        self._run(directory, "", [str(self._program), "-e", "stderr", "-p", str(directory), "-c", config])


class HaproxyHop(Peer):
    """haproxy as an ordinary proxy, one thread."""

    def __init__(self, tools: Tools, backend: Peer) -> None:
        super().__init__("haproxy-hop", "haproxy, proxy of one hop")
        if tools.haproxy is None:
            raise ValueError("haproxy is not installed")
        self._program = tools.haproxy
        self._backend = backend

    def start(self, directory: Path) -> None:
        """Start it with a port for each version of HTTP."""
        self.front, self.front_h2 = free_ports(2)
        path = directory / f"{self.name}.cfg"
        path.write_text(f"""
global
  nbthread 1
  maxconn 8192
defaults
  mode http
  timeout connect 10s
  timeout client 1h
  timeout server 1h
  http-reuse always
listen http1
  bind {LOOPBACK}:{self.front}
  server service {LOOPBACK}:{self._backend.front}
listen http2
  bind {LOOPBACK}:{self.front_h2} proto h2
  server service {LOOPBACK}:{self._backend.front}
""")
        # -db: it stays in the foreground
        self._run(directory, "", [str(self._program), "-db", "-f", str(path)])
