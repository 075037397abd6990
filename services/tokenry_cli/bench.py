"""
`tokenry bench`: small measurements from here, each beside a reference of the same run.

They say what this machine and this network do now. What the platform can do is in docs/performance.md.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from tokenry.errors import InvalidToken, TokenryError
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.revocation.lists import RevocationList
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator
from tokenry_cli.app import App
from tokenry_cli.canary import Outcome, fly
from tokenry_cli.context import load_context
from tokenry_cli.output import ExitCode, Format, fail, people, show
from tokenry_cli.platform import Platform, Refused
from tokenry_cli.progress import ProgressForm, ProgressOption, Reporter
from tokenry_cli.token import ContextFile, Identity, Output

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

app = App(
    name="bench",
    no_args_is_help=True,
    help="How fast this is from here: validating, issuing, and how soon a revocation bites.",
)

_DAY: Final = 86_400
_LEAST: Final = 200  # calls, however short the time


@app.command("validate")
def validate(
    seconds: Annotated[float, typer.Option(min=0.1, max=600, help="For which to validate.")] = 2.0,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Validate one real token in this process, again and again: with its signature checked, and with it remembered.

    The reference is a bare check of an ES256 signature.
    """
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    token = platform.token()["access_token"]
    issuer = platform.context.issuer
    response = platform.get(f"{issuer}/.well-known/jwks.json")
    if response.status != HTTPStatus.OK:
        raise Refused("the JWK Set", response)
    keys = KeySet.parse(response.body, issuer=issuer)
    document = platform.entries()
    revocations = RevocationList.of(
        document.entries,
        salts=document.salts,
        epoch=document.epoch,
        max_token_lifetime=document.max_token_lifetime,
    )
    trusted = TrustedIssuer(issuer=issuer, max_token_lifetime=30 * _DAY)
    policy = ValidationPolicy(issuers=(trusted,), audience=ANY_AUDIENCE)

    def validating(validator: Validator) -> Callable[[], object]:
        now = time.time()
        return lambda: validator.validate(token, now=now, keys=keys, revocations=revocations, list_age=0.0)

    try:
        with_signature = timed(validating(Validator(policy, remembered=0)), seconds=seconds / 2)
        remembered = timed(validating(Validator(policy)), seconds=seconds / 2)
    except InvalidToken as error:
        fail(f"the token of this identity is not valid: {error.reason}")
    reference = timed(_signature_check(), seconds=max(0.1, seconds / 4))
    show(
        {
            "revocations": len(document.entries),
            "with_signature": figures(with_signature),
            "remembered": figures(remembered),
            "reference_signature_check": figures(reference),
            "with_signature_to_reference": round(median(with_signature) / median(reference), 2),
        },
        form=output,
    )


def _signature_check() -> Callable[[], object]:
    """Return the check of one ES256 signature, and nothing else."""
    key = PrivateKey.generate()
    message = b"tokenry bench" * 40
    signature, public = key.sign(message), key.public
    return lambda: public.verify(message, signature, low_s=False)


@app.command("issue")
def issue(
    requests: Annotated[int, typer.Option("--requests", "-n", min=1, max=1_000_000, help="How many.")] = 100,
    at_once: Annotated[int, typer.Option(min=1, max=64, help="How many at the same time.")] = 4,
    progress: ProgressOption = ProgressForm.AUTO,
    identity: Identity = "client",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Get tokens of one client, and say how long the issuer took; ends with 7 when some were refused.

    The reference is a GET of the JWK Set over the same way.
    """
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    platform.context.credentials()
    times: list[float] = []
    errors: list[str] = []

    def one(_: int) -> None:
        began = time.perf_counter()
        try:
            platform.token()
        except TokenryError as error:
            errors.append(str(error))
        else:
            times.append(time.perf_counter() - began)

    began = time.perf_counter()
    with Reporter("issued", total=requests, form=progress) as reporter, ThreadPoolExecutor(at_once) as threads:
        for _ in threads.map(one, range(requests)):
            reporter.update(len(times) + len(errors), errors=len(errors))
    took = time.perf_counter() - began
    if not times:
        fail(f"no token at all: {errors[0]}")
    reference = [_fetched(platform) for _ in range(min(requests, 20))]
    show(
        {
            "requests": requests, "errors": len(errors), "at_once": at_once,
            "per_second": round(len(times) / took, 1), "token": figures(times),
            "reference_jwks": figures(reference),
            "token_to_reference": round(median(times) / median(reference), 2),
        },
        form=output,
    )  # fmt: skip
    if errors:
        people.print(f"[red]{len(errors)} failed[/red], the first: ", end="")
        people.print(errors[0], markup=False)
        raise typer.Exit(ExitCode.PARTLY_DONE)


def _fetched(platform: Platform) -> float:
    began = time.perf_counter()
    platform.get(f"{platform.context.issuer}/.well-known/jwks.json")
    return time.perf_counter() - began


@app.command("propagation")
def propagation(
    flights: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 3,
    progress: ProgressOption = ProgressForm.AUTO,
    identity: Identity = "admin",
    context: ContextFile = None,
    output: Output = Format.TABLE,
) -> None:
    """
    Mint, revoke, and time until token info refuses; ends with 6 when a token was not refused as promised.

    Each leaves one revoked token, marked as a test. The same all the time, with metrics: tokenry canary.
    """
    platform = Platform(load_context(os.environ, file=context, identity=identity))
    platform.context.tokeninfo_url()
    landed = []
    with Reporter("flown", total=flights, form=progress) as reporter:
        for _ in range(flights):
            landed.append(fly(platform))
            reporter.update(len(landed), errors=sum(each.outcome is not Outcome.REFUSED for each in landed))
    times = [each.seconds for each in landed if each.seconds is not None]
    bad = [each for each in landed if each.outcome is not Outcome.REFUSED]
    shown: dict[str, Any] = {"flights": flights, "refused_as_promised": len(times)}
    if times:
        shown["seconds"] = {"p50": round(median(times), 3), "max": round(max(times), 3)}
    show(shown, form=output)
    if bad:
        fail(f"{bad[0].outcome}: {bad[0].detail}", code=ExitCode.WAITED_IN_VAIN)


def timed(call: Callable[[], object], *, seconds: float) -> list[float]:
    """Return the seconds of each of the calls that fit into *seconds*, at least 200, after a few to warm up."""
    for _ in range(3):
        call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (began := time.perf_counter()) < end or len(times) < _LEAST:
        call()
        times.append(time.perf_counter() - began)
    return times


def median(times: Sequence[float]) -> float:
    """Return the median of *times*."""
    return percentile(times, 50)


def percentile(times: Sequence[float], percent: float) -> float:
    """Return the time within which *percent* of *times* are (nearest rank)."""
    ranked = sorted(times)
    return ranked[max(0, -(-len(ranked) * int(percent) // 100) - 1)]


def figures(times: Sequence[float]) -> dict[str, float]:
    """Return what is told of *times*: how many, and microseconds."""
    micro = {name: round(percentile(times, percent) * 1e6, 1) for name, percent in (("p50_us", 50), ("p99_us", 99))}
    return {"count": len(times), **micro}
