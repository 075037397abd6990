"""
What every `ObjectStore` must do: a folder, S3 over HTTP, and the store in memory that other tests use.

Some are filled from beside the port, as by a deployment; the last section is about writing through it.
"""

import asyncio
from functools import partial

import pytest
from botocore.stub import Stubber

from tests.services.issuer.support import MemoryStore
from tests.support.registry_store import MemoryRegistry
from tokenry_registry.adapters.directory import DirectoryStore
from tokenry_registry.adapters.s3 import S3Store, make_client
from tokenry_registry.ports import (
    GONE,
    MAX_OBJECT_BYTES,
    ObjectUnreadable,
    StoreUnavailable,
    WriteConflict,
    WriteRefused,
)

PAGE = 20  # keys that S3 is asked for at once, so that a few objects need several pages


class Filled:
    """A store, and how it is filled."""

    def __init__(self, store, put, delete):
        self.store = store
        self.put = put
        self.delete = delete


def _in_memory(_request):
    store = MemoryStore()
    return Filled(store, store.put, store.delete)


def _in_registry(_request):
    store = MemoryRegistry()
    return Filled(store, store.fill, store.drop)


def _in_folder(request):
    root = request.getfixturevalue("tmp_path") / "credentials"
    root.mkdir()

    def put(key, body):
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(".temporary")
        temporary.write_bytes(body)
        temporary.replace(path)

    return Filled(DirectoryStore(root), put, lambda key: (root / key).unlink())


def _in_s3(request):
    server, writer = request.getfixturevalue("s3_server"), request.getfixturevalue("s3_client")
    bucket = request.getfixturevalue("s3_bucket")
    prefix = "platform/issuer/"
    writer.put_object(Bucket=bucket, Key="platform/other/keys/x.json", Body=b"not ours")
    return Filled(
        S3Store(bucket, prefix=prefix, page_size=PAGE, client=client_of(server)),
        lambda key, body: writer.put_object(Bucket=bucket, Key=prefix + key, Body=body),
        lambda key: writer.delete_object(Bucket=bucket, Key=prefix + key),
    )


def client_of(server):
    return partial(
        make_client,
        endpoint_url=server.endpoint_url,
        region=server.region,
        access_key=(server.access_key_id, server.secret_access_key),
    )


@pytest.fixture(params=[_in_memory, _in_registry, _in_folder, _in_s3], ids=["memory", "registry", "folder", "s3"])
async def filled(request):
    made = request.param(request)
    yield made
    await made.store.close()


async def unreadable(store, key):
    with pytest.raises(ObjectUnreadable) as error:
        await store.get(key)
    return error.value.code


async def test_an_empty_store_lists_nothing(filled):
    assert dict(await filled.store.list("")) == {}
    assert dict(await filled.store.list("keys/")) == {}


async def test_what_was_put_is_listed_and_read_byte_for_byte(filled):
    body = bytes(range(256))
    filled.put("keys/a.json", body)
    listed = await filled.store.list("keys/")
    found = await filled.store.get("keys/a.json")
    assert found.body == body
    assert listed == {"keys/a.json": found.etag}


async def test_only_the_prefix_is_listed_at_any_depth(filled):
    for key in ("keys/a.json", "keysmith.json", "realms/x/realm.json", "realms/x/clients/c.json"):
        filled.put(key, b"{}")
    assert set(await filled.store.list("keys/")) == {"keys/a.json"}
    assert set(await filled.store.list("realms/")) == {"realms/x/realm.json", "realms/x/clients/c.json"}


async def test_another_content_has_another_etag_and_the_same_keeps_its_own(filled):
    filled.put("keys/a.json", b"one")
    first = await filled.store.list("")
    assert await filled.store.list("") == first
    filled.put("keys/a.json", b"two")
    second = await filled.store.list("")
    assert first["keys/a.json"] != second["keys/a.json"]


async def test_a_conditional_read_gives_nothing_until_it_changes(filled):
    filled.put("keys/a.json", b"one")
    found = await filled.store.get("keys/a.json")
    assert await filled.store.get("keys/a.json", etag=found.etag) is None
    filled.put("keys/a.json", b"two")
    assert (await filled.store.get("keys/a.json", etag=found.etag)).body == b"two"


async def test_a_deleted_object_is_gone_from_both(filled):
    filled.put("keys/a.json", b"one")
    filled.put("keys/b.json", b"one")
    filled.delete("keys/a.json")
    assert set(await filled.store.list("")) == {"keys/b.json"}
    assert await unreadable(filled.store, "keys/a.json") == GONE


