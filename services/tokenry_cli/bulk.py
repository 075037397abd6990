"""`tokenry revoke bulk`: a file of revocations, a line each, in slices that can be sent again."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer

from tokenry.errors import TokenryError
from tokenry.http.fetch import FetchFailed
from tokenry_cli.confirming import confirm_if_protected
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, Format, escape, fail, people, show
from tokenry_cli.platform import Platform, Refused
from tokenry_cli.progress import ProgressForm, ProgressOption, Reporter
from tokenry_cli.token import ContextFile, Identity, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLICE_LINES: Final = 10_000  # a second's work of the service, and some megabytes at most
TRIES: Final = 4  # of one slice, before the command gives up and says how to go on
PAUSE_SECONDS: Final = 2.0  # before the second try; doubled each time
_SHOWN: Final = 10
_AGAIN: Final = frozenset({408, 409, 429, 500, 502, 503, 504})


@dataclass(slots=True)
class Tally:
    """
    What became of the lines so far.

    Attributes:
        lines: Sent.
        accepted: In force.
        failures: Line, status and reason of what is not, the first few.
        failed: How many are not.
        parts: Ids of the jobs that they went as, for `tokenry job show`.
    """

    lines: int = 0
    accepted: int = 0
    failed: int = 0
    failures: list[dict[str, Any]] | None = None
    parts: list[str] = field(default_factory=list)


def bulk(
    file: Annotated[Path, typer.Option("-f", "--file", help="Revocations, a line of JSON each; - for standard input.")],
    failed_out: Annotated[
        Path | None, typer.Option("--failed-out", help="Write the lines that failed here, to be mended and sent again.")
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(help="Name of the job; the same one goes on where it ended. Default: follows from the file."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Send nothing; count the lines and read each.")] = False,
    progress: ProgressOption = ProgressForm.AUTO,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Revoke everything in a file, such as {"type":"TOKEN","data":{"jti":"..."}} on each line.

    Exit status 7 if some lines failed or were not reached; running the same again goes on and repeats nothing.
    """
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    tally = Tally(failures=[])
    try:
        with ExitStack() as opened:
            source = sys.stdin.buffer if str(file) == "-" else opened.enter_context(file.open("rb"))
            total, name = _measured(file, source, job)
            if dry_run:
                _read_only(source, tally, output)
                return
            confirm_if_protected(f"{'Some' if total is None else total} revocations will be in force")
            people.print(f"job {escape(name)}")
            sink = None if failed_out is None else opened.enter_context(failed_out.open("wb"))
            reporter = opened.enter_context(Reporter("revoked", total=total, form=progress))
            stopped = _send_all(platform, source, name, tally, sink, reporter)
    except KeyboardInterrupt:
        people.print(f"{tally.accepted} of {tally.lines} lines that were sent are in force; the same again goes on")
        raise
    except OSError as error:
        fail(str(error), code=ExitCode.USAGE, advice="name a file that is there and can be read")
    show(
        {"job": name, "lines": tally.lines, "accepted": tally.accepted, "failed": tally.failed, "parts": tally.parts}
        | ({"failures": tally.failures} if output is Format.JSON else {}),
        form=output,
    )
    for failure in () if output is Format.JSON else tally.failures or ():
        people.print(f"[red]line {failure['line']}[/red]: {escape(failure['detail'])}")
    if tally.accepted:
        people.print(f"[green]revoked[/green] {tally.accepted}; undo, one at a time: tokenry revoke undo ID")
    if stopped is None and not tally.failed:
        return
    code = ExitCode.PARTLY_DONE if tally.accepted else ExitCode.FAILED
    if stopped is not None:
        fail(stopped, code=code, advice="run the same again to go on: what is done is not repeated")
    kept = "" if failed_out is None else f": they are in {failed_out}"
    fail(f"{tally.failed} lines failed", code=code, advice=f"mend these lines and send them{kept}")


def _read_only(source: BinaryIO, tally: Tally, output: Format) -> None:
    """Read all lines and send none; say which are no JSON."""
    for number, line in enumerate(source, 1):
        tally.lines += 1
        try:
            good = isinstance(json.loads(line), dict)
        except ValueError:
            good = not line.strip()
        if not good:
            tally.failed += 1
            if tally.failures is not None and len(tally.failures) < _SHOWN:
                tally.failures.append({"line": number, "detail": "not a line of JSON"})
    show({"lines": tally.lines, "failed": tally.failed, "failures": tally.failures}, form=output)
    people.print("nothing was revoked; run it again without --dry-run")
    if tally.failed:
        raise typer.Exit(ExitCode.USAGE)


def _measured(file: Path, source: BinaryIO, job: str | None) -> tuple[int | None, str]:
    """Return how many lines *source* has, where that can be known, and the name of the job."""
    if not source.seekable() or str(file) == "-":
        return None, job or secrets.token_urlsafe(16)
    digest, lines, last = hashlib.sha256(), 0, b"\n"
    while chunk := source.read(1 << 20):
        digest.update(chunk)
        lines += chunk.count(b"\n")
        last = chunk[-1:]
    source.seek(0)
    return lines + (last != b"\n"), job or digest.hexdigest()[:32]


def _send_all(
    platform: Platform, source: BinaryIO, name: str, tally: Tally, sink: BinaryIO | None, reporter: Reporter
) -> str | None:
    """Send all slices of *source*; return why it stopped, or None at the end."""
    for number, lines in enumerate(slices(source)):
        try:
            answer = _send(platform, lines, f"{name}.{number}")
            failures = list(_failures(platform, answer))
        except TokenryError as error:
            return str(error)
        tally.lines += len(lines)
        tally.accepted += answer["accepted"]
        tally.failed += answer["failed"]
        tally.parts.append(answer["id"])
        _note(failures, lines, number * SLICE_LINES, tally, sink)
        reporter.update(tally.lines, errors=tally.failed)
    return None


def slices(source: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the lines of *source*, some thousand at a time, each with its end."""
    while lines := list(islice(source, SLICE_LINES)):
        yield lines


def _send(platform: Platform, lines: list[bytes], key: str) -> dict[str, Any]:
    body = b"".join(line if line.endswith(b"\n") else line + b"\n" for line in lines)
    return again(lambda: platform.batch(body, key=key), sleep=time.sleep)


def again(call: Callable[[], dict[str, Any]], *, sleep: Callable[[float], None]) -> dict[str, Any]:
    """
    Return what *call* returns; what may be different in a moment is tried again.

    Raises:
        Refused: It stays as it is.
        FetchFailed: Nobody answers.
    """
    for attempt in range(TRIES - 1):
        try:
            return call()
        except Refused as error:
            if error.status not in _AGAIN:
                raise
        except FetchFailed:
            pass
        sleep(PAUSE_SECONDS * 2**attempt)
    return call()


def _failures(platform: Platform, answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield from answer["failures"]
    page = answer["next_page"]
    while page is not None:
        more = platform.job(answer["id"], page=page)
        yield from more["failures"]
        page = more["next_page"]


def _note(failures: list[dict[str, Any]], lines: list[bytes], offset: int, tally: Tally, sink: BinaryIO | None) -> None:
    """Note *failures* of a slice under the numbers that their lines have in the file, and keep the lines."""
    for failure in failures:
        if tally.failures is not None and len(tally.failures) < _SHOWN:
            tally.failures.append(failure | {"line": offset + failure["line"]})
        if sink is not None:
            line = lines[failure["line"] - 1]
            sink.write(line if line.endswith(b"\n") else line + b"\n")
