"""The issuer's HTTP interface as an OpenAPI 3.1 document."""

from __future__ import annotations

from typing import Any

from tokenry_issuer.metadata import JWKS_PATH, LIST_JWKS_PATH, OPENID_PATH, RFC8414_PATH, TOKEN_PATH
from tokenry_registry.realms import GRANT_TYPES

_TEXT = {"type": "string"}
_ERROR = {
    "type": "object",
    "required": ["error", "error_description"],
    "properties": {
        "error": {
            "type": "string",
            "enum": [
                "invalid_request", "invalid_client", "invalid_dpop_proof", "invalid_grant", "invalid_scope",
                "invalid_target", "missing_realm", "realm_not_found", "server_error", "temporarily_unavailable",
                "unauthorized_client", "unsupported_grant_type",
            ],
        },
        "error_description": _TEXT,
    },
}  # fmt: skip
_TOKEN = {
    "type": "object",
    "required": ["access_token", "token_type", "expires_in", "scope", "realm"],
    "properties": {
        "access_token": _TEXT,
        "token_type": {"enum": ["Bearer", "DPoP"], "description": "DPoP: bound to the key of the proof (RFC 9449)."},
        "expires_in": {"type": "integer", "minimum": 1},
        "scope": {"type": "string", "description": "Granted scopes, sorted, separated by one space."},
        "realm": {"type": "string", "pattern": "^/"},
    },
}
_FORM = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"enum": sorted(GRANT_TYPES)},
        "scope": _TEXT,
        "realm": _TEXT,
        "client_id": _TEXT,
        "client_secret": _TEXT,
        "client_assertion_type": {"const": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"},
        "client_assertion": _TEXT,
        "assertion": _TEXT,
        "subject_token": _TEXT,
        "subject_token_type": _TEXT,
        "requested_token_type": _TEXT,
        "username": _TEXT,
        "password": _TEXT,
        "resource": {"type": "array", "items": {"type": "string", "format": "uri"}},
        "audience": _TEXT,
    },
}


def openapi_document(issuer: str) -> dict[str, Any]:
    """Return the document for the *issuer* (its identifier is the server's URL)."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "Tokenry issuer", "version": "1"},
        "servers": [{"url": issuer.rstrip("/")}],
        "paths": {
            TOKEN_PATH: {"post": _token("token")},
            "/oauth2/access_token": {"post": _token("accessToken")},
            JWKS_PATH: {"get": _keys("jwks")},
            "/oauth2/connect/keys": {"get": _keys("connectKeys")},
            LIST_JWKS_PATH: {"get": _keys("revocationListJwks")},
            RFC8414_PATH: {"get": _get("metadata", "Authorization server metadata (RFC 8414)")},
            OPENID_PATH: {"get": _get("openidConfiguration", "The same for OpenID Connect Discovery")},
        },
        "components": {
            "securitySchemes": {"client": {"type": "http", "scheme": "basic"}},
            "schemas": {"Error": _ERROR, "Token": _TOKEN},
        },
    }


def _token(operation: str) -> dict[str, Any]:
    return {
        "operationId": operation,
        "summary": "Issue an access token (RFC 6749 sections 4.3 and 4.4)",
        "security": [{"client": []}, {}],
        "parameters": [
            {"name": "realm", "in": "query", "schema": _TEXT},
            {
                "name": "DPoP",
                "in": "header",
                "schema": _TEXT,
                "description": "A proof (RFC 9449), for clients whose object asks for tokens that are bound to a key.",
            },
        ],
        "requestBody": {
            "required": True,
            "content": {"application/x-www-form-urlencoded": {"schema": _FORM}},
        },
        "responses": {
            "200": _answer("The token", "Token"),
            "400": _answer("Refused", "Error"),
            "401": _answer("The client did not authenticate", "Error"),
            "413": _answer("Too large", "Error"),
            "415": _answer("Not a form", "Error"),
            "429": _answer("Too many failed attempts; Retry-After", "Error"),
            "503": _answer("Cannot tell now; Retry-After", "Error"),
        },
    }


def _keys(operation: str) -> dict[str, Any]:
    document = _get(operation, "The keys that verify access tokens (RFC 7517)")
    document["responses"] |= {
        "304": {"description": "The caller has it"},
        "503": _answer("No key yet; Retry-After", "Error"),
    }
    return document


def _get(operation: str, summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}},
    }


def _answer(description: str, schema: str) -> dict[str, Any]:
    reference = {"$ref": f"#/components/schemas/{schema}"}
    return {"description": description, "content": {"application/json": {"schema": reference}}}
