"""The OpenAPI 3.1 document of C{/api/tunnel/v1}."""

from __future__ import annotations

__all__ = ["describe"]

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from reverseproxy import __version__
from reverseproxy.admin.answers import TIME
from reverseproxy.cluster.host import MAX_WEIGHT

_Schema = dict[str, Any]

_TEXT: Final[_Schema] = {"type": "string"}
_SECONDS: Final[_Schema] = {"type": "number", "exclusiveMinimum": 0, "maximum": 2592000}


class _Operation(NamedTuple):
    """
    One method of one path.

    @ivar query: the schemas of the query parameters.
    @ivar answer: the kind of answer: C{list}, C{object} or C{events}.
    @ivar status: the status of the answer.
    @ivar missing: whether the answer may be 404, as the path names an object that may not exist.
    @ivar refused: whether the answer may be 422, as the configuration may be invalid.
    @ivar body: the schema of the request's body; L{None} without one.
    """

    summary: str
    query: Mapping[str, _Schema] = {}
    answer: str = "list"
    status: int = 200
    missing: bool = False
    refused: bool = False
    body: _Schema | None = None


_PAGE: Final[dict[str, _Schema]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
    "after": _TEXT,
}

_LATEST: Final[dict[str, _Schema]] = {**_PAGE, "after": {**_TEXT, "pattern": f"^({TIME})?$"}}

_LONG_PAGE: Final[dict[str, _Schema]] = {**_PAGE, "limit": {**_PAGE["limit"], "default": 500}}

_OPERATIONS: Final[Mapping[str, Mapping[str, _Operation]]] = {
    "agents": {
        "get": _Operation(
            "The agents that have joined",
            {
                **_PAGE,
                "cluster": _TEXT,
                "identity": _TEXT,
                "ids": {**_TEXT, "description": "Only these, with commas between them; 200 at the most."},
            },
        )
    },
    "agents/{id}": {
        "get": _Operation("One agent", answer="object", missing=True),
        "delete": _Operation(
            "Close all connections of an agent, and keep it out if ban says for how many seconds",
            {"ban": _SECONDS},
            "object",
            202,
            True,
        ),
    },
    "agents/{id}/drain": {
        "post": _Operation(
            "Give an agent nothing more, and close its connections when what is under way is finished",
            {"for": _SECONDS},
            "object",
            202,
            True,
        )
    },
    "agents/{id}/resume": {"post": _Operation("Let an agent in again", answer="object", missing=True)},
    "exclusions": {"get": _Operation("Who is kept out, until when, and why", _PAGE)},
    "exclusions/{id}": {
        "delete": _Operation("Let in again whoever is kept out by that", answer="object", missing=True)
    },
    "clusters": {"get": _Operation("The clusters", _PAGE)},
    "clusters/{name}/hosts": {"get": _Operation("The hosts of a cluster", _PAGE, missing=True)},
    "clusters/{name}/hosts/{address}/weight": {
        "put": _Operation(
            "Change the weight of a host, for as long as it is there",
            answer="object",
            missing=True,
            body={
                "type": "object",
                "required": ["weight"],
                "properties": {"weight": {"type": "integer", "minimum": 1, "maximum": MAX_WEIGHT}},
            },
        )
    },
    "listeners": {"get": _Operation("The listeners", _PAGE)},
    "routes": {
        "get": _Operation(
            "The rules of all routers, in the order of their places, and what requests they have taken", _PAGE
        )
    },
    "routes:explain": {
        "get": _Operation(
            "Which rule would take a request, on each listener",
            {
                "method": {**_TEXT, "default": "GET"},
                "host": _TEXT,
                "path": {**_TEXT, "default": "/", "pattern": "^/"},
                "header": {"type": "array", "items": {**_TEXT, "pattern": "^[^:]*[^: ][^:]*:"}},
                "listener": _TEXT,
            },
        )
    },
    "certificates": {
        "get": _Operation(
            "Certificates and revocation lists in use, the first to expire first; "
            "not_after is null if one does not expire",
            _LONG_PAGE,
        )
    },
    "joins/refused": {"get": _Operation("The last joins that were refused, the last one first", _LATEST)},
    "servers": {"get": _Operation("The servers that the agents here keep connections to", _PAGE)},
    "fleet": {
        "get": _Operation(
            "The other servers of the fleet, and the directory that they are in", answer="object"
        )
    },
    "workers": {"get": _Operation("The worker processes")},
    "workers/replace": {
        "post": _Operation(
            "Let workers finish what they do, one after the other, and start others in their places",
            {"worker": {"type": "integer", "minimum": 1}},
            "object",
            202,
            True,
        )
    },
    "summary": {"get": _Operation("The whole in a few numbers, and what the caller may do", answer="object")},
    "events": {
        "get": _Operation(
            "What happens, as it happens",
            {"recent": {"type": "string", "enum": ["0", "1", "true", "false"]}},
            "events",
        )
    },
    "audit": {"get": _Operation("Who has changed what, the last change first", _LATEST)},
    "config": {"get": _Operation("The configuration in use, and how the last reload went", answer="object")},
    "config:validate": {
        "post": _Operation(
            "Say whether the configuration file can be used, or the one in the body",
            answer="object",
            refused=True,
        )
    },
    "config:diff": {
        "post": _Operation(
            "Say what would change with the configuration file, or with the one in the body",
            answer="object",
            refused=True,
        )
    },
    "config:reload": {
        "post": _Operation(
            "Read the configuration file again, and go on with it if it can be used",
            answer="object",
            refused=True,
        )
    },
    "openapi.json": {"get": _Operation("This document", answer="object")},
}

