"""`/openapi.json`: the table of operations, said in OpenAPI 3.1. There is no second source of schema.

Types become schemas by msgspec; a row's params are split into path, query and body as the front reads them. Old clients' further
addresses of a row are listed as deprecated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from secureconnect import __version__
from secureconnect.errors import CODES
from secureconnect.server.endpoints import Endpoint
from secureconnect.server.wire import encode

Json: TypeAlias = dict[str, Any]
"""A JSON object of the document."""

REF: Final = "#/components/schemas/{name}"
DESCRIPTION: Final = (
    "Every operation is also a method of the socket `/v1/ws` under its `operationId`; "
    "path, query and body fields together are its `params`."
)
ERROR: Final[Json] = {
    "type": "object",
    "required": ["code", "message", "retryable"],
    "properties": {
        "code": {"type": "string", "description": "One of `x-error-codes`."},
        "message": {"type": "string"},
        "retryable": {"type": "boolean"},
        "retry_after_s": {"type": "number"},
        "details": {"type": "object"},
    },
}
META: Final[Json] = {
    "type": "object",
    "required": ["timestamp", "request_id"],
    "properties": {"timestamp": {"type": "string", "format": "date-time"}, "request_id": {"type": "string"}},
}
FAILURE: Final[Json] = {
    "type": "object",
    "required": ["success", "error", "meta"],
    "properties": {
        "success": {"const": False},
        "error": {"$ref": "#/components/schemas/Error"},
        "meta": {"$ref": "#/components/schemas/Meta"},
    },
}
COMMON: Final[Mapping[int, str]] = {
    400: "A field is missing or wrong, or the request is not valid HTTP",
    403: "Not allowed, or not from this origin",
    404: "No such thing",
    413: "Too large",
    429: "Too many requests",
    500: "An unexpected error",
    503: "Not available now; `Retry-After` says when to come back",
    504: "The deadline passed",
}
"""What any operation may be answered with, whoever asks. Rows add what their services raise (`Endpoint.errors`)."""
NO_TOKEN: Final[Mapping[int, str]] = {401: "No valid token"}
"""Every row that is not public."""


def document(endpoints: Sequence[Endpoint]) -> bytes:
    """The whole document as JSON."""
    types = [row.params for row in endpoints] + [row.result for row in endpoints if row.result is not None]
    schemas, components = msgspec.json.schema_components(types, schema_hook=_schema_of, ref_template=REF)
    results = iter(schemas[len(endpoints) :])
    paths: dict[str, Json] = {}
    for row, params in zip(endpoints, schemas, strict=False):
        result = next(results) if row.result is not None else None
        for count, (method, path) in enumerate(((row.method, row.path), *row.also)):
            operation = _operation(row, path, method, _resolved(params, components), result)
            if count:
                operation["deprecated"] = True
                del operation["operationId"]  # it is the method's name on sockets, and a document may have it once
            paths.setdefault(_template(path), {})[method.lower()] = operation
    return encode(
        {
            "openapi": "3.1.0",
            "info": {"title": "SecureConnect", "version": __version__, "description": DESCRIPTION},
            "paths": paths,
            "components": {
                "schemas": {**components, "Error": ERROR, "Meta": META, "Failure": FAILURE},
                "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            },
            "x-error-codes": CODES,
        }
    )


def _schema_of(kind: type) -> Json:
    """What msgspec passes through as it is: any JSON."""
    assert kind in (object, msgspec.Raw), f"{kind} has no schema"
    return {"description": "Any JSON value."}


def _resolved(schema: Json, components: Mapping[str, Json]) -> Json:
    return components[schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema


def _template(path: str) -> str:
    return "/".join("{" + part[1:] + "}" if part.startswith(":") else part for part in path.split("/"))


def _operation(row: Endpoint, path: str, method: str, params: Json, result: Json | None) -> Json:
    fields: dict[str, Json] = params.get("properties", {})
    required = set(params.get("required", ()))
    in_path = [part[1:] for part in path.split("/") if part.startswith(":")]
    rest = {name: schema for name, schema in fields.items() if name not in in_path}
    in_query = rest if method in ("GET", "DELETE") else {}
    in_body = {} if method in ("GET", "DELETE") else rest
    operation: Json = {
        "operationId": row.name,
        "summary": row.summary or row.name,
        "tags": [row.name.partition(".")[0]],
        "x-permission": row.permission,
        "x-rate-class": row.rate,
        "responses": _responses(row, result),
    }
    parameters = [_parameter(name, "path", fields.get(name, {"type": "string"}), is_required=True) for name in in_path]
    parameters += [_parameter(name, "query", schema, is_required=name in required) for name, schema in in_query.items()]
    parameters += [_parameter(name, "header", {"type": "string"}, is_required=False) for name in row.headers]
    if parameters:
        operation["parameters"] = parameters
    if in_body:
        operation["requestBody"] = _body(in_body, [name for name in in_body if name in required])
    if row.permission != "public":
        operation["security"] = [{"bearer": []}]
    return operation


def _parameter(name: str, place: str, schema: Json, *, is_required: bool) -> Json:
    return {"name": name, "in": place, "required": is_required, "schema": schema}


def _body(fields: Json, required: Iterable[str]) -> Json:
    needed = list(required)
    schema: Json = {"type": "object", "properties": fields}
    if needed:
        schema["required"] = needed
    return {"required": bool(needed), "content": {"application/json": {"schema": schema}}}


def _responses(row: Endpoint, result: Json | None) -> Json:
    refusals = dict(COMMON)
    if row.permission != "public":
        refusals |= NO_TOKEN
    for error in row.errors:
        refusals.setdefault(error.status, (error.__doc__ or error.__name__).splitlines()[0])
    failure = {"application/json": {"schema": {"$ref": "#/components/schemas/Failure"}}}
    responses: Json = {str(status): {"description": words, "content": failure} for status, words in sorted(refusals.items())}
    if row.bare:
        return responses | _bare(row, result)
    content = {"application/json": {"schema": _envelope(result)}}
    responses[str(row.status)] = {"description": "Done", "content": content}
    if row.status != 200:
        responses["200"] = {"description": "Done before, unchanged", "content": content}
    return responses


def _bare(row: Endpoint, result: Json | None) -> Json:
    """Documents without the envelope. A node that is not serving answers 503 with the same document, which says why."""
    if row.result is str:
        return {"200": {"description": "As it is, without envelope", "content": {"text/plain": {"schema": result}}}}
    schema = result or {"type": "object"}
    unwell = {"anyOf": [schema, {"$ref": "#/components/schemas/Failure"}]}
    return {
        "200": {"description": "As it is, without envelope", "content": {"application/json": {"schema": schema}}},
        "503": {"description": "Not serving", "content": {"application/json": {"schema": unwell}}},
    }


def _envelope(result: Json | None) -> Json:
    properties: Json = {"success": {"const": True}, "meta": {"$ref": "#/components/schemas/Meta"}}
    if result is not None:
        properties["data"] = result
    return {
        "type": "object",
        "required": ["success", "meta", *(["data"] if result is not None else [])],
        "properties": properties,
    }
