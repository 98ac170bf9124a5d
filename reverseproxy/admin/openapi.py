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
    @ivar errors: further statuses of errors.
    @ivar document: whether the body may be a configuration, instead of the file.
    """

    summary: str
    query: Mapping[str, _Schema] = {}
    answer: str = "list"
    status: int = 200
    missing: bool = False
    refused: bool = False
    body: _Schema | None = None
    errors: tuple[int, ...] = ()
    document: bool = False


_PAGE: Final[dict[str, _Schema]] = {
    "limit": {"type": "integer", "minimum": 1, "maximum": 500, "default": 100},
    "after": _TEXT,
}

_LATEST: Final[dict[str, _Schema]] = {**_PAGE, "after": {**_TEXT, "pattern": f"^({TIME})?$"}}

_LONG_PAGE: Final[dict[str, _Schema]] = {**_PAGE, "limit": {**_PAGE["limit"], "default": 500}}

_OPERATIONS: Final[Mapping[str, Mapping[str, _Operation]]] = {
    "agents": {
        "get": _Operation(
            "List the agents that have joined",
            {
                **_PAGE,
                "cluster": _TEXT,
                "identity": _TEXT,
                "ids": {
                    **_TEXT,
                    "description": "Only agents with these ids, separated by commas; at most 200.",
                },
            },
        )
    },
    "agents/{id}": {
        "get": _Operation("Get an agent", answer="object", missing=True),
        "delete": _Operation(
            "Close all connections of an agent at once",
            {"ban": {**_SECONDS, "description": "Ban the agent for this number of seconds."}},
            "object",
            202,
            True,
            errors=(409, 502),
        ),
    },
    "agents/{id}/drain": {
        "post": _Operation(
            "Drain an agent: send it no more requests, and close its connections when those in progress "
            "have ended",
            {
                "for": {
                    **_SECONDS,
                    "default": 3600,
                    "description": "Ban the agent for this number of seconds.",
                }
            },
            "object",
            202,
            True,
            errors=(409, 502),
        )
    },
    "agents/{id}/resume": {"post": _Operation("Lift all bans of an agent", answer="object", missing=True)},
    "exclusions": {"get": _Operation("List the bans in force", _PAGE)},
    "exclusions/{id}": {"delete": _Operation("Lift a ban", answer="object", missing=True)},
    "clusters": {"get": _Operation("List clusters", _PAGE)},
    "clusters/{name}/hosts": {"get": _Operation("List the hosts of a cluster", _PAGE, missing=True)},
    "clusters/{name}/hosts/{address}/weight": {
        "put": _Operation(
            "Change the weight of a host until it leaves the cluster",
            answer="object",
            missing=True,
            errors=(409,),
            body={
                "type": "object",
                "required": ["weight"],
                "properties": {"weight": {"type": "integer", "minimum": 1, "maximum": MAX_WEIGHT}},
            },
        )
    },
    "listeners": {"get": _Operation("List listeners", _PAGE)},
    "routes": {
        "get": _Operation(
            "List the rules of all routers in the order of the configuration, with their counters",
            _PAGE,
        )
    },
    "routes:explain": {
        "get": _Operation(
            "Explain which rule would take a request, for each listener",
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
            "List the certificates and revocation lists in use by their expiry; "
            "not_after is null if there is none",
            _LONG_PAGE,
        )
    },
    "joins/refused": {"get": _Operation("List the latest refused joins, the latest first", _LATEST)},
    "servers": {
        "get": _Operation("List the tunnel servers to which the agents of this process connect", _PAGE)
    },
    "fleet": {
        "get": _Operation(
            "Get the other servers of the fleet, and the state of the directory", answer="object"
        )
    },
    "workers": {"get": _Operation("List the worker processes")},
    "workers/replace": {
        "post": _Operation(
            "Replace workers gracefully, one after the other",
            {"worker": {"type": "integer", "minimum": 1, "description": "Replace only this worker."}},
            "object",
            202,
            True,
            errors=(409,),
        )
    },
    "summary": {
        "get": _Operation("Get a summary of all processes, and the role of the caller", answer="object")
    },
    "events": {
        "get": _Operation(
            "Receive events (server-sent events)",
            {
                "recent": {
                    "type": "string",
                    "enum": ["0", "1", "true", "false"],
                    "description": "Whether to begin with recent events.",
                }
            },
            "events",
            errors=(503,),
        )
    },
    "audit": {"get": _Operation("List changes by operators, the latest first", _LATEST)},
    "config": {
        "get": _Operation(
            "Get the state of the configuration, and the result of the last reload", answer="object"
        )
    },
    "config:validate": {
        "post": _Operation(
            "Validate the configuration file, or the configuration in the body",
            answer="object",
            refused=True,
            document=True,
        )
    },
    "config:diff": {
        "post": _Operation(
            "Compare the configuration file, or the configuration in the body, with the one in use",
            answer="object",
            refused=True,
            document=True,
        )
    },
    "config:reload": {
        "post": _Operation(
            "Reload the configuration file",
            answer="object",
            refused=True,
        )
    },
    "openapi.json": {"get": _Operation("Get this document", answer="object")},
}

_SCHEMAS: Final = {
    "list": {
        "type": "object",
        "required": ["items", "next", "problems"],
        "properties": {
            "items": {"type": "array", "items": {"type": "object"}},
            "next": {
                "type": ["string", "null"],
                "description": "The value of the parameter after for the next page; null on the last page.",
            },
            "problems": {
                "type": "array",
                "description": "Workers that did not answer.",
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
    400: "Invalid request",
    401: "Missing or unknown token",
    403: "Insufficient role, or a cross-site request",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict with the current state",
    413: "Request body too large",
    421: "Unknown Host",
    502: "No link to the server of the fleet that has the agent",
    503: "Too many clients receive events",
}


def _answer(operation: _Operation) -> dict[str, Any]:
    if operation.answer == "events":
        return {"text/event-stream": {"schema": _TEXT}}
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{operation.answer}"}}}


def _body(operation: _Operation) -> dict[str, Any]:
    """Return C{requestBody} of an operation, if it has a body."""
    if operation.body is not None:
        content = {"application/json": {"schema": operation.body}}
        return {"requestBody": {"required": True, "content": content}}
    if operation.document:
        configuration = {"schema": {"type": "object"}}
        content = {"application/json": configuration, "application/yaml": configuration}
        return {"requestBody": {"required": False, "content": content}}
    return {}


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
    problems = {400, 401, 403, 405, 413, 421, *operation.errors}
    if operation.missing:
        problems.add(404)
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/problem"}}}
    refused = {}
    if operation.refused:
        refused["422"] = {"description": "Invalid configuration", "content": _answer(operation)}
    return {
        "summary": operation.summary,
        "description": f"Requires the role {'read' if method == 'get' else 'operate'}.",
        "parameters": parameters,
        **_body(operation),
        "responses": {
            str(operation.status): {"description": "Success", "content": _answer(operation)},
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
