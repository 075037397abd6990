"""What an error of a command means: its exit code, and what to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from tokenry.errors import ConfigurationError
from tokenry.http.fetch import Failure, FetchFailed
from tokenry_cli.output import ExitCode, fail
from tokenry_cli.platform import Refused

if TYPE_CHECKING:
    from tokenry.errors import TokenryError

STATUSES: Final = {
    400: ExitCode.USAGE,
    401: ExitCode.NOT_ALLOWED,
    403: ExitCode.NOT_ALLOWED,
    404: ExitCode.NOT_FOUND,
    409: ExitCode.CONFLICT,
    413: ExitCode.USAGE,
    422: ExitCode.USAGE,
}
_ADVICE: Final = {
    401: "is the identity of the context right? tokenry context show; a new secret: tokenry client rotate-secret",
    403: "tokenry token get shows the scopes of your identity; ask for the one that is missing",
    404: "look at the id again: the list command shows what is there",
    409: "look at what is there now, then decide",
    429: "wait a little, then run the same again",
}
_UNREACHABLE: Final = "tokenry doctor says what can be reached; running the same again is safe"


def code_of(error: TokenryError) -> ExitCode:
    """Return the exit code that tells *error*."""
    if isinstance(error, Refused):
        return STATUSES.get(error.status, ExitCode.FAILED)
    if isinstance(error, ConfigurationError) or (isinstance(error, FetchFailed) and error.failure is Failure.BAD_URL):
        return ExitCode.USAGE
    return ExitCode.FAILED


def explain(error: TokenryError, *, more: str = "", advice: str | None = None) -> NoReturn:
    """
    End the command with *error*.

    Args:
        error: What went wrong.
        more: What is known of the state that it left behind.
        advice: What to do next, where that is known better here.
    """
    if advice is None and isinstance(error, Refused):
        advice = _ADVICE.get(error.status)
    if advice is None and isinstance(error, FetchFailed):
        advice = _UNREACHABLE
    fail(f"{error}{'; ' if more else ''}{more}", code=code_of(error), advice=advice)