async def test_an_object_that_never_was_is_unreadable(filled):
    assert await unreadable(filled.store, "keys/none.json") == GONE
    assert await unreadable(filled.store, "none/none/none.json") == GONE


async def test_names_with_odd_characters_are_kept(filled):
    key = "realms/services/clients/a b:ü+%41&=#.json"
    filled.put(key, b"odd")
    assert set(await filled.store.list("realms/")) == {key}
    assert (await filled.store.get(key)).body == b"odd"


async def test_an_object_above_the_bound_is_unreadable_and_one_at_it_is_not(filled):
    filled.put("keys/max.json", b"x" * MAX_OBJECT_BYTES)
    filled.put("keys/over.json", b"x" * (MAX_OBJECT_BYTES + 1))
    assert len((await filled.store.get("keys/max.json")).body) == MAX_OBJECT_BYTES
    assert await unreadable(filled.store, "keys/over.json") == "too_large"


async def test_many_objects_are_listed_completely_and_read_at_once(filled):
    keys = {f"realms/many/clients/c{number:04}.json" for number in range(5 * PAGE // 2)}
    for key in keys:
        filled.put(key, b"{}")
    assert set(await filled.store.list("realms/")) == keys
    found = await asyncio.gather(*(filled.store.get(key) for key in keys))
    assert all(each.body == b"{}" for each in found)


# --- writing ----------------------------------------------------------------------------------------------


@pytest.fixture(params=[_in_registry, _in_folder, _in_s3], ids=["registry", "folder", "s3"])
async def writable(request):
    made = request.param(request)
    yield made
    await made.store.close()


async def test_what_is_written_through_the_port_is_read_and_listed_with_the_etag_that_it_gave(writable):
    store = writable.store
    etag = await store.put("realms/a b/clients/ü.json", b"one", replaces=None)
    found = await store.get("realms/a b/clients/ü.json")
    assert (found.body, found.etag) == (b"one", etag)
    assert await store.list("realms/") == {"realms/a b/clients/ü.json": etag}


async def test_an_object_is_created_only_where_there_is_none(writable):
    await writable.store.put("keys/a.json", b"one", replaces=None)
    with pytest.raises(WriteConflict):
        await writable.store.put("keys/a.json", b"two", replaces=None)
    assert (await writable.store.get("keys/a.json")).body == b"one"


async def test_only_the_version_that_was_read_is_replaced(writable):
    first = await writable.store.put("keys/a.json", b"one", replaces=None)
    second = await writable.store.put("keys/a.json", b"two", replaces=first)
    with pytest.raises(WriteConflict):
        await writable.store.put("keys/a.json", b"three", replaces=first)
    assert (await writable.store.get("keys/a.json")).body == b"two"
    await writable.store.put("keys/a.json", b"three", replaces=second)
    assert (await writable.store.get("keys/a.json")).body == b"three"


async def test_nothing_is_replaced_or_deleted_where_nothing_is(writable):
    etag = await writable.store.put("keys/a.json", b"one", replaces=None)
    with pytest.raises(WriteConflict):
        await writable.store.put("keys/b.json", b"two", replaces=etag)
    with pytest.raises(WriteConflict):
        await writable.store.delete("keys/b.json", replaces=etag)
    assert set(await writable.store.list("")) == {"keys/a.json"}


async def test_only_the_version_that_was_read_is_deleted(writable):
    first = await writable.store.put("keys/a.json", b"one", replaces=None)
    second = await writable.store.put("keys/a.json", b"two", replaces=first)
    with pytest.raises(WriteConflict):
        await writable.store.delete("keys/a.json", replaces=first)
    await writable.store.delete("keys/a.json", replaces=second)
    assert await unreadable(writable.store, "keys/a.json") == GONE


async def test_of_many_writers_of_one_version_exactly_one_wins(writable):
    first = await writable.store.put("keys/a.json", b"0", replaces=None)
    writes = [writable.store.put("keys/a.json", b"%d" % number, replaces=first) for number in range(1, 9)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    winners = [number for number, result in enumerate(results, 1) if isinstance(result, str)]
    assert [type(result) for result in results].count(WriteConflict) == 7
    assert (await writable.store.get("keys/a.json")).body == b"%d" % winners[0]


async def test_an_object_above_the_bound_is_not_written(writable):
    with pytest.raises(WriteRefused, match="too_large"):
        await writable.store.put("keys/over.json", b"x" * (MAX_OBJECT_BYTES + 1), replaces=None)
    assert dict(await writable.store.list("")) == {}


# --- the folder alone -------------------------------------------------------------------------------------


async def test_a_missing_folder_is_an_outage_and_no_empty_store(tmp_path):
    store = DirectoryStore(tmp_path / "none")
    with pytest.raises(StoreUnavailable):
        await store.list("")
    await store.close()


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/passwd", "", "a//b", ".hidden", "a\0b", "."])
async def test_no_key_leads_out_of_the_folder(tmp_path, key):
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    (root / ".hidden").write_bytes(b"hidden")
    store = DirectoryStore(root)
    assert await unreadable(store, key) == GONE
    await store.close()


@pytest.mark.parametrize("key", ["../secret", "a/../../secret", "/etc/passwd", "", ".hidden", "a\0b"])
async def test_no_key_writes_or_deletes_out_of_the_folder(tmp_path, key):
    (tmp_path / "secret").write_bytes(b"secret")
    root = tmp_path / "root"
    root.mkdir()
    store = DirectoryStore(root)
    with pytest.raises(WriteRefused):
        await store.put(key, b"x", replaces=None)
    with pytest.raises(WriteConflict):
        await store.delete(key, replaces="x")
    assert (tmp_path / "secret").read_bytes() == b"secret"
    assert not list(root.iterdir())
    await store.close()


async def test_two_stores_on_one_folder_take_turns(tmp_path):
    stores = [DirectoryStore(tmp_path) for _ in range(4)]
    first = await stores[0].put("a.json", b"0", replaces=None)
    writes = [store.put("a.json", b"%d" % number, replaces=first) for number, store in enumerate(stores * 4, 1)]
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert sum(isinstance(result, str) for result in results) == 1
    for store in stores:
        await store.close()


async def test_what_is_written_is_for_its_owner_alone(tmp_path):
    store = DirectoryStore(tmp_path)
    await store.put("keys/a.json", b"x", replaces=None)
    assert (tmp_path / "keys" / "a.json").stat().st_mode & 0o777 == 0o600
    await store.close()


async def test_what_a_writer_or_an_orchestrator_hides_is_not_listed(tmp_path):
    (tmp_path / ".tmp").write_bytes(b"half")
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "a.json").write_bytes(b"x")
    (tmp_path / "a.json").symlink_to(tmp_path / "..data" / "a.json")
    store = DirectoryStore(tmp_path)
    assert set(await store.list("")) == {"a.json"}
    assert (await store.get("a.json")).body == b"x"
    await store.close()


async def test_a_folder_or_a_pipe_is_no_object(tmp_path):
    (tmp_path / "folder.json").mkdir()
    store = DirectoryStore(tmp_path)
    assert await unreadable(store, "folder.json") == GONE
    assert dict(await store.list("")) == {}
    await store.close()


# --- S3 alone ---------------------------------------------------------------------------------------------


async def test_a_bucket_that_is_not_there_is_an_outage(s3_server):
    store = S3Store("no-such-bucket-at-all", client=client_of(s3_server))
    with pytest.raises(StoreUnavailable) as error:
        await store.list("")
    assert error.value.code == "NoSuchBucket"
    await store.close()


async def test_F01_a_server_that_is_away_is_an_outage_within_seconds():
    from tests.support.processes import free_port

    client = partial(make_client, endpoint_url=f"http://127.0.0.1:{free_port()}", region="x", access_key=("a", "b"))
    store = S3Store("bucket", client=client)
    async with asyncio.timeout(10):
        with pytest.raises(StoreUnavailable) as listed:
            await store.list("")
        with pytest.raises(StoreUnavailable):
            await store.get("keys/a.json")
    assert listed.value.code == "EndpointConnectionError"
    await store.close()


def test_F02_the_deadlines_of_s3_are_short(s3_server):
    client = client_of(s3_server)()
    assert client.meta.config.connect_timeout == 1
    assert client.meta.config.read_timeout == 4
    assert client.meta.config.retries["total_max_attempts"] == 2
    client.close()


@pytest.mark.parametrize(
    ("code", "status", "raised"),
    [
        ("AccessDenied", 403, ObjectUnreadable("forbidden")),
        ("NoSuchKey", 404, ObjectUnreadable(GONE)),
        ("ExpiredToken", 400, StoreUnavailable("ExpiredToken")),
        ("SlowDown", 503, StoreUnavailable("SlowDown")),
        ("InternalError", 500, StoreUnavailable("InternalError")),
    ],
)
async def test_F03_F07_what_s3_answers_is_the_objects_fault_or_an_outage(s3_server, code, status, raised):
    client = client_of(s3_server)()
    with Stubber(client) as answers:
        answers.add_client_error("get_object", service_error_code=code, http_status_code=status)
        store = S3Store("bucket", client=lambda: client)
        with pytest.raises(type(raised)) as error:
            await store.get("keys/a.json")
        await store.close()
    assert error.value.code == raised.code
