"""
The steady probes of a drill: tokens are minted, and good, condemned and dead ones are shown to every validator.

A thread for the issuer and one for each validator, so that one that hangs holds up nobody else. What is heard is kept
without the tokens; the tokens themselves stay in here.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol, Self

from tokenry.errors import InvalidToken, TokenryError, ValidatorNotReady
from tokenry.http.fetch import FetchFailed, HttpFetcher, Request
from tokenry.jose.jws import split
from tokenry.secret import Secret
from tokenry_cli.drill_measure import ISSUER, Condemned, History, Minted, Sample, Verdict
from tokenry_cli.platform import Platform, Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tokenry.http.fetch import Fetcher, Response
    from tokenry.token_validator import TokenValidator
    from tokenry_cli.context import Context

EVERY_SECONDS: Final = 0.1  # between two rounds of one thread
MINT_EVERY_SECONDS: Final = 0.5
ASK_SECONDS: Final = 5.0  # a service that needs longer is away for its callers
BYSTANDER: Final = "bystander"
VICTIM: Final = "victim"
_MALFORMED: Final = "the issuer's answer holds no token"


class Judge(Protocol):
    """Asks one validator."""

    def __call__(self, token: Secret) -> Verdict:
        """Return what it says of *token*."""
        ...


class Hurried:
    """A fetcher that waits for nobody longer than a caller would."""

    def __init__(self, fetcher: Fetcher | None = None, *, seconds: float = ASK_SECONDS) -> None:
        """Ask by way of *fetcher*."""
        self._fetcher = fetcher or HttpFetcher()
        self._seconds = seconds

    def fetch(self, request: Request) -> Response:
        """Return the answer to *request* within the seconds that there are."""
        return self._fetcher.fetch(replace(request, deadline_seconds=min(self._seconds, request.deadline_seconds)))

    def cancel(self) -> None:
        """Make what is under way fail soon."""
        self._fetcher.cancel()


def token_info_judge(url: str, *, fetcher: Fetcher | None = None) -> Judge:
    """Return what asks the token info service at *url*."""
    asking = Hurried(fetcher)

    def judge(token: Secret) -> Verdict:
        try:
            answer = asking.fetch(
                Request(
                    url=f"{url}/oauth2/tokeninfo",
                    headers={"Authorization": f"Bearer {token.reveal()}", "Accept": "application/json"},
                )
            )
        except FetchFailed:
            return Verdict.UNAVAILABLE
        if answer.status == HTTPStatus.OK:
            return Verdict.ACCEPTED
        return Verdict.REFUSED if answer.status == HTTPStatus.UNAUTHORIZED else Verdict.UNAVAILABLE

    return judge


def library_judge(validator: TokenValidator) -> Judge:
    """Return what asks a validator of this process, as a protected service does."""

    def judge(token: Secret) -> Verdict:
        try:
            validator.validate_waiting(token.reveal())
        except InvalidToken:
            return Verdict.REFUSED
        except ValidatorNotReady:
            return Verdict.UNAVAILABLE
        return Verdict.ACCEPTED

    return judge


@dataclass(slots=True)
class _Held:
    """Tokens of one client."""

    first: Minted | None = None
    last: Minted | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Whose tokens are minted; the victim's credentials change while a drill goes on."""

    bystander: Platform
    victim: Platform = field(repr=False)


def hurried(context: Context) -> Platform:
    """Return the platform of *context* for somebody who does not wait."""
    return Platform(context, fetcher=Hurried())


