"""`tokenry validators extend`: break the glass, so that validators go on by an old list in a long outage."""

from __future__ import annotations

import getpass
import json
import os
import re
import secrets
import sys
import time
from base64 import encodebytes
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.jose.jwk import PrivateKey
from tokenry.revocation.extension import MAX_EXTENSION_SECONDS, ListExtension
from tokenry_cli.context import load_context
from tokenry_cli.dev_folder import write_private
from tokenry_cli.output import ExitCode, fail, moment, people
from tokenry_cli.token import ContextFile
from tokenry_cli.validators import app

_SPAN = re.compile(r"\+?([0-9]{1,5})([smh])")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@app.command("extend")
def extend(
    until: Annotated[
        str, typer.Option(help="When it ends: a span such as 4h, or a moment such as 2026-11-21T18:00Z; at most 24 h.")
    ],
    key: Annotated[Path, typer.Option(help="Private key for extensions (PEM), as `extend-key` makes one.")],
    reason: Annotated[str, typer.Option(help="Why; every validator writes it into its log.")],
    ticket: Annotated[str | None, typer.Option(help="Ticket of the incident.")] = None,
    by: Annotated[str | None, typer.Option(help="Who says so. Default: the user of this machine.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write. Default: standard output.")] = None,
    context: ContextFile = None,
) -> None:
    """
    Sign a word that validators go on judging by the list that they have, however old, until a certain time.

    Put it where they look: TOKENRY_EXTEND_FILE or TOKENRY_EXTEND_URL. Tokens that the list refuses stay refused;
    what was revoked since the list was made is accepted until the service is back. Taking the file away ends it.
    """
    now = time.time()
    try:
        issuer = load_context(os.environ, file=context).issuer
        word = ListExtension(
            issuer=issuer,
            issued_at=int(now),
            until=parse_until(until, now=now),
            name=secrets.token_hex(8),
            by=by or getpass.getuser(),
            reason=reason,
            ticket=ticket,
        )
        text = word.sign(PrivateKey.from_pem(key.read_bytes()))
    except (ConfigurationError, ProtocolError, ValueError) as error:
        fail(str(error), code=ExitCode.USAGE)
    except OSError as error:
        fail(f"the key {key} cannot be read: {error.strerror}", code=ExitCode.USAGE)
    if out is None:
        sys.stdout.write(text + "\n")
    else:
        write_private(out, text.encode() + b"\n")
        out.chmod(0o644)
    people.print(f"validators of {issuer} that find it judge by lists of any age until {moment(word.until)}")
    people.print("undo: take it away from where they look (TOKENRY_EXTEND_FILE or TOKENRY_EXTEND_URL)")


@app.command("extend-key")
def extend_key(
    private: Annotated[Path, typer.Argument(help="File for the private key; keep it where few people can read it.")],
    public: Annotated[Path, typer.Argument(help="File for the public key: TOKENRY_EXTEND_KEY_FILE of validators.")],
) -> None:
    """Make the pair of keys for `extend`."""
    if private.exists() or public.exists():
        fail("one of the files is there already; a key is never overwritten", code=ExitCode.CONFLICT)
    key = PrivateKey.generate()
    body = encodebytes(key.to_pkcs8_der()).decode("ascii")
    write_private(private, f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n".encode("ascii"))
    write_private(public, json.dumps(key.public.to_jwk()).encode("ascii") + b"\n")
    public.chmod(0o644)
    people.print(f"[green]made[/green] the key {key.kid}; validators read it at their next start")
    people.print(f"undo: delete both files, and take {public} away from TOKENRY_EXTEND_KEY_FILE of validators")


def parse_until(text: str, *, now: float) -> int:
    """
    Return the Unix second that *text* names: a span from *now*, or a moment in UTC or with an offset.

    Raises:
        ValueError: It is neither, has passed, or is further away than extensions go.
    """
    if span := _SPAN.fullmatch(text):
        until = int(now) + int(span[1]) * _SECONDS[span[2]]
    else:
        try:
            named = datetime.fromisoformat(text)
        except ValueError:
            raise ValueError("--until is a span such as 4h, or a moment such as 2026-11-21T18:00Z") from None
        until = int((named if named.tzinfo else named.replace(tzinfo=UTC)).timestamp())
    if not now < until <= now + MAX_EXTENSION_SECONDS:
        raise ValueError("--until lies in the future, at most 24 hours away")
    return until
