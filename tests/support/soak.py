"""
Mixed load on the running platform at a steady rate, with faults at random, and what must hold all the while.

The driver owns the clock. Everything that it does and hears goes into a history, which the checker of the promise
judges (`tests.proof.checker`); beside it stands what no history shows: statuses, latencies, memory, descriptors, tasks
and how late the event loops were.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import sys
import time
from collections import Counter, defaultdict, deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.proof.checker import Bounds, Report, check
from tests.proof.history import Fault, History, Mint, Outcome, Result, Revoke, Validate
from tests.support import soak_report
from tests.support.http import call
from tests.support.soak_report import Broken, Panel, median, percentile
from tests.support.soak_schedule import KINDS, RESERVED, SERVICES, Planned, schedule
from tokenry.errors import InvalidToken, Reason, ValidatorNotReady
from tokenry.jose import jws
from tokenry.jose.encoding import parse_json_object
from tokenry.token_validator import TokenValidator
from tokenry_revocation.feed import SWEEP_SECONDS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from tests.support.faulted import FaultedPlatform
    from tests.support.processes import Process

RATES: Final = {"grant": 4.0, "tokeninfo": 30.0, "introspect": 4.0, "library": 15.0, "revoke": 2.5, "snapshot": 0.5}
HOLDERS: Final = 3
HOLD_SECONDS: Final = 10
CONNECTIONS: Final = 60  # to each service
STARVED_SECONDS: Final = 1.0  # a scrape that takes longer says that there is no processor to be had
UNDER_WAY: Final = 300  # requests at a time; beyond them the driver itself could not keep up
ASK_SECONDS: Final = 15.0
BOUND: Final = 31.0  # the promise, by polling
WHOLE_SECONDS: Final = 60.0  # within which everything is as before, whatever was broken
TOKEN_SECONDS: Final = 3000.0  # for which a token is used: none expires in the driver's hands
MEMORY_BYTES: Final = 10 << 20
SKIPPED_SHARE: Final = 0.02
FEW: Final = CONNECTIONS + 15  # descriptors or tasks that a process may have more: the driver's own, when all are used
REFERENCE: Final = Path(__file__).with_name("reference_loop.py")
_NO_ANSWER: Final[tuple[int, Any, bytes]] = (0, {}, b"")
_SAMPLED: Final = {
    "process_resident_memory_bytes": "rss",
    "process_open_fds": "fds",
    "tokenry_event_loop_tasks": "tasks",
    "tokenry_revocation_list_age_seconds": "list age",
}


@dataclass(slots=True)
class Life:
    """One process, from its start to its end: what was sampled, each second of the run."""

    service: str
    pid: int
    samples: list[dict[str, float]] = field(default_factory=list)


@dataclass(slots=True)
class Token:
    """A token in the driver's hands."""

    text: str
    name: str
    minted: float


@dataclass(frozen=True, slots=True)
class Heard:
    """One answer: when it was asked for and had come (seconds of the run), of whom, what for, and its status."""

    asked: float
    came: float
    service: str
    what: str
    status: int  # 0: none came


