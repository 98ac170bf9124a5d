"""What the description of C{/api/tunnel/v1} says of requests and answers is so, whatever is asked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import jsonschema
from hypothesis import given, settings
from hypothesis import strategies as st

from reverseproxy.admin.openapi import describe
from tests import most
from tests.admin.test_service import OPERATE, AdminTestCase
from tests.admin.world import World, parse_answer
from tests.tunnel.logged import capture

DOCUMENT = describe()
[BASE] = [server["url"] for server in DOCUMENT["servers"]]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
WORDS = st.sampled_from(
    ["0", "1", "500", "501", "-1", "1e9", "nan", "inf", "", "/", "a", "GET", "x: y", "true"]
)


def operations() -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Each path, method, and what is said of them."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation


def valid(schema: Mapping[str, Any], value: str) -> bool:
    """Whether a parameter is as its schema says."""
    found: Any = value
    if schema.get("type") in ("integer", "number"):
        try:
            found = int(value) if schema["type"] == "integer" else float(value)
        except ValueError:
            return False
    if schema.get("type") == "array":
        return valid(schema["items"], value)
    return bool(jsonschema.Draft202012Validator(schema).is_valid(found)) and found == found


BODIES = st.one_of(
    st.just(b""),
    st.binary(max_size=20),
    st.dictionaries(
        st.sampled_from(["weight", "x"]), st.one_of(st.integers(-1, 200), st.floats(1, 128), TEXT), max_size=2
    ).map(lambda body: json.dumps(body).encode()),
)


class DescriptionTests(AdminTestCase):
    def check_answer(
        self, world: World, operation: Mapping[str, Any], answer: Any, may_be_wrong: bool
    ) -> None:
        self.assertIn(str(answer.status), operation["responses"])
        described = operation["responses"][str(answer.status)]
        [(content_type, content)] = described["content"].items()
        self.assertEqual(answer.headers["content-type"], content_type)
        if answer.status == 400:
            self.assertTrue(may_be_wrong, "what the description allows was refused")
        if content_type != "text/event-stream":
            schema = {**content["schema"], "components": DOCUMENT["components"]}
            jsonschema.validate(answer.json, schema, jsonschema.Draft202012Validator)

    @given(st.sampled_from(list(operations())), st.data())
    @settings(max_examples=most(300))
    def test_any_request(self, each: tuple[str, str, Mapping[str, Any]], data: st.DataObject) -> None:
        """Of any request, the answer is one of those described; and what is described is taken."""
        path, method, operation = each
        if not hasattr(self, "_world"):
            self._world = self.with_tokens()
            self._world.agent()
        world = self._world
        agents = world.proxy.inspector.answer("agents", {})["agents"]
        names = {
            "{id}": agents[0]["id"] if agents else "none",
            "{name}": "clientCluster",
            "{address}": agents[0]["addresses"][0] if agents else "none",
        }
        wrong = False
        for place, known in names.items():
            if place in path:
                path = path.replace(place, quote(data.draw(st.one_of(st.just(known), TEXT)) or "x", safe=""))
        query = []
        for parameter in operation["parameters"]:
            if parameter["in"] == "query" and data.draw(st.booleans()):
                value = data.draw(st.one_of(WORDS, TEXT))
                wrong = wrong or not valid(parameter["schema"], value)
                query.append(f"{parameter['name']}={quote(value, safe='')}")
        body = data.draw(BODIES) if "requestBody" in operation else b""
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            try:
                wrong = not jsonschema.Draft202012Validator(schema).is_valid(json.loads(body))
            except ValueError:
                wrong = True
        target = f"{BASE}{path}" + (f"?{'&'.join(query)}" if query else "")
        with capture():
            answer = self.request(world, target, method.upper(), body)
        self.check_answer(world, operation, answer, wrong)

    def request(self, world: World, target: str, method: str, body: bytes) -> Any:
        client = world.connect()
        head = f"{method} {target} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {OPERATE}\r\n"
        client.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        world.reactor.settle()
        answer = parse_answer(client.data)
        client.transport.abortConnection()  # a stream of events would not end
        world.reactor.advance(0.1)
        return answer