_SCHEMAS: Final = {
    "list": {
        "type": "object",
        "required": ["items", "next", "problems"],
        "properties": {
            "items": {"type": "array", "items": {"type": "object"}},
            "next": {"type": ["string", "null"], "description": "What after is for the next page."},
            "problems": {
                "type": "array",
                "description": "Workers that have not answered.",
                "items": {
                    "type": "object",
                    "required": ["worker", "problem"],
                    "properties": {"worker": {"type": "integer"}, "problem": _TEXT},
                },
            },
        },
    },
    "object": {"type": "object"},
    "problem": {
        "type": "object",
        "required": ["title", "status"],
        "properties": {"title": _TEXT, "status": {"type": "integer"}},
    },
}

_PROBLEMS: Final = {
    400: "A parameter is wrong",
    401: "Nobody, or an unknown token",
    403: "This takes another role",
    404: "There is none",
    405: "This path takes other methods",
    409: "There are too many that are kept out",
    413: "The body is too large",
    421: "The Host is none of this machine's",
    502: "None of the agent's servers can be reached",
    503: "There are too many that listen",
}


def _answer(operation: _Operation) -> dict[str, Any]:
    if operation.answer == "events":
        return {"text/event-stream": {"schema": _TEXT}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{operation.answer}"}}}


def _body(schema: _Schema) -> dict[str, Any]:
    return {"required": True, "content": {"application/json": {"schema": schema}}}


def _operation(path: str, method: str, operation: _Operation) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in operation.query.items()
    ]
    parameters += [
        {"name": name, "in": "path", "required": True, "schema": {**_TEXT, "minLength": 1}}
        for name in ("id", "name", "address")
        if f"{{{name}}}" in path
    ]
    problems = {401, 403, 405, 413, 421}
    if operation.query or operation.body is not None:
        problems.add(400)
    if operation.missing:
        problems.add(404)
    if method != "get":
        problems.add(409)
    if path.startswith("agents/") and operation.query:
        problems.add(502)
    if operation.answer == "events":
        problems.add(503)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}}
    refused = {}
    if operation.refused:
        problems.add(400)
        refused["422"] = {"description": "The configuration can't be used", "content": _answer(operation)}
    body = {} if operation.body is None else {"requestBody": _body(operation.body)}
    return {
        "summary": operation.summary,
        "description": f"Takes the role {'read' if method == 'get' else 'operate'}.",
        "parameters": parameters,
        **body,
        "responses": {
            str(operation.status): {"description": "The answer", "content": _answer(operation)},
            **refused,
            **{
                str(status): {"description": _PROBLEMS[status], "content": problem}
                for status in sorted(problems)
            },
        },
    }


def describe() -> dict[str, Any]:
    """Return the document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "reverseproxy", "version": __version__},
        "servers": [{"url": "/api/tunnel/v1"}],
        "security": [{"token": []}, {}],
        "paths": {
            f"/{path}": {method: _operation(path, method, each) for method, each in operations.items()}
            for path, operations in _OPERATIONS.items()
        },
        "components": {
            "schemas": _SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
