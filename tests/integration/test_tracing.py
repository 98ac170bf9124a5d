"""One trace through two real processes, as a receiver of OTLP sees it."""

from __future__ import annotations

import gzip
import json
from itertools import pairwise
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.integration.clients import fetch
from tests.integration.configs import quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"


class Receiver(Resource):
    """
    Takes spans as a collector does.

    @ivar spans: those that have come, by the name of their service and their own.
    """

    isLeaf = True  # noqa: N815  as twisted.web has it

    def __init__(self) -> None:
        super().__init__()
        self.spans: dict[tuple[str, str], Any] = {}
        self.paths: set[bytes] = set()
        self.authorizations: set[str | None] = set()
        self._wanted = 0
        self._enough: Deferred[None] = Deferred()

    def wait_for(self, count: int) -> Deferred[None]:
        """Wait until there are so many spans."""
        self._wanted = count
        enough, self._enough = self._enough, Deferred()
        self._enough = enough
        self._look()
        return enough.addTimeout(DEADLINE, reactor)  # type: ignore[arg-type]

    def _look(self) -> None:
        if self._wanted and len(self.spans) >= self._wanted and not self._enough.called:
            self._enough.callback(None)

    def render_POST(self, request: Any) -> bytes:
        self.paths.add(request.path)
        self.authorizations.add(request.getHeader("authorization"))
        data = request.content.read()
        if request.getHeader("content-encoding") == "gzip":
            data = gzip.decompress(data)
        for batch in ExportTraceServiceRequest.FromString(data).resource_spans:
            resource = {each.key: each.value.string_value for each in batch.resource.attributes}
            for scope in batch.scope_spans:
                for span in scope.spans:
                    self.spans[resource["service.name"], span.name] = span
        self._look()
        request.setHeader("content-type", "application/x-protobuf")
        return b""


class TracingTests(IntegrationTestCase):
    def receiver(self) -> tuple[Receiver, int]:
        receiver = Receiver()
        port = reactor.listenTCP(0, Site(receiver), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return receiver, port.getHost().port

    async def test_a_request_from_end_to_end(self) -> None:
        """Client, server, tunnel, agent, service: one trace, whose spans are within each other."""
        receiver, port = self.receiver()
        backend = await self.run_backend()

        def tracing(name: str, **more: Any) -> dict[str, Any]:
            options = {"service_name": name, "report_method": "http", "endpoint": f"127.0.0.1:{port}", **more}
            return {"enable": True, "driver": "otel", "config": options}

        log = str(self.directory / "web.log")
        document = server(client_listener={"access_logs": [{"log_path": log, "log_format": "json"}]})
        document["tracing"] = tracing("cloud", accept="all", headers={"authorization": "Bearer x"})
        cloud = self.run_proxy(document, "server")
        client = await cloud.port("clientListener")
        document = quick_agent(await cloud.port("tunnelListener"), backend.address)
        document["tracing"] = tracing("edge")
        edge = self.run_proxy(document, "agent")
        await cloud.logged(JOINED)
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "shop=1"}
        answer = await fetch(client, "/show", headers=headers)
        self.assertEqual(answer.status, 200)
        await receiver.wait_for(4)
        spans = receiver.spans
        route = "client_router_host[0]"
        chain = [
            spans["cloud", f"GET {route}"],
            spans["cloud", "tunnel"],
            next(span for (name, what), span in spans.items() if name == "edge" and what.startswith("GET ")),
            spans["edge", "upstream"],
        ]
        parent = SPAN
        for span in chain:
            self.assertEqual((span.trace_id.hex(), span.parent_span_id.hex()), (TRACE, parent))
            self.assertEqual(span.trace_state, "shop=1")
            parent = span.span_id.hex()
        for outer, inner in pairwise(chain):
            self.assertLessEqual(outer.start_time_unix_nano, inner.start_time_unix_nano)
            self.assertGreaterEqual(outer.end_time_unix_nano, inner.end_time_unix_nano)
        self.assertEqual((receiver.paths, receiver.authorizations), ({b"/v1/traces"}, {"Bearer x", None}))
        # What the service was told is the last one of these.
        self.assertIn(f"00-{TRACE}-{parent}-01".encode(), answer.body)
        # What was not sent yet is sent before the end.
        await fetch(client, "/show")
        await edge.stop()
        await cloud.stop()
        with open(log, encoding="utf-8") as file:
            first, second = map(json.loads, file)
        self.assertEqual(first["trace_id"], TRACE)
        requests = {key: span for key, span in spans.items() if key[1].startswith("GET ")}
        self.assertEqual({name for name, _ in requests}, {"cloud", "edge"})
        self.assertEqual({span.trace_id.hex() for span in requests.values()}, {second["trace_id"]})

    async def test_a_receiver_that_is_gone(self) -> None:
        """It costs spans, and a line now and then."""
        port = self.reserve_port()
        backend = await self.run_backend()
        document = server()
        document["tracing"] = {"enable": True, "config": {"endpoint": f"127.0.0.1:{port}"}}
        cloud = self.run_proxy(document, "server")
        client = await cloud.port("clientListener")
        self.run_proxy(quick_agent(await cloud.port("tunnelListener"), backend.address), "agent")
        await cloud.logged(JOINED)
        for _ in range(3):
            self.assertEqual((await fetch(client, "/show")).status, 200)
        await cloud.logged(rf"^traces can't be sent to http://127\.0\.0\.1:{port}/v1/traces: ")
