"""The service's OpenAPI document."""

from __future__ import annotations

from typing import Any, Final

from tokenry.revocation.signed import SIGNED_LIST_MEDIA_TYPE
from tokenry.revocation.wire import BINARY_TYPE
from tokenry.serving.metrics import package_version

_PROBLEM: Final = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
_BEARER: Final[list[dict[str, list[str]]]] = [{"bearer": []}]
_STAMP: Final = {
    "Tokenry-List": {
        "description": "epoch, as_of (Unix seconds up to which the list is complete) and age.",
        "schema": {"type": "string"},
    }
}


def _refusals(**texts: str) -> dict[str, Any]:
    return {code.removeprefix("s"): {"description": text, "content": _PROBLEM} for code, text in texts.items()}


def _query(name: str, description: str, *, kind: str = "string", required: bool = False) -> dict[str, Any]:
    schema = {"type": kind}
    return {"name": name, "in": "query", "required": required, "description": description, "schema": schema}


_CREATED_AT: Final = _query(
    "created_at",
    "true: JSON entries say when they were accepted, by this service's clock, in Unix seconds with milliseconds.",
    kind="boolean",
)


def _header(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


_NOT_ALLOWED: Final = _refusals(s401="No access token, or a bad one.", s403="The token lacks a scope, or a rule.")
_AWAY: Final = _refusals(s503="The store, the keys or the list are not there now; see Retry-After.")
_ID: Final = {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}


def _json(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _open(summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON values
    return {
        "summary": summary,
        "security": [{}, *_BEARER],
        "responses": responses | _NOT_ALLOWED | _AWAY,
        **more,
    }


def _guarded(summary: str, responses: dict[str, Any], **more: Any) -> dict[str, Any]:  # noqa: ANN401 -- JSON values
    return {"summary": summary, "security": _BEARER, "responses": responses | _NOT_ALLOWED | _AWAY, **more}


OPENAPI: Final[dict[str, Any]] = {
    "openapi": "3.1.0",
    "info": {"title": "Tokenry revocation service", "version": package_version()},
    "paths": {
        "/revocations": {
            "post": _guarded(
                "Revoke a token, an id, claims, a key, or everything",
                {
                    "200": {
                        "description": "The same revocation is in force already.",
                        "content": _json("Accepted"),
                    },
                    "201": {"description": "Stored, and in force.", "content": _json("Accepted")},
                    "202": {"description": "It waits for a second person, and is not in force."},
                    **_refusals(
                        s400="The request is not understood, or its times are out of bounds.",
                        s409="It would leave no key to sign with.",
                        s413="The body is too large.",
                        s422="The Idempotency-Key was used for another request.",
                    ),
                },
                parameters=[
                    _query("dry_run", "true: change nothing, and tell what the rule would hit.", kind="boolean"),
                    _header("Idempotency-Key", "Kept for 24 hours: a retry with it changes nothing."),
                ],
                requestBody={"required": True, "content": _json("Revoke")},
            ),
            "get": _open(
                "The list in the shape of Plan B",
                {
                    "200": {"description": "Revocations later than from.", "headers": _STAMP},
                    **_refusals(s400="from is missing or not a number."),
                },
                parameters=[_query("from", "Unix seconds.", kind="number", required=True)],
            ),
        },
        "/revocations/batch": {
            "post": _guarded(
                "Revoke any number, one a line",
                {
                    "202": {"description": "All lines were read; the job says which failed.", "content": _json("Job")},
                    **_refusals(
                        s400="Nearly all lines failed, or the body broke off.",
                        s408="Nothing came for half a minute.",
                        s409="The job is being worked on.",
                        s422="The Idempotency-Key was used for other lines.",
                    ),
                },
                parameters=[
                    _header("Idempotency-Key", "Names the job: the same lines with it again go on where it ended."),
                ],
                requestBody={
                    "required": True,
                    "description": "NDJSON: a revocation as in POST /revocations on each line of at most 16 KiB.",
                    "content": {"application/x-ndjson": {}},
                },
            )
        },
        "/jobs/{id}": {
            "get": _guarded(
                "How far a batch has come, and which of its lines failed",
                {
                    "200": {"description": "The job.", "content": _json("Job")},
                    **_refusals(s400="page is no number.", s404="There is none, or it was forgotten after a week."),
                },
                parameters=[_ID, _query("page", "Of failures, a thousand each, counted from 0.", kind="integer")],
            )
        },
        "/jobs/{id}/cancel": {
            "post": _guarded(
                "Stop a batch; what it has revoked stays so",
                {
                    "202": {"description": "It is asked to stop, and does within seconds.", "content": _json("Job")},
                    **_refusals(s404="There is none, or it was forgotten after a week.", s409="It does not run."),
                },
                parameters=[_ID],
            )
        },
        "/revocations/changes": {
            "get": _open(
                "Everything since a cursor; held until there is news",
                {
                    "200": {"description": "News, possibly repeated.", "headers": _STAMP},
                    **_refusals(s400="wait is not a number.", s410="The cursor is of no use: take the snapshot."),
                },
                parameters=[
                    _query("after", "The cursor of the last answer.", required=True),
                    _query("wait", "Seconds to wait for news, at most 50; default 25.", kind="number"),
                    _CREATED_AT,
                    _header("Tokenry-Instance", "The reader's name and version, name/version."),
                ],
            )
        },
        "/revocations/snapshot": {
            "get": _open(
                "Everything in force",
                {
                    "200": {
                        "description": "All entries, and the cursor behind them.",
                        "headers": _STAMP,
                        "content": {"application/json": {}, BINARY_TYPE: {}},
                    },
                    "304": {"description": "The entries are those of the ETag.", "headers": _STAMP},
                    **_refusals(
                        s400="created_at is neither true nor false.",
                        s406="The list is too long for JSON: ask for the binary form.",
                    ),
                },
                parameters=[_header("If-None-Match", "The ETag of the snapshot that is held."), _CREATED_AT],
            )
        },
        "/revocations/signed": {
            "get": _open(
                "The signed list as last published",
                {
                    "200": {
                        "description": "A JWS of type revocation-list+jwt.",
                        "content": {SIGNED_LIST_MEDIA_TYPE: {}},
                    },
                    "304": {"description": "It is that of the ETag."},
                    **_refusals(s404="None is published here."),
                },
                parameters=[_header("If-None-Match", "The ETag of the list that is held.")],
            )
        },
        "/audit": {
            "get": _guarded(
                "The last records of this replica's audit log, the last one first",
                {
                    "200": {
                        "description": "Records of a hash chain, its head, and the heads of all chains of a month.",
                        "content": _json("Audit"),
                    },
                    **_refusals(s400="limit or before is no whole number, or too large."),
                },
                parameters=[
                    _query("limit", "Records, at most 1000; default 100.", kind="integer"),
                    _query("before", "Only records with a smaller number.", kind="integer"),
                ],
            )
        },
        "/revocations/{id}": {
            "get": _guarded(
                "Who revoked what, when and why; how many tokens were refused since (denied), when last, by how many",
                {"200": {"description": "The record."}, **_refusals(s404="There is none.")},
                parameters=[_ID],
            )
        },
        "/revocations/{id}/undo": {
            "post": _guarded(
                "Take a mistake back",
                {
                    "200": {"description": "It was taken back already.", "content": _json("Accepted")},
                    "201": {"description": "Taken back.", "content": _json("Accepted")},
                    **_refusals(s400="The body is not understood.", s404="There is none.", s409="Not of this kind."),
                },
                parameters=[_ID],
            )
        },
        "/revocations/{id}/approve": {
            "post": _guarded(
                "Put in force what another person asked for",
                {
                    "200": {"description": "It was approved already.", "content": _json("Accepted")},
                    "201": {"description": "Approved, stored, and in force.", "content": _json("Accepted")},
                    **_refusals(s404="Nothing waits under this id.", s409="The same person asked for it."),
                },
                parameters=[_ID],
            )
        },
        "/oauth2/revoke": {
            "post": {
                "summary": "Revoke a token of one's own (RFC 7009)",
                "security": [{"basic": []}, *_BEARER],
                "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {}}},
                "responses": {
                    "200": {"description": "The token is dead, or was never alive."},
                    "400": {"description": "invalid_request, or unauthorized_client for another client's token."},
                    "401": {"description": "invalid_client, or invalid_token."},
                    "503": {"description": "Not stored: the token may still be accepted."},
                },
            }
        },
        "/notifications/REFRESH_FROM": {
            "post": _guarded(
                "Tell validators of Plan B to drop what they have and fetch it again",
                {
                    "200": {"description": "This value is in force already."},
                    "201": {"description": "It will be shown."},
                    **_refusals(s400="value is not a time that has passed.", s409="Another value is in force."),
                },
                parameters=[
                    _query("value", "Unix seconds.", kind="number", required=True),
                    _query("force", "true: send a second value all the same.", kind="boolean"),
                ],
            )
        },
        "/validators": {
            "get": _guarded(
                "Which validators there are, and what they have applied",
                {"200": {"description": "All."}},
                parameters=[_query("revocation", "An id: tell since when each of them enforces it (enforced_at).")],
            )
        },
        "/validators/reports": {
            "post": _open(
                "A validator tells of itself",
                {"204": {"description": "Noted."}, **_refusals(s400="The report is not understood.")},
            )
        },
        "/counters": {
            "post": _guarded(
                "An issuer's process counts the tokens that live",
                {"204": {"description": "Kept."}, **_refusals(s400="Not what an issuer sends.", s413="Too much.")},
            )
        },
        "/healthz": {"get": {"summary": "Alive", "responses": {"200": {"description": "Yes."}}}},
        "/readyz": {
            "get": {
                "summary": "Ready to work",
                "responses": {"200": {"description": "Yes."}, "503": {"description": "No; see ?verbose."}},
            }
        },
        "/metrics": {"get": {"summary": "Metrics", "responses": {"200": {"description": "Prometheus text."}}}},
        "/openapi.json": {"get": {"summary": "This document", "responses": {"200": {"description": "It."}}}},
    },
    "components": {
        "securitySchemes": {
            "bearer": {"type": "http", "scheme": "bearer"},
            "basic": {"type": "http", "scheme": "basic"},
        },
        "schemas": {
            "Revoke": {
                "type": "object",
                "required": ["type", "data"],
                "properties": {
                    "type": {"enum": ["TOKEN", "CLAIM", "KEY", "GLOBAL"]},
                    "data": {"type": "object"},
                    "reason": {"type": "string", "maxLength": 500},
                    "ticket": {"type": "string", "maxLength": 100},
                    "confirm": {"type": "boolean"},
                },
            },
            "Job": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "state": {"enum": ["running", "interrupted", "done"]},
                    "lines": {"type": "integer", "description": "Done: in force, failed or empty."},
                    "accepted": {"type": "integer"},
                    "failed": {"type": "integer"},
                    "started_at": {"type": "number"},
                    "updated_at": {"type": "number"},
                    "failures": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "line": {"type": "integer", "description": "Counted from 1."},
                                "status": {"type": "integer"},
                                "detail": {"type": "string"},
                            },
                        },
                    },
                    "next_page": {"type": ["integer", "null"]},
                },
            },
            "Head": {
                "type": "object",
                "properties": {
                    "instance": {"type": "string", "description": "One run of one process."},
                    "seq": {"type": "integer"},
                    "hash": {"type": "string"},
                },
            },
            "Audit": {
                "type": "object",
                "properties": {
                    "records": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "event": {"type": "string"},
                                "instance": {"type": "string"},
                                "seq": {"type": "integer", "description": "Counted from 1."},
                                "time": {"type": "string", "format": "date-time"},
                                "actor": {"type": "object"},
                                "previous": {"type": "string", "description": "Hash of the record before."},
                                "hash": {"type": "string", "description": "SHA-256 of the canonical record."},
                            },
                        },
                    },
                    "head": {"$ref": "#/components/schemas/Head"},
                    "heads": {
                        "type": ["array", "null"],
                        "items": {"$ref": "#/components/schemas/Head"},
                        "description": "null while the store does not answer.",
                    },
                },
            },
            "Accepted": {
                "type": "object",
                "properties": {
                    "id": {"type": "string"},
                    "type": {"enum": ["TOKEN", "CLAIM", "KEY", "GLOBAL", "UNDO"]},
                    "revoked_at": {"type": "integer"},
                    "in_force_until": {"type": ["integer", "null"]},
                    "propagated_by": {"type": "integer"},
                    "plan_b_by": {"type": ["integer", "null"]},
                    "undoes": {"type": "string"},
                    "plan_b": {"type": "string"},
                },
            },
            "Problem": {
                "type": "object",
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                },
            },
        },
    },
}
