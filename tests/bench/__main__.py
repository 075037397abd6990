"""
The benchmark suite: one table, and the same as JSON in build/bench.json. `make bench`, or `BENCH_QUICK=1 make bench`.

* Load generator and each server are processes of their own on loopback. The server that is not asked rests.
* All cases take turns, round by round; what is shown is the median over the rounds. Those with a fixed rate do so
  before the other servers are there: what a server does while it rests, a few milliseconds now and then, is of the size
  of the slowest answers.
* The main figure is CPU microseconds a request of the server's whole process tree. Seconds, percentiles and
  requests a second are those of this machine, with whatever else runs on it.
* Nothing passes or fails: the targets are ratios within one run, and the table says which of them are met.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from base64 import b64encode
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.bench import proc, report
from tests.support.foreign_tokens import foreign_key
from tests.support.platform import Deployment
from tests.support.processes import Process, Processes, base_environment, free_port
from tokenry.oauth.assertions import CLIENT_ASSERTION_TYPE
from tokenry.testing.issuer import FakeIssuer
from tokenry_registry.bootstrap import hash_password

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

ROOT = Path(__file__).resolve().parents[2]
SLOW_SECRET = "a-slow-secret-of-the-bench"
CONNECTIONS = 8  # enough that the server never waits, few enough that queueing does not hide what it does
DISTINCT = "different"
STEADY_RATE = 2_000  # requests a second: what one process does without being busy
FLOOD_RATE = 100_000 / 60
OVERRUN_RATE, OVERRUN_CONNECTIONS, OVERRUN_GOOD = 100_000, 100, 500
FLOOD_TOKENS = 50_000  # that come round again only after half a minute
WARM_UP = 10_000  # so that each of 1,000 tokens was seen three times by each of two processes


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    rounds: int
    requests: int
    long_run: int
    revocations: tuple[int, ...]
    registry: tuple[tuple[str, int], ...]


QUICK = Size(
    rounds=3,
    requests=1500,
    long_run=20_000,
    revocations=(0, 1_000, 1_000_000),
    registry=(("folder", 5_000), ("s3", 300)),
)
FULL = Size(
    rounds=9,
    requests=4000,
    long_run=1_000_000,
    revocations=(0, 1_000, 1_000_000, 10_000_000),
    registry=(("folder", 50_000), ("s3", 3_000)),
)


@dataclass
class Case:
    """
    One line of the table that is measured over HTTP.

    Attributes:
        name: What is asked of whom.
        process: The server.
        address: Where it listens.
        requests: File with the requests.
        advance: Whether every round has requests that were never sent before.
        renew: Writes so many requests anew for each round: they are good for a short time only.
        statuses: Which answers are right.
        rate: Requests a second that are due; 0 for as many as are answered.
        beside: Who else asks at the same time: an order for the load generator.
    """

    name: str
    process: Process
    address: str
    requests: Path
    advance: bool = False
    renew: Callable[[int], Path] | None = None
    statuses: frozenset[str] = frozenset({"200"})
    rate: float = 0.0
    beside: dict[str, Any] | None = None
    rounds: list[dict[str, float]] = field(default_factory=list)


class Load:
    """The load generator's process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.load"],
            cwd=ROOT,
            env=base_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, case: Case, *, count: int, first: int = 0) -> dict[str, Any]:
        """Send *count* requests of *case* and return what came of it, with the CPU time of its server."""
        order = {
            "address": case.address,
            "requests": str(case.requests),
            "first": first,
            "count": count,
            "connections": CONNECTIONS,
            "rate": case.rate,
            "beside": case.beside,
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        before = proc.cpu_seconds(case.process.pid)
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        result: dict[str, Any] = json.loads(self._process.stdout.readline())
        result["cpu"] = proc.cpu_seconds(case.process.pid) - before
        statuses = result["statuses"]
        if result["answers"] != count or not set(statuses) <= case.statuses:
            raise SystemExit(f"bench: {case.name}: {result['answers']} of {count} answers, statuses {statuses}")
        return result

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Bench:
    """What runs, and what was found."""

    def __init__(self, size: Size, folder: Path, processes: Processes, only: Sequence[str]) -> None:
        self.size = size
        self.folder = folder
        self.processes = processes
        self.only = only
        self.load = Load()
        self.platform = FakeIssuer()
        self.platform.serve()
        self.cases: list[Case] = []

    # --- servers ---

    def reference(self, name: str, last: object, **more: str) -> tuple[Process, str]:
        port = free_port()
        process = self.processes.start(
            name, [sys.executable, "-m", "tests.bench.references", name, str(port), str(last)], cwd=ROOT, env=more
        )
        return process, f"127.0.0.1:{port}"

    def token_info(self, processes: int = 1) -> tuple[Process, str]:
        port = free_port()
        arguments = [] if processes == 1 else ["--processes", str(processes)]
        process = self.processes.start_module(
            "tokenry_tokeninfo",
            *arguments,
            env={
                "TOKENRY_ISSUER": self.platform.issuer,
                "TOKENRY_LISTEN_ADDRESS": f"127.0.0.1:{port}",
                "TOKENRY_METRICS_LISTEN_ADDRESS": f"127.0.0.1:{free_port()}",
                "TOKENRY_DRAIN_SECONDS": "0",
                # The throttle is not what is measured.
                "TOKENRY_INTROSPECTION_RATE": "1000000",
                "TOKENRY_INTROSPECTION_BURST": "1000000",
            },
            ready_url=f"http://127.0.0.1:{port}/readyz",
        )
        return process, f"127.0.0.1:{port}"

    # --- requests ---

    def written(self, name: str, requests: Iterable[str]) -> Path:
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(list(requests)))
        return path

    def tokens(self, count: int) -> list[str]:
        return [self.platform.token("orders", scope="orders.read orders.write") for _ in range(count)]

    def bad(self, good: list[str], count: int) -> Iterator[str]:
        """Yield requests with a bad token each: the signature of a good one, changed."""
        for number in range(count):
            token = good[number % len(good)]
            yield get("/oauth2/tokeninfo", f"{token[:-40]}{number:08d}{token[-32:]}")

    # --- cases ---

    def run(self) -> dict[str, dict[str, float]]:
        """Return what was found of each case."""
        found: dict[str, dict[str, float]] = {}
        for prepare in (self.prepare_steady, self.prepare):
            self.cases = []
            prepare()
            self.measure()
            found |= {case.name: summed_up(case) for case in self.cases}
            self.processes.end()
        return found

    def add(self, name: str, server: tuple[Process, str], requests: Path, **more: Any) -> None:
        if not self.only or any(part in name for part in self.only):
            self.cases.append(Case(name, *server, requests, **more))

    def prepare(self) -> None:
        """Start what answers as fast as it can, and write the requests."""
        fresh = (self.size.rounds + 1) * self.size.requests
        one, thousand = self.tokens(1), self.tokens(1000)
        caller = self.platform.token("gateway", scope="token.introspect", audience=self.platform.issuer)
        info = self.token_info()
        bodies = {
            "tokeninfo": lambda token: get("/oauth2/tokeninfo", token),
            "introspect": lambda token: post("/oauth2/introspect", {"token": token}, f"Bearer {caller}"),
            "auth": lambda token: get("/auth?scope=orders.read", token),
        }
        for endpoint, request in bodies.items():
            files = {
                "one token": self.written(f"{endpoint}-1", map(request, one)),
                "1,000 tokens": self.written(f"{endpoint}-1000", map(request, thousand)),
                f"all-{DISTINCT} tokens": self.written(f"{endpoint}-all", map(request, self.tokens(fresh))),
            }
            size = self.answered_bytes(info, files["one token"])
            self.add(f"bare aiohttp, bytes of {endpoint}", self.reference("aiohttp", size), files["one token"])
            if endpoint == "tokeninfo":
                verifying = self.reference("verifying", size)
                self.add("bare aiohttp and one bare verify, bytes of tokeninfo", verifying, files["one token"])
                self.add("bare protocol, bytes of tokeninfo", self.reference("protocol", size), files["one token"])
            for kind, file in files.items():
                self.add(f"{endpoint}, {kind}", info, file, advance=DISTINCT in kind)
        self.prepare_service(thousand)
        self.prepare_issuer()

    def prepare_steady(self) -> None:
        """
        Start what is asked at a fixed rate: what a second process costs, and what bad tokens do to good ones.

        Two processes get twice the requests, so that each of them has as much to do as the one has.
        """
        tokens = self.tokens(1000)
        requests = self.written("steady", (get("/oauth2/tokeninfo", token) for token in tokens))
        info = self.token_info()
        self.add(f"tokeninfo, {STEADY_RATE:,} a second", info, requests, rate=STEADY_RATE)
        two = self.token_info(2)
        self.add(f"tokeninfo, {2 * STEADY_RATE:,} a second, 2 processes", two, requests, rate=2 * STEADY_RATE)
        flood = {
            "requests": str(self.written("bad", self.bad(tokens, FLOOD_TOKENS))),
            "rate": FLOOD_RATE,
            "connections": CONNECTIONS,
        }
        name = f"tokeninfo, {STEADY_RATE:,} a second, and 100,000 bad tokens a minute"
        self.add(name, info, requests, rate=STEADY_RATE, beside=flood)
        # As many bad tokens as a hundred connections get rid of: more than one process can judge.
        overrun = flood | {"rate": OVERRUN_RATE, "connections": OVERRUN_CONNECTIONS}
        name = f"tokeninfo, {OVERRUN_GOOD:,} a second, and {OVERRUN_CONNECTIONS} connections with bad tokens"
        self.add(name, info, requests, rate=OVERRUN_GOOD, beside=overrun)

    def prepare_service(self, tokens: list[str]) -> None:
        requests = self.written("orders", (get("/orders", token) for token in tokens))
        self.add("aiohttp service", self.reference("service", "-"), requests)
        self.add("aiohttp service with a middleware that does nothing", self.reference("passed", "-"), requests)
        self.add("aiohttp service with middleware", self.reference("protected", self.platform.issuer), requests)

    def prepare_issuer(self) -> None:
        deployment = Deployment(self.folder, self.processes)
        deployment.use_folder()
        deployment.use_sqlite()
        key, write = foreign_key("bench"), deployment.write_client
        write("bench-slow", secrets=[{"hash": hash_password(SLOW_SECRET), "created_at": 1}], scopes=["orders.read"])
        write("bench-key", jwks=key.jwks, scopes=["orders.read"])
        deployment.start("issuer", "revocation")
        person = deployment.identities.client
        basic = "Basic " + b64encode(f"{person['client_id']}:{person['client_secret']}".encode()).decode()
        form = {"grant_type": "client_credentials", "realm": "/services"}
        requests = self.written("token", [post("/oauth2/token", form, basic)])
        issuer = deployment._running["issuer"], deployment.url("issuer", "").removeprefix("http://")
        size = self.answered_bytes(issuer, requests)
        self.add("bare aiohttp, bytes of token", self.reference("aiohttp", size), requests)
        self.add("bare aiohttp and two bare signs, bytes of token", self.reference("signing", size), requests)
        self.add("token", issuer, requests)
        body = {**form, "client_id": person["client_id"], "client_secret": person["client_secret"]}
        self.add("token, client_secret_post", issuer, self.written("token-post", [post("/oauth2/token", body, None)]))
        slow = "Basic " + b64encode(f"bench-slow:{SLOW_SECRET}".encode()).decode()
        remembered = self.written("token-slow", [post("/oauth2/token", form, slow)])
        self.add("token, argon2id, remembered", issuer, remembered)
        audience = deployment.url("issuer", "")

        def assertions(count: int) -> Path:
            now, run = int(time.time()), uuid.uuid4().hex
            claims = {"iss": "bench-key", "sub": "bench-key", "aud": audience, "iat": now, "exp": now + 240}
            signed = (key.sign({**claims, "jti": f"{run}-{number}"}) for number in range(count))
            kind = {**form, "client_assertion_type": CLIENT_ASSERTION_TYPE}
            posts = (post("/oauth2/token", {**kind, "client_assertion": each}, None) for each in signed)
            return self.written(f"token-key-{run}", posts)

        self.add("token, private_key_jwt", issuer, assertions(CONNECTIONS), renew=assertions)

    def answered_bytes(self, server: tuple[Process, str], requests: Path) -> int:
        """Return the length of a body with which a bare handler's answer is as long as this server's."""
        found = self.load.run(Case("first answer", *server, requests), count=CONNECTIONS)
        return max(0, int(found["answer_bytes"]) - BARE_HEAD_BYTES)

    def measure(self) -> None:
        """Let the cases take turns."""
        if not self.cases:
            return
        for number in range(self.size.rounds + 1):
            for case in self.cases:
                count = self.size.requests
                if not number and not case.advance:
                    count = max(count, WARM_UP)
                if case.renew is not None:
                    case.requests = case.renew(count)
                result = self.load.run(case, count=count, first=number * count if case.advance else 0)
                if number:  # the first round warms up
                    case.rounds.append(result | {"count": count})
            sys.stderr.write(f"bench: round {number} of {self.size.rounds}\n")

    def long_run(self) -> list[dict[str, Any]]:
        """Return the memory of one token info process after more and more requests with 5,000 tokens."""
        server = self.token_info()
        requests = self.written("long", (get("/oauth2/tokeninfo", token) for token in self.tokens(5000)))
        case = Case("long run", *server, requests)
        rows, done = [], 0
        for share in (0.02, 0.1, 0.25, 0.5, 1.0):
            count = int(self.size.long_run * share) - done
            self.load.run(case, count=count)
            done += count
            rows.append({"requests": done, "mib": proc.resident_bytes(case.process.pid) / 2**20})
        return rows


