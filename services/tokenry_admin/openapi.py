"""The service's OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from tokenry.serving.metrics import package_version

_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_BEARER: Final[list[dict[str, list[str]]]] = [{"bearer": []}]


def _refusals(**texts: str) -> dict[str, Any]:
    return {code.removeprefix("s"): {"description": text, "content": _PROBLEM} for code, text in texts.items()}


_ALWAYS: Final = _refusals(
    s400="The request is malformed.",
    s401="No access token, or a bad one.",
    s403="The token lacks the scope.",
    s429="Too many requests; see Retry-After.",
    s503="The registry, the keys or the list are not there now; see Retry-After.",
)
_WRITING: Final = _refusals(
    s404="There is none.",
    s409="Somebody else has changed it meanwhile, or is at it.",
    s412="It is not the version of If-Match.",
    s413="The body is too large.",
    s422="An issuer would not take what this would write, or the realm is of another environment.",
)
_IF_MATCH: Final = {
    "name": "If-Match",
    "in": "header",
    "description": "ETag of the version that is meant.",
    "schema": {"type": "string"},
}


def _in_path(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _query(name: str, description: str, *, kind: str = "string") -> dict[str, Any]:
    return {"name": name, "in": "query", "description": description, "schema": {"type": kind}}


def _body(schema: dict[str, Any], *, required: bool = False) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _object(**members: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": False, "properties": {
        name: {"type": kind} for name, kind in members.items()
    }}  # fmt: skip


def _answer(description: str) -> dict[str, Any]:
    return {"200": {"description": description, "content": {"application/json": {"schema": {"type": "object"}}}}}


def _operation(summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON values
    return {"summary": summary, "security": _BEARER, "responses": responses | _ALWAYS, **more}


def _of_kind(plural: str, one: str) -> dict[str, Any]:
    place = _in_path("realm", "name")
    return {
        f"/{plural}": {
            "get": _operation(
                f"List {plural}, a page at a time, without hashes (scope registry.read)",
                _answer(f"{plural}; `next`, to be sent as `after`, where there are more."),
                parameters=[
                    _query("realm", "Of this realm alone."),
                    _query("limit", "How many; at most 1000.", kind="integer"),
                    _query("after", "Where the last page ended."),
                ],
            ),
        },
        f"/{plural}/{{realm}}/{{name}}": {
            "get": _operation(
                f"Show a {one} without hashes, and how far a rotation of its secret has come (scope registry.read)",
                _answer("It, with its ETag.") | _refusals(s404="There is none."),
                parameters=place,
            ),
        },
        f"/{plural}/{{realm}}/{{name}}/disable": {
            "post": _operation(
                f"Take a {one} out of action, with revoke: true its tokens as well (scope registry.admin)",
                _answer("It is disabled.") | _WRITING | _refusals(s502="The revocation service refused."),
                parameters=[*place, _IF_MATCH],
                requestBody=_body(_object(revoke="boolean", reason="string")),
            ),
        },
        f"/{plural}/{{realm}}/{{name}}/enable": {
            "post": _operation(
                f"Let a {one} authenticate again (scope registry.admin)",
                _answer("It is enabled.") | _WRITING,
                parameters=[*place, _IF_MATCH],
            ),
        },
        f"/{plural}/{{realm}}/{{name}}/rotate-secret": {
            "post": _operation(
                "Give the application a new secret; an interrupted rotation goes on (scope registry.admin)",
                _answer("How far it has come, and until when older secrets work.") | _WRITING,
                parameters=[*place, _query("show", "once: answer the secret, where there is no place for files.")],
                requestBody=_body(_object(finish="boolean", take_over="boolean", leaked="boolean")),
            ),
        },
    }


_TEXTS: Final = {"type": "array", "items": {"type": "string"}}
_CLIENT: Final = {
    "type": "object",
    "properties": {
        "secret_hash": {"type": "string"}, "scopes": _TEXTS, "default_scopes": _TEXTS,
        "is_confidential": {"type": "boolean"}, "name": {"type": "string"}, "description": {"type": "string"},
        "redirect_uris": _TEXTS, "image_uri": {"type": "string"}, "homepage_url": {"type": "string"},
    },
}  # fmt: skip
_USER: Final = {
    "type": "object",
    "properties": {"password_hashes": _TEXTS, "scopes": {"type": "object"}},
}


def _raw_sync(plural: str, one: str, body: dict[str, Any]) -> dict[str, Any]:
    place, done = [*_in_path("realm", "name"), _IF_MATCH], {"200": {"description": "Done; no body."}}
    return {
        f"/raw-sync/{plural}/{{realm}}/{{name}}": {
            "put": _operation(
                f"Plan B: create or replace a {one} (scope registry.admin)",
                done | _WRITING,
                parameters=place,
                requestBody=_body(body, required=True),
            ),
            "patch": _operation(
                f"Plan B: change what is given of a {one} (scope registry.admin)",
                done | _WRITING,
                parameters=place,
                requestBody=_body(body, required=True),
            ),
            "delete": _operation(f"Plan B: delete a {one} (scope registry.admin)", done | _WRITING, parameters=place),
        }
    }


RAW_SYNC: Final[dict[str, Any]] = {
    **_raw_sync("clients", "client", _CLIENT),
    **_raw_sync("users", "user", _USER),
    "/raw-sync/users/{realm}/{name}/password": {
        "post": _operation(
            "Plan B: give a user one password more (scope registry.admin)",
            {"201": {"description": "Added; no body."}} | _WRITING,
            parameters=[*_in_path("realm", "name"), _IF_MATCH],
            requestBody=_body({"type": "object", "properties": {"password_hash": {"type": "string"}}}, required=True),
        )
    },
}

_KEYS: Final[dict[str, Any]] = {
    "/keys": {
        "get": _operation(
            "List signing keys, and when the next one begins to sign (scope registry.read)",
            _answer("keys, by use, the newest first; next_rotation_at."),
        )
    },
    "/keys/rotate": {
        "post": _operation(
            "Let the standby sign as soon as all caches know it, and publish another one (scope registry.admin)",
            {"201": {"description": "The new key.", "content": {"application/json": {"schema": {"type": "object"}}}}}
            | _WRITING,
            requestBody=_body(_object(use="string", reason="string")),
        )
    },
    "/keys/{kid}/retire": {
        "post": _operation(
            "Take a key out of the JWK Set before its time; 409 while something that it signed may be in use "
            "(scope registry.admin)",
            _answer("It is out.") | _WRITING,
            parameters=_in_path("kid"),
        )
    },
}

PATHS: Final[dict[str, Any]] = {**_of_kind("clients", "client"), **_of_kind("users", "user"), **_KEYS}


def openapi_document(*, raw_sync: bool) -> dict[str, Any]:
    """Return the document, with Plan B's part or without."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tokenry administration", "version": package_version()},
        "paths": {**PATHS, **(RAW_SYNC if raw_sync else {})},
        "components": {
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
            "schemas": {
                "Problem": {
                    "type": "object",
                    "description": "RFC 9457.",
                    "properties": {
                        "type": {"type": "string"}, "title": {"type": "string"},
                        "status": {"type": "integer"}, "detail": {"type": "string"},
                    },
                }
            },
        },
    }  # fmt: skip
