"""Rotation in the background: over years, with outages, and with its own clock."""

import asyncio
import random

import pytest
from prometheus_client import generate_latest

from tests.services.admin.key_support import DAY, HOUR, NOW, Around
from tests.support.registry_store import Interrupted
from tokenry.serving.metrics import Metrics
from tokenry_admin.rotating import INTERVAL, RETRY, Rotation, RotationMeasures
from tokenry_registry.signing_keys import KeyUse


class Watched:
    def __init__(self):
        self.around, self.seen, self.slept = Around(), [], []
        self.rotation = Rotation(
            self.around.actions,
            clock=self.around.clock,
            observe=lambda use, result: self.seen.append((str(use), result)),
            sleep=self.sleep,
            uniform=random.Random(1),  # noqa: S311 -- jitter
        )

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.around.clock.advance(seconds)
        if len(self.slept) > 5:
            raise asyncio.CancelledError


@pytest.fixture
def watched():
    return Watched()


async def test_the_first_look_makes_the_keys_of_every_use_and_the_next_has_nothing_to_do(watched):
    assert INTERVAL * 0.8 <= await watched.rotation.once() <= INTERVAL
    await watched.rotation.once()
    assert watched.seen == [(use, what) for what in ("rotated", "nothing_due") for use in ("token", "list")]
    assert watched.rotation.last_success == NOW


async def test_it_runs_until_it_is_cancelled(watched):
    with pytest.raises(asyncio.CancelledError):
        await watched.rotation.run()
    assert len(watched.slept) == 6


async def test_three_years_of_looks_leave_no_moment_without_a_signer_and_a_standby(watched):
    signers = []
    for _ in range(3 * 365):
        await watched.rotation.once()
        signers.append(watched.around.signer())
        assert watched.around.faults() == ()
        watched.around.clock.advance(DAY)
    assert len(dict.fromkeys(signers)) == 13


async def test_an_outage_of_its_store_is_told_retried_and_over_when_it_is_over(watched):
    await watched.rotation.once()
    watched.around.clock.advance(80 * DAY)
    watched.around.store.before = lambda *_: (_ for _ in ()).throw(Interrupted())
    assert RETRY * 0.8 <= await watched.rotation.once() <= RETRY
    assert watched.seen[-1] == ("list", "interrupted")
    assert "interrupted" in watched.rotation.trouble
    assert watched.rotation.last_success == NOW
    watched.around.store.before = lambda *_: None
    await watched.rotation.once()
    assert watched.rotation.trouble is None
    assert watched.rotation.last_success == NOW + 80 * DAY


async def test_what_fails_for_one_use_does_not_keep_the_others(watched):
    del watched.around.custodies[KeyUse.TOKEN]
    await watched.rotation.once()
    assert watched.seen == [("token", "refused"), ("list", "rotated")]


async def test_a_fault_of_ours_is_reported_and_the_loop_goes_on(watched):
    def break_(*_):
        raise ZeroDivisionError

    watched.around.store.before = break_
    await watched.rotation.once()
    watched.around.store.before = lambda *_: None
    await watched.rotation.once()
    assert watched.seen == [("token", "fault"), ("list", "fault"), ("token", "rotated"), ("list", "rotated")]


async def test_what_is_measured(watched):
    metrics = Metrics(service="admin")
    measures = RotationMeasures(metrics, last_success=lambda: watched.rotation.last_success)
    measures.looked(KeyUse.TOKEN, "rotated")
    text = generate_latest(metrics.registry).decode()
    assert 'tokenry_key_rotations_total{result="rotated",use="token"} 1.0' in text
    assert "tokenry_key_rotation_last_success_timestamp_seconds 0.0" in text
    await watched.rotation.once()
    text = generate_latest(metrics.registry).decode()
    assert "tokenry_key_rotation_last_success_timestamp_seconds 1.8e+09" in text
    watched.around.clock.advance(HOUR)
