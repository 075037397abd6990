import asyncio
import threading
from collections import Counter

import pytest

from tests.services.issuer.support import weak_argon2, weak_bcrypt
from tokenry.secret import Secret
from tokenry.testing.clock import FakeClock
from tokenry_issuer.passwords import ChecksBusy, Decoy, SecretChecks, WrongSecret
from tokenry_registry.bootstrap import hash_secret
from tokenry_registry.secret_hashes import HashKind, matches, parse_hash

FAST = parse_hash(hash_secret("right"))
SLOW = parse_hash(weak_argon2("right"))
OLD = parse_hash(weak_bcrypt("right"))


class Workshop:
    """Checks whose work is counted by kind of hash, and can be held up."""

    def __init__(self, **options):
        self.clock = FakeClock()
        self.work = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.observed = []
        self.checks = SecretChecks(
            clock=self.clock,
            key=b"k" * 32,
            compare=self.compare,
            observe=lambda kind, seconds: self.observed.append(kind),
            **options,
        )

    def compare(self, stored, text):
        if stored.slow:
            self.gate.wait(10)
        self.work[stored.kind] += 1
        return matches(stored, text)

    async def verify(self, secret, *stored, decoy=None, subject="client /services orders"):
        await self.checks.verify(Secret(secret), stored, subject=subject, decoy=decoy or Decoy())

    async def works(self, secret, *stored, **options):
        """Return what a failing check costs."""
        before = Counter(self.work)
        with pytest.raises(WrongSecret):
            await self.verify(secret, *stored, **options)
        return self.work - before


@pytest.fixture
def workshop():
    made = Workshop()
    yield made
    made.gate.set()
    made.checks.close()


@pytest.mark.parametrize("stored", [FAST, SLOW, OLD], ids=["sha256", "argon2id", "bcrypt"])
async def test_the_right_secret_passes_and_a_wrong_one_does_not(workshop, stored):
    await workshop.verify("right", stored)
    with pytest.raises(WrongSecret):
        await workshop.verify("wrong", stored)


async def test_during_a_rotation_either_secret_passes(workshop):
    other = parse_hash(weak_argon2("other"))
    await workshop.verify("right", SLOW, other)
    await workshop.verify("other", SLOW, other)


async def test_nothing_matches_where_nothing_is_stored(workshop):
    with pytest.raises(WrongSecret):
        await workshop.verify("right")
    with pytest.raises(WrongSecret):
        await workshop.verify("")


async def test_C04_a_failed_attempt_is_the_same_work_for_unknown_and_wrong(workshop):
    decoy = Decoy.for_all([[SLOW, SLOW], [FAST], [SLOW]])
    unknown = await workshop.works("wrong", decoy=decoy, subject="nobody")
    of_two = await workshop.works("wrong", SLOW, SLOW, decoy=decoy)
    of_one = await workshop.works("wrong", SLOW, decoy=decoy)
    of_fast = await workshop.works("wrong", FAST, decoy=decoy)
    assert {each[HashKind.ARGON2ID] for each in (unknown, of_two, of_one, of_fast)} == {2}


async def test_C04_where_all_secrets_are_fast_unknown_is_fast_too(workshop):
    decoy = Decoy.for_all([[FAST], [FAST, FAST]])
    assert await workshop.works("wrong", decoy=decoy) == {HashKind.SHA256: 1}
    assert not workshop.observed


async def test_a_success_costs_its_own_hash_only(workshop):
    await workshop.verify("right", FAST, decoy=Decoy.for_all([[SLOW] * 5]))
    assert workshop.work == {HashKind.SHA256: 1}


async def test_a_client_that_asks_often_pays_once(workshop):
    for _ in range(50):
        await workshop.verify("right", SLOW)
    assert workshop.work[HashKind.ARGON2ID] == 1


async def test_what_is_remembered_is_forgotten_after_its_time(workshop):
    await workshop.verify("right", SLOW)
    workshop.clock.advance(299)
    await workshop.verify("right", SLOW)
    assert workshop.work[HashKind.ARGON2ID] == 1
    workshop.clock.advance(1)
    await workshop.verify("right", SLOW)
    assert workshop.work[HashKind.ARGON2ID] == 2


async def test_a_hash_taken_out_of_force_is_not_remembered(workshop):
    await workshop.verify("right", SLOW)
    with pytest.raises(WrongSecret):
        await workshop.verify("right", parse_hash(weak_argon2("new")))
    with pytest.raises(WrongSecret):
        await workshop.verify("right")


async def test_a_failure_is_not_remembered(workshop):
    await workshop.works("wrong", SLOW)
    await workshop.works("wrong", SLOW)
    assert workshop.work[HashKind.ARGON2ID] == 2


async def test_remembering_can_be_turned_off():
    workshop = Workshop(remember_seconds=0)
    await workshop.verify("right", SLOW)
    await workshop.verify("right", SLOW)
    assert workshop.work[HashKind.ARGON2ID] == 2
    workshop.checks.close()


async def test_what_is_remembered_holds_no_secret(workshop):
    await workshop.verify("right", SLOW)
    assert b"right" not in repr(workshop.checks.__dict__).encode()


async def test_a_restarting_cluster_pays_once(workshop):
    workshop.gate.clear()
    crowd = [asyncio.create_task(workshop.verify("right", SLOW)) for _ in range(500)]
    await asyncio.sleep(0)
    workshop.gate.set()
    await asyncio.gather(*crowd)
    assert workshop.work[HashKind.ARGON2ID] == 1


async def test_a_caller_that_goes_away_does_not_cancel_the_others(workshop):
    workshop.gate.clear()
    first, second = (asyncio.create_task(workshop.verify("right", SLOW)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    workshop.gate.set()
    await second


async def test_F53_a_full_queue_is_told_at_once_and_fast_secrets_go_on():
    workshop = Workshop(threads=1, queue=3)
    workshop.gate.clear()
    waiting = [asyncio.create_task(workshop.works(f"wrong-{n}", SLOW)) for n in range(4)]
    await asyncio.sleep(0)
    assert workshop.checks.waiting == 4
    with pytest.raises(ChecksBusy):
        await workshop.verify("wrong-5", SLOW)
    await workshop.verify("right", FAST)
    workshop.gate.set()
    await asyncio.gather(*waiting)
    await asyncio.sleep(0)
    assert workshop.checks.waiting == 0
    await workshop.verify("right", SLOW)
    workshop.checks.close()


async def test_F41_the_event_loop_goes_on_while_a_slow_hash_is_computed(workshop):
    workshop.gate.clear()
    check = asyncio.create_task(workshop.verify("right", SLOW))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not check.done()
    workshop.gate.set()
    await check


async def test_a_slow_check_is_observed_by_the_kind_of_its_hash(workshop):
    await workshop.verify("right", OLD)
    assert workshop.observed == ["bcrypt"]
