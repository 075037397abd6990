"""Rotations that are interrupted everywhere: whatever is in the application's file, every issuer takes it."""

import json
from contextlib import suppress
from itertools import count, product

import pytest

from tests.services.admin.support import ACTOR, FIRST_SECRET, NOW, ORDERS, ROBOT, MemoryFiles, NoFiles, Reader, world
from tests.support.registry_store import Interrupted
from tokenry.secret import Secret
from tokenry_admin.documents import NotThere, NotValid
from tokenry_admin.plan_b_files import credential_file
from tokenry_admin.ports import FilesUnavailable
from tokenry_admin.secret_rotation import (
    LEASE,
    MIN_OVERLAP,
    RotationBusy,
    RotationLost,
    SecretRotation,
    Step,
    TooManySecrets,
)

OVERLAP = 3600


class Killed(BaseException):
    """The process ends here: nothing after it runs."""


class Stage:
    """One application, several buckets, an issuer that is up to date and one that hears at the last moment."""

    def __init__(self, key, *, buckets=2, files=None):
        self.key = key
        self.world = world()
        self.buckets = [MemoryFiles() for _ in range(buckets)] if files is None else files
        self.name, body = credential_file(key.kind, key.name, Secret(FIRST_SECRET))
        for bucket in self.buckets:
            bucket.files[key.name, self.name] = body
        self.late, self.early = Reader(self.world), Reader(self.world)

    def rotation(self, **changes):
        async def settled(_written_at):
            await self.late.refresh()

        made = self.world
        return SecretRotation(
            made.documents,
            files=self.buckets,
            settled=settled,
            clock=made.clock,
            audit=made.audit,
            actor=ACTOR,
            **{"overlap": OVERLAP, **changes},
        )

    def file_secrets(self):
        bodies = [json.loads(bucket.files[self.key.name, self.name]) for bucket in self.buckets]
        return [body.get("client_secret") or body["application_password"] for body in bodies]

    async def check(self):
        """Every file's secret works at an issuer that has just read, and at one that has not since it had to."""
        await self.early.refresh()
        for secret in self.file_secrets():
            assert await self.early.takes(self.key, secret)
            assert await self.late.takes(self.key, secret)

    @property
    def parts(self):
        return [self.world.store, *self.buckets]

    def kill_at(self, number, *, when, fault):
        """Fail the write with this *number*, of all parts, before or after it takes effect."""
        numbers = count()

        def hook(operation, _key):
            if operation.startswith(("put", "delete")) and next(numbers) == number:
                raise fault

        for part in self.parts:
            setattr(part, when, hook)

    def unharmed(self):
        for part in self.parts:
            part.before = part.after = lambda _operation, _key: None


async def staged(key, **how):
    stage = Stage(key, **how)
    await stage.late.refresh()
    return stage


WRITES = 9  # two probes, state, hash, state, two files, state, old hashes, state: counted by the test below


async def test_a_rotation_gives_the_application_a_new_secret_and_ends_the_old_one_later():
    stage = await staged(ORDERS)
    done = await stage.rotation().rotate(ORDERS)
    new = stage.file_secrets()[0]
    assert (done.step, done.old_until, done.application) == (Step.OVERLAP, NOW + OVERLAP, "orders")
    assert done.secret is None
    assert new != FIRST_SECRET
    assert len(new) == 43
    await stage.check()
    assert await stage.early.takes(ORDERS, FIRST_SECRET)
    stage.world.clock.advance(OVERLAP + 1)
    await stage.check()
    assert not await stage.early.takes(ORDERS, FIRST_SECRET)
    assert await stage.rotation().sweep() == [ORDERS]
    assert len(stage.world.members("realms/services/clients/orders.json")["secrets"]) == 1
    assert not [path for path in stage.world.store.objects if path.startswith("rotations/")]


async def test_nothing_of_a_secret_is_in_the_audit_log_or_in_a_repr():
    stage = await staged(ORDERS)
    done = await stage.rotation().rotate(ORDERS)
    said = repr(done) + repr(stage.world.lines) + repr(await stage.rotation()._find(ORDERS))
    stored = stage.world.members("realms/services/clients/orders.json")["secrets"]
    for text in [*stage.file_secrets(), FIRST_SECRET, *(each["hash"] for each in stored)]:
        assert text not in said
    assert stage.world.audited() == ["secret added", "secret delivered", "old secrets end"]


async def _writes(key):
    stage, numbers = await staged(key), []
    for part in stage.parts:
        part.after = lambda operation, _key: numbers.append(operation) if operation.startswith("put") else None
    await stage.rotation().rotate(key)
    return len(numbers)


