"""
A whole platform in virtual time: three store replicas, two services, five validators, clients, and a nemesis.

Everything that decides is the product's (see `parts.py`); what is simulated is what lies between the parts: the
replicas' disks and messages, the network, clocks, and processes that die. One seed is one run, event by event.
"""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import tempfile
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.proof.checker import Bounds
from tests.proof.history import Fault, History, Mint, Outcome, Revoke, Undo, Validate
from tests.proof.nemesis import BEYOND_SECONDS, Nemesis
from tests.proof.parts import PRODUCT, REFUSE_SECONDS, Parts
from tests.proof.quorum_store import Cluster, Replica
from tests.proof.simulated_service import (
    EPOCH,
    SKEW_SECONDS,
    SWEEP_SECONDS,
    SimulatedService,
    cutoff_of,
    default_cutoffs,
)
from tests.proof.simulated_validator import SimulatedValidator
from tests.proof.virtual_time import SkewedClock, VirtualLoop, run
from tokenry.http.fetch import Failure, FetchFailed, Headers, Request, Response
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jwks import KeySet

START: Final = 1_799_999_850.0  # a boundary between two buckets of the log lies within the run
ISSUER: Final = "https://issuer.example"
PARTNER: Final = "https://partner.example"  # a foreign issuer: no ids, and both spellings of a signature
LIFETIME: Final = 120
RECOVERY: Final = 60.0
POLLING: Final = "poller"  # the validator whose requests are not held
HELD_SECONDS: Final = 1.0  # T of the others
POLLED_SECONDS: Final = 31.0  # T
HOLDING: Final = ("v1", "v2", "v3", "v4")
BOUNDS: Final = Bounds(
    propagation=POLLED_SECONDS,
    closer=dict.fromkeys(HOLDING, HELD_SECONDS),
    refuse=REFUSE_SECONDS,
    recovery=RECOVERY,
    clock_error=SKEW_SECONDS,
    sweep=SWEEP_SECONDS + 2.0,
)
_ADMIN_SCOPE: Final = "revocation.write revocation.admin revocation.undo"
_ASK_AGAIN_SECONDS: Final = 45.0
_POST_SECONDS: Final = 12.0  # longer than both attempts of a write


def _key(number: int) -> PrivateKey:
    key = ec.derive_private_key(0x70726F6F66 + number, ec.SECP256R1())
    form = serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return PrivateKey.from_pkcs8_der(key.private_bytes(*form))


