"""What every place for applications' credentials must do: a folder, a bucket over HTTP, and the fake of other tests."""

import asyncio
import json
from functools import partial

import pytest

from tests.services.admin.support import MemoryFiles
from tests.support.processes import free_port
from tokenry.secret import Secret
from tokenry_admin.adapters.application_bucket import ApplicationBucket
from tokenry_admin.adapters.application_folder import ApplicationFolder
from tokenry_admin.plan_b_files import PROBE_NAME, check_application, credential_file
from tokenry_admin.ports import FilesUnavailable
from tokenry_cli.credentials import Place, sync_once
from tokenry_registry.adapters.s3 import make_client
from tokenry_registry.realms import ObjectKind


def _memory(_request):
    files = MemoryFiles()
    return files, lambda application, name: files.files[application, name]


def _folder(request):
    root = request.getfixturevalue("tmp_path") / "applications"
    return ApplicationFolder(root), lambda application, name: (root / application / name).read_bytes()


def _bucket(request):
    server, client = request.getfixturevalue("s3_server"), request.getfixturevalue("s3_client")
    bucket = request.getfixturevalue("s3_bucket")
    made = partial(
        make_client,
        endpoint_url=server.endpoint_url,
        region=server.region,
        access_key=(server.access_key_id, server.secret_access_key),
    )

    def read(application, name):
        return client.get_object(Bucket=bucket, Key=f"apps/{application}/{name}")["Body"].read()

    return ApplicationBucket(bucket, prefix="apps/", client=made), read


@pytest.fixture(params=[_memory, _folder, _bucket], ids=["memory", "folder", "bucket"])
async def place(request):
    files, read = request.param(request)
    yield files, read
    await files.close()


async def test_what_was_put_last_is_there_byte_for_byte(place):
    files, read = place
    for body in (b'{"a":1}', b'{"a":"\xc3\xbc"}'):
        await files.put("orders", "client.json", body)
        assert read("orders", "client.json") == body


async def test_a_probe_writes_only_what_nobody_reads(place):
    files, read = place
    await files.put("orders", "client.json", b"{}")
    await files.probe("orders")
    assert json.loads(read("orders", PROBE_NAME)) == {"status": "SUCCESS"}
    assert read("orders", "client.json") == b"{}"


async def test_many_at_once_do_not_mix(place):
    files, read = place
    await asyncio.gather(*(files.put(f"app{number}", "client.json", b"%d" % number) for number in range(12)))
    assert [read(f"app{number}", "client.json") for number in range(12)] == [b"%d" % number for number in range(12)]


async def test_a_place_that_is_away_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FilesUnavailable):
        await ApplicationFolder(tmp_path / "file").probe("orders")
    client = partial(make_client, endpoint_url=f"http://127.0.0.1:{free_port()}", region="x", access_key=("a", "b"))
    bucket = ApplicationBucket("bucket", client=client)
    async with asyncio.timeout(10):
        with pytest.raises(FilesUnavailable, match="EndpointConnectionError"):
            await bucket.probe("orders")
    await bucket.close()


async def test_a_bucket_that_is_not_there_is_named(s3_server):
    client = partial(make_client, endpoint_url=s3_server.endpoint_url, region=s3_server.region, access_key=("a", "b"))
    bucket = ApplicationBucket("no-such-bucket-at-all", client=client)
    with pytest.raises(FilesUnavailable, match=r"no-such-bucket-at-all.*NoSuchBucket"):
        await bucket.probe("orders")
    await bucket.close()


async def test_the_bucket_is_one_that_plan_bs_agent_and_ours_read(s3_server, s3_client, s3_bucket, tmp_path):
    """The writer's objects are what the agents expect: keys, content type, compact JSON."""
    client = partial(
        make_client, endpoint_url=s3_server.endpoint_url, region=s3_server.region,
        access_key=(s3_server.access_key_id, s3_server.secret_access_key),
    )  # fmt: skip
    bucket = ApplicationBucket(s3_bucket, client=client)
    for kind, name in ((ObjectKind.CLIENT, "orders"), (ObjectKind.USER, "robot")):
        await bucket.put("shop", *credential_file(kind, name, Secret("s3cret")))
    await bucket.close()
    stored = s3_client.get_object(Bucket=s3_bucket, Key="shop/client.json")
    assert stored["ContentType"] == "application/json"
    assert stored["Body"].read() == b'{"client_id":"orders","client_secret":"s3cret"}'

    def read(name):
        return s3_client.get_object(Bucket=s3_bucket, Key=f"shop/{name}.json")["Body"].read()

    place = Place(bucket=s3_bucket, prefix="", application="shop")
    assert sync_once(tmp_path, place, read=read) == []
    assert json.loads((tmp_path / "user.json").read_text()) == {
        "application_username": "robot", "application_password": "s3cret",
    }  # fmt: skip


async def test_the_folders_files_are_for_their_owner_alone(tmp_path):
    await ApplicationFolder(tmp_path).put("orders", "client.json", b"{}")
    assert (tmp_path / "orders" / "client.json").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in (tmp_path / "orders").iterdir()] == ["client.json"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 129, "ü"])
def test_no_application_is_called_like_that(name):
    from tokenry.errors import ProtocolError

    with pytest.raises(ProtocolError):
        check_application(name)