class Soak:
    """One run on *platform*, for *seconds*, with the faults that *seed* stands for."""

    def __init__(self, platform: FaultedPlatform, *, seed: int, seconds: float, rate: float = 1.0) -> None:
        self.platform = platform
        self.seed = seed
        self.seconds = seconds
        self.planned = schedule(seed, seconds)
        self.history = History(seed=seed)
        self.heard: list[Heard] = []
        self.broken: list[Broken] = []
        self.lives: list[Life] = []
        self.late: Counter[tuple[str, str]] = Counter()
        self.late_at: list[tuple[float, str, str, float]] = []
        self.reference: list[tuple[float, int, float]] = []
        self.skipped = 0
        self.starved: list[float] = []
        self.not_whole: list[str] = []
        self._rate = rate
        self._rng = random.Random(f"traffic {seed}")  # noqa: S311 -- to be repeated
        self._began = 0.0
        self._wall = 0.0
        self._tokens: deque[Token] = deque(maxlen=4000)
        self._revoked: deque[Token] = deque(maxlen=2000)
        self._admin: tuple[str, float] = ("", -1e9)
        self._numbers = iter(range(1, 10**9))
        self._life = dict.fromkeys(SERVICES, 0)
        self._under_way: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()
        self._http: aiohttp.ClientSession | None = None
        self._validator: TokenValidator | None = None

    # --- time ---------------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        """Seconds of the run."""
        return time.monotonic() - self._began

    def unix(self, moment: float) -> float:
        """Return the Unix time of *moment* of the run, on the driver's one clock."""
        return self._wall + moment

    # --- the run ------------------------------------------------------------------------------------------------

    async def run(self) -> Report:
        """Run it, and return what the checker found."""
        self._began, self._wall = time.monotonic(), time.time()
        reference = self.platform._processes.start("reference", [sys.executable, "-I", REFERENCE])
        self._validator = TokenValidator(
            self.platform.keys_line.url,
            audience=self.platform.keys_line.url,
            revocations_url=self.platform.url("revocation", ""),
            name="soak-driver",
        )
        connector = aiohttp.TCPConnector(limit=0, limit_per_host=CONNECTIONS)
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(ASK_SECONDS)) as self._http:
            self._validator.start()
            await asyncio.to_thread(self._validator.wait_ready, 30.0)
            for _ in range(10):
                await self._grant()
            background = [
                asyncio.create_task(work)
                for work in (
                    *(self._steadily(name, rate * self._rate) for name, rate in RATES.items()),
                    *(self._hold() for _ in range(HOLDERS)),
                    self._sample(),
                )
            ]
            try:
                await self._break()
                self._ended.set()
                await asyncio.gather(*background)
                await asyncio.gather(*self._under_way)
            finally:
                for task in background:
                    task.cancel()
                self._validator.stop()
        self._read_reference(reference)
        for fault in self.broken:
            self.history.add(Fault(name=fault.name, start=self.unix(fault.began) - 0.5, end=self.unix(fault.whole)))
        bounds = Bounds(propagation=BOUND, refuse=self.platform.refuse_age + 5.0, clock_error=2.0, sweep=SWEEP_SECONDS)
        return check(self.history, bounds)

    async def _steadily(self, name: str, rate: float) -> None:
        """Begin one piece of work after the other, whether or not those before have ended."""
        work: Callable[[], Awaitable[None]] = getattr(self, f"_{name}")
        number, began = 0, time.monotonic()
        while not self._ended.is_set():
            number += 1
            await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
            if len(self._under_way) >= UNDER_WAY:
                self.skipped += 1
                continue
            task = asyncio.ensure_future(work())
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    # --- faults -------------------------------------------------------------------------------------------------

    async def _break(self) -> None:
        """Break one thing after the other, as planned, and see that everything is as before after each."""
        for planned in self.planned:
            if self.now + planned.after + planned.lasts + RESERVED > self.seconds:
                break
            await asyncio.sleep(planned.after)
            await self._break_one(planned)
        await asyncio.sleep(max(0.0, self.seconds - self.now))

    async def _break_one(self, planned: Planned) -> None:
        kind, began = KINDS[planned.name], self.now
        await asyncio.to_thread(kind.begin, self.platform)
        if kind.lives:
            self._life[kind.lives] += 1
        await asyncio.sleep(planned.lasts)
        await asyncio.to_thread(kind.end, self.platform)
        mended = self.now
        while not await asyncio.to_thread(self._is_whole):
            if self.now - mended > WHOLE_SECONDS:
                self.not_whole.append(planned.name)
                break
            await asyncio.sleep(0.25)
        self.broken.append(Broken(planned.name, began, mended, self.now))

    def _is_whole(self) -> bool:
        platform = self.platform
        try:
            return (
                platform.is_well()
                and self._takes_a_revocation()
                and platform.metric("revocation", "tokenry_revocation_list_age_seconds") < 6.0
                and platform.metric("tokeninfo", "tokenry_revocation_list_age_seconds") < BOUND - 1.0
                and platform.metric("issuer", "tokenry_credentials_age_seconds") < 4.0
                and time.time() - platform.metric("tokeninfo", "tokenry_jwks_last_success_timestamp_seconds") < 6.0
            )
        except (OSError, ValueError):
            return False

    def _takes_a_revocation(self) -> bool:
        """Tell whether the store takes writes again: reads may go on before that."""
        text, _ = self._admin
        probe = {"jti": f"probe-{self.seed}-{time.monotonic_ns()}", "expires_at": int(time.time()) + 60}
        document = {"type": "TOKEN", "data": probe}
        return call("POST", self.platform.url("revocation", "/revocations"), document=document, bearer=text).status in {
            200,
            201,
        }

    # --- traffic ------------------------------------------------------------------------------------------------

    async def _ask(self, service: str, what: str, method: str, path: str, **more: Any) -> tuple[int, Any, bytes]:
        """Return status, header fields and body; status 0 where no answer came."""
        assert self._http is not None
        asked, result = self.now, _NO_ANSWER
        try:
            async with self._http.request(method, self.platform.url(service, path), **more) as answer:
                body = await answer.read()
                result = (answer.status, answer.headers, body)
        except (aiohttp.ClientError, TimeoutError, OSError):
            pass  # the status says it
        self.heard.append(Heard(asked, self.now, service, what, result[0]))
        return result

    async def _token_of(self, person: dict[str, str], what: str) -> tuple[str, float, float] | None:
        login = {"Authorization": aiohttp.encode_basic_auth(person["client_id"], person["client_secret"])}
        form = {"grant_type": "client_credentials", "realm": "/services"}
        asked = self.now
        status, _, body = await self._ask("issuer", what, "POST", "/oauth2/token", data=form, headers=login)
        return (str(json.loads(body)["access_token"]), asked, self.now) if status == 200 else None

    async def _grant(self) -> None:
        got = await self._token_of(self.platform.identities.client, "grant")
        if got is None:
            return
        text, _, came = got
        parts = jws.split(text)
        claims = parse_json_object(parts.payload)
        name = str(claims["jti"])
        self.history.add(
            Mint(
                at=self.unix(came),
                token=name,
                iss=claims["iss"],
                jti=name,
                kid=parts.header["kid"],
                iat=claims["iat"],
                exp=claims["exp"],
                claims={"sub": claims["sub"], "client_id": claims["client_id"]},
            )
        )
        self._tokens.append(Token(text, name, came))

    async def _admin_token(self) -> str | None:
        text, since = self._admin
        if self.now - since > 600:
            got = await self._token_of(self.platform.identities.admin, "grant")
            if got is None:
                return text or None
            self._admin = (got[0], self.now)
        return self._admin[0]

    def _some(self) -> Token | None:
        """Return a token that was revoked, as often as one that was not; none that is old."""
        pool = self._revoked if self._revoked and self._rng.random() < 0.5 else self._tokens
        while pool and self.now - pool[0].minted > TOKEN_SECONDS:
            pool.popleft()
        # The latest more often than the others: that is where a list may lag.
        return pool[-1 - int(len(pool) * self._rng.random() ** 2)] if pool else None

    def _judged(
        self, process: str, token: Token, asked: float, came: float, result: Result, *, life: int, as_of: float | None
    ) -> None:
        self.history.add(
            Validate(
                process=process,
                memory=f"{process}#{life}",
                run=life,
                token=token.name,
                invoked=self.unix(asked),
                returned=self.unix(came),
                result=result,
                as_of=as_of,
            )
        )

    async def _tokeninfo(self) -> None:
        token = self._some()
        if token is None:
            return
        life, asked = self._life["tokeninfo"], self.now
        status, headers, _ = await self._ask(
            "tokeninfo", "tokeninfo", "GET", "/oauth2/tokeninfo", headers={"Authorization": f"Bearer {token.text}"}
        )
        result = {200: Result.ACCEPT, 401: Result.REVOKED, 503: Result.UNAVAILABLE}.get(status, Result.ERROR)
        self._judged("tokeninfo", token, asked, self.now, result, life=life, as_of=_as_of(headers))

    async def _introspect(self) -> None:
        token, admin = self._some(), await self._admin_token()
        if token is None or admin is None:
            return
        life, asked = self._life["tokeninfo"], self.now
        status, headers, body = await self._ask(
            "tokeninfo", "introspect", "POST", "/oauth2/introspect",
            data={"token": token.text}, headers={"Authorization": f"Bearer {admin}"},
        )  # fmt: skip
        if status == 200:
            result = Result.ACCEPT if json.loads(body)["active"] else Result.REVOKED
        else:
            result = Result.UNAVAILABLE if status == 503 else Result.ERROR
        self._judged("tokeninfo", token, asked, self.now, result, life=life, as_of=_as_of(headers))

    async def _library(self) -> None:
        token, validator = self._some(), self._validator
        if token is None or validator is None:
            return
        asked = self.now
        try:
            await validator.avalidate(token.text)
            result = Result.ACCEPT
        except InvalidToken as refused:
            result = Result.REVOKED if refused.reason is Reason.REVOKED else Result.INVALID
        except ValidatorNotReady:
            result = Result.UNAVAILABLE
        self._judged("library", token, asked, self.now, result, life=0, as_of=None)

    async def _revoke(self) -> None:
        admin = await self._admin_token()
        if admin is None or len(self._tokens) < 5:
            return
        place = self._rng.randrange(len(self._tokens))
        token = self._tokens[place]
        del self._tokens[place]
        number, asked = next(self._numbers), self.now
        # Known from here on as one that may be refused.
        status, _, body = await self._ask(
            "revocation", "revoke", "POST", "/revocations",
            json={"type": "TOKEN", "data": {"token": token.text}}, headers={"Authorization": f"Bearer {admin}"},
        )  # fmt: skip
        if status in {200, 201}:
            outcome, record = Outcome.OK, json.loads(body)["id"]
        else:
            outcome, record = (Outcome.UNKNOWN if status in {0, 503} else Outcome.FAIL), None
        self.history.add(
            Revoke(
                number=number,
                target=("token", token.name),
                invoked=self.unix(asked),
                returned=self.unix(self.now),
                outcome=outcome,
                record=record,
            )
        )
        self._revoked.append(token)

    async def _snapshot(self) -> None:
        await self._ask("revocation", "snapshot", "GET", "/revocations/snapshot")

    async def _hold(self) -> None:
        """Read the list as a validator does: the whole of it, then the news, held open."""
        cursor: str | None = None
        while not self._ended.is_set():
            path, query = "/revocations/snapshot", {}
            if cursor is not None:
                path, query = "/revocations/changes", {"wait": str(HOLD_SECONDS), "after": cursor}
            status, _, body = await self._ask("revocation", "hold", "GET", path, params=query)
            cursor = json.loads(body)["cursor"] if status == 200 else None
            await asyncio.sleep(0.25 if cursor else 1.0)

    # --- what is sampled ----------------------------------------------------------------------------------------

    async def _sample(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            await asyncio.gather(*(self._sample_one(service) for service in SERVICES))
            await asyncio.sleep(max(0.0, began + 1.0 - time.monotonic()))

    async def _sample_one(self, service: str) -> None:
        assert self._http is not None
        second = self.now
        try:
            async with self._http.get(
                self.platform.url(service, "/metrics"), timeout=aiohttp.ClientTimeout(3.0)
            ) as answer:
                text = await answer.text()
            if self.now - second > STARVED_SECONDS:
                self.starved.append(self.now)
        except (aiohttp.ClientError, TimeoutError, OSError):
            return
        pid = self.platform.process(service).pid
        life = next((each for each in self.lives if each.pid == pid), None)
        if life is None:
            life = Life(service, pid)
            self.lives.append(life)
        sample = _sampled_values(text) | {"second": second}
        if life.samples:
            self._note_late(service, second, life.samples[-1], sample)
        life.samples.append(sample)

    def _note_late(self, service: str, second: float, before: dict[str, float], sample: dict[str, float]) -> None:
        for by in ("loop", "threads", "elsewhere"):
            more = sample.get(f"late {by}", 0.0) - before.get(f"late {by}", 0.0)
            if more > 0:
                self.late[service, by] += int(more)
                self.late_at.append((second, service, by, more))

    def _read_reference(self, process: Process) -> None:
        for line in process.output().splitlines():
            with contextlib.suppress(ValueError):
                second, late, latest = line.split()
                self.reference.append((float(second) - self._wall, int(late), float(latest)))
        process.kill()

    # --- what must hold -----------------------------------------------------------------------------------------

    def explains(self, heard: Heard) -> bool:
        """Tell whether a fault that was going on explains that *heard* is no success."""
        return any(
            fault.began - 0.5 <= heard.came
            and heard.asked <= fault.whole + 0.5
            and heard.service in KINDS[fault.name].touches
            for fault in self.broken
        )

    def was_starved(self, heard: Heard) -> bool:
        """Tell whether there was no processor around *heard*; a loop that holds itself is found elsewhere."""
        return any(
            heard.asked - 2 * STARVED_SECONDS <= each <= heard.came + 2 * STARVED_SECONDS for each in self.starved
        )

    def unexplained(self, *, starved: bool = False) -> list[Heard]:
        """
        Return the answers that are a fault of ours: 5xx, or none, while nothing was broken that touches them.

        Those for which there was no processor are left out; with *starved* it is just those.
        """
        return [
            each
            for each in self.heard
            if (each.status == 0 or each.status >= 500)
            and not self.explains(each)
            and self.was_starved(each) is starved
        ]

    def wrong(self) -> list[Heard]:
        """Return the answers that nothing explains at any time: another 5xx than 503, a refused good request."""
        known = {0, 200, 201, 503}
        return [
            each
            for each in self.heard
            if each.status not in known and not (each.status == 401 and each.what == "tokeninfo")
            and not (each.status == 410 and each.what == "hold")
        ]  # fmt: skip

    def growth(self) -> dict[str, dict[str, float]]:
        """
        Return by how much each long life grew, from its second third to its last one.

        Of memory that is the middle, of descriptors and tasks the least: how many connections there are at a moment is
        the load's doing.
        """
        found: dict[str, dict[str, float]] = {}
        for life in self.lives:
            third = len(life.samples) // 3
            if third < 15:
                continue
            grew = {}
            for name in ("rss", "fds", "tasks"):
                values = [sample[name] for sample in life.samples if name in sample]
                of = median if name == "rss" else min
                grew[name] = of(values[2 * third :]) - of(values[third : 2 * third])
            grew["seconds"] = life.samples[-1]["second"] - life.samples[0]["second"]
            found[f"{life.service} (process {life.pid})"] = grew
        return found

    def held_by_ourselves(self) -> int:
        """Return how often an event loop was 0.1 s late because of what it ran itself."""
        return sum(count for (_, by), count in self.late.items() if by == "loop")

    # --- the report ---------------------------------------------------------------------------------------------

    def latencies(self) -> dict[str, list[float]]:
        """Return the seconds of all answered requests by what they were for."""
        found: dict[str, list[float]] = defaultdict(list)
        for each in self.heard:
            if each.status and each.what != "hold":
                found[each.what].append(each.came - each.asked)
        return found

    def summary(self, report: Report) -> dict[str, Any]:
        """Return the run as data."""
        statuses: dict[str, Counter[str]] = defaultdict(Counter)
        for each in self.heard:
            statuses[each.what][str(each.status) if each.status else "no answer"] += 1
        return {
            "seed": self.seed,
            "seconds": round(self.now if not self._ended.is_set() else self.seconds, 1),
            "requests": len(self.heard),
            "skipped": self.skipped,
            "starved": len(self.unexplained(starved=True)),
            "statuses": {name: dict(found) for name, found in statuses.items()},
            "latency_ms": {
                name: {str(share): round(1e3 * percentile(taken, share), 2) for share in (0.5, 0.99, 1.0)}
                for name, taken in self.latencies().items()
            },
            "unexplained": [asdict(each) for each in self.unexplained()][:50],
            "wrong": [asdict(each) for each in self.wrong()][:50],
            "promise": {
                "clean": report.clean,
                "violations": dict(Counter(each.property for each in report.violations)),
                "armed": dict(report.armed),
                "counts": dict(report.counts),
            },
            "planned": [asdict(each) for each in self.planned[: len(self.broken)]],
            "faults": [asdict(each) for each in self.broken],
            "not_whole": self.not_whole,
            "growth": self.growth(),
            "late": {f"{service} by {by}": count for (service, by), count in sorted(self.late.items())},
            "reference_late": sum(late for _, late, _ in self.reference),
            "reference_latest": max((latest for _, _, latest in self.reference), default=0.0),
        }

    def page(self, summary: dict[str, Any], name: str) -> str:
        """Return the run as a page."""
        back = {kind: [f.whole - f.mended for f in self.broken if f.name == kind] for kind in KINDS}
        promise = summary["promise"]
        broken = sum(promise["violations"].values())
        machine = f"{summary['reference_late']}, at most {summary['reference_latest']:.2f} s"
        lines = [
            f"# Mixed load, seed {self.seed}, {summary['seconds']:.0f} s",
            "",
            f"![what happened]({name}.svg)",
            "",
            f"{summary['requests']} requests; {len(summary['unexplained'])} failures that no fault explains.",
            "",
            f"No processor to be had: {summary['starved']} failures, {summary['skipped']} requests not made.",
            "",
            f"{broken} broken promises in {promise['counts']}; so often could each have been: {promise['armed']}.",
            "",
            "| request | answers | p50 | p99 | longest |",
            "|---|---|---|---|---|",
        ]
        for what, found in summary["statuses"].items():
            taken = summary["latency_ms"].get(what, {})
            told = ", ".join(f"{count} x {status}" for status, count in sorted(found.items()))
            shown = " | ".join(f"{taken[share]} ms" if taken else "held" for share in ("0.5", "0.99", "1.0"))
            lines.append(f"| {what} | {told} | {shown} |")
        lines += ["", "| fault | times | longest way back |", "|---|---|---|"]
        lines += [f"| {kind} | {len(took)} | {max(took):.1f} s |" for kind, took in back.items() if took]
        lines += ["", "| process | seconds | memory | descriptors | tasks |", "|---|---|---|---|---|"]
        lines += [
            f"| {who} | {grew['seconds']:.0f} | {grew['rss'] / (1 << 20):+.1f} MiB | {grew['fds']:+.0f} | "
            f"{grew['tasks']:+.0f} |"
            for who, grew in summary["growth"].items()
        ]
        lines += [
            "",
            "Timers of the event loops that were more than 0.1 s late: "
            + (", ".join(f"{who}: {count}" for who, count in summary["late"].items()) or "none")
            + f". Of an idle loop beside them: {machine}; that many are the machine's.",
            "",
        ]
        return "\n".join(lines)

    def picture(self) -> str:
        """Return the run as a picture."""
        title = f"Mixed load, seed {self.seed}: red while broken, yellow until all is as before"
        panels = [*self._answers(), *self._sampled(), self._late_timers()]
        return soak_report.svg(title, panels, self.broken, seconds=self.seconds)

    def _answers(self) -> list[Panel]:
        width = max(1.0, self.seconds / 300)
        rate, latency = Panel("answers a second"), Panel("p99 of the answers, ms", at_least=10)
        kinds = {"2xx": (200, 299), "401": (401, 401), "503": (503, 503), "none": (0, 0)}
        buckets: dict[int, list[Heard]] = defaultdict(list)
        for each in self.heard:
            buckets[int(each.came / width)].append(each)
        for bucket, some in sorted(buckets.items()):
            for name, (low, high) in kinds.items():
                rate.add(name, bucket * width, sum(low <= each.status <= high for each in some) / width)
            for what in ("grant", "tokeninfo", "introspect", "revoke"):
                taken = [each.came - each.asked for each in some if each.what == what and each.status]
                if taken:
                    latency.add(what, bucket * width, 1e3 * percentile(taken, 0.99))
        return [rate, latency]

    def _sampled(self) -> list[Panel]:
        panels = []
        for title, name, scale in (
            ("age of the list, s", "list age", 1.0),
            ("resident memory, MiB", "rss", 1 / (1 << 20)),
            ("descriptors", "fds", 1.0),
            ("tasks of the event loop", "tasks", 1.0),
        ):
            panel = Panel(title)
            for life in self.lives:
                for sample in life.samples:
                    panel.add(life.service, sample["second"], sample.get(name, math.nan) * scale)
            panels.append(panel)
        return panels

    def _late_timers(self) -> Panel:
        panel = Panel("timers that were 0.1 s late, a second", at_least=2)
        for second, service, by, count in self.late_at:
            panel.add(f"{service}, by {by}", second, count)
        for second, late, _ in self.reference:
            panel.add("an idle loop", second, late)
        return panel


def _sampled_values(text: str) -> dict[str, float]:
    """Return what is kept of one scrape."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for each in family.samples:
            if each.name in _SAMPLED:
                found[_SAMPLED[each.name]] = each.value
            elif each.name == "tokenry_event_loop_late_total":
                found[f"late {each.labels['by']}"] = each.value
    return found


def _as_of(headers: Any) -> float | None:
    stamp = headers.get("Tokenry-List", "")
    members = dict(part.strip().split("=", 1) for part in stamp.split(",") if "=" in part)
    return float(members["as_of"]) if "as_of" in members else None


def judged(soak: Soak, report: Report, *, folder: Path, name: str) -> tuple[Sequence[str], str]:
    """Write the report of a run into *folder*; return what must hold and did not, and the page."""
    summary = soak.summary(report)
    page = soak.page(summary, name)
    soak_report.write(folder, name, summary, page, soak.picture())
    soak.history.write(folder / f"{name}.history.jsonl")
    faults = []
    if not report.clean:
        faults.append(f"the promise was broken:\n{report.text()}")
    if soak.unexplained():
        faults.append(f"failures that no fault explains: {soak.unexplained()[:5]}")
    if soak.wrong():
        faults.append(f"answers that nothing explains: {soak.wrong()[:5]}")
    if soak.not_whole:
        faults.append(f"not as before within {WHOLE_SECONDS:g} s after: {soak.not_whole}")
    if soak.held_by_ourselves():
        faults.append(f"event loops held for more than 0.1 s by what they ran: {dict(soak.late)}")
    for who, grew in soak.growth().items():
        if grew["rss"] > MEMORY_BYTES or grew["fds"] > FEW or grew["tasks"] > FEW:
            faults.append(f"{who} grew: {grew}")
    if soak.skipped > SKIPPED_SHARE * len(soak.heard) and not soak.starved:
        faults.append(f"the driver could not keep up: {soak.skipped} requests were not made")
    return faults, page
