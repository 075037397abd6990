"""`tokenry revoke import`: what is in force at Plan B, as far as it can be said here."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tokenry.errors import ProtocolError, TokenryError
from tokenry_cli.confirming import confirm_if_protected
from tokenry_cli.context import load_context
from tokenry_cli.explaining import explain
from tokenry_cli.output import ExitCode, Format, escape, fail, people, show
from tokenry_cli.plan_b_revocations import Known, Translated, read_rows, translate
from tokenry_cli.platform import Platform
from tokenry_cli.token import ContextFile, Identity, Output

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def import_(
    from_plan_b: Annotated[
        Path, typer.Option("--from-plan-b", help="What its GET /revocations?from= answers; - is standard input.")
    ],
    known: Annotated[Path, typer.Option(help="Its clients and users, as for `tokenry client import`.")],
    salt_file: Annotated[Path, typer.Option(help="File with its REVOCATION_HASHING_SALT.")],
    issuer: Annotated[str, typer.Option(help="The iss of its tokens.")],
    longest_life: Annotated[
        int, typer.Option(min=1, help="Seconds that its tokens live at most; what is older hits nothing.")
    ] = 3600,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; say what would be revoked.")] = False,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Revoke here what Plan B has revoked: rules on claims and all tokens, as far as their hashes can be understood.

    Single tokens cannot be taken over: Plan B has their hashes alone. Exit status 7 if rows are left, which only Plan
    B's own validators enforce until the tokens have expired.
    """
    found = _read(from_plan_b, known, salt_file, issuer=issuer, longest_life=longest_life)
    ids: list[str] = []
    if found.requests and not dry_run:
        confirm_if_protected(f"{len(found.requests)} revocations will be in force")
        ids = _post(Platform(load_context(os.environ, file=context, identity=identity)), found.requests)
    show(
        {"would_revoke" if dry_run else "revoked": len(found.requests), "ids": ids, "over": found.over,
         "single_tokens": found.tokens, "not_understood": [" ".join(names) for names in found.unknown]},
        form=output,
    )  # fmt: skip
    for request in found.requests:
        claims = " and ".join(f"{name}={value}" for name, value in request["data"]["claims"].items())
        people.print(f"{'would revoke' if dry_run else '[green]revoked[/green]'} {escape(claims)}")
    if dry_run:
        people.print("nothing was revoked; run it again without --dry-run")
    elif ids:
        people.print("undo, one at a time: tokenry revoke undo ID")
    if not found.is_whole:
        fail(
            f"{found.tokens} single tokens and {len(found.unknown)} rules on claims stay with Plan B",
            code=ExitCode.PARTLY_DONE,
            advice="leave its validators in front of its tokens until the last of them has expired, or post the tokens "
            "themselves (tokenry revoke token)",
        )


def _read(from_plan_b: Path, known: Path, salt_file: Path, *, issuer: str, longest_life: int) -> Translated:
    try:
        body = sys.stdin.buffer.read() if str(from_plan_b) == "-" else from_plan_b.read_bytes()
        salt = salt_file.read_text(encoding="utf-8").strip()
        names = Known.of_lines(known.read_bytes().splitlines(), salt=salt)
        return translate(read_rows(body), names, issuer=issuer, longest_life=longest_life, now=time.time())
    except (OSError, UnicodeDecodeError) as error:
        fail(f"{error}; nothing was revoked", code=ExitCode.USAGE, advice="name files that are there and can be read")
    except ProtocolError as error:
        fail(f"{error}; nothing was revoked", code=ExitCode.USAGE, advice="give the list as Plan B answers it")


def _post(platform: Platform, requests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Post one after the other; each is idempotent in its effect, so running the same again after a failure is safe."""
    ids: list[str] = []
    for request in requests:
        try:
            ids.append(str(platform.revoke(request)["id"]))
        except TokenryError as error:
            explain(error, more=f"{len(ids)} of {len(requests)} are revoked, and running the same again is safe")
    return ids
