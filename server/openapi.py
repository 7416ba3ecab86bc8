"""Describe the REST API as OpenAPI 3.1, from the same values that route it.

An `Operation` stands beside the function that carries it out (`plait.server.api`), and the table of
both is what requests are matched with (`plait.server.rest`): a path that is not described is not
served. Here are the words that all operations share.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from plait.server import __version__
from plait.server.auth.principal import PATTERN, PATTERN_MAX, Access
from plait.server.update_report import LEFT_OUT

Json = dict[str, Any]
"""A value that JSON can hold, as a description of it."""

JSON = "application/json"
UPDATE = "application/octet-stream"
"""The media type of a Yjs update."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What a caller may say in the query."""

    name: str
    description: str
    schema: Json = field(default_factory=lambda: {"type": "string"})
    required: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What a caller gets when all went well."""

    description: str
    content: Mapping[str, Json] = field(default_factory=dict)
    """Schema and example by media type; nothing for an empty body."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Descriptions by name."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A method on a path."""

    name: str
    """Unique, in snake_case; clients are generated with it."""
    method: str
    path: str
    """Segments are literal, or `{name}` for a document's."""
    summary: str
    answers: Mapping[int, Answer]
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    takes: str = ""
    """What the update in the body is; empty if there is no body."""
    takes_json: Mapping[str, Json] = field(default_factory=dict)
    """The object of JSON that the body is; see `content`."""
    needs: Access = Access.READ
    """The right that it takes: on the document in the path, or else on what it is about."""
    errors: Mapping[int, str] = field(default_factory=dict)
    """When which status is answered, besides those that every operation may answer."""
    public: bool = False
    """Whether anybody may call it, web pages of other origins too."""


def reference(schema: str) -> Json:
    """Return a reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{schema}"}


def content(schema: str, example: Any) -> Mapping[str, Json]:
    """Return the content of a JSON answer."""
    return {JSON: {"schema": reference(schema), "example": example}}


def describe(operations: Iterable[Operation]) -> Json:
    """Return the OpenAPI document of these operations and of the two for health checks."""
    paths: dict[str, Json] = {}
    for operation in [*operations, *HEALTH]:
        path = paths.setdefault(operation.path, {})
        if "{name}" in operation.path:
            path["parameters"] = [{"$ref": "#/components/parameters/Name"}]
        path[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Plait",
            "version": __version__,
            "description": "Documents of a Plait server: list, read, change, import and delete "
            "them. What is changed here reaches connected editors at once.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "parameters": {"Name": NAME},
            "schemas": SCHEMAS,
            "securitySchemes": {"token": TOKEN},
        },
        # A server where nothing is configured serves its own machine without a token.
        "security": [{"token": []}, {}],
    }


def _operation(operation: Operation) -> Json:
    described: Json = {"operationId": operation.name, "summary": operation.summary}
    if operation.public:
        described["security"] = []
    if operation.description:
        described["description"] = operation.description
    if operation.parameters:
        described["parameters"] = [
            {
                "name": each.name,
                "in": "query",
                "description": each.description,
                "required": each.required,
                "schema": each.schema,
            }
            for each in operation.parameters
        ]
    if operation.takes:
        described["requestBody"] = {
            "description": operation.takes,
            "required": True,
            "content": {UPDATE: {"schema": BYTES}},
        }
    if operation.takes_json:
        described["requestBody"] = {"required": True, "content": dict(operation.takes_json)}
    described["responses"] = {
        **{str(status): _answer(answer) for status, answer in operation.answers.items()},
        **{str(status): _error(status, when) for status, when in _errors(operation).items()},
    }
    return described


def _answer(answer: Answer) -> Json:
    described: Json = {"description": answer.description}
    if answer.content:
        described["content"] = dict(answer.content)
    if answer.headers:
        described["headers"] = {
            name: {"description": description, "schema": {"type": "string"}}
            for name, description in answer.headers.items()
        }
    return described


def _errors(operation: Operation) -> dict[int, str]:
    if not operation.path.startswith("/api/"):
        return {}
    errors = {400: "The request can't be understood.", 500: "The server failed."}
    if not operation.public:
        errors[401] = "A token is needed, or this one is not, or no more, valid."
        errors[403] = (
            f"The token gives no right to {operation.needs.word}, or the request comes from a web "
            "page of another origin."
        )
        errors[503] = "The server or its store can't serve this now; try again."
    if operation.takes:
        errors |= {
            408: "The body came too slowly.",
            413: "The body is above the server's limit, or the document would be.",
            415: "The body is not `application/octet-stream`, or it is compressed.",
            422: "The body is not a Yjs update (version 1) that the document can take.",
            429: "The document would have more shared types than the server allows.",
        }
    if operation.takes_json:
        errors |= {
            408: "The body came too slowly.",
            413: "The body is above 64 KB.",
            415: "The body is not `application/json`, or it is compressed.",
        }
    return dict(sorted((errors | dict(operation.errors)).items()))


def _error(status: int, when: str) -> Json:
    headers = {503: "Retry-After", 405: "Allow", 401: "WWW-Authenticate"}
    return _answer(
        Answer(
            when,
            {JSON: {"schema": reference("Error")}},
            {headers[status]: HTTPStatus(status).phrase} if status in headers else {},
        )
    )


_SPACES = r"\u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""What is no name alone, besides the space of ASCII (`str.isspace`)."""

