"""The OpenAPI document of token info, written by hand: the contract first, the code after it."""

from __future__ import annotations

from typing import Any

from tokenry.serving.metrics import package_version

_ERROR = {"$ref": "#/components/schemas/Error"}
_LIST_HEADER = {"Tokenry-List": {"$ref": "#/components/headers/Tokenry-List"}}


def _json(description: str, schema: dict[str, Any], **headers: Any) -> dict[str, Any]:  # noqa: ANN401 -- OpenAPI
    return {
        "description": description,
        "headers": {**_LIST_HEADER, **headers},
        "content": {"application/json": {"schema": schema}},
    }


_CHALLENGE = {"WWW-Authenticate": {"description": "RFC 6750 section 3", "schema": {"type": "string"}}}
_RETRY = {"Retry-After": {"description": "seconds", "schema": {"type": "integer"}}}
_UNAUTHORIZED = _json("The token is not valid; the same whatever is wrong with it.", _ERROR, **_CHALLENGE)
_UNAVAILABLE = _json("Tokens cannot be judged now: no keys, or no fresh list.", _ERROR, **_RETRY)

_TOKEN_INFO_ANSWERS = {
    "200": _json(
        "The token is good.",
        {"$ref": "#/components/schemas/TokenInfo"},
        **{"X-Cache": {"description": "For opaque tokens", "schema": {"enum": ["HIT", "MISS"]}}},
    ),
    "400": _json("No token, or more than one.", _ERROR),
    "401": _UNAUTHORIZED,
    "502": _json("The upstream failed (opaque tokens).", _ERROR),
    "503": _UNAVAILABLE,
    "504": _json("The upstream did not answer in time (opaque tokens).", _ERROR),
}
_AUDIENCE = {
    "name": "audience",
    "in": "query",
    "description": "Also demand that the token is meant for this audience.",
    "schema": {"type": "string"},
}
_AUTH_ANSWERS = {
    "200": {
        "description": "The token is good and has the scopes.",
        "headers": {
            **_LIST_HEADER,
            **{
                name: {"description": description, "schema": {"type": "string"}}
                for name, description in (
                    ("X-Auth-Subject", "sub, percent-encoded outside %x21-7E"),
                    ("X-Auth-Client", "client_id, percent-encoded, or empty"),
                    ("X-Auth-Scopes", "scopes, each percent-encoded, separated by one space"),
                    ("X-Auth-Realm", "realm, percent-encoded, or empty"),
                )
            },
        },
    },
    "401": _json("No valid token.", _ERROR, **_CHALLENGE),
    "403": _json("The token lacks scopes.", _ERROR, **_CHALLENGE),
    "500": _json("The gateway's policy is missing or not understood.", _ERROR),
    "503": _UNAVAILABLE,
}
_AUTH_PARAMETERS = [
    {
        "name": "scope",
        "in": "query",
        "description": "A required scope; repeat it for more.",
        "schema": {"type": "array", "items": {"type": "string"}},
    },
    {
        "name": "any",
        "in": "query",
        "description": "1: one of the scopes is enough.",
        "schema": {"enum": ["0", "1"]},
    },
    {
        "name": "authenticated",
        "in": "query",
        "description": "1: any valid token will do.",
        "schema": {"enum": ["0", "1"]},
    },
    _AUDIENCE,
]
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")


def _auth(parameters: list[dict[str, Any]], summary: str) -> dict[str, Any]:
    return {
        method: {
            "summary": summary,
            "operationId": f"{method}Auth{'Below' if 'header' in str(parameters) else ''}",
            "parameters": parameters,
            "security": [{"bearer": []}],
            "responses": _AUTH_ANSWERS,
        }
        for method in _METHODS
    }


def _operations() -> dict[str, Any]:
    text = {"text/plain": {"schema": {"type": "string"}}}
    return {
        "/oauth2/connect/keys": {
            "get": {
                "summary": "The JWK Set that tokens of our issuer are verified with",
                "operationId": "getKeys",
                "responses": {
                    "200": {
                        "description": "The keys.",
                        "content": {"application/json": {"schema": {"type": "object", "required": ["keys"]}}},
                    },
                    "304": {"description": "Not changed."},
                    "503": {
                        "description": "No keys yet.",
                        "content": {"application/json": {"schema": _ERROR}},
                    },
                },
            }
        },
        "/health": {
            "get": {
                "summary": "OK when at least one key is held",
                "operationId": "getPlanBHealth",
                "responses": {
                    "200": {"description": "OK", "content": text},
                    "503": {"description": "No keys.", "content": text},
                },
            }
        },
    }


