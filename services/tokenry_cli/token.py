"""`tokenry token`: get a token, look into one."""

from __future__ import annotations

import os
import sys
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenry.errors import InsufficientScope, InvalidToken, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwks import KeySet
from tokenry.jose.jws import split
from tokenry.revocation.lists import RevocationList
from tokenry.scope import format_scope, scope_of
from tokenry.secret import Secret
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator
from tokenry_cli.app import App
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, Format, fail, people, show, when
from tokenry_cli.platform import Platform, Refused

if TYPE_CHECKING:
    from collections.abc import Iterable

app = App(name="token", no_args_is_help=True, help="Get a token, or look into one.")

# What `App` makes of the two: the options --context and --output, the same everywhere.
ContextFile = str | None
TokenArgument = Annotated[str, typer.Argument(help="The token, or - to read it from standard input.")]
Output = Format
Identity = Annotated[str, typer.Option(help="Identity of the context file: client or admin.")]
_DAY = 86_400
_TIMES = frozenset({"exp", "iat", "nbf"})


@app.command("get")
def get(
    scope: Annotated[
        list[str] | None, typer.Option(help="Scope to ask for; may repeat. Default: the client's own.")
    ] = None,
    audience: Annotated[str | None, typer.Option(help="Service that the token is for.")] = None,
    identity: Identity = "client",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Print a fresh access token (client_credentials) of the configured client; json prints the whole answer."""
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    answer = platform.token(scope=scope or (), audience=audience)
    if output is Format.JSON:
        show(answer, form=Format.JSON)
    else:
        sys.stdout.write(f"{answer['access_token']}\n")
        people.print(f"expires in {answer['expires_in']} s, scope: {answer['scope'] or '(none)'}")


@app.command("inspect")
def inspect(
    token: TokenArgument = "-",  # noqa: S107 -- standard input, no password
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Decode a token here (it is sent nowhere) and, when an issuer is configured, check its signature."""
    text = read_argument(token)
    try:
        parts = split(text)
        claims = parse_json_object(parts.payload)
    except TokenryError as error:
        fail(f"this is no access token: {error}", advice="give the whole token, without `Bearer`, and without quotes")
    seen: dict[str, Any] = {
        "header": parts.header,
        "claims": claims,
        "verdict": _verdict(text, claims, context),
    }
    show(seen if output is Format.JSON else _flat(seen), form=output)
    if not seen["verdict"].startswith(("valid", "not checked")):
        raise typer.Exit(ExitCode.FAILED)


@app.command("verify")
def verify(
    token: TokenArgument = "-",  # noqa: S107 -- standard input, no password
    audience: Annotated[str | None, typer.Option(help="Audience that it has to be for. Default: any.")] = None,
    scope: Annotated[list[str] | None, typer.Option(help="Scope that it has to have; may repeat.")] = None,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Judge a token here as a service would: signature, issuer, times, audience, scopes, and the revocation list.

    It is sent nowhere. The identity needs to be allowed to read the list where that is not open. Ends with 1 when the
    token is not valid.
    """
    text = read_argument(token)
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    judged = _judged(platform, text, audience=audience, scope=scope or ())
    show(judged, form=output)
    if not judged["valid"]:
        raise typer.Exit(ExitCode.FAILED)


def _judged(platform: Platform, text: str, *, audience: str | None, scope: Iterable[str]) -> dict[str, Any]:
    """Return the verdict on a token, as JSON members."""
    issuer, now = platform.context.issuer, time.time()
    response = platform.get(f"{issuer}/.well-known/jwks.json")
    if response.status != HTTPStatus.OK:
        raise Refused("the JWK Set", response)
    keys = KeySet.parse(response.body, issuer=issuer)
    document = platform.entries(bearer=None if platform.context.client_id else {})
    revocations = RevocationList.of(
        document.entries,
        salts=document.salts,
        epoch=document.epoch,
        max_token_lifetime=document.max_token_lifetime,
    )
    trusted = TrustedIssuer(issuer=issuer, max_token_lifetime=30 * _DAY)
    policy = ValidationPolicy(issuers=(trusted,), audience=ANY_AUDIENCE if audience is None else audience)
    try:
        token = Validator(policy).validate(
            text, now=now, keys=keys, revocations=revocations, list_age=0.0, scope=scope_of(scope)
        )
    except InvalidToken as error:
        return {"valid": False, "reason": str(error.reason)}
    except InsufficientScope as error:
        return {"valid": False, "reason": f"insufficient_scope: {' '.join(error.missing)}"}
    return {
        "valid": True, "iss": token.iss, "sub": token.sub, "client_id": token.client_id, "kid": token.kid,
        "scope": format_scope(token.scope), "expires_at": token.exp, "revocations": len(document.entries),
    }  # fmt: skip


@app.command("introspect")
def introspect(
    token: TokenArgument = "-",  # noqa: S107 -- standard input, no password
    identity: Identity = "client",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """Ask the token info service about a token (RFC 7662), as the context's client; ends with 1 when not active."""
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    platform.context.tokeninfo_url()
    answer = platform.introspect(Secret(read_argument(token)))
    show(answer if output is Format.JSON else _timed(answer), form=output)
    if answer.get("active") is not True:
        raise typer.Exit(ExitCode.FAILED)


def read_argument(value: str) -> str:
    """Return *value*, or standard input for `-`: tokens on a command line end up in the shell's history."""
    return sys.stdin.read().strip() if value == "-" else value.strip()


def _verdict(token: str, claims: dict[str, Any], context: str | None) -> str:
    try:
        issuer = load_context(os.environ, file=context).issuer
    except TokenryError:
        return "not checked: set TOKENRY_ISSUER or --context FILE to check the signature"
    try:
        response = Platform(load_context(os.environ, file=context)).get(f"{issuer}/.well-known/jwks.json")
        keys = KeySet.parse(response.body, issuer=issuer)
        trusted = TrustedIssuer(issuer=issuer, max_token_lifetime=30 * _DAY)
        policy = ValidationPolicy(issuers=(trusted,), audience=ANY_AUDIENCE, requires_list=False)
        Validator(policy).validate(token, now=time.time(), keys=keys, revocations=None, list_age=0.0)
    except InvalidToken as error:
        return f"not valid: {error.reason}"
    except TokenryError as error:
        return f"could not be checked: {error}"
    return f"valid signature, expires in {int(claims['exp'] - time.time())} s; revocation was not looked at"


def _flat(seen: dict[str, Any]) -> dict[str, Any]:
    return {"verdict": seen["verdict"], **_timed(seen["header"]), **_timed(seen["claims"])}


def _timed(members: dict[str, Any]) -> dict[str, Any]:
    """Return *members* for people: moments in words beside their numbers."""
    now = time.time()
    return {
        name: f"{value} ({when(value, now=now)})" if name in _TIMES and isinstance(value, int) else value
        for name, value in members.items()
    }