NAME: Json = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "The document's name: UTF-8, percent-encoded as one segment, so that `/` in it "
    "is `%2F`.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "pattern": rf"^[ {_SPACES}]*[^\u0000-\u0020\u007f{_SPACES}][^\u0000-\u001f\u007f]*$",
    },
    "example": "notes",
}

TOKEN: Json = {
    "type": "http",
    "scheme": "bearer",
    "description": "A token (JWT) or an API key; see docs/auth.md.",
}

BYTES: Json = {"type": "string", "contentMediaType": UPDATE}

_MILLISECONDS: Json = {"type": ["integer", "null"], "minimum": 0}

EXAMPLE: Json = {
    "name": "notes",
    "bytes": 5120,
    "updates": 42,
    "created_ms": 1790000000000,
    "modified_ms": 1790000600000,
    "deleted_ms": None,
    "members": 2,
    "open": True,
}


def _object(description: str, properties: Json, optional: Json | None = None) -> Json:
    return {
        "type": "object",
        "description": description,
        "properties": {**properties, **(optional or {})},
        "required": list(properties),
        "additionalProperties": False,
    }


def _number(description: str) -> Json:
    return {"type": "integer", "minimum": 0, "description": description}


def _milliseconds(description: str) -> Json:
    return {**_MILLISECONDS, "description": f"{description}, in milliseconds since 1970."}


_WORDS: Json = {"type": "string", "maxLength": 256, "pattern": r"^[^\u0000-\u001f]*$"}
_SPAN: Json = {
    "type": "number",
    "exclusiveMinimum": 0,
    "maximum": 1e10,
    "description": "In seconds.",
}
_GRANTS: Json = {
    "type": "array",
    "items": {"$ref": "#/components/schemas/Grant"},
    "minItems": 1,
    "maxItems": 100,
}
_KEY: Json = {
    "id": {"type": "string"},
    "subject": {"type": "string"},
    "name": {"type": "string"},
    "grants": {"type": "array", "items": {"$ref": "#/components/schemas/Grant"}},
    "created": {"type": ["number", "null"]},
    "until": {"type": ["number", "null"]},
}

