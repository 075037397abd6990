"""`tokenry token`: get a token, look into one."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tokenry.errors import InvalidToken, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jwks import KeySet
from tokenry.jose.jws import split
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, Format, fail, moment, people, show
from tokenry_cli.platform import Platform

app = typer.Typer(no_args_is_help=True, help="Get a token, or look into one.")

ContextFile = Annotated[
    Path | None,
    typer.Option("--context", "-C", help="File as written by `tokenry dev --ready-file`.", dir_okay=False),
]
TokenArgument = Annotated[str, typer.Argument(help="The token, or - to read it from standard input.")]
Output = Annotated[Format, typer.Option("--output", "-o", help="A table for people or JSON for machines.")]
_DAY = 86_400


@app.command("get")
def get(
    scope: Annotated[
        list[str] | None, typer.Option(help="Scope to ask for; may repeat. Default: the client's own.")
    ] = None,
    audience: Annotated[str | None, typer.Option(help="Service that the token is for.")] = None,
    identity: Annotated[str, typer.Option(help="Identity of the context file: client or admin.")] = "client",
    context: ContextFile = None,
    output: Annotated[Format | None, typer.Option("--output", "-o", help="json prints the whole answer.")] = None,
) -> None:
    """Print a fresh access token (client_credentials) of the configured client."""
    try:
        platform = Platform(load_context(os.environ, file=context, identity=identity))
        answer = platform.token(scope=scope or (), audience=audience)
    except TokenryError as error:
        fail(str(error))
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
        fail(f"this is no access token: {error}")
    seen: dict[str, Any] = {
        "header": parts.header,
        "claims": claims,
        "verdict": _verdict(text, claims, context),
    }
    show(seen if output is Format.JSON else _flat(seen), form=output)
    if not seen["verdict"].startswith(("valid", "not checked")):
        raise typer.Exit(ExitCode.FAILED)


def read_argument(value: str) -> str:
    """Return *value*, or standard input for `-`: tokens on a command line end up in the shell's history."""
    return sys.stdin.read().strip() if value == "-" else value.strip()


def _verdict(token: str, claims: dict[str, Any], context: Path | None) -> str:
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
    flat: dict[str, Any] = {"verdict": seen["verdict"]}
    for part in ("header", "claims"):
        for name, value in seen[part].items():
            timed = name in {"exp", "iat", "nbf"} and isinstance(value, int)
            flat[name] = f"{value} ({moment(value)})" if timed else value
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in flat.items()}