OUR_KEYS: Final = tuple(_key(number) for number in range(1, 7))
ADMIN_KEY: Final = _key(20)
PARTNER_KEY: Final = _key(30)
KEYS: Final = KeySet.union(
    KeySet.of(ISSUER, [key.public for key in (*OUR_KEYS, ADMIN_KEY)]), KeySet.of(PARTNER, [PARTNER_KEY.public])
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """
    One run.

    Attributes:
        seed: Of everything random.
        seconds: How long it lasts.
        faults: Whether there is a nemesis.
        focus: What it mostly breaks (`nemesis.FOCUSES`); None: by the seed.
        slow_writer: Whether one service's clock is 90 s behind all the time.
        revocations: A second.
        validations: A second.
    """

    seed: int
    seconds: float = 260.0
    faults: bool = True
    focus: str | None = None
    slow_writer: bool = False
    revocations: float = 0.8
    validations: float = 10.0


@dataclass(slots=True)
class Link:
    """What is broken between one validator and the services, on the way of its list only."""

    cut: bool = False
    slow: float = 0.0
    near: SimulatedService | None = None
    pinned: SimulatedService | None = None
    replays: float = 0.0
    truncates: float = 0.0
    earlier_epoch: float = 0.0
    past: dict[bool, deque[Response]] = field(default_factory=lambda: {True: deque(maxlen=60), False: deque(maxlen=60)})


@dataclass(slots=True)
class Minted:
    """A token and its text."""

    mint: Mint
    text: str


def simulate(plan: Plan, parts: Parts = PRODUCT) -> History:
    """Return what happened in the run *plan* of a platform made of *parts*."""
    folder = Path(tempfile.mkdtemp(prefix="tokenry-proof-", dir=_memory_folder()))
    try:
        return run(_simulate(plan, parts, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _memory_folder() -> str | None:
    shm = Path("/dev/shm")  # noqa: S108 -- a folder of its own in it, made by mkdtemp
    return str(shm) if shm.is_dir() else None


async def _simulate(plan: Plan, parts: Parts, folder: Path) -> History:
    world = World(plan, parts, folder)
    await world.run()
    return world.history


class World:
    """The platform and everybody around it."""

    def __init__(self, plan: Plan, parts: Parts, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.plan = plan
        self.random = random.Random(plan.seed)  # noqa: S311 -- reproducible on purpose
        self.history = History(seed=plan.seed)
        self._loop = loop
        self.truth = SkewedClock(loop, start=START)
        self.cluster = Cluster(
            replicas=[Replica(f"node{n}", self._clock(0.4)) for n in range(3)],
            random=random.Random(plan.seed + 1),  # noqa: S311
            read_repair=parts.read_repair,
        )
        common: dict[str, Any] = {
            "parts": parts,
            "keys": KEYS,
            "issuer": ISSUER,
            "others": (PARTNER,),
            "max_token_lifetime": LIFETIME,
        }
        self.services = [
            SimulatedService(name, cluster=self.cluster, clock=self._clock(0.5), near=number, **common)
            for number, name in enumerate(("A", "B"))
        ]
        if plan.slow_writer:
            self.services[1].clock.offset = -BEYOND_SECONDS
        names = {"v1": None, "v2": folder / "v2", "v3": None, "v4": folder / "v4", POLLING: None}
        self.validators = [
            SimulatedValidator(
                name,
                clock=self._clock(SKEW_SECONDS / 2),
                fetch=self._fetch,
                folder=state,
                uniform=random.Random(f"{plan.seed} {name}"),  # noqa: S311
                **common,
            )
            for name, state in names.items()
        ]
        self.links = {name: Link() for name in names}
        # Balancers mostly stick: two validators hear of one service only, as long as it runs.
        self.links["v3"].near, self.links["v4"].near = self.services
        self.posts_cut = False
        self._tokens: list[Minted] = []
        self._by_name: dict[str, Minted] = {}
        self._of_subject: dict[str, list[Minted]] = {}
        self._revoked: deque[Minted] = deque(maxlen=300)
        self._keys_left = list(OUR_KEYS)
        self._names: dict[int, str] = {}
        self._numbers = 0
        self._admin: tuple[str, float] = ("", float("-inf"))
        self._background: dict[asyncio.Task[Any], None] = {}  # in order: an address is no seed
        self._defects: list[BaseException | None] = []
        self._over = False

    def _clock(self, bound: float) -> SkewedClock:
        clocks = self.random
        return SkewedClock(
            self._loop, start=START, offset=clocks.uniform(-bound, bound), uptime=clocks.uniform(0.0, 1e6)
        )

    # --- the run ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Play it, mend everything, and ask every validator about every token that lives."""
        start = self.truth.now()
        self.history.add(Fault(name="start", start=start, end=start + 5.0 - RECOVERY))
        if self.plan.slow_writer:
            end = start + self.plan.seconds
            self.history.add(Fault(name="the clock of service B is off", start=start, end=end, clock=True))
        for service in self.services:
            service.start()
        for validator in self.validators:
            validator.start()
        self._spawn(self._minting())
        self._spawn(self._revoking())
        self._spawn(self._validating())
        self._spawn(self._asking_again())
        if self.plan.faults:
            self._spawn(Nemesis(self).run(until=start + self.plan.seconds - RECOVERY - 30.0))
        await asyncio.sleep(self.plan.seconds)
        self._audit()
        self._check_machinery()
        self._over = True
        for task in list(self._background):
            task.cancel()
        for validator in self.validators:
            validator.kill()
        for service in self.services:
            service.kill()
        await asyncio.sleep(1.0)

    def _spawn(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._background[task] = None
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._background.pop(task, None)
        if not task.cancelled() and task.exception() is not None:
            self._defects.append(task.exception())

    def _check_machinery(self) -> None:
        """Raise what broke the simulation itself, or a reader: a run without it would prove nothing."""
        self._defects.extend(validator.fault() for validator in self.validators)
        for defect in filter(None, self._defects):
            raise defect
        for service in self.services:
            assert service.defect() is None, service.defect()

    def now(self) -> float:
        """Return the driver's time."""
        return self.truth.now()

    # --- tokens -------------------------------------------------------------------------------------------------

    async def _minting(self) -> None:
        for _ in range(20):
            self._mint()
        while True:
            await asyncio.sleep(self.random.expovariate(1.2))
            self._mint()

    def _mint(self, *, subject: str | None = None, iat: int | None = None) -> Minted:
        number = len(self._by_name)
        subject = subject or f"s{self.random.randrange(40)}"
        foreign = self.random.random() < 0.12
        iat = iat if iat is not None else int(self.now() + self.random.uniform(-0.9, 0.9))
        life = LIFETIME if self.random.random() < 0.7 else self.random.randrange(30, LIFETIME)
        key = PARTNER_KEY if foreign else self.random.choice(self._keys_left)
        claims = {
            "iss": PARTNER if foreign else ISSUER,
            "sub": subject,
            "client_id": f"c{self.random.randrange(4)}",
            "realm": self.random.choice(("/services", "/customers")),
        }
        jti = None if foreign else f"{number:06d}-{self.random.getrandbits(64):016x}"
        payload = {**claims, "aud": "anybody", "iat": iat, "exp": iat + life}
        # A foreign one has no id, and yet no two may be the same token: to revoke one would revoke both.
        payload |= {"session": number} if jti is None else {"jti": jti}
        mint = Mint(
            at=self.now(),
            token=f"t{number}",
            iss=claims["iss"],
            jti=jti,
            kid=key.kid,
            iat=iat,
            exp=iat + life,
            claims=claims | ({} if jti is None else {"jti": jti}),
        )
        minted = Minted(mint, jws.sign({"typ": "at+jwt"}, dump_json(payload), key))
        self.history.add(mint)
        self._tokens.append(minted)
        self._by_name[mint.token] = minted
        self._of_subject.setdefault(subject, []).append(minted)
        return minted

    def _live(self) -> list[Minted]:
        """Return the tokens that have not long expired."""
        now = self.now()
        if self._tokens and self._tokens[0].mint.exp < now - 20:
            self._tokens = [each for each in self._tokens if each.mint.exp >= now - 4]
        return self._tokens

    # --- revoking -----------------------------------------------------------------------------------------------

    async def _revoking(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(self.plan.revocations))
            self._spawn(self._revoke_something())

    async def _revoke_something(self) -> None:
        choice = self.random.random()
        minted = self.random.choice(self._live())
        if choice < 0.60 or (choice >= 0.99 and len(self._keys_left) < 5):
            await self._revoke_token(minted)
        elif choice < 0.90:
            await self._revoke_claims({"sub": minted.mint.claims["sub"]}, minted)
        elif choice < 0.985:
            second = self.random.choice(("realm", "client_id"))
            await self._revoke_claims({name: minted.mint.claims[name] for name in ("sub", second)}, minted)
        elif choice < 0.99:
            cutoff = int(self.now()) - self.random.randrange(60, 100)
            await self._post(
                {"type": "GLOBAL", "data": {"issued_before": cutoff, "confirm": True}},
                ("all",),
                cutoff=(cutoff, cutoff),
            )
        else:
            key = self.random.choice(self._keys_left)
            self._keys_left.remove(key)
            self._revoked.extend(each for each in self._live() if each.mint.kid == key.kid)
            await self._post({"type": "KEY", "data": {"kid": key.kid}}, ("key", ISSUER, key.kid))

    async def _revoke_token(self, minted: Minted) -> None:
        mint = minted.mint
        test = {"reason": "test"} if self.random.random() < 0.05 else {}
        if mint.jti is not None and self.random.random() < 0.4:
            document = {"type": "TOKEN", "data": {"jti": mint.jti}, **test}
            target: tuple[Any, ...] = ("jti", mint.iss, mint.jti)
        else:
            spelt = jws.twin(minted.text) if mint.jti is None and self.random.random() < 0.5 else minted.text
            document = {"type": "TOKEN", "data": {"token": spelt}, **test}
            target = ("token", mint.token)
        self._revoked.append(minted)
        number = await self._post(document, target)
        if test and number is not None:
            await self._undo(number)

    async def _revoke_claims(self, claims: dict[str, str], minted: Minted) -> None:
        names = tuple(sorted(claims))
        data: dict[str, Any] = {"claims": claims}
        cutoff: tuple[int, int] | None = None
        block: int | None = None
        if self.random.random() < 0.4:
            # Exactly at the moment of a token's issue, or one past it: the cut-off is exclusive.
            exact = minted.mint.iat + self.random.randrange(2)
            data["issued_before"], cutoff = exact, (exact, exact)
            if self.random.random() < 0.2:
                block = data["block_until"] = int(self.now()) + self.random.randrange(5, 40)
        self._revoked.extend(each for each in self._of_subject.get(claims["sub"], [])[-6:])
        number = await self._post(
            {"type": "CLAIM", "data": data},
            ("claims", names, tuple(claims[name] for name in names)),
            cutoff=cutoff,
            ruled=True,
            block=block,
        )
        self._spawn(self._mint_at_cutoff(claims["sub"], minted))
        if number is not None and self.random.random() < 0.15:
            await self._undo(number)

    async def _mint_at_cutoff(self, subject: str, minted: Minted) -> None:
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
        block: int | None = None,
    ) -> int | None:
        """Send it, note what came of it, sometimes try again; return the number of what was acknowledged."""
        for attempt in range(2):
            self._numbers += 1
            number = self._numbers
            invoked = self.now()
            service, status, body = await self._send("/revocations", document)
            outcome, returned = _outcome(status), self.now()
            known = cutoff
            if ruled and cutoff is None:
                terms = self.services[0].terms
                known = default_cutoffs(invoked, returned, terms)
                if outcome is Outcome.OK:
                    exact = cutoff_of(json.loads(body)["in_force_until"], terms)
                    known = (exact, exact)
            self.history.add(
                Revoke(
                    number=number,
                    target=target,
                    invoked=invoked,
                    returned=returned,
                    outcome=outcome,
                    cutoff=known,
                    block_until=block,
                    record=json.loads(body)["id"] if outcome is Outcome.OK else None,
                    via=service,
                )
            )
            if outcome is Outcome.OK:
                self._names[number] = json.loads(body)["id"]
                return number
            if outcome is Outcome.FAIL or attempt or self._over or self.random.random() < 0.5:
                return None
            await asyncio.sleep(self.random.uniform(0.5, 3.0))
        return None

    async def _undo(self, number: int) -> None:
        await asyncio.sleep(self.random.uniform(3.0, 25.0))
        invoked = self.now()
        _, status, _ = await self._send(f"/revocations/{self._names[number]}/undo", {})
        self.history.add(Undo(number=number, invoked=invoked, returned=self.now(), outcome=_outcome(status)))

    async def _send(self, path: str, document: dict[str, Any]) -> tuple[str, int | None, bytes]:
        """Post to one of the services; the status is None where nobody answered."""
        service = self._choose()
        headers = {"Authorization": f"Bearer {self._admin_token()}"}
        url = f"https://revocation.example{path}"
        try:
            async with asyncio.timeout(_POST_SECONDS):
                await asyncio.sleep(self.cluster.delay())
                if self.posts_cut:
                    await asyncio.sleep(2 * _POST_SECONDS)
                answer = await service.answer("POST", url, headers=headers, body=json.dumps(document).encode())
                await asyncio.sleep(self.cluster.delay())
                if self.posts_cut:
                    await asyncio.sleep(2 * _POST_SECONDS)
        except (FetchFailed, TimeoutError):
            return service.name, None, b""
        except asyncio.CancelledError:
            if not self._over:
                raise
            return service.name, None, b""  # the run ended meanwhile: noted, as of unknown outcome
        return service.name, answer.status, answer.body

    def _admin_token(self) -> str:
        text, at = self._admin
        if self.now() - at > 20:
            # Old enough for a service whose clock is behind, young enough for all others.
            now = int(self.now() - (BEYOND_SECONDS + 5 if self.plan.slow_writer else 0))
            payload = {
                "iss": ISSUER, "sub": "admin", "client_id": "admin", "aud": ISSUER, "scope": _ADMIN_SCOPE,
                "iat": now, "exp": now + LIFETIME, "jti": f"admin-{now}",
            }  # fmt: skip
            text = jws.sign({"typ": "at+jwt"}, dump_json(payload), ADMIN_KEY)
            self._admin = (text, self.now())
        return text

    def _choose(self) -> SimulatedService:
        """Return where a balancer sends a request: mostly to one that runs."""
        running = [each for each in self.services if each.running]
        choice = running if running and self.random.random() < 0.9 else self.services
        return self.random.choice(choice)

    # --- the way of the list ------------------------------------------------------------------------------------

    async def _fetch(self, validator: SimulatedValidator, request: Request) -> Response:
        link = self.links[validator.name]
        try:
            async with asyncio.timeout(request.deadline_seconds):
                await asyncio.sleep(self.cluster.delay())
                if link.cut:
                    await self._swallowed(request)
                service = link.pinned or self._nearest(link)
                url = request.url.replace("wait=25", "wait=0") if validator.name == POLLING else request.url
                response = await service.answer("GET", url, headers=request.headers)
                await asyncio.sleep(self.cluster.delay() + link.slow * self.random.random())
                if link.cut:
                    await self._swallowed(request)
        except TimeoutError:
            raise FetchFailed(Failure.TIMEOUT, "no answer in time") from None
        return self._tampered(link, request, response, fresh=validator.snapshot() is None)

    def _nearest(self, link: Link) -> SimulatedService:
        near = link.near
        return near if near is not None and near.running and self.random.random() < 0.998 else self._choose()

    async def _swallowed(self, request: Request) -> None:
        if self.random.random() < 0.5:
            raise FetchFailed(Failure.DISCONNECTED, "the connection broke")
        await asyncio.sleep(2 * request.deadline_seconds)

    def _tampered(self, link: Link, request: Request, response: Response, *, fresh: bool) -> Response:
        """Return what arrives: an old answer, half of one, or that of a store of long ago."""
        past = link.past["/changes" in request.url]
        if response.status == 200:
            past.append(response)
        if link.replays and past and self.random.random() < link.replays:
            return self.random.choice(list(past))
        if link.truncates and response.body and self.random.random() < link.truncates:
            cut = self.random.randrange(len(response.body))
            return Response(status=response.status, headers=response.headers, body=response.body[:cut])
        if link.earlier_epoch and not fresh and self.random.random() < link.earlier_epoch:
            return _of_earlier_store(self.now())
        return response

    # --- validating ---------------------------------------------------------------------------------------------

    async def _validating(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(self.plan.validations))
            running = [each for each in self.validators if each.running]
            if running and self._live():
                self._validate(self.random.choice(running), *self._pick())

    def _pick(self) -> tuple[Minted, str, str]:
        """Return a token, a text, and what kind of text that is."""
        choice = self.random.random()
        minted = self._some_revoked()
        if choice < 0.45:
            return minted, minted.text, "same"
        if choice < 0.6:
            return self._spelt(minted)
        if choice < 0.8:
            minted = self.random.choice(self._of_subject[minted.mint.claims["sub"]][-4:])
        else:
            minted = self.random.choice(self._live())
        return minted, minted.text, "same"

    def _some_revoked(self) -> Minted:
        """Return one that was named by a request: mostly lately, now and then as long ago as it lives."""
        if not self._revoked:
            return self.random.choice(self._live())
        if self.random.random() < 0.6:
            return self._revoked[-1 - self.random.randrange(min(40, len(self._revoked)))]
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

    def _validate(self, validator: SimulatedValidator, minted: Minted, text: str, spelling: str) -> None:
        now = self.now()
        if now > minted.mint.exp + 5:
            return
        result, epoch, as_of = validator.judge(text)
        self.history.add(
            Validate(
                process=validator.name,
                memory=validator.memory,
                run=validator.run,
                token=minted.mint.token,
                spelling=spelling,
                invoked=now,
                returned=self.now(),
                result=result,
                epoch=epoch,
                as_of=as_of,
            )
        )

    async def _asking_again(self) -> None:
        """Ask everybody about what was revoked, also long ago: forgetting shows late."""
        while True:
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
            now = self.now()
            alive = {each.mint.token: each for each in self._revoked if each.mint.exp > now + 1}
            for validator in self.validators:
                for minted in alive.values() if validator.running else ():
                    self._validate(validator, minted, minted.text, "same")

    def _audit(self) -> None:
        """Everything was mended long ago: ask everybody about everything."""
        for validator in self.validators:
            for minted in self._live():
                self._validate(validator, minted, minted.text, "same")


def _outcome(status: int | None) -> Outcome:
    if status in {200, 201}:
        return Outcome.OK
    return Outcome.FAIL if status is not None and 400 <= status < 500 else Outcome.UNKNOWN


def _of_earlier_store(now: float) -> Response:
    """Return an answer that a store of long ago once gave: byte for byte possible, and out of date."""
    body = {
        "cursor": f"1.{EPOCH - 1}.1.{0:016x}.0",
        "epoch": EPOCH - 1,
        "kinds": ["jti", "token", "claims", "key", "all", "undo"],
        "salts": {},
        "max_token_lifetime": LIFETIME,
        "entries": [],
    }
    headers = Headers(
        [
            ("content-type", "application/json"),
            ("tokenry-list", f"epoch={EPOCH - 1}, as_of={now - 3600:.3f}, age=2.500"),
        ]
    )
    return Response(status=200, headers=headers, body=json.dumps(body).encode())
