"""
The driver of a history on real parts: it owns the clock, mints, revokes, asks validators, and writes everything down.

What it does is random, by a seed; what comes of it is not reproducible, since the parts are real: the history is the
evidence, and can be judged again.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import aiohttp

from tests.proof.checker import Bounds
from tests.proof.history import Fault, History, Mint, Outcome, Result, Revoke, Undo, Validate
from tests.proof.simulated_service import cutoff_of, default_cutoffs
from tests.support.history_platform import KEEPING, LIFETIME, POLLING, REALM, SERVICES, VALIDATORS, HistoryPlatform
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_decode, parse_json_object
from tokenry_revocation.feed import SWEEP_SECONDS

if TYPE_CHECKING:
    import random
    from collections.abc import Coroutine

HELD_SECONDS: Final = 1.0
POLLED_SECONDS: Final = 31.0
RECOVERY_SECONDS: Final = 60.0
CLOCK_ERROR: Final = 2.0

_POST_SECONDS: Final = 12.0
_ASK_SECONDS: Final = 10.0
_PULSE_SECONDS: Final = 0.1
_CHASE_SECONDS: Final = 45.0
_CHASE_PAUSE_SECONDS: Final = 0.03  # between asking whether a revocation took effect: how finely that is measured
_CHASE_FINELY_SECONDS: Final = 1.5  # beyond which it is asked ever more seldom
_CHASES: Final = 60  # at a time
_ASK_AGAIN_SECONDS: Final = 40.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """
    How much is done, a second.

    Attributes:
        mints: Tokens that the driver signs.
        grants: Tokens that the issuer is asked for.
        revocations: Posts.
        validations: Questions to validators, besides those that follow a revocation.
        subjects: How many there are.
    """

    mints: float = 14.0
    grants: float = 2.0
    revocations: float = 8.0
    validations: float = 80.0
    subjects: int = 300


@dataclass(slots=True)
class Minted:
    """A token and its text."""

    mint: Mint
    text: str


@dataclass(frozen=True, slots=True)
class Spread:
    """
    How long one validator took to enforce one revocation.

    Attributes:
        process: Which validator.
        acknowledged: When the revocation was.
        seconds: From then to the end of the first answer that refused; None: not while it was asked.
    """

    process: str
    acknowledged: float
    seconds: float | None

    @property
    def until(self) -> float:
        """Return when it was last asked."""
        return self.acknowledged + (_CHASE_SECONDS if self.seconds is None else self.seconds)


def bounds(platform: HistoryPlatform, *, held: float | None = None) -> Bounds:
    """Return what is promised; *held* is the bound for validators that keep a request open, where it is judged."""
    closer = {} if held is None else {name: held for name in VALIDATORS if name != POLLING}
    return Bounds(
        propagation=POLLED_SECONDS,
        closer=closer,
        refuse=platform.promised_age,
        recovery=RECOVERY_SECONDS,
        clock_error=CLOCK_ERROR,
        sweep=SWEEP_SECONDS + 2.0,
    )


class Driver:
    """The workload of one run on *platform*."""

    def __init__(self, platform: HistoryPlatform, *, seed: int, chance: random.Random, load: Load) -> None:
        self.platform = platform
        self.history = History(seed=seed)
        self.random = chance
        self.load = load
        self.spread: list[Spread] = []
        self.unchased = 0
        self.lags: list[tuple[float, float]] = []
        self.clock_faults: dict[str, list[list[float]]] = {}
        self._base = time.time() - time.monotonic()
        self._terms = platform.terms
        self._tokens: list[Minted] = []
        self._of_subject: dict[str, deque[Minted]] = {}
        self._names = 0
        self._numbers = 0
        self._records: dict[int, str] = {}
        self._undone: set[int] = set()
        self._revoked: deque[Minted] = deque(maxlen=600)
        self._keys_left = list(platform.keys)
        self._dead_keys: set[str] = set()
        self._admin = ("", float("-inf"))
        self._tasks: set[asyncio.Task[Any]] = set()
        self._defect: asyncio.Future[BaseException] = asyncio.get_running_loop().create_future()
        self._chasing = 0
        self._over = False
        self._http: aiohttp.ClientSession | None = None

    # --- the run ------------------------------------------------------------------------------------------------

    def now(self) -> float:
        """Return the driver's time: Unix seconds that never go back."""
        return self._base + time.monotonic()

    async def run(self, nemesis: Coroutine[Any, Any, None]) -> None:
        """Work while *nemesis* breaks things; when it has mended everything, ask everybody about everything."""
        connector = aiohttp.TCPConnector(limit=0, force_close=False)
        async with aiohttp.ClientSession(connector=connector) as self._http:
            work = (self._minting(), self._granting(), self._revoking(), self._validating(), self._asking_again(),
                    self._pulse())  # fmt: skip
            for each in work:
                self._spawn(each)
            breaking = asyncio.ensure_future(nemesis)
            try:
                await asyncio.wait((breaking, self._defect), return_when=asyncio.FIRST_COMPLETED)
                if breaking.done():
                    breaking.result()
                    await self._audit()
            finally:
                self._over = True
                breaking.cancel()
                for task in list(self._tasks):
                    task.cancel()
                await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._defect.done():
            raise self._defect.result()

    def declare(self, fault: Fault) -> None:
        """Note that something was broken."""
        self.history.add(fault)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self._defect.done():
            self._defect.set_result(error)

    async def _at_rate(self, rate: float) -> None:
        await asyncio.sleep(self.random.expovariate(rate))

    async def _pulse(self) -> None:
        """Note how late this process itself is woken: what the machine adds to everything that is measured here."""
        while True:
            began = self.now()
            await asyncio.sleep(_PULSE_SECONDS)
            self.lags.append((began, self.now() - began - _PULSE_SECONDS))

    # --- tokens -------------------------------------------------------------------------------------------------

    async def _minting(self) -> None:
        for _ in range(60):
            self._mint()
        while True:
            await self._at_rate(self.load.mints)
            self._mint()

    def _mint(self, *, subject: str | None = None, iat: int | None = None) -> Minted:
        now = self.now()
        key = self.random.choice(self._keys_left)
        iat = int(now + self.random.uniform(-0.9, 0.9)) if iat is None else iat
        life = LIFETIME if self.random.random() < 0.8 else self.random.randrange(60, LIFETIME)
        client = f"c{self.random.randrange(12)}"
        claims = {
            "iss": self.platform.issuer_url,
            "sub": subject or f"s{self.random.randrange(self.load.subjects)}",
            "client_id": client,
            "azp": client,
            "realm": self.random.choice((REALM, "/customers")),
            "aud": "orders",
            "scope": "orders.read",
            "iat": iat,
            "exp": iat + life,
            "jti": f"{self.random.getrandbits(128):032x}",
        }
        return self._know(self.platform.sign(claims, key), key.kid, claims)

    def _know(self, text: str, kid: str, claims: dict[str, Any]) -> Minted:
        self._names += 1
        named = ("iss", "sub", "client_id", "realm", "jti")
        mint = Mint(
            at=self.now(),
            token=f"t{self._names}",
            iss=claims["iss"],
            jti=claims["jti"],
            kid=kid,
            iat=claims["iat"],
            exp=claims["exp"],
            claims={name: claims[name] for name in named},
        )
        minted = Minted(mint, text)
        self.history.add(mint)
        self._tokens.append(minted)
        self._of_subject.setdefault(claims["sub"], deque(maxlen=8)).append(minted)
        return minted

    async def _granting(self) -> None:
        while True:
            await self._at_rate(self.load.grants)
            self._spawn(self._grant())

    async def _grant(self) -> None:
        """Let the issuer mint; it refuses while a fresh token would be hit, and it may be away."""
        assert self._http is not None
        form = {"grant_type": "client_credentials", "realm": REALM}
        name = self.random.choice(self.platform.clients)
        login = {"Authorization": aiohttp.encode_basic_auth(name, self.platform.secret)}
        try:
            url, limit = f"{self.platform.issuer_url}/oauth2/token", aiohttp.ClientTimeout(total=5)
            async with self._http.post(url, data=form, headers=login, timeout=limit) as answer:
                if answer.status != 200:
                    return
                text = str((await answer.json())["access_token"])
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        head, payload = (parse_json_object(b64url_decode(part)) for part in text.split(".")[:2])
        self._know(text, str(head["kid"]), payload)

    def _live(self) -> list[Minted]:
        now = self.now()
        if self._tokens and self._tokens[0].mint.exp < now - 30:
            self._tokens = [each for each in self._tokens if each.mint.exp >= now - 4]
        return self._tokens

    # --- revoking -----------------------------------------------------------------------------------------------

    async def _revoking(self) -> None:
        await asyncio.sleep(1.0)
        while True:
            await self._at_rate(self.load.revocations)
            self._spawn(self._revoke_something())

    async def _revoke_something(self) -> None:
        choice = self.random.random()
        minted = self.random.choice(self._live())
        if choice < 0.60:
            await self._revoke_token(minted)
        elif choice < 0.90:
            await self._revoke_claims({"sub": minted.mint.claims["sub"]}, minted)
        elif choice < 0.99 or len(self._keys_left) < 5:
            second = self.random.choice(("realm", "client_id"))
            await self._revoke_claims({name: minted.mint.claims[name] for name in ("sub", second)}, minted)
        else:
            await self._revoke_key()

    async def _revoke_key(self) -> None:
        key = self.random.choice(self._keys_left)
        self._keys_left.remove(key)
        self._dead_keys.add(key.kid)
        hit = [each for each in self._live() if each.mint.kid == key.kid]
        self._revoked.extend(hit[-30:])
        target = ("key", self.platform.issuer_url, key.kid)
        await self._post({"type": "KEY", "data": {"kid": key.kid}}, target, follow=hit[-1] if hit else None)

    async def _revoke_token(self, minted: Minted) -> None:
        mint = minted.mint
        test = {"reason": "test"} if self.random.random() < 0.05 else {}
        if self.random.random() < 0.5:
            document = {"type": "TOKEN", "data": {"jti": mint.jti}, **test}
            target: tuple[Any, ...] = ("jti", mint.iss, mint.jti)
        else:
            document = {"type": "TOKEN", "data": {"token": minted.text}, **test}
            target = ("token", mint.token)
        self._revoked.append(minted)
        number = await self._post(document, target, follow=minted)
        if test and number is not None:
            await self._undo(number)

    async def _revoke_claims(self, claims: dict[str, str], minted: Minted) -> None:
        names = tuple(sorted(claims))
        data: dict[str, Any] = {"claims": claims}
        cutoff: tuple[int, int] | None = None
        if self.random.random() < 0.4:
            # Exactly at the moment of a token's issue, or one past it: the cut-off is exclusive.
            exact = minted.mint.iat + self.random.randrange(2)
            data["issued_before"], cutoff = exact, (exact, exact)
        self._revoked.extend(list(self._of_subject[claims["sub"]])[-6:])
        target = ("claims", names, tuple(claims[name] for name in names))
        self._spawn(self._mint_around(claims["sub"]))
        sure = cutoff is None or minted.mint.iat < cutoff[0]
        number = await self._post(
            {"type": "CLAIM", "data": data}, target, cutoff=cutoff, ruled=True, follow=minted if sure else None
        )
        if number is not None and self.random.random() < 0.1:
            await self._undo(number)

    async def _mint_around(self, subject: str) -> None:
        """Mint for the same subject around the cut-off, so that one token is just hit, and one is just not."""
        begun = int(self.now())
        for second in range(5):
            self._revoked.append(self._mint(subject=subject, iat=begun + second))
            await asyncio.sleep(1.0)

    async def _post(
        self,
        document: dict[str, Any],
        target: tuple[Any, ...],
        *,
        cutoff: tuple[int, int] | None = None,
        ruled: bool = False,
        follow: Minted | None = None,
    ) -> int | None:
        """Send it, note what came of it, sometimes try again; return the number of what was acknowledged."""
        for attempt in range(2):
            self._numbers += 1
            number = self._numbers
            invoked = self.now()
            service, status, body = await self._send("/revocations", document)
            outcome, returned = outcome_of(status), self.now()
            ok = outcome is Outcome.OK
            known = cutoff
            if ruled and cutoff is None:
                known = default_cutoffs(invoked, returned, self._terms)
                if ok:
                    exact = cutoff_of(json.loads(body)["in_force_until"], self._terms)
                    known = (exact, exact)
            self.history.add(
                Revoke(
                    number=number,
                    target=target,
                    invoked=invoked,
                    returned=returned,
                    outcome=outcome,
                    cutoff=known,
                    record=json.loads(body)["id"] if ok else None,
                    via=service,
                )
            )
            if ok:
                self._records[number] = json.loads(body)["id"]
                if follow is not None:
                    self._spawn(self._chase(follow, number, returned))
                return number
            if outcome is Outcome.FAIL or attempt or self._over or self.random.random() < 0.5:
                return None
            await asyncio.sleep(self.random.uniform(0.5, 3.0))
        return None

    async def _undo(self, number: int) -> None:
        await asyncio.sleep(self.random.uniform(5.0, 30.0))
        self._undone.add(number)
        invoked = self.now()
        _, status, _ = await self._send(f"/revocations/{self._records[number]}/undo", {})
        self.history.add(Undo(number=number, invoked=invoked, returned=self.now(), outcome=outcome_of(status)))

    async def _send(self, path: str, document: dict[str, Any]) -> tuple[str, int | None, bytes]:
        """Post to one of the services; the status is None where nobody answered."""
        assert self._http is not None
        running = [name for name in SERVICES if self.platform.parts[name].running]
        choice = running if running and self.random.random() < 0.9 else SERVICES
        name = self.random.choice(choice)
        headers = {"Authorization": f"Bearer {self._admin_token()}"}
        limit = aiohttp.ClientTimeout(total=_POST_SECONDS)
        try:
            url = f"{self.platform.posts[name].url}{path}"
            async with self._http.post(url, json=document, headers=headers, timeout=limit) as answer:
                return name, answer.status, await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError):
            return name, None, b""
        except asyncio.CancelledError:
            if not self._over:
                raise
            return name, None, b""  # the run ended meanwhile: noted, as of unknown outcome

    def _admin_token(self) -> str:
        text, at = self._admin
        if self.now() - at > 20:
            text = self.platform.admin_token(int(self.now()))
            self._admin = (text, self.now())
        return text

    # --- validating ---------------------------------------------------------------------------------------------

    async def _validating(self) -> None:
        while True:
            await self._at_rate(self.load.validations)
            if self._live():
                self._spawn(self._validate(self.random.choice(VALIDATORS), *self._pick()))

    def _pick(self) -> tuple[Minted, str, str]:
        """Return a token, a text, and what kind of text that is."""
        choice = self.random.random()
        minted = self._some_revoked()
        if choice < 0.4:
            return minted, minted.text, "same"
        if choice < 0.6:
            return self._spelt(minted)
        if choice < 0.8:
            later = self._of_subject.get(minted.mint.claims["sub"])
            minted = self.random.choice(later) if later else minted
        else:
            minted = self.random.choice(self._live())
        return minted, minted.text, "same"

    def _some_revoked(self) -> Minted:
        """Return one that was named by a request: mostly lately, now and then as long ago as it lives."""
        if not self._revoked:
            return self.random.choice(self._live())
        if self.random.random() < 0.6:
            return self._revoked[-1 - self.random.randrange(min(80, len(self._revoked)))]
        now = self.now()
        alive = [each for each in self._revoked if each.mint.exp > now + 1]
        return self.random.choice(alive or self._live())

    def _spelt(self, minted: Minted) -> tuple[Minted, str, str]:
        match self.random.randrange(4):
            case 0:
                return minted, minted.text + "=", "padded"
            case 1:
                return minted, minted.text[:-1] + ("A" if minted.text[-1] != "A" else "Q"), "last character"
            case _:
                return minted, jws.twin(minted.text), "twin"

    async def _validate(self, name: str, minted: Minted, text: str, spelling: str) -> Result | None:
        """Ask, and write down what was said; None where nobody could be asked."""
        part = self.platform.parts[name]
        if not part.running or self.now() > minted.mint.exp + 5:
            return None
        run, invoked = part.run, self.now()
        result, epoch, as_of = await self._ask(name, text)
        returned = self.now()
        if result is Result.REVOKED and self._may_be_invalid(name, minted.mint, invoked, returned, spelling):
            result = Result.INVALID
        if part.run != run or not part.process.running:
            return None  # who said that cannot be known
        self.history.add(
            Validate(
                process=name,
                memory=name if name in KEEPING else f"{name}#{run}",
                run=run,
                token=minted.mint.token,
                spelling=spelling,
                invoked=invoked,
                returned=returned,
                result=result,
                epoch=epoch,
                as_of=as_of,
            )
        )
        return result

    def _may_be_invalid(self, name: str, mint: Mint, invoked: float, returned: float, spelling: str) -> bool:
        """Tell whether a service that gives no reasons may have meant another one than a revocation."""
        alive = mint.iat - CLOCK_ERROR <= invoked and returned < mint.exp - CLOCK_ERROR
        return spelling != "same" or not alive or self._clock_is_off(name, returned)

    def _clock_is_off(self, name: str, at: float) -> bool:
        return any(start <= at <= end + 5 for start, end in self.clock_faults.get(name, ()))

    async def _ask(self, name: str, text: str) -> tuple[Result, int | None, float | None]:
        url = self.platform.info_url(name)
        try:
            if url is None:
                said = await self.platform.ask_library(name, text, seconds=_ASK_SECONDS)
                return _result_of(said), said["epoch"], said["as_of"]
            assert self._http is not None
            headers = {"Authorization": f"Bearer {text}"}
            limit = aiohttp.ClientTimeout(total=_ASK_SECONDS)
            async with self._http.get(f"{url}/oauth2/tokeninfo", headers=headers, timeout=limit) as answer:
                await answer.read()
                return _result_of_status(answer.status), None, _as_of(answer.headers.get("Tokenry-List"))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return Result.ERROR, None, None

    async def _chase(self, minted: Minted, number: int, acknowledged: float) -> None:
        """Ask one validator until it refuses: how long it takes from the acknowledgement of revocation *number* on."""
        names = [name for name in VALIDATORS if self.platform.parts[name].running]
        if not names or self._chasing >= _CHASES:
            self.unchased += 1
            return
        name = self.random.choice(names)
        self._chasing += 1
        pause = _CHASE_PAUSE_SECONDS
        try:
            while (passed := self.now() - acknowledged) < _CHASE_SECONDS and self.now() < minted.mint.exp - 3:
                if number in self._undone:  # one that polls may not have heard of it before it was taken back
                    return
                result = await self._validate(name, minted, minted.text, "same")
                if result is Result.REVOKED:
                    self.spread.append(Spread(name, acknowledged, self.now() - acknowledged))
                    return
                await asyncio.sleep(pause)
                if passed > _CHASE_FINELY_SECONDS:
                    pause = min(0.5, pause * 1.3)
            if passed >= _CHASE_SECONDS:
                self.spread.append(Spread(name, acknowledged, None))
        finally:
            self._chasing -= 1

    async def _asking_again(self) -> None:
        """Ask everybody about what was revoked, also long ago: forgetting shows late."""
        while True:
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            await self._ask_all(most=120)

    async def _audit(self) -> None:
        """Everything was mended: ask everybody about what was revoked, and about what was not."""
        await self._ask_all(most=300)

    async def _ask_all(self, *, most: int) -> None:
        now = self.now()
        alive = list({each.mint.token: each for each in self._revoked if each.mint.exp > now + 1}.values())
        chosen = self.random.sample(alive, min(most, len(alive)))
        chosen += self.random.sample(self._live(), min(most // 3, len(self._live())))
        for name in VALIDATORS:
            for begin in range(0, len(chosen), 8):
                some = chosen[begin : begin + 8]
                await asyncio.gather(*(self._validate(name, each, each.text, "same") for each in some))


def outcome_of(status: int | None) -> Outcome:
    """Return what the client of a post knows."""
    if status in {200, 201}:
        return Outcome.OK
    return Outcome.FAIL if status is not None and 400 <= status < 500 else Outcome.UNKNOWN


def _result_of(said: dict[str, Any]) -> Result:
    if said["result"] == "invalid" and said.get("reason") == "unknown_key":
        return Result.REVOKED  # its key has gone from the key set: that is how the issuer revokes one
    return Result(said["result"])


def _result_of_status(status: int) -> Result:
    match status:
        case 200:
            return Result.ACCEPT
        case 401:
            return Result.REVOKED  # the same bytes for every reason
        case 503:
            return Result.UNAVAILABLE
        case _:
            return Result.ERROR


def _as_of(stamp: str | None) -> float | None:
    with contextlib.suppress(StopIteration):
        return float(next(part for part in (stamp or "").split(", ") if part.startswith("as_of="))[6:])
    return None