SCHEMAS: Json = {
    "Document": _object(
        "What is known of a document without reading it.",
        {
            "name": {"type": "string"},
            "bytes": _number("What it takes in the store, history and snapshot together."),
            "updates": _number("Changes in the store; many small ones may be stored as one."),
            "created_ms": _milliseconds("When it was first stored; null if it never was"),
            "modified_ms": _milliseconds("When it was last changed; null if it never was"),
            "deleted_ms": _milliseconds("When it was deleted; null if it is not"),
            "members": _number("Connections that have it open on this node."),
            "open": {"type": "boolean", "description": "Whether this node has it in memory."},
        },
        LEFT_OUT,
    ),
    "Page": _object(
        "A part of the list of documents.",
        {
            "docs": {"type": "array", "items": reference("Document")},
            "next": {
                "type": ["string", "null"],
                "description": "What to give as `after` for the next part; null after the last.",
            },
        },
    ),
    "Change": _object(
        "What an update did.",
        {
            "changed": {
                "type": "boolean",
                "description": "False if the document held all of it before.",
            },
        },
        LEFT_OUT,
    ),
    "Content": _object(
        "A document's content.",
        {
            "name": {"type": "string"},
            "roots": {
                "type": "object",
                "description": "The shared types at the top of the document, by name.",
                "additionalProperties": reference("Root"),
            },
        },
    ),
    "Root": {
        **_object(
            "A shared type and what is in it. Its type is told from its content.",
            {
                "type": {"enum": ["text", "map", "array", "xml", "unknown"]},
                "value": {"description": "Null for one in which everything was deleted."},
            },
            {
                "or": {"type": "array", "items": {"enum": ["text"]}},
                "delta": {"type": "array", "items": {"type": "object"}},
                "attributes": {"type": "object"},
            },
        ),
        "oneOf": [
            {"properties": {"type": {"enum": kinds}, "value": {"type": kind}}}
            for kinds, kind in (
                (["text", "xml"], "string"),
                (["map"], "object"),
                (["array"], "array"),
                (["unknown"], "null"),
            )
        ],
    },
    "Pattern": {
        "type": "string",
        "minLength": 1,
        "maxLength": PATTERN_MAX,
        "pattern": PATTERN,
        "description": "Which documents: a name, or a pattern, in which `*` is any characters; "
        r"write `\*` for an asterisk and `\\` for a backslash.",
    },
    "Grant": {
        **_object(
            "A right on documents.",
            {
                "docs": reference("Pattern"),
                "access": {"enum": ["read", "write", "admin"]},
                "until": {
                    "type": ["number", "null"],
                    "minimum": 0,
                    "exclusiveMaximum": 1e12,
                    "description": "When it ends, in seconds since 1970.",
                },
            },
        ),
        "required": ["docs", "access"],
    },
    "TokenWish": {
        **_object(
            "What a token is to say.",
            {
                "sub": {**_WORDS, "minLength": 1, "description": "Who it is for."},
                "name": {**_WORDS, "description": "What others are shown."},
                "color": {"type": "string", "pattern": "^(#[0-9A-Fa-f]{3,8})?$"},
                "grants": _GRANTS,
                "expires_in": {**_SPAN, "maximum": 366 * 86400, "default": 3600},
            },
        ),
        "required": ["sub", "grants"],
    },
    "IssuedToken": _object(
        "A token.",
        {
            "token": {"type": "string"},
            "id": {"type": "string", "description": "What it is revoked by."},
            "expires": {"type": "number", "description": "When it ends, in seconds since 1970."},
        },
    ),
    "RevocationWish": {
        **_object(
            "Whose rights are to be taken away: at least one of subject, token and docs.",
            {
                "subject": {**_WORDS, "minLength": 1},
                "token": {**_WORDS, "minLength": 1, "description": "A token's id."},
                "docs": reference("Pattern"),
                "access": {"enum": ["none", "read"], "description": "What is left."},
                "expires_in": _SPAN,
                "reason": _WORDS,
            },
        ),
        "required": [],
        "anyOf": [{"required": [name]} for name in ("subject", "token", "docs")],
    },
    "Revocation": _object(
        "What was taken away.",
        {
            "id": {"type": "string"},
            "subject": {"type": ["string", "null"]},
            "token": {"type": ["string", "null"]},
            "docs": {"anyOf": [reference("Pattern"), {"type": "null"}]},
            "access": {"enum": ["none", "read"]},
            "before": {"type": "number", "description": "What was issued before is concerned."},
            "until": {"type": ["number", "null"]},
            "by": {"type": "string"},
            "reason": {"type": "string"},
        },
    ),
    "Revocations": _object(
        "A part of the list.",
        {
            "revocations": {"type": "array", "items": reference("Revocation")},
            "next": {"type": ["string", "null"]},
        },
    ),
    "KeyWish": {
        **_object(
            "What a key is to allow.",
            {
                "subject": {**_WORDS, "minLength": 1},
                "name": _WORDS,
                "grants": _GRANTS,
                "expires_in": _SPAN,
            },
        ),
        "required": ["subject", "grants"],
    },
    "Key": _object("What is known of an API key.", _KEY),
    "NewKey": _object("An API key.", {**_KEY, "key": {"type": "string"}}),
    "Keys": _object(
        "A part of the list.",
        {
            "keys": {"type": "array", "items": reference("Key")},
            "next": {"type": ["string", "null"]},
        },
    ),
    "Error": _object(
        "Why a request failed.",
        {
            "error": _object(
                "The reason.",
                {
                    "code": {"type": "string", "description": "The kind of error, for programs."},
                    "message": {"type": "string", "description": "What to do, for people."},
                    "retry": {
                        "type": "boolean",
                        "description": "Whether the same request can succeed later.",
                    },
                },
            )
        },
    ),
    "Health": _object("That the process is alive.", {"status": {"const": "alive"}}),
    "Readiness": _object(
        "Whether this node should be sent clients.",
        {
            "status": {"enum": ["ready", "not ready"]},
            "reason": {"type": ["string", "null"], "description": "Why it is not ready."},
            "rooms": _number("Documents in memory."),
            "unsaved_updates": _number("Changes that the store does not have yet."),
        },
    ),
}

_READY = {"status": "ready", "reason": None, "rooms": 3, "unsaved_updates": 0}

HEALTH = (
    Operation(
        "health",
        "GET",
        "/healthz",
        "Whether the process is alive",
        {200: Answer("It is.", content("Health", {"status": "alive"}))},
        public=True,
    ),
    Operation(
        "readiness",
        "GET",
        "/readyz",
        "Whether this node should be sent clients",
        {
            200: Answer("It should.", content("Readiness", _READY)),
            503: Answer(
                "It should not: the store is away, or the server is stopping.",
                content(
                    "Readiness",
                    {**_READY, "status": "not ready", "reason": "the server is stopping"},
                ),
            ),
        },
        public=True,
    ),
)
"""Served by `plait.server.app`, described here."""