@pytest.mark.parametrize("key", [ORDERS, ROBOT], ids=["client", "user"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("fault", [Killed(), Interrupted()], ids=["killed", "failed"])
async def test_a_rotation_interrupted_at_any_two_writes_leaves_the_file_working_and_resumes(key, when, fault):
    total = await _writes(key)
    assert total >= WRITES
    for first, second in product(range(total), repeat=2):
        stage = await staged(key)
        # 1. interrupted here, and once the lease has run out there
        for number in (first, second):
            stage.kill_at(number, when=when, fault=fault)
            with suppress(Killed, Interrupted):
                await stage.rotation().rotate(key)
            stage.unharmed()
            await stage.check()
            stage.world.clock.advance(LEASE + 1)
            await stage.check()
        # 2. and to the end
        await stage.rotation().rotate(key)
        await stage.check()
        stage.world.clock.advance(OVERLAP + 1)
        await stage.check()
        assert not await stage.early.takes(key, FIRST_SECRET)
        # 3. nothing is left of the attempts
        assert await stage.rotation().sweep() == [key]
        await stage.check()
        (path,) = [path for path in stage.world.store.objects if path.endswith(f"/{key.name}.json")]
        members = stage.world.members(path)
        assert len(members.get("secrets") or members["password_hashes"]) == 1


async def _killed_at(stage, part, number):
    """Kill a rotation before its write *number* to *part*, and let the lease run out."""
    numbers = count()

    def hook(operation, _key):
        if operation.startswith("put") and next(numbers) == number:
            raise Killed

    part.before = hook
    with pytest.raises(Killed):
        await stage.rotation().rotate(stage.key)
    stage.unharmed()
    stage.world.clock.advance(LEASE + 1)


def _hashes(stage):
    return [each["hash"] for each in stage.world.members("realms/services/clients/orders.json")["secrets"]]


async def test_a_hash_whose_secret_nobody_can_have_is_taken_out_by_the_next_rotation():
    stage = await staged(ORDERS)
    await _killed_at(stage, stage.world.store, 2)  # state, hash | delivering
    old, stray = _hashes(stage)
    await stage.rotation().rotate(ORDERS)
    assert old in _hashes(stage)
    assert stray not in _hashes(stage)


async def test_a_hash_whose_secret_may_be_in_one_of_the_files_stays_until_all_have_a_later_one():
    stage = await staged(ORDERS)
    await _killed_at(stage, stage.buckets[1], 1)  # the first bucket has the new secret, the second one not
    assert len(set(stage.file_secrets())) == 2
    before = _hashes(stage)
    await _killed_at(stage, stage.world.store, 2)
    assert set(before) < set(_hashes(stage))
    await stage.check()


async def test_what_was_delivered_is_finished_and_not_begun_anew():
    stage = await staged(ORDERS)
    await _killed_at(stage, stage.world.store, 4)  # state, hash, delivering, delivered | old hashes
    secrets = stage.file_secrets()
    done = await stage.rotation().rotate(ORDERS)
    assert (done.resumed, done.step) == (True, Step.OVERLAP)
    assert stage.file_secrets() == secrets


async def test_nothing_is_swept_before_its_end():
    stage = await staged(ORDERS)
    await stage.rotation().rotate(ORDERS)
    stage.world.clock.advance(OVERLAP - 1)
    assert await stage.rotation().sweep() == []
    assert len(_hashes(stage)) == 2


async def test_every_state_on_the_way_has_a_file_that_works():
    """Not only where something fails: after each single write of a rotation that goes well."""
    stage = await staged(ORDERS)
    seen = []

    async def look():
        seen.append(1)
        await stage.check()

    originals = [(part, part.put) for part in stage.parts]
    for part, put in originals:

        async def watched(*arguments, put=put, **named):
            result = await put(*arguments, **named)
            await look()
            return result

        part.put = watched
    await stage.rotation().rotate(ORDERS)
    assert len(seen) >= WRITES


async def test_a_fault_while_nobody_has_the_secret_gives_the_lease_back():
    stage = await staged(ORDERS)

    async def never(_written_at):
        raise Interrupted

    rotation = stage.rotation()
    rotation._settled = never
    with pytest.raises(Interrupted):
        await rotation.rotate(ORDERS)
    await stage.rotation().rotate(ORDERS)
    await stage.check()


async def test_two_at_once_do_not_both_write_the_file():
    stage = await staged(ORDERS)
    slow = stage.rotation()

    async def overtaken(_written_at):
        with pytest.raises(RotationBusy, match="try again in 600 s"):
            await stage.rotation().rotate(ORDERS)
        await stage.rotation().rotate(ORDERS, take_over=True)

    slow._settled = overtaken
    with pytest.raises(RotationLost):
        await slow.rotate(ORDERS)
    await stage.check()
    stage.world.clock.advance(OVERLAP + 1)
    await stage.check()


async def test_a_bucket_that_refuses_is_found_before_anything_is_written():
    stage = await staged(ORDERS, files=[MemoryFiles(), NoFiles()])
    before = dict(stage.world.store.objects)
    with pytest.raises(FilesUnavailable, match="AccessDenied"):
        await stage.rotation().rotate(ORDERS)
    assert stage.world.store.objects == before


async def test_what_others_write_to_the_object_meanwhile_stays():
    stage = await staged(ORDERS)
    path = "realms/services/clients/orders.json"
    once = iter([True])

    def meddle(operation, key):
        if (operation, key) == ("put", path) and next(once, False):
            stage.world.put(path, **{**stage.world.members(path), "scopes": ["orders.read", "orders.write"]})

    stage.world.store.before = meddle
    await stage.rotation().rotate(ORDERS)
    assert stage.world.members(path)["scopes"] == ["orders.read", "orders.write"]
    await stage.check()


async def test_without_files_the_old_secret_goes_on_until_whoever_asked_says_that_the_new_one_is_there():
    stage = await staged(ORDERS, buckets=0)
    done = await stage.rotation().rotate(ORDERS)
    secret = done.secret.reveal()
    assert (done.step, done.old_until) == (Step.DELIVERING, None)
    stage.world.clock.advance(100 * OVERLAP)
    await stage.early.refresh()
    assert await stage.early.takes(ORDERS, secret)
    assert await stage.early.takes(ORDERS, FIRST_SECRET)
    assert (await stage.rotation().finish(ORDERS)).step is Step.OVERLAP
    stage.world.clock.advance(OVERLAP + 1)
    await stage.early.refresh()
    assert await stage.early.takes(ORDERS, secret)
    assert not await stage.early.takes(ORDERS, FIRST_SECRET)
    with pytest.raises(NotThere):
        await stage.rotation().finish(ORDERS)


async def test_a_leaked_secret_ends_as_soon_as_the_file_has_the_new_one_also_when_that_was_interrupted():
    stage = await staged(ORDERS)
    done = await stage.rotation().rotate(ORDERS, leaked=True)
    assert done.old_until == NOW
    await stage.early.refresh()
    assert not await stage.early.takes(ORDERS, FIRST_SECRET)
    for secret in stage.file_secrets():
        assert await stage.early.takes(ORDERS, secret)
    # begun without haste, interrupted, and then it turned out to have leaked
    stage = await staged(ORDERS)
    await _killed_at(stage, stage.world.store, 4)
    await stage.rotation().rotate(ORDERS, leaked=True)
    await stage.early.refresh()
    assert not await stage.early.takes(ORDERS, FIRST_SECRET)
    for secret in stage.file_secrets():
        assert await stage.early.takes(ORDERS, secret)


async def test_hashes_that_may_be_in_use_are_never_pushed_out():
    stage = await staged(ORDERS)
    path = "realms/services/clients/orders.json"
    many = [{"hash": "sha256:" + f"{number:064x}", "created_at": NOW} for number in range(7)]
    stage.world.put(path, **{**stage.world.members(path), "secrets": [*stage.world.members(path)["secrets"], *many]})
    with pytest.raises(TooManySecrets, match="8 secrets"):
        await stage.rotation().rotate(ORDERS)
    await stage.late.refresh()
    await stage.check()


async def test_the_application_is_the_one_that_the_object_names():
    stage = await staged(ORDERS)
    path = "realms/services/clients/orders.json"
    stage.world.put(path, **{**stage.world.members(path), "application": "shop"})
    await stage.rotation().rotate(ORDERS)
    assert ("shop", "client.json") in stage.buckets[0].files
    stage.world.put(path, **{**stage.world.members(path), "application": "../shop"})
    stage.world.clock.advance(OVERLAP + 1)
    with pytest.raises(NotValid, match="application id"):
        await stage.rotation().rotate(ORDERS)


async def test_a_hash_that_was_taken_out_by_hand_does_not_lock_the_rotation():
    stage = await staged(ORDERS)
    # killed before the old hashes got their end
    path = "realms/services/clients/orders.json"
    numbers = count()

    def second_write(operation, key):
        if (operation, key) == ("put", path) and next(numbers) == 1:
            raise Killed

    stage.world.store.before = second_write
    with pytest.raises(Killed):
        await stage.rotation().rotate(ORDERS)
    stage.unharmed()
    stage.world.clock.advance(LEASE + 1)
    assert (await stage.rotation().unfinished())[ORDERS].step is Step.DELIVERED
    members = stage.world.members(path)
    stage.world.put(path, **{**members, "secrets": members["secrets"][:1]})
    await stage.rotation().rotate(ORDERS)
    await stage.check()


async def test_an_overlap_that_no_application_could_keep_is_refused():
    stage = await staged(ORDERS)
    with pytest.raises(ValueError, match="600"):
        stage.rotation(overlap=MIN_OVERLAP - 1)


async def test_a_client_that_is_not_there_has_no_secret():
    stage = await staged(ORDERS)
    stage.world.store.drop("realms/services/clients/orders.json")
    with pytest.raises(NotThere):
        await stage.rotation().rotate(ORDERS)
