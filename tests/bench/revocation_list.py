"""
Measure a revocation list: `python -m tests.bench.revocation_list [--entries 1000000] [--rules 1000]`.

Prints bytes an entry, the time to load the binary form, look-ups, merges, and for each of them how long another
thread had to wait at most (it asks for the interpreter every half millisecond, as an event loop would).
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import random
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from tests.support.revocation_entries import LIFETIME, NOW, SALTS, UNTIL, claims_entry, judged
from tokenry.revocation.blocks import Block
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.wire import (
    ListDocument,
    document_of,
    format_binary_list,
    format_list,
    parse_binary_list,
    parse_list,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tokenry.revocation.lists import RevocationList

T = TypeVar("T")


class Stall(threading.Thread):
    """Notices how long it could not run."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worst = 0.0
        self._over = threading.Event()

    def run(self) -> None:
        last = time.perf_counter()
        while not self._over.wait(0.0005):
            now = time.perf_counter()
            self.worst = max(self.worst, now - last - 0.0005)
            last = now

    def end(self) -> float:
        self._over.set()
        self.join()
        return self.worst


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def say(what: str, value: str) -> None:
    sys.stdout.write(f"{what:<52} {value}\n")


def timed(what: str, call: Callable[[], T]) -> T:
    stall = Stall()
    stall.start()
    time.sleep(0.01)
    begin = time.perf_counter()
    result = call()
    took = time.perf_counter() - begin
    say(what, f"{took * 1e3:9.1f} ms, longest stall {stall.end() * 1e3:5.1f} ms")
    return result


def each(what: str, call: Callable[[int], object], *, times: int) -> None:
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        for number in range(times):
            call(number)
        best = min(best, (time.perf_counter() - begin) / times)
    say(what, f"{best * 1e6:9.2f} µs")


def made(entries: int) -> ListDocument:
    raw = os.urandom(16 * entries)
    fingerprints = b"".join(sorted(raw[start : start + 16] for start in range(0, len(raw), 16)))
    expiries = b"".join((UNTIL + second).to_bytes(4, "big") for second in range(1000)) * (entries // 1000 + 1)
    block = Block.read(fingerprints, expiries[: 4 * entries])
    return ListDocument(cursor="c", epoch=1, salts=SALTS, max_token_lifetime=LIFETIME, block=block)


def written(entries: int) -> bytes:
    """Made by a process of its own: memory that is freed here would be used again and not be counted."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "list")
        process = multiprocessing.get_context("fork").Process(
            target=lambda: path.write_bytes(format_binary_list(made(entries)))
        )
        process.start()
        process.join()
        return path.read_bytes()


def fresh(count: int) -> list[Entry]:
    return [
        Entry(id=str(n), kind=Kind.JTI, fingerprint=os.urandom(16), salt="s1", in_force_until=UNTIL)
        for n in range(count)
    ]


def measure(entries: int, rules: int) -> None:
    body = written(entries)
    say("binary form", f"{len(body) / 2**20:9.1f} MiB")
    gc.collect()
    before = resident()
    held = timed("load the binary form", lambda: parse_binary_list(body).onto(None, now=NOW, max_entries=2 * entries))
    gc.collect()
    say("memory an entry (resident)", f"{(resident() - before) / entries:9.1f} bytes")
    pages = held.block._pages
    size = sum(map(sys.getsizeof, pages)) + sys.getsizeof(pages)
    say("memory an entry (sum of the objects)", f"{size / entries:9.1f} bytes")
    look_up(held, body)
    merge(held, rules)
    timed("write the binary form", lambda: format_binary_list(document_of(held, cursor="c")))
    timed("drop what is over (a tenth)", lambda: held.compact(now=UNTIL + 100))
    timed("load the same again and merge it", lambda: parse_binary_list(body).onto(held, now=NOW))
    other = written(entries)
    timed("load as many others and merge them", lambda: parse_binary_list(other).onto(held, now=NOW))
    document = ListDocument(
        cursor="c", epoch=1, salts=SALTS, max_token_lifetime=LIFETIME, entries=tuple(fresh(100_000))
    )
    text = format_list(document)
    timed(f"read 100,000 entries as JSON ({len(text) / 2**20:.0f} MiB)", lambda: parse_list(text))


def look_up(held: RevocationList, body: bytes) -> None:
    start = body.index(b"}", body.index(b'"entries"')) + 5
    count = len(held.block)
    numbers = random.Random(1)  # noqa: S311 -- the same ones in every run
    places = [start + 16 * numbers.randrange(count) for _ in range(20_000)]
    present = [body[place : place + 16] for place in places]
    absent = [os.urandom(16) for _ in places]
    each("look a fingerprint up that is there", lambda n: present[n] in held.block, times=len(present))
    each("look a fingerprint up that is not", lambda n: absent[n] in held.block, times=len(absent))
    tokens = [judged(jti=f"j{n}", signing_input="x" * 600 + str(n)) for n in range(5_000)]

    def first(number: int) -> None:
        held.hits(judged(jti=f"j{number}", signing_input="x" * 600 + str(number)), now=NOW)

    each("judge a token for the first time", first, times=len(tokens))
    each("judge it again by another list", lambda n: held.hits(tokens[n], now=NOW), times=len(tokens))


def merge(held: RevocationList, rules: int) -> None:
    for count in (1, 100, 10_000):
        news = fresh(count)
        timed(f"merge {count:,} news", lambda news=news: held.merge(news, now=NOW))  # type: ignore[misc]
    many = [claims_entry({"sub": f"s{n}"}, entry_id=f"r{n}") for n in range(rules)]
    ruled = timed(f"merge {rules:,} rules", lambda: held.merge(many, now=NOW))
    one = [claims_entry({"sub": "one"}, entry_id="one")]
    timed("merge one rule more", lambda: ruled.merge(one, now=NOW))
    tokens = [judged(jti=f"j{n}", sub=f"t{n}") for n in range(5_000)]
    each("judge a token by the rules too, again", lambda n: ruled.hits(tokens[n], now=NOW), times=len(tokens))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1] if __doc__ else None)
    parser.add_argument("--entries", type=int, default=1_000_000)
    parser.add_argument("--rules", type=int, default=10_000)
    arguments = parser.parse_args()
    measure(arguments.entries, arguments.rules)


if __name__ == "__main__":
    main()
