"""nginx as a host that wants to be told who the client is, by PROXY protocol."""

from __future__ import annotations

import http.client
import shutil
from typing import Any

from tests.integration.clients import threaded
from tests.integration.harness import DEADLINE, Child, IntegrationTestCase, certificates

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr notice;
events {{ }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    server {{
        listen 127.0.0.1:{plain} proxy_protocol;
        location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $connection"; }}
    }}
    server {{
        listen 127.0.0.1:{secure} ssl proxy_protocol;
        ssl_certificate {chain};
        ssl_certificate_key {key};
        location / {{ return 200 "$proxy_protocol_addr $proxy_protocol_port $connection"; }}
    }}
}}
"""


def listener(name: str, chain: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": "127.0.0.1:0",
        "bind_port": True,
        "filter_chains": [{"filters": [chain]}],
    }


if shutil.which("nginx"):

    class NginxTests(IntegrationTestCase):
        async def test_who_the_client_is(self) -> None:
            """In both versions, with TLS and without, by HTTP and as bytes; and in health checks nobody."""
            plain, secure = self.reserve_port(), self.reserve_port()
            authority = certificates(self.directory)
            chain, key = authority.issue("localhost")
            text = NGINX.format(directory=self.directory, plain=plain, secure=secure, chain=chain, key=key)
            file = self.directory / "nginx.conf"
            file.write_text(text)
            nginx = Child("nginx")
            program = shutil.which("nginx")
            assert program is not None
            replace = "import os, sys; os.execv(sys.argv[1], sys.argv[1:])"
            self.spawn(nginx, "-c", replace, program, "-c", str(file), "-e", "stderr")
            await nginx.wait_for(r"\[notice\] .* OS: ")
            tls = {"status": True, "ca_cert": authority.ca_file, "server_name": "localhost"}
            check = {
                "protocol": "Http1",
                "interval": "1s",
                "initial_delay_seconds": "1ms",
                "service_name": "n",
            }
            checked = {"check_config": {"http_check_config": {"path": "/"}}}
            clusters: list[dict[str, Any]] = [
                {"name": "v1", "proxy_protocol": "v1", "hosts": [{"address": f"127.0.0.1:{plain}"}]},
                {
                    "name": "v2",
                    "proxy_protocol": "v2",
                    "hosts": [{"address": f"127.0.0.1:{secure}"}],
                    "tls_context": tls,
                    "health_check": check | checked,
                },
            ]
            routers = [
                {
                    "router_config_name": name,
                    "virtual_hosts": [
                        {
                            "name": name,
                            "domains": ["*"],
                            "routers": [{"match": {"prefix": "/"}, "route": {"cluster_name": name}}],
                        }
                    ],
                }
                for name in ("v1", "v2")
            ]
            proxies = [
                listener(
                    f"http {name}",
                    {"type": "proxy", "config": {"downstream_protocol": "Http1", "router_config_name": name}},
                )
                for name in ("v1", "v2")
            ]
            bytes_ = listener("tcp", {"type": "tcp_proxy", "config": {"cluster": "v1"}})
            document = {
                "servers": [
                    {"default_log_path": "stdout", "routers": routers, "listeners": [*proxies, bytes_]}
                ],
                "cluster_manager": {"clusters": clusters},
            }
            proxy = self.run_proxy(document, "server")
            for name in ("http v1", "http v2", "tcp"):
                port = await proxy.port(name)
                first, second = await threaded(ask_twice, port), await threaded(ask_twice, port)
                for ours, answers in (first, second):
                    self.assertEqual([answer.split()[:2] for answer in answers], [["127.0.0.1", ours]] * 2)
                connections = [[answer.split()[2] for answer in answers] for _, answers in (first, second)]
                # Each client has one connection to the host, for both of its requests.
                self.assertEqual([len(set(each)) for each in connections], [1, 1])
                self.assertNotEqual(connections[0][0], connections[1][0])
            self.assertEqual(await proxy.stop(), 0)


def ask_twice(port: int) -> tuple[str, list[str]]:
    """Our own port, and what the host has said, twice on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    answers = []
    try:
        for _ in range(2):
            connection.request("GET", "/", headers={"Host": "localhost"})
            answers.append(connection.getresponse().read().decode())
        assert connection.sock is not None
        return str(connection.sock.getsockname()[1]), answers
    finally:
        connection.close()