class Probes:
    """All probes of one drill; use it as a context manager."""

    def __init__(self, clients: Clients, judges: Mapping[str, Judge], *, now: Callable[[], float]) -> None:
        """
        Ask nothing yet.

        Args:
            clients: Whose tokens are minted.
            judges: The validators, by name.
            now: Seconds of the drill.
        """
        self.now = now
        self._clients = clients
        self._judges = dict(judges)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._secrets: dict[str, Secret] = {}
        self._tokens: dict[str, Minted] = {}
        self._held = {BYSTANDER: _Held(), VICTIM: _Held()}
        self._samples: list[Sample] = []
        self._dead: set[str] = set()
        self._kept: set[str] = set()
        self.condemned: list[Condemned] = []
        self._threads = [
            threading.Thread(target=self._minting, name="drill-issuer", daemon=True),
            *(
                threading.Thread(target=self._judging, args=(name,), name=f"drill-{name}", daemon=True)
                for name in self._judges
            ),
        ]

    def __enter__(self) -> Self:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, when what is under way has come."""
        self._ended.set()
        for thread in self._threads:
            thread.join(2 * ASK_SECONDS)

    # --- what a scenario does with them ---

    @property
    def validators(self) -> tuple[str, ...]:
        """Names of the validators."""
        return tuple(self._judges)

    def use_victim(self, platform: Platform) -> None:
        """Mint the victim's tokens with other credentials from now on."""
        self._clients = Clients(bystander=self._clients.bystander, victim=platform)

    def mint(self, who: str = BYSTANDER) -> Minted:
        """
        Return a fresh token, which is not among the steadily used ones until it is watched.

        Raises:
            Refused: The issuer refused.
            FetchFailed: It did not answer.
        """
        return self._mint(who)

    def text(self, token: Minted) -> Secret:
        """Return the token itself."""
        return self._secrets[token.name]

    def watch(self, token: Minted) -> None:
        """Show *token* to every validator from now on."""
        with self._lock:
            self._kept.add(token.name)

    def dead(self, token: Minted) -> None:
        """Expect *token*, which everybody refuses, to be refused for as long as the drill lasts."""
        with self._lock:
            self._dead.add(token.name)
            self._kept.add(token.name)

    def ask(self, where: str, token: Minted) -> Verdict:
        """Return what the validator *where* says of *token*, now."""
        return self._judge(where, token).verdict

    def last(self, who: str = BYSTANDER) -> Minted | None:
        """Return the youngest token of *who*."""
        return self._held[who].last

    def samples(self) -> list[Sample]:
        """Return what was heard until now."""
        with self._lock:
            return list(self._samples)

    def history(self) -> History:
        """Return what was heard until now, for `measure`."""
        with self._lock:
            return History(
                samples=tuple(self._samples),
                tokens=dict(self._tokens),
                dead=frozenset(self._dead),
                bystander=BYSTANDER,
                condemned=tuple(self.condemned),
            )

    # --- the threads ---

    def _minting(self) -> None:
        while not self._ended.is_set():
            for who in (BYSTANDER, VICTIM):
                asked = self.now()
                try:
                    token = self._mint(who)
                except Refused as error:
                    self._heard(asked, ISSUER, who, _of_mint(error))
                    continue
                except TokenryError:
                    self._heard(asked, ISSUER, who, Verdict.UNAVAILABLE)
                    continue
                self._heard(asked, ISSUER, who, Verdict.ACCEPTED)
                with self._lock:
                    held = self._held[who]
                    held.first, held.last = held.first or token, token
            self._ended.wait(MINT_EVERY_SECONDS)

    def _judging(self, where: str) -> None:
        while not self._ended.is_set():
            for token in self._watched():
                if self._ended.is_set():
                    return
                sample = self._judge(where, token)
                with self._lock:
                    self._samples.append(sample)
            self._ended.wait(EVERY_SECONDS)

    def _watched(self) -> list[Minted]:
        with self._lock:
            steady = [token for held in self._held.values() for token in (held.first, held.last) if token is not None]
            return list({token.name: token for token in (*steady, *map(self._tokens.__getitem__, self._kept))}.values())

    def _judge(self, where: str, token: Minted) -> Sample:
        asked = self.now()
        verdict = self._judges[where](self._secrets[token.name])
        return Sample(asked=asked, came=self.now(), where=where, token=token.name, verdict=verdict)

    def _mint(self, who: str) -> Minted:
        client = self._clients.bystander if who == BYSTANDER else self._clients.victim
        answer = client.token()
        try:
            secret = Secret(answer["access_token"])
            kid = str(split(secret.reveal()).header.get("kid", ""))
        except (KeyError, TypeError, TokenryError):
            raise TokenryError(_MALFORMED) from None
        with self._lock:
            token = Minted(name=f"{who} {len(self._tokens) + 1}", client=who, kid=kid, at=self.now())
            self._tokens[token.name], self._secrets[token.name] = token, secret
        return token

    def _heard(self, asked: float, where: str, token: str, verdict: Verdict) -> None:
        sample = Sample(asked=asked, came=self.now(), where=where, token=token, verdict=verdict)
        with self._lock:
            self._samples.append(sample)


def _of_mint(error: Refused) -> Verdict:
    busy = {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE}
    return (
        Verdict.UNAVAILABLE
        if error.status in busy or error.status >= HTTPStatus.INTERNAL_SERVER_ERROR
        else Verdict.REFUSED
    )