BARE_HEAD_BYTES = 160  # of the status line and the fields that aiohttp sends by itself


def get(path: str, token: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\r\n"


def post(path: str, form: dict[str, str], authorization: str | None) -> str:
    body = urlencode(form)
    proof = "" if authorization is None else f"Authorization: {authorization}\r\n"
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{proof}"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )


def in_process(sizes: Iterable[int]) -> dict[str, float]:
    """Measure single validations, in a process of their own."""
    command = [sys.executable, "-m", "tests.bench.in_process", *map(str, sizes)]
    done = subprocess.run(command, cwd=ROOT, env=base_environment(), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def middleware() -> dict[str, float]:
    """Measure what the middleware adds, in a process of its own."""
    command = [sys.executable, "-m", "tests.bench.middleware"]
    done = subprocess.run(command, cwd=ROOT, env=base_environment(), capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def registry(sizes: Iterable[tuple[str, int]]) -> dict[str, dict[str, float]]:
    """Measure the issuer's registry of many clients, each size in a process of its own."""
    found = {}
    for kind, objects in sizes:
        command = [sys.executable, "-m", "tests.bench.registry", kind, str(objects)]
        done = subprocess.run(command, cwd=ROOT, env=base_environment(), capture_output=True, text=True, check=True)
        found[f"{kind}, {objects:,} clients"] = dict(json.loads(done.stdout))
    return found


def summed_up(case: Case) -> dict[str, float]:
    """Return the medians over the rounds of *case*."""

    def median(of: str, per: str | None = None) -> float:
        return statistics.median(each[of] / (each[per] if per else 1) for each in case.rounds)

    cpu = [each["cpu"] / each["count"] * 1e6 for each in case.rounds]
    return {
        "cpu_us": statistics.median(cpu),
        "cpu_us_spread": (max(cpu) - min(cpu)) / statistics.median(cpu),
        "requests_per_second": 1 / median("seconds", "count"),
        "p50_ms": median("p50") * 1e3,
        "p99_ms": median("p99") * 1e3,
        "p999_ms": median("p999") * 1e3,
        "mib": proc.resident_bytes(case.process.pid) / 2**20,
    }


def machine() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "python": platform.python_version(),
        "processors": os.cpu_count(),
        "load_average_before": os.getloadavg()[0],
    }


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description="Measure tokens, requests and validations as ratios.")
    parser.add_argument("--quick", action="store_true", help="in less than three minutes (also: BENCH_QUICK=1)")
    parser.add_argument("--only", action="append", default=[], help="cases with this in their name (repeatable)")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench.json")
    options = parser.parse_args()
    size = QUICK if options.quick or os.environ.get("BENCH_QUICK") == "1" else FULL
    found: dict[str, Any] = {"machine": machine(), "quick": size is QUICK}
    if not options.only:
        found["validation"] = in_process(size.revocations) | middleware()
    if not options.only or "registry" in options.only:
        found["registry"] = registry(size.registry)
    with tempfile.TemporaryDirectory() as folder:
        processes = Processes(Path(folder))
        bench = Bench(size, Path(folder), processes, options.only)
        try:
            found["http"] = bench.run()
            if not options.only:
                found["memory"] = bench.long_run()
        finally:
            processes.end()
            bench.load.close()
            bench.platform.close()
    options.output.parent.mkdir(exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n")
    print(report.table(found))  # noqa: T201 -- what this program is for


if __name__ == "__main__":
    main()
