"""Tests for L{reverseproxy.endpoints.strings}, and for the plug-ins."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.endpoints import ClusterAddress, ClusterEndpoint, TunnelAddress, TunnelServerEndpoint
from reverseproxy.endpoints.strings import parse_client, server_settings
from reverseproxy.errors import ConfigError
from reverseproxy.testing import MemoryReactor

HERE = ("host=h", "port=1", "cluster=c")


def settings(text: str) -> object:
    """What a string without escapes says."""
    parts = text.split(":")
    return server_settings(
        [part for part in parts if "=" not in part],
        dict(part.split("=", 1) for part in parts if "=" in part),
    )


class ServerSettingsTests(SynchronousTestCase):
    def test_places(self) -> None:
        for text, servers in {
            "h:1:cluster=c": ["h:1"],
            "host=h:port=1:cluster=c": ["h:1"],
            "h:port=1:cluster=c": ["h:1"],
            "path=/run/x:cluster=c": ["unix:/run/x"],
        }.items():
            self.assertEqual(settings(text), {"server_list": servers, "cluster": "c"}, text)
        self.assertEqual(
            server_settings([], {"servers": "a:1, b:2", "cluster": "c"})["server_list"], ["a:1", "b:2"]
        )
        self.assertEqual(server_settings(["::1", "1"], {"cluster": "c"})["server_list"], ["[::1]:1"])

    def test_everything(self) -> None:
        self.assertEqual(
            settings(
                "h:1:cluster=c:name=n:weight=3:connections=2:timeout=4:drain=1m:streams=no:tls:caCert=/a:"
                "serverName=s:certificate=/b:privateKey=/k:credentialFile=/t"
            ),
            {
                "server_list": ["h:1"],
                "cluster": "c",
                "host_name": "n",
                "weight": 3,
                "connection_num": 2,
                "connect_timeout_duration": "4s",
                "graceful_close_max_wait_duration": "1m",
                "mux": False,
                "tls_context": {
                    "status": True,
                    "ca_cert": "/a",
                    "server_name": "s",
                    "cert_chain": "/b",
                    "private_key": "/k",
                },
                "credential_policy": "static",
                "credential_config": {"file": "/t"},
            },
        )

    def test_tls(self) -> None:
        for text, wanted in {
            "tls": {"status": True},
            "tls=yes": {"status": True},
            "caCert=/a": {"status": True, "ca_cert": "/a"},
            "caCert=system": {"status": True},
            "fingerprint=ab12": {"status": True, "fingerprint": "ab12"},
            "tls=no": None,
        }.items():
            made = server_settings(
                *(["h", "1", *["tls"] * (text == "tls")], {"cluster": "c"} | _pairs(text)),
            )
            self.assertEqual(made.get("tls_context"), wanted, text)

    def test_credentials(self) -> None:
        for text, wanted in {
            "credential=abc": ("static", {"token": "abc"}),
            "credentialEnv=TOKEN": ("static", {"env": "TOKEN"}),
            "credentialPolicy=mine": ("mine", {}),
        }.items():
            made = server_settings(["h", "1"], {"cluster": "c"} | _pairs(text))
            self.assertEqual((made["credential_policy"], made["credential_config"]), wanted)

    def test_mistakes(self) -> None:
        for text, message in {
            "h:1": "cluster=NAME is missing",
            "cluster=c": "say one of host",
            "h:cluster=c": "port=... is missing",
            "h:1:path=/x:cluster=c": "not host and path",
            "h:x:cluster=c": "port=x is no number",
            "h:1:2:cluster=c": "'2' has no key",
            "h:1:host=g:cluster=c": "host is given twice",
            "h:1:cluster=c:wieght=2": "unknown key 'wieght'",
            "h:1:cluster=c:weight=much": "weight=much is no number",
            "h:1:cluster=c:streams=maybe": "neither yes nor no",
            "h:1:cluster=c:tls=no:caCert=/x": "tls=no, but there is caCert",
            "h:1:cluster=c:tls:tls=no": "tls, but tls=no",
            "h:1:cluster=c:credential=a:credentialFile=b": "say one of credential",
        }.items():
            error = self.assertRaises(ValueError, settings, text)
            self.assertIn(message, str(error), text)


def _pairs(text: str) -> dict[str, str]:
    return dict([text.split("=", 1)]) if "=" in text else {}


class StringTests(SynchronousTestCase):
    def test_server(self) -> None:
        made = serverFromString(MemoryReactor(), "tunnel:127.0.0.1:9:cluster=c:name=n")
        self.assertIsInstance(made, TunnelServerEndpoint)
        self.assertEqual(made.address, TunnelAddress(("127.0.0.1:9",), "c", "n"))
        self.assertEqual(str(made.address), "cluster c at 127.0.0.1:9 as n")

    def test_server_with_what_is_wrong(self) -> None:
        missing = str(Path(self.mktemp()))
        for text, message in {
            "tunnel:127.0.0.1:99999:cluster=c": "server_list",
            "tunnel:127.0.0.1:9:cluster=c:weight=1000": "weight",
            f"tunnel:127.0.0.1:9:cluster=c:caCert={missing}": "tls_context.ca_cert",
            "tunnel:127.0.0.1:9:cluster=c:credentialPolicy=nobodys": "nobodys",
        }.items():
            error = self.assertRaises(ConfigError, serverFromString, MemoryReactor(), text)
            self.assertIn(message, str(error))
            self.assertNotIn("extends", str(error))

    def test_client(self) -> None:
        for text in ("tunnel:app", "tunnel:cluster=app", "tunnel:app:timeout=3"):
            made = clientFromString(MemoryReactor(), text)
            self.assertIsInstance(made, ClusterEndpoint)
            self.assertEqual(made.address, ClusterAddress("app"))
        self.assertEqual(str(ClusterAddress("app")), "cluster app")

    def test_client_mistakes(self) -> None:
        for args, kwargs in (
            ((), {}),
            (("a", "b"), {}),
            (("a",), {"cluster": "b"}),
            (("a",), {"host": "b"}),
            (("a",), {"timeout": "soon"}),
        ):
            self.assertRaises(ValueError, parse_client, args, kwargs)
