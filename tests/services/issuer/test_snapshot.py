"""The sealed files with which an issuer starts while the store is away."""

import stat

import pytest
from structlog.testing import capture_logs

from tests.services.issuer.support import ISSUER_URL, NOW, SECRET, running
from tokenry.jose.sealing import EnvelopeKey
from tokenry_issuer.snapshot import Snapshot, SnapshotFile, SnapshotRefused, packed, unpacked
from tokenry_registry.ports import GONE, MAX_OBJECT_BYTES, ObjectUnreadable, StoreUnavailable

ENVELOPE = EnvelopeKey.generate()
HELD = Snapshot(float(NOW), {"realms/x/realm.json": ('"1"', packed(b'{"x":1}'))})
HOUR = 3600.0


def file_in(folder, *, what="credentials", issuer=ISSUER_URL, environment="test", envelope=ENVELOPE):
    path = folder / "snapshots" / "credentials.sealed"
    return SnapshotFile(path, what=what, issuer=issuer, environment=environment, envelope=envelope)


# --- the file ----------------------------------------------------------------------------------------------


def test_what_is_written_is_read_and_nobody_else_may_read_it(tmp_path):
    file = file_in(tmp_path)
    file.write(HELD)
    assert file.read(now=NOW + HOUR, max_age=HOUR) == HELD
    (path,) = (tmp_path / "snapshots").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert b"realm" not in path.read_bytes()  # sealed, names and all


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"envelope": EnvelopeKey.generate()}, "damaged"),
        ({"issuer": "https://other.example.org"}, "damaged"),
        ({"what": "keys"}, "damaged"),
        ({"environment": "production"}, "other_environment"),
    ],
)
def test_a_file_of_somebody_else_is_refused(tmp_path, how, why):
    file_in(tmp_path).write(HELD)
    with pytest.raises(SnapshotRefused) as refused:
        file_in(tmp_path, **how).read(now=NOW, max_age=HOUR)
    assert refused.value.result == why


def test_every_byte_of_it_counts(tmp_path):
    file = file_in(tmp_path)
    file.write(HELD)
    (path,) = (tmp_path / "snapshots").iterdir()
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(SnapshotRefused):
            file.read(now=NOW, max_age=HOUR)
        path.write_bytes(whole[:position])
        with pytest.raises(SnapshotRefused):
            file.read(now=NOW, max_age=HOUR)


@pytest.mark.parametrize(("later", "why"), [(HOUR + 1, "too_old"), (-61, "from_the_future")])
def test_its_age_is_limited_on_both_sides(tmp_path, later, why):
    file = file_in(tmp_path)
    file.write(HELD)
    with pytest.raises(SnapshotRefused) as refused:
        file.read(now=NOW + later, max_age=HOUR)
    assert refused.value.result == why


def test_a_failed_write_leaves_the_file_that_was_there(tmp_path):
    file = file_in(tmp_path)
    file.write(HELD)
    with pytest.raises(ValueError, match="surrogate"):
        file.write(Snapshot(float(NOW), {"\udc80": ('"1"', b"")}))
    assert file.read(now=NOW, max_age=HOUR) == HELD
    assert len(list((tmp_path / "snapshots").iterdir())) == 1


def test_an_object_of_it_is_bounded():
    assert unpacked(packed(b"x" * MAX_OBJECT_BYTES)) == b"x" * MAX_OBJECT_BYTES
    for bad in (packed(b"x" * (MAX_OBJECT_BYTES + 1)), b"no zlib", packed(b"x")[:-1]):
        with pytest.raises(ObjectUnreadable):
            unpacked(bad)


async def test_a_snapshot_answers_like_a_store():
    assert await HELD.list("realms/") == {"realms/x/realm.json": '"1"'}
    assert await HELD.list("keys/") == {}
    assert (await HELD.get("realms/x/realm.json")).body == b'{"x":1}'
    assert await HELD.get("realms/x/realm.json", etag='"1"') is None
    with pytest.raises(ObjectUnreadable) as gone:
        await HELD.get("realms/y/realm.json")
    assert gone.value.code == GONE


# --- the issuer --------------------------------------------------------------------------------------------


async def refresh(issuer):
    """Refresh both, as the background does; return what failed."""
    failed = []
    for refresher in (issuer.issuer.refresh_keys, issuer.issuer.refresh_credentials):
        try:
            await refresher()
        except StoreUnavailable as error:
            failed.append(error.code)
    return failed


async def readiness(issuer):
    answer = await issuer.call("GET", "/readyz?verbose")
    return answer.status, {name: (each["status"], each["detail"]) for name, each in answer.json["checks"].items()}


def counted(issuer, what, result):
    sample = "tokenry_credentials_snapshots_total"
    value = issuer.issuer.metrics.registry.get_sample_value(sample, {"what": what, "result": result})
    return int(value or 0)


FORM = {"grant_type": "client_credentials", "realm": "/services"}


async def filled(folder, **changes):
    async with running(load=False, credentials_snapshot_folder=folder, **changes) as issuer:
        assert await refresh(issuer) == []
        assert (counted(issuer, "credentials", "written"), counted(issuer, "keys", "written")) == (1, 1)


