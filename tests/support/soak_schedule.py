"""What breaks when, in a run of mixed load: drawn from a seed, so that a run can be made again."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.support.http_faults import Exchanged

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from tests.support.faulted import FaultedPlatform

SERVICES: Final = ("issuer", "tokeninfo", "revocation")
CALM_AT_FIRST: Final = 8.0
GAP: Final = (2.0, 6.0)  # seconds between the way back from one fault and the next one
LASTS: Final = (2.0, 8.0)
RESERVED: Final = 15.0  # at the end, so that the last fault is recovered from


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """
    One way to break something.

    Attributes:
        name: For people.
        begin: Breaks it.
        end: Mends it.
        touches: The services that may answer 503, or not at all, until everything is as before.
        lives: The service whose process ends.
    """

    name: str
    begin: Callable[[FaultedPlatform], object]
    end: Callable[[FaultedPlatform], object]
    touches: frozenset[str] = frozenset()
    lives: str | None = None


def _mend(platform: FaultedPlatform) -> None:
    platform.mend()


def _kinds() -> dict[str, Kind]:
    def damaged(platform: FaultedPlatform) -> None:
        platform.list_answers.change(lambda _target, ask: _half(ask()))
        platform.list_line.reset()

    made = [
        Kind(name="S3 unreachable", begin=lambda p: p.s3_line.cut(), end=_mend),
        Kind(name="S3 silent", begin=lambda p: p.s3_line.blackhole(), end=_mend),
        Kind(name="S3 throttles", begin=lambda p: p.bucket_answers.refuse_as_s3(503, "SlowDown"), end=_mend),
        Kind(name="store unreachable", begin=lambda p: p.store_line.cut(), end=_mend, touches=_of("revocation")),
        Kind(name="store silent", begin=lambda p: p.store_line.blackhole(), end=_mend, touches=_of("revocation")),
        Kind(name="store half open", begin=lambda p: p.store_line.blackhole("down"), end=_mend,
             touches=_of("revocation")),
        Kind(name="store slow", begin=lambda p: p.store_line.delay(0.2), end=_mend, touches=_of("revocation")),
        Kind(name="list unreachable", begin=lambda p: p.list_line.cut(), end=_mend),
        Kind(name="list silent", begin=lambda p: p.list_line.blackhole(), end=_mend),
        Kind(name="list slow", begin=lambda p: p.list_line.delay(1.0), end=_mend),
        Kind(name="list damaged", begin=damaged, end=_mend),
        Kind(name="keys unreachable", begin=lambda p: p.keys_line.cut(), end=_mend),
    ]  # fmt: skip
    for service in SERVICES:
        made += [_paused(service), _killed(service)]
    return {kind.name: kind for kind in made}


def _paused(service: str) -> Kind:
    return Kind(
        name=f"{service} paused",
        begin=lambda platform: platform.process(service).pause(),
        end=lambda platform: platform.process(service).resume(),
        touches=_of(service),
    )


def _killed(service: str) -> Kind:
    return Kind(
        name=f"{service} killed",
        begin=lambda platform: platform.kill(service),
        end=lambda platform: platform.start(service, wait=False),
        touches=_of(service),
        lives=service,
    )


def _of(service: str) -> frozenset[str]:
    return frozenset({service})


def _half(good: Exchanged) -> Exchanged:
    return Exchanged(good.status, good.headers, good.body[: len(good.body) // 2])


KINDS: Final = _kinds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """One fault to come: after which pause, which, and for how long; both in seconds."""

    after: float
    name: str
    lasts: float


def schedule(seed: int, seconds: float) -> Sequence[Planned]:
    """
    Return more faults than fit into *seconds*: how long the way back takes decides how many are made.

    Each kind comes once before one comes again.
    """
    rng = random.Random(f"soak {seed}")  # noqa: S311 -- to be repeated
    planned: list[Planned] = []
    while sum(each.after + each.lasts for each in planned) < seconds:
        for name in rng.sample(sorted(KINDS), len(KINDS)):
            pause = CALM_AT_FIRST if not planned else rng.uniform(*GAP)
            planned.append(Planned(after=round(pause, 2), name=name, lasts=round(rng.uniform(*LASTS), 2)))
    return planned