def document() -> dict[str, Any]:
    """Return the document."""
    token_info = {
        "summary": "What a token says, in Plan B's shape",
        "security": [{"bearer": []}, {"query": []}],
        "responses": _TOKEN_INFO_ANSWERS,
    }
    form = {
        "type": "object",
        "properties": {"access_token": {"type": "string"}, "audience": {"type": "string"}},
    }
    introspection = {
        "type": "object",
        "required": ["token"],
        "properties": {
            name: {"type": "string"}
            for name in ("token", "token_type_hint", "audience", "realm", "client_id", "client_secret")
        },
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tokenry token info",
            "version": package_version(),
            "description": "Tells what an access token says, and whether it may be acted upon.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/oauth2/tokeninfo": {
                "get": {**token_info, "operationId": "getTokenInfo", "parameters": [_AUDIENCE]},
                "post": {
                    **token_info,
                    "operationId": "postTokenInfo",
                    "parameters": [_AUDIENCE],
                    "requestBody": {"content": {"application/x-www-form-urlencoded": {"schema": form}}},
                },
            },
            "/oauth2/introspect": {
                "post": {
                    "summary": "Introspection (RFC 7662)",
                    "operationId": "introspect",
                    "security": [{"bearer": []}, {"client": []}],
                    "requestBody": {
                        "required": True,
                        "content": {"application/x-www-form-urlencoded": {"schema": introspection}},
                    },
                    "responses": {
                        "200": {
                            "description": "Whether it is active, and what it says; as a JWT where it was asked for.",
                            "headers": _LIST_HEADER,
                            "content": {
                                "application/json": {"schema": {"type": "object", "required": ["active"]}},
                                "application/token-introspection+jwt": {"schema": {"type": "string"}},
                            },
                        },
                        "400": _json("The request is malformed.", _ERROR),
                        "401": _json("The caller is not authenticated.", _ERROR, **_CHALLENGE),
                        "403": _json("The caller lacks the scope token.introspect.", _ERROR),
                        "413": _json("The body is too large.", _ERROR),
                        "415": _json("The body is not a form.", _ERROR),
                        "429": _json("Too many introspections, or failures.", _ERROR, **_RETRY),
                        "503": _UNAVAILABLE,
                    },
                }
            },
            "/oauth2/introspect/keys": {
                "get": {
                    "summary": "The JWK Set that signed introspection answers are verified with (RFC 9701)",
                    "operationId": "getIntrospectionKeys",
                    "responses": {
                        "200": _json("The keys; not those of access tokens.", {"type": "object", "required": ["keys"]}),
                        "404": _json("Answers are not signed here.", _ERROR),
                    },
                }
            },
            "/auth": _auth(_AUTH_PARAMETERS, "For gateways: the policy in the query"),
            "/auth/{rest}": _auth(
                [
                    {"name": "rest", "in": "path", "required": True, "schema": {"type": "string"}},
                    {
                        "name": "Tokenry-Require",
                        "in": "header",
                        "required": True,
                        "description": "The policy: scope=a b; any=0; authenticated=1; audience=x",
                        "schema": {"type": "string"},
                    },
                ],
                "For gateways that append their caller's path: the policy in a header",
            ),
            **_operations(),
        },
        "components": {
            "headers": {
                "Tokenry-List": {
                    "description": "The list that the answer was judged by: as_of=<time>, age=<seconds>.",
                    "schema": {"type": "string"},
                }
            },
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "client": {"type": "http", "scheme": "basic"},
                "query": {"type": "apiKey", "in": "query", "name": "access_token"},
            },
            "schemas": {
                "Error": {
                    "type": "object",
                    "required": ["error", "error_description"],
                    "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
                },
                "TokenInfo": {
                    "type": "object",
                    "required": [
                        *("access_token", "uid", "realm", "scope", "grant_type", "token_type", "expires_in"),
                    ],
                    "properties": {
                        "access_token": {"type": "string"},
                        "uid": {"type": "string"},
                        "realm": {"type": "string"},
                        "scope": {"type": "array", "items": {"type": "string"}},
                        "grant_type": {"type": "string"},
                        "token_type": {"const": "Bearer"},
                        "expires_in": {"type": "integer"},
                        "client_id": {"type": "string"},
                        "iss": {"type": "string"},
                        "jti": {"type": "string"},
                        "aud": {"type": ["string", "array"]},
                    },
                },
            },
        },
    }
