"""Where rules are read from: one suite for the folder and for the bucket."""

import json
from pathlib import Path

import pytest

from tokenry_revocation.adapters.rules_directory import RulesDirectory
from tokenry_revocation.adapters.rules_s3 import RulesBucket
from tokenry_revocation.authorization import MAX_RULE_BYTES, parse_rule
from tokenry_revocation.rules import RulesUnavailable

RULE = json.dumps({"caller": {"sub": "a"}, "may_revoke": {"free": ["sub"]}}).encode()


class Folder:
    def __init__(self, root: Path) -> None:
        self.root, self.objects = root, RulesDirectory(root)

    def put(self, name: str, body: bytes) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name("temporary")
        temporary.write_bytes(body)
        temporary.rename(path)

    def delete(self, name: str) -> None:
        (self.root / name).unlink()


class Bucket:
    def __init__(self, client, bucket: str) -> None:
        self.client, self.bucket = client, bucket
        self.objects = RulesBucket(bucket, "prod/", client=client)

    def put(self, name: str, body: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"prod/{name}", Body=body)

    def delete(self, name: str) -> None:
        self.client.delete_object(Bucket=self.bucket, Key=f"prod/{name}")


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    if request.param == "folder":
        return Folder(tmp_path)
    client = request.getfixturevalue("s3_client")
    return Bucket(client, request.getfixturevalue("s3_bucket"))


def test_a_place_without_rules_has_none(place):
    assert place.objects.list() == {}


def test_rules_are_listed_by_name_and_read(place):
    place.put("revocation-rules/shop.json", RULE)
    place.put("revocation-rules/notes.txt", b"x")
    place.put("revocation-rules/deeper/other.json", RULE)
    place.put("realms/services/realm.json", b"{}")
    assert set(place.objects.list()) == {"shop"}
    assert parse_rule("shop", place.objects.get("shop")).free == {"sub"}


def test_a_changed_rule_has_another_tag_and_a_deleted_one_is_gone(place):
    place.put("revocation-rules/shop.json", RULE)
    before = place.objects.list()
    assert place.objects.list() == before
    place.put("revocation-rules/shop.json", RULE.replace(b'"a"', b'"b"'))
    assert place.objects.list() != before
    place.delete("revocation-rules/shop.json")
    assert place.objects.list() == {}


def test_no_more_than_a_rule_may_have_is_read(place):
    place.put("revocation-rules/big.json", b" " * (MAX_RULE_BYTES + 10))
    assert len(place.objects.get("big")) == MAX_RULE_BYTES + 1


def test_a_rule_that_is_not_there_is_unavailable(place):
    with pytest.raises(RulesUnavailable):
        place.objects.get("gone")


def test_a_bucket_that_is_not_there_is_unavailable(s3_client):
    objects = RulesBucket("nowhere-at-all", "", client=s3_client)
    with pytest.raises(RulesUnavailable):
        objects.list()
