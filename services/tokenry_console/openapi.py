"""The console's routes for docs/endpoints.md; its pages are for people, so there are no schemas."""

from __future__ import annotations

from typing import Any, Final

_PAGES: Final = {
    ("get", "/"): "Overview: golden signals, what is wrong, open incidents",
    ("get", "/login"): "The form for a token",
    ("post", "/login"): "Begin a session for a pasted token",
    ("post", "/logout"): "End the session",
    ("get", "/revocations"): "Timeline, table and form for a new revocation",
    ("post", "/revocations/preview"): "What a revocation would do; revokes nothing",
    ("post", "/revocations/confirm"): "Revoke what was previewed, once its word was typed",
    ("get", "/revocations/{id}"): "One revocation",
    ("post", "/revocations/{id}/undo"): "Take a mistake back",
    ("post", "/revocations/{id}/approve"): "Put in force what another person asked for",
    ("get", "/propagation"): "How one revocation (`?id=`) spread over the validators",
    ("get", "/validators"): "Which validators there are, and how fresh they are",
    ("get", "/keys"): "The life of each signing key",
    ("post", "/keys/rotate"): "Make the next signing key",
    ("post", "/keys/{kid}/retire"): "Take a key out of the JWK Set, if nothing that it signed is in use",
    ("get", "/clients"): "The clients",
    ("get", "/clients/{realm}/{id}"): "One client, and how many of its tokens live",
    ("post", "/clients/{realm}/{id}/{action}"): "Disable or enable a client, or give it a new secret",
    ("get", "/audit"): "The audit log",
    ("post", "/audit/verify"): "Check the audit log's chain",
    ("get", "/audit/export"): "The audit log as JSON lines",
    ("get", "/inspect"): "Decode a token in the browser",
    ("post", "/inspect"): "Whether the id of a token is revoked",
    ("get", "/static/{path}"): "Scripts and styles",
    ("get", "/healthz"): "Alive",
    ("get", "/readyz"): "Ready to work",
    ("get", "/metrics"): "Metrics",
    ("get", "/openapi.json"): "This document",
}


def openapi_document() -> dict[str, Any]:
    """Return the OpenAPI document."""
    paths: dict[str, dict[str, Any]] = {}
    for (method, path), summary in _PAGES.items():
        names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        operation: dict[str, Any] = {"summary": summary, "responses": {"200": {"description": "The page"}}}
        if names:
            operation["parameters"] = [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
            ]
        paths.setdefault(path, {})[method] = operation
    return {"openapi": "3.1.0", "info": {"title": "Tokenry console", "version": "1"}, "paths": paths}