async def test_a_start_without_the_store_uses_the_snapshot_and_says_so(tmp_path):
    await filled(tmp_path)
    async with running(load=False, credentials_snapshot_folder=tmp_path) as issuer:
        issuer.store.outage = "timeout"
        issuer.clock.advance(HOUR)
        assert await refresh(issuer) == ["timeout", "timeout"]
        answer = await issuer.token(FORM)
        assert answer.status == 200
        status, checks = await readiness(issuer)
        assert status == 200
        assert checks["credentials"][0] == checks["keys"][0] == "degraded"
        assert "3600 s old, from the snapshot" in checks["credentials"][1]
        assert "from the snapshot" in checks["keys"][1]
        sample = issuer.issuer.metrics.registry.get_sample_value
        assert sample("tokenry_credentials_from_snapshot") == 1
        assert sample("tokenry_credentials_age_seconds") == HOUR
        # The store is back: what it says is in force, and nothing that it still has in that version is read again.
        issuer.store.outage = None
        issuer.store.reads.clear()
        issuer.store.change("realms/services/clients/orders.json", enabled=False)
        assert await refresh(issuer) == []
        assert issuer.store.reads == ["realms/services/clients/orders.json"]
        assert (await issuer.token(FORM)).status == 401
        assert (await readiness(issuer))[1]["credentials"][0] == "ok"
        assert sample("tokenry_credentials_from_snapshot") == 0


async def test_its_age_goes_on_counting_until_nothing_is_issued_any_more(tmp_path):
    await filled(tmp_path)
    async with running(load=False, credentials_snapshot_folder=tmp_path, credentials_hard_age=2 * HOUR) as issuer:
        issuer.store.outage = "timeout"
        issuer.clock.advance(HOUR)
        await refresh(issuer)
        assert (await issuer.token(FORM)).status == 200
        issuer.clock.advance(HOUR + 1)
        await refresh(issuer)
        assert (await issuer.token(FORM)).status == 503
        assert (await readiness(issuer))[0] == 503


async def test_one_that_is_too_old_at_start_is_not_used(tmp_path):
    await filled(tmp_path)
    async with running(load=False, credentials_snapshot_folder=tmp_path, credentials_hard_age=HOUR) as issuer:
        issuer.store.outage = "timeout"
        issuer.clock.advance(HOUR + 1)
        await refresh(issuer)
        assert (await issuer.token(FORM)).status == 503
        assert counted(issuer, "credentials", "too_old") == 1


async def test_a_damaged_one_is_ignored_with_an_alarm_and_the_store_awaited(tmp_path):
    await filled(tmp_path)
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[:-1])
    async with running(load=False, credentials_snapshot_folder=tmp_path) as issuer:
        issuer.store.outage = "timeout"
        with capture_logs() as logs:
            await refresh(issuer)
        errors = [(each["what"], each["why"]) for each in logs if each["log_level"] == "error"]
        assert errors == [("keys", "damaged"), ("credentials", "damaged")]
        assert (await readiness(issuer))[0] == 503
        issuer.store.outage = None
        assert await refresh(issuer) == []
        assert (await issuer.token(FORM)).status == 200


async def test_one_of_another_environment_is_refused(tmp_path):
    await filled(tmp_path)
    async with running(load=False, credentials_snapshot_folder=tmp_path, environment="production") as issuer:
        issuer.store.outage = "timeout"
        await refresh(issuer)
        assert counted(issuer, "credentials", "other_environment") == 1
        assert (await issuer.token(FORM)).status == 503


async def test_it_is_written_for_each_change_and_now_and_then_for_its_moment(tmp_path):
    async with running(load=False, credentials_snapshot_folder=tmp_path, credentials_hard_age=24 * HOUR) as issuer:
        for _ in range(3):
            await refresh(issuer)
        assert counted(issuer, "credentials", "written") == 1
        issuer.store.change("realms/services/clients/orders.json", scopes=["orders.read"])
        await refresh(issuer)
        assert counted(issuer, "credentials", "written") == 2
        issuer.clock.advance(HOUR + 1)
        await refresh(issuer)
        assert (counted(issuer, "credentials", "written"), counted(issuer, "keys", "written")) == (3, 2)
    async with running(load=False, credentials_snapshot_folder=tmp_path, credentials_hard_age=24 * HOUR) as issuer:
        issuer.store.outage = "timeout"
        issuer.clock.advance(24 * HOUR + 1)  # after the first write, not after the last
        await refresh(issuer)
        assert (await issuer.token(FORM | {"scope": "orders.write"})).error == "invalid_scope"
        assert (await issuer.token(FORM)).status == 200


async def test_a_corrupt_object_is_kept_in_its_last_good_version(tmp_path):
    async with running(load=False, credentials_snapshot_folder=tmp_path) as issuer:
        await refresh(issuer)
        issuer.store.put("realms/services/clients/orders.json", b"{corrupt")
        issuer.store.change("realms/services/clients/slow.json", scopes=["orders.read"])
        await refresh(issuer)
    async with running(load=False, credentials_snapshot_folder=tmp_path) as issuer:
        issuer.store.outage = "timeout"
        await refresh(issuer)
        assert (await issuer.token(FORM)).status == 200


async def test_a_folder_that_cannot_be_written_is_an_alarm_and_nothing_more(tmp_path):
    (tmp_path / "taken").write_text("a file where the folder should be")
    async with running(load=False, credentials_snapshot_folder=tmp_path / "taken") as issuer:
        assert await refresh(issuer) == []
        assert counted(issuer, "credentials", "write_failed") == 1
        assert (await issuer.token(FORM)).status == 200


async def test_nothing_is_kept_unless_a_folder_is_configured():
    async with running() as issuer:
        assert issuer.issuer.credentials.kept == {}
        assert counted(issuer, "credentials", "written") == 0


async def test_nothing_of_it_is_looked_at_once_the_store_was_read(tmp_path):
    await filled(tmp_path)
    async with running(load=False, credentials_snapshot_folder=tmp_path) as issuer:
        issuer.store.change("realms/services/clients/orders.json", enabled=False)
        assert await refresh(issuer) == []
        issuer.store.outage = "timeout"
        await refresh(issuer)
        assert (await issuer.token(FORM)).status == 401
        assert counted(issuer, "credentials", "restored") == 0
        assert SECRET not in repr(issuer.issuer.credentials.kept)
