"""`tokenry credentials sync`: bring an application's credentials from S3 into a folder, once or all the time."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tokenry.errors import ProtocolError, TokenryError
from tokenry.jose.encoding import parse_json_object
from tokenry_cli.app import App
from tokenry_cli.files import replace_file
from tokenry_cli.output import ExitCode, fail, people
from tokenry_registry.adapters.aws import make_client

if TYPE_CHECKING:
    from collections.abc import Callable

app = App(name="credentials", no_args_is_help=True, help="An application's own credentials.")

FILES: Final = ("user", "client")  # in this order: a new client id works with the users of before
MAX_BYTES: Final = 64 * 1024
INTERVAL_SECONDS: Final = 120.0
_CONNECT_SECONDS: Final = 2.0
_READ_SECONDS: Final = 5.0
_APPLICATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_HINTS: Final = {
    "403": "not allowed: the role needs s3:GetObject on {bucket}/{key}",
    "AccessDenied": "not allowed: the role needs s3:GetObject on {bucket}/{key}",
    "404": "there is no such object: were credentials written for this application?",
    "NoSuchKey": "there is no such object: were credentials written for this application?",
    "NoSuchBucket": "there is no such bucket",
    "PermanentRedirect": "the bucket is in another region: set AWS_DEFAULT_REGION",
}


class ObjectUnavailable(TokenryError):
    """An object could not be read; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """
    Where an application's credentials are.

    Attributes:
        bucket: S3 bucket.
        prefix: What stands before the application's name, with a slash at its end, or nothing.
        application: Application id.
    """

    bucket: str
    prefix: str
    application: str

    def key(self, name: str) -> str:
        """Return the object's key for *name*."""
        return f"{self.prefix}{self.application}/{name}.json"


def parse_place(bucket: str, application: str) -> Place:
    """
    Return the place; *bucket* is a name, or `s3://name/prefix/`.

    Raises:
        typer.BadParameter: One of the two is malformed.
    """
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", name):
        raise typer.BadParameter("--bucket is a bucket's name, or s3://name/prefix/")
    if not _APPLICATION.fullmatch(application):
        raise typer.BadParameter("--application is an application id: letters, digits, '.', '_', '-'")
    prefix = prefix.strip("/")
    return Place(bucket=name, prefix=f"{prefix}/" if prefix else "", application=application)


@app.command("sync")
def sync(
    directory: Annotated[Path, typer.Argument(envvar="CREDENTIALS_DIR", help="Folder to write into.", file_okay=False)],
    bucket: Annotated[
        str, typer.Option("--bucket", "-m", help="Bucket, or s3://bucket/prefix/.", envvar="MINT_BUCKET")
    ],
    application: Annotated[str, typer.Option("--application", "-a", help="Application id.", envvar="APPLICATION_ID")],
    once: Annotated[bool, typer.Option("--once", help="Once; the exit code says whether all went well.")] = False,
    interval: Annotated[float, typer.Option("--interval", "-i", help="Seconds between two looks.", min=1)] = (
        INTERVAL_SECONDS
    ),
    mode: Annotated[str, typer.Option(help="Permissions of the files, in octal.")] = "600",
) -> None:
    """Bring client.json and user.json from S3; what cannot be read stays as it is in the folder."""
    place = parse_place(bucket, application)
    if not re.fullmatch(r"0?[0-7]{3}", mode):
        raise typer.BadParameter("--mode is three octal digits, such as 640")
    if not directory.is_dir():
        fail(f"{directory} is not a folder")
    permissions = int(mode, 8)
    if once:
        faults = sync_once(directory, place, read=s3_reader(place), mode=permissions)
        raise typer.Exit(ExitCode.FAILED if faults else ExitCode.OK)
    run(directory, place, interval=interval, mode=permissions, stop=threading.Event())


def run(
    directory: Path,
    place: Place,
    *,
    interval: float,
    mode: int,
    stop: threading.Event,
    reader: Callable[[Place], Callable[[str], bytes]] | None = None,
) -> None:
    """Bring the credentials every *interval* seconds until *stop*; whatever goes wrong, the next look comes."""
    make_reader = reader or s3_reader
    while not stop.is_set():
        started = time.monotonic()
        try:
            # A reader of its own each time: the role's credentials may have changed.
            sync_once(directory, place, read=make_reader(place), mode=mode)
        except Exception as error:  # noqa: BLE001 -- a sidecar that ends leaves its service with old passwords
            people.print(f"[red]error:[/red] {type(error).__name__}", markup=True)
        stop.wait(max(0.0, interval - (time.monotonic() - started)))


def sync_once(directory: Path, place: Place, *, read: Callable[[str], bytes], mode: int = 0o600) -> list[str]:
    """
    Bring what has changed into *directory*; each file is replaced as a whole.

    Returns:
        What went wrong, a sentence for each file.
    """
    faults = []
    for name in FILES:
        path = directory / f"{name}.json"
        try:
            content = read(name)
            wanted = _members(content)
            if wanted != _held(path):
                replace_file(path, content, mode=mode)
                people.print(f"{path}: updated")
        except (ObjectUnavailable, ProtocolError) as problem:
            faults.append(f"{place.bucket}/{place.key(name)}: {problem}")
        except OSError as problem:
            faults.append(f"{path}: {problem.strerror}")
    for fault in faults:
        people.print(fault, style="red", markup=False)
    return faults


def s3_reader(place: Place) -> Callable[[str], bytes]:
    """Return what reads the application's objects by name, with credentials that boto3 finds."""
    from botocore.exceptions import BotoCoreError, ClientError

    client = make_client("s3", connect_seconds=_CONNECT_SECONDS, read_seconds=_READ_SECONDS, attempts=3)

    def read(name: str) -> bytes:
        key = place.key(name)
        try:
            body = client.get_object(Bucket=place.bucket, Key=key)["Body"]
            content: bytes = body.read(MAX_BYTES + 1)
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", "unknown"))
            hint = _HINTS.get(code, "S3 answered {code}")
            raise ObjectUnavailable(hint.format(bucket=place.bucket, key=key, code=code)) from None
        except BotoCoreError as error:
            raise ObjectUnavailable(f"S3 could not be asked ({type(error).__name__})") from None
        if len(content) > MAX_BYTES:
            raise ObjectUnavailable("it is larger than 64 KiB")
        return content

    return read


def _members(content: bytes) -> dict[str, Any]:
    members = parse_json_object(content)
    if not members:
        raise ProtocolError("it is empty")
    return members


def _held(path: Path) -> dict[str, Any] | None:
    """Return what the file says now, or None when it is not there or says nothing that can be read."""
    try:
        held = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return held if isinstance(held, dict) else None
