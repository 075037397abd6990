import json
import stat
import threading

import pytest
from typer.testing import CliRunner

from tokenry_cli.__main__ import app
from tokenry_cli.credentials import ObjectUnavailable, Place, parse_place, run, sync_once
from tokenry_cli.files import replace_file

CLIENT = {"client_id": "orders-1", "client_secret": "s3cret"}
USER = {"application_username": "orders", "application_password": "passw0rd"}
PLACE = Place(bucket="mint", prefix="", application="orders")


def reader(objects):
    def read(name):
        content = objects[name]
        if isinstance(content, Exception):
            raise content
        return content

    return read


def both(client=CLIENT, user=USER):
    return {"client": json.dumps(client).encode(), "user": json.dumps(user).encode()}


def test_what_has_changed_is_written_and_nothing_else(tmp_path):
    assert sync_once(tmp_path, PLACE, read=reader(both())) == []
    first = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert json.loads((tmp_path / "client.json").read_bytes()) == CLIENT
    sync_once(tmp_path, PLACE, read=reader(both(user=USER | {"application_password": "new"})))
    second = {path.name: path.stat().st_ino for path in tmp_path.iterdir()}
    assert set(second) == {"client.json", "user.json"}
    assert first["client.json"] == second["client.json"]
    assert first["user.json"] != second["user.json"]


def test_files_are_for_their_owner_alone_unless_said_otherwise(tmp_path):
    sync_once(tmp_path, PLACE, read=reader(both()))
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600
    replace_file(tmp_path / "client.json", b"{}", mode=0o640)
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o640


@pytest.mark.parametrize("bad", [b"", b"{", b"[]", b"{}", b"\xff", ObjectUnavailable("not allowed")], ids=repr)
def test_what_cannot_be_used_leaves_the_old_file_and_the_other_goes_on(tmp_path, bad):
    sync_once(tmp_path, PLACE, read=reader(both()))
    new = both(client=CLIENT | {"client_secret": "new"}) | {"user": bad}
    [fault] = sync_once(tmp_path, PLACE, read=reader(new))
    assert "mint/orders/user.json" in fault
    assert json.loads((tmp_path / "user.json").read_bytes()) == USER
    assert json.loads((tmp_path / "client.json").read_bytes())["client_secret"] == "new"


def test_a_file_that_was_damaged_is_written_again(tmp_path):
    (tmp_path / "client.json").write_bytes(b"{half")
    assert sync_once(tmp_path, PLACE, read=reader(both())) == []
    assert json.loads((tmp_path / "client.json").read_bytes()) == CLIENT


def test_a_folder_that_cannot_be_written_to_is_a_fault(tmp_path):
    faults = sync_once(tmp_path / "missing", PLACE, read=reader(both()))
    assert len(faults) == 2
    assert "passw0rd" not in "".join(faults)


def test_no_reader_ever_sees_half_a_file(tmp_path):
    path, stop, seen = tmp_path / "client.json", threading.Event(), set()
    versions = [json.dumps({"v": number, "pad": "x" * 40_000}).encode() for number in range(2)]
    replace_file(path, versions[0], mode=0o600)

    def look():
        while not stop.is_set():
            seen.add(path.read_bytes())

    thread = threading.Thread(target=look)
    thread.start()
    for number in range(100):
        replace_file(path, versions[number % 2], mode=0o600)
    stop.set()
    thread.join()
    assert seen <= set(versions)


def test_the_loop_goes_on_after_whatever_went_wrong(tmp_path):
    stop, looks = threading.Event(), []

    def make_reader(_place):
        looks.append(1)
        if len(looks) == 1:
            raise RuntimeError("a defect")
        if len(looks) == 3:
            stop.set()
        return reader(both())

    run(tmp_path, PLACE, interval=0.01, mode=0o600, stop=stop, reader=make_reader)
    assert len(looks) == 3
    assert json.loads((tmp_path / "client.json").read_bytes()) == CLIENT


@pytest.mark.parametrize(
    ("bucket", "place"),
    [
        ("mint", Place(bucket="mint", prefix="", application="orders")),
        ("s3://mint", Place(bucket="mint", prefix="", application="orders")),
        ("s3://mint/a/b/", Place(bucket="mint", prefix="a/b/", application="orders")),
    ],
)
def test_a_place_is_a_bucket_or_an_address(bucket, place):
    assert parse_place(bucket, "orders") == place
    assert place.key("user").endswith("orders/user.json")


def invoke(*arguments, env=None):
    return CliRunner().invoke(app, ["credentials", "sync", *arguments], env=env)


def test_from_s3_over_http(tmp_path, s3_server, s3_client, s3_bucket):
    s3_client.put_object(Bucket=s3_bucket, Key="orders/client.json", Body=json.dumps(CLIENT).encode())
    arguments = (str(tmp_path), "--bucket", s3_bucket, "--application", "orders", "--once")
    missing = invoke(*arguments, env=s3_server.environment)
    assert missing.exit_code == 1
    assert "there is no such object" in missing.output
    assert json.loads((tmp_path / "client.json").read_bytes()) == CLIENT
    s3_client.put_object(Bucket=s3_bucket, Key="orders/user.json", Body=json.dumps(USER).encode())
    done = invoke(*arguments, env=s3_server.environment)
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "user.json").read_bytes()) == USER
    assert "passw0rd" not in missing.output + done.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("--bucket", "UPPER", "--application", "orders"),
        ("--bucket", "mint", "--application", "../x"),
        ("--bucket", "mint", "--application", "orders", "--mode", "999"),
    ],
    ids=str,
)
def test_arguments_are_checked(tmp_path, arguments):
    assert invoke(str(tmp_path), *arguments, "--once").exit_code == 2
