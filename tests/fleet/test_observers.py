"""Logs and traces of a forwarded request at both servers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.assembly import assembly
from reverseproxy.config.models import TracingOptions
from reverseproxy.tracing.otel import OtelTracing
from tests.fleet.test_protocols import rpc
from tests.fleet.worlds import FleetWorld
from tests.integration.http2_configs import spoken
from tests.tunnel.logged import capture
from tests.wire.test_bolt import REQUEST as BOLT

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
FORMAT = (
    '{"server": "%upstream_server%", "by": "%forwarded_by%", "path": "%path%", "status": "%response_code%", '
    '"id": "%request_header_x-request-id%", "trace": "%trace_id%", "client": "%downstream_remote_address%", '
    '"agent": "%agent_claim%"}'
)


class AccountTests(SynchronousTestCase):
    """Clients come to server b; the agent is at server a."""

    def run_fleet(
        self,
        change: Any = dict,
        at_agent: Any = None,
        plain: bool = False,
        log: bool = True,
        traced: bool = False,
    ) -> None:
        self.exporters: list[InMemorySpanExporter] = []
        self.patch(assembly, "build_tracing", self.tracing)
        self.world = FleetWorld()
        self.addCleanup(self.world.stop)
        self.logs = {name: Path(self.mktemp()) for name in "ab"}
        for name, path in self.logs.items():
            logs = [{"log_path": str(path), "log_format": FORMAT}] if log else []

            def finish(document: dict[str, Any], logs: Any = logs) -> dict[str, Any]:
                document = change(document)
                document["servers"][0]["listeners"][0]["access_logs"] = logs
                if traced:
                    document["tracing"] = {"enable": True, "driver": "otel", "config": {"accept": "all"}}
                return document

            self.world.server(name, {"access_logs": logs}, change=finish)
        for server in self.world.servers.values():
            self.addCleanup(setattr, server._world, "tracing", None)  # nothing is sent, or to be ended
        self.world.agent(0, answer="ok", plain=plain, change=at_agent or change)
        self.world.pass_time(0.5)

    def tracing(self, options: TracingOptions, reactor: Any) -> OtelTracing:
        tracing = OtelTracing(options, Clock(), lambda: 1_800_000_000.0)
        self.exporters.append(InMemorySpanExporter())
        tracing.start = tracing.stop = lambda: None  # type: ignore[method-assign]
        tracing._provider.add_span_processor(SimpleSpanProcessor(self.exporters[-1]))
        return tracing

    def ask(self, *paths: str) -> None:
        client = self.world.client(1)
        for path in paths:
            client.transport.write(
                f"GET {path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: id of {path}\r\n"
                f"traceparent: {PARENT}\r\n\r\n".encode()
            )
            self.world.pass_time(0.2)
        self.assertEqual(client.data.count(b" 200 OK"), len(paths), client.data)

    def lines(self, name: str) -> list[dict[str, str]]:
        self.world.pass_time(3)
        return [json.loads(line) for line in self.logs[name].read_text().splitlines()]

    def test_a_line_at_both_for_each_request(self) -> None:
        """With the same id, whichever way the agent's connection works, over streams that are kept."""
        for plain in (False, True):
            self.run_fleet(plain=plain)
            self.ask("/1", "/2", "/3")
            theirs, ours = self.lines("a"), self.lines("b")
            for lines in (theirs, ours):
                self.assertEqual([each["id"] for each in lines], [f"id of /{n}" for n in (1, 2, 3)])
                self.assertEqual({(each["status"], each["agent"]) for each in lines}, {("200", "ok")})
                self.assertEqual([each["path"] for each in lines], ["/1", "/2", "/3"])
            self.assertEqual({(each["server"], each["by"]) for each in ours}, {("a", "-")})
            self.assertEqual({(each["server"], each["by"]) for each in theirs}, {("-", "b")})
            [peer] = self.world.fleet("b").peers()
            self.assertEqual(peer["forwarded"], 1)

    def test_the_client(self) -> None:
        """The server that forwards says who it is, if it is told to."""

        def change(document: dict[str, Any]) -> dict[str, Any]:
            filters = document["servers"][0]["listeners"][0]["filter_chains"][0]["filters"]
            filters[0]["config"]["extend_config"] = {"http1": {"x_forwarded": "append"}}
            return document

        self.run_fleet(change=change, at_agent=dict)
        self.ask("/1", "/2")
        [client] = {each["client"] for each in self.lines("b")}
        self.assertEqual({each["client"] for each in self.lines("a")}, {client.rpartition(":")[0]})

    def test_http2(self) -> None:
        """A line for each request as well, of those that share a stream."""
        self.run_fleet(
            change=lambda document: spoken(document, "Http1", "Http2"),
            at_agent=lambda document: spoken(document, "Http2"),
        )
        self.ask("/1", "/2")
        self.assertEqual([each["id"] for each in self.lines("a")], ["id of /1", "id of /2"])

    def test_rpc(self) -> None:
        with capture():
            self.run_fleet(change=lambda document: rpc(document, "bolt"))
            client = self.world.client(1)
            client.transport.write(BOLT)
            self.world.pass_time(0.5)
            self.assertEqual([each["by"] for each in self.lines("a")], ["b"])

    def test_spans(self) -> None:
        """Those of the server that has the agent are within what the other one calls its tunnel."""
        for plain in (False, True):
            self.run_fleet(plain=plain, log=False, traced=True)
            self.ask("/1")
            theirs, ours = (
                {span.name: span for span in exporter.get_finished_spans()} for exporter in self.exporters
            )
            tunnel, request = ours["tunnel"], theirs["GET fleet[0]"]
            self.assertEqual(tunnel.attributes["reverseproxy.server"], "a")
            self.assertEqual(request.attributes["reverseproxy.forwarded_by"], "b")
            self.assertEqual(request.parent.span_id, tunnel.context.span_id)
            self.assertEqual(theirs["tunnel"].parent.span_id, request.context.span_id)
            spans = [*ours.values(), *theirs.values()]
            self.assertEqual({f"{each.context.trace_id:032x}" for each in spans}, {TRACE})

    def test_nobody_wants_to_know(self) -> None:
        """Then bytes are passed on."""
        self.run_fleet(log=False)
        self.ask("/1")
        forwarder = self.world.fleet("a").forwarder
        self.assertEqual(len(forwarder._protocols), 0)
