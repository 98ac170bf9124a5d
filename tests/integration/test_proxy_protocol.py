"""PROXY protocol before TLS, on real sockets, with both kinds of transport."""

from __future__ import annotations

import json
import socket
import ssl

from tests.integration.clients import threaded
from tests.integration.configs import http_filter, server
from tests.integration.harness import IntegrationTestCase, certificates

HEADER = b"PROXY TCP4 203.0.113.7 198.51.100.1 5000 443\r\n"


class ProxyProtocolTests(IntegrationTestCase):
    async def test_tls(self) -> None:
        authority = certificates(self.directory)
        chain, key = authority.issue("localhost")
        backend = await self.run_backend()
        document = server(
            client_tls={"status": True, "cert_chain": chain, "private_key": key},
            client_listener={"proxy_protocol": {"trusted_proxies": ["127.0.0.1"]}},
            client_filter=http_filter("client_router", extend_config={"Http1": {"x_forwarded": "append"}}),
            cluster={"hosts": [{"address": backend.address}]},
        )
        context = ssl.create_default_context(cafile=authority.ca_file)
        for transport in ("fast", "stock"):
            proxy = self.run_proxy(document, transport, "--transport", transport)
            port = await proxy.port("clientListener")

            def ask(pause: bytes, port: int = port) -> bytes:
                with socket.create_connection(("127.0.0.1", port), 10) as plain:
                    plain.sendall(pause)
                    with context.wrap_socket(plain, server_hostname="localhost") as secure:
                        secure.sendall(
                            b"GET /headers HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                        )
                        return b"".join(iter(lambda: secure.recv(65536), b""))

            self.assertIn(b"203.0.113.7", await threaded(ask, HEADER))
            with self.assertRaises(OSError):
                await threaded(ask, b"")
            await proxy.wait_for("does not begin with a PROXY protocol header")
            self.assertIn(b"203.0.113.7", await threaded(ask, HEADER), json.dumps(proxy.lines[-5:]))
