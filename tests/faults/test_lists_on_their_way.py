"""Lists on their way: publishers that die or sleep, a million entries, and news twice, late and in any order."""

import itertools
import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.support.faulted import FaultedPlatform, until
from tests.support.http import Answer, call
from tests.support.http_faults import Exchanged, HttpFaults
from tests.support.processes import free_port
from tokenry.jose.encoding import parse_json_object
from tokenry.jose.jws import split
from tokenry.revocation.blocks import Block
from tokenry.revocation.fingerprints import token_fingerprint
from tokenry.revocation.signed import MAX_SIGNED_BYTES, digest_of
from tokenry.revocation.wire import BINARY_TYPE, format_binary_list, parse_binary_list

if TYPE_CHECKING:
    from tests.support.s3 import S3Server

pytestmark = pytest.mark.processes

Back = Callable[..., float]
PUBLISH_SECONDS = 6  # of 30 by default; who stands by takes over after a period and a quarter
READ_SECONDS = 150.0  # a reader asks for the signed list once a minute while it is young enough
PUBLISHERS = ("publisher-a", "publisher-b")
TURNS = "tokenry_signed_list_turns_total"
REFUSED = "tokenry_revocation_rejected_total"
ENTRIES = "tokenry_revocation_list_entries"
OBJECT = "revocation-list.jwt"
ANSWERED_SECONDS = 30.0  # two large lists are made and loaded at the time, on a machine that does other things
MANY = 1_000_000
BEYOND = 10_000_001  # one more than any reader of ours takes


# --- publishers --------------------------------------------------------------------------------------------------


@dataclass
class Publishing:
    """
    Two replicas of the revocation service that publish into one bucket, which keeps every version ever written.

    Attributes:
        platform: What stands around them.
        bucket: Where they publish.
        lines: Between each of them and S3.
    """

    platform: FaultedPlatform
    bucket: str
    lines: dict[str, HttpFaults] = field(default_factory=dict)

    def issues(self) -> list[dict[str, Any]]:
        """Return what every version says, by its number, with the digest of its bytes."""
        found = []
        pages = self.platform.s3_client.get_paginator("list_object_versions").paginate(Bucket=self.bucket)
        for version in (each for page in pages for each in page.get("Versions", [])):
            key, name = version["Key"], version["VersionId"]
            body = self.platform.s3_client.get_object(Bucket=self.bucket, Key=key, VersionId=name)["Body"].read()
            issue = parse_json_object(split(body.decode(), max_bytes=MAX_SIGNED_BYTES).payload)
            found.append({**issue, "digest": digest_of(body.decode())})
        return sorted(found, key=lambda issue: issue["seq"])

    def latest(self) -> dict[str, Any]:
        """Return what the last issue says."""
        body = self.platform.s3_client.get_object(Bucket=self.bucket, Key=f"signed/{OBJECT}")["Body"].read()
        return parse_json_object(split(body.decode(), max_bytes=MAX_SIGNED_BYTES).payload)

    def turns(self, name: str, result: str) -> float:
        return self.platform.metric(name, TURNS, result=result)

    def leader(self) -> str:
        """Return who publishes now: whose issues get more."""
        before = {name: self.turns(name, "published") for name in PUBLISHERS}
        grown: list[str] = []

        def tell() -> bool:
            grown[:] = [name for name in PUBLISHERS if self.turns(name, "published") > before[name]]
            return bool(grown)

        until(tell, seconds=60)
        assert len(grown) == 1, grown
        return grown[0]

    def taken_over(self) -> Callable[[], bool]:
        """Return what tells whether another run publishes than does now."""
        stream = self.latest()["stream"]
        return lambda: self.latest()["stream"] != stream


@pytest.fixture
def publishing(platform: FaultedPlatform, s3_server: "S3Server") -> Iterator[Publishing]:
    bucket = f"lists-{uuid.uuid4().hex[:8]}"
    platform.s3_client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    platform.s3_client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    readable = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{bucket}/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [readable]})
    platform.s3_client.put_bucket_policy(Bucket=bucket, Policy=policy)
    made = Publishing(platform, bucket)
    for name in PUBLISHERS:
        line = made.lines[name] = HttpFaults(("127.0.0.1", s3_server.port))
        settings = {
            "TOKENRY_LIST_PUBLISH_URL": f"s3://{bucket}/signed/",
            "TOKENRY_LIST_PUBLISH_INTERVAL": f"{PUBLISH_SECONDS}s",
            "TOKENRY_LIST_ENVELOPE_KEY_FILE": str(platform._folder.envelope_key),
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{line.address[1]}",
        }
        platform.another("revocation", name, settings)
    for name in PUBLISHERS:
        platform.process(name).wait_until_http(platform.url(name, "/readyz"), seconds=60)
    until(lambda: len(made.issues()) > 1, seconds=60)
    platform.another(
        "tokeninfo",
        "reader",
        {
            "TOKENRY_REVOCATION_URL": f"http://127.0.0.1:{free_port()}",  # nobody is there
            "TOKENRY_SIGNED_LIST_URL": f"{s3_server.endpoint_url}/{bucket}/signed/{OBJECT}",
        },
    )
    platform.process("reader").wait_until_http(platform.url("reader", "/readyz"), seconds=60)
    yield made
    for name in (*PUBLISHERS, "reader"):
        platform._running.pop(name).kill()
    for line in made.lines.values():
        line.close()


@contextmanager
def asked_all_the_time(platform: FaultedPlatform, name: str, token: str) -> Iterator[list[tuple[int, float, float]]]:
    """Ask a token info for *token* without end; yields status, seconds and the list's `as_of` of each answer."""
    answers: list[tuple[int, float, float]] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            began = time.monotonic()
            answer = call("GET", platform.url(name, "/oauth2/tokeninfo"), bearer=token, seconds=60)
            stamp = dict(part.strip().split("=") for part in answer.headers.get("tokenry-list", "as_of=0").split(","))
            answers.append((answer.status, time.monotonic() - began, float(stamp["as_of"])))
            stop.wait(0.02)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield answers
        finally:
            stop.set()
        asking.result()


def published(publishing: Publishing, by: str) -> str:
    """Revoke a token at the replica *by*, wait until an issue is complete beyond that, and return the token."""
    platform = publishing.platform
    token, admin = platform.token(), platform.admin_token()
    assert platform.revoke(token, admin=admin, service=by).status == 201
    acknowledged = time.time()
    until(lambda: publishing.latest()["as_of"] > acknowledged, seconds=60, every=0.2)
    return token


def test_F22_F23_publishers_that_sleep_late_writes_and_a_kill_never_fork_the_list_or_take_readers_back(
    platform: FaultedPlatform, publishing: Publishing, back: Back
) -> None:
    revoked = []
    with asked_all_the_time(platform, "reader", platform.token()) as answers:
        # Each of the two sleeps (SIGSTOP) while it publishes; the other goes on, and whoever wakes up stands by.
        for _ in PUBLISHERS:
            asleep = publishing.leader()
            (awake,) = set(PUBLISHERS) - {asleep}
            overtaken, is_taken_over = publishing.turns(asleep, "overtaken"), publishing.taken_over()
            platform.process(asleep).pause()
            back("F22", is_taken_over)
            revoked.append(published(publishing, awake))
            platform.process(asleep).resume()
            until(lambda: publishing.turns(asleep, "overtaken") > overtaken, seconds=60)  # noqa: B023 -- in its turn
            assert publishing.leader() == awake

        # A write that was on its way all the time arrives when another one publishes: it is refused there.
        slow, is_taken_over, arrive = publishing.leader(), publishing.taken_over(), threading.Event()
        late: list[int] = []

        def held(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
            if OBJECT not in target or arrive.is_set():
                return ask()
            arrive.wait(120)
            answer = ask()
            late.append(answer.status)
            return answer

        publishing.lines[slow].change(held)
        back("F22", is_taken_over)
        arrive.set()
        until(lambda: 412 in late, seconds=60)
        publishing.lines[slow].pass_()
        revoked.append(published(publishing, slow))

        # And one is killed.
        gone, is_taken_over = publishing.leader(), publishing.taken_over()
        platform.process(gone).kill()
        back("F22", is_taken_over)
        (left,) = set(PUBLISHERS) - {gone}
        revoked.append(published(publishing, left))
        url = platform.url("reader", "/oauth2/tokeninfo")
        for token in revoked:
            until(lambda: call("GET", url, bearer=token).status == 401, seconds=READ_SECONDS)  # noqa: B023

    issues = publishing.issues()
    assert len({issue["stream"] for issue in issues}) == 2
    numbers = [issue["seq"] for issue in issues]
    assert len(set(numbers)) == len(numbers)  # no number twice, in all that was ever written
    for before, after in itertools.pairwise(issues):
        assert after["prev"] == before["digest"], (before["seq"], after["seq"])
        assert after["as_of"] > before["as_of"]
    assert {status for status, _, _ in answers} == {200}
    read = [as_of for _, _, as_of in answers]
    assert read == sorted(read)
    assert read[-1] > read[0]
    assert platform.metric("reader", REFUSED) == 0


# --- a million entries -------------------------------------------------------------------------------------------


def columns(count: int) -> Block:
    """Return a block of *count* made-up fingerprints, as evenly spread as real ones."""
    step = 2**128 // (count + 1)
    until_when = (int(time.time()) + 3600).to_bytes(4, "big")
    fingerprints = b"".join((number * step).to_bytes(16, "big") for number in range(1, count + 1))
    return Block.read(fingerprints, until_when * count)


def test_F27_while_a_million_entries_are_loaded_good_tokens_are_answered_and_more_than_the_bound_is_refused_whole(
    platform: FaultedPlatform,
) -> None:
    good, listed, admin = platform.token(), platform.token(), platform.admin_token()
    parts = urlsplit(platform.url("revocation", ""))
    answers = HttpFaults((str(parts.hostname), int(parts.port or 0)))
    platform.another("tokeninfo", "large", {"TOKENRY_REVOCATION_URL": f"http://127.0.0.1:{answers.address[1]}"})
    platform.process("large").wait_until_http(platform.url("large", "/readyz"), seconds=60)

    def with_columns(block: Block) -> Callable[[str, Callable[[], Exchanged]], Exchanged]:
        """Answer that changes are not known any more, and then with a whole list that has *block* as well."""

        def answer(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
            if "/changes" in target:
                return Exchanged(410, {"Content-Type": "application/problem+json"}, b"{}")
            said = ask()
            if "/snapshot" not in target or said.headers.get("Content-Type") != BINARY_TYPE:
                return said
            document = parse_binary_list(said.body)
            salt = next(iter(document.salts.values()))
            mine = {token_fingerprint(listed.rpartition(".")[0], salt=salt): int(time.time()) + 3600}
            return replace(said, body=format_binary_list(replace(document, block=block.merged(mine))))

        return answer

    def of_large(token: str) -> int:
        return call("GET", platform.url("large", "/oauth2/tokeninfo"), bearer=token, seconds=60).status

    million, beyond = columns(MANY), columns(BEYOND)
    try:
        assert of_large(listed) == 200
        with asked_all_the_time(platform, "large", good) as asked:
            answers.change(with_columns(million))
            # What is held now is answered by the service itself within 25 s; then the whole list is asked for.
            until(lambda: platform.metric("large", ENTRIES) > MANY, seconds=120, every=0.2)
            until(lambda: of_large(listed) == 401, seconds=60)
            refused, known = platform.metric("large", REFUSED), platform.metric("large", ENTRIES)
            answers.change(with_columns(beyond))
            until(lambda: platform.metric("large", REFUSED) > refused, seconds=180, every=0.2)
            assert platform.metric("large", ENTRIES) == known
            assert of_large(listed) == 401
            answers.pass_()
            meanwhile = platform.token()
            assert platform.revoke(meanwhile, admin=admin).status == 201
            until(lambda: of_large(meanwhile) == 401, seconds=120, every=0.2)  # the last good one stays, and goes on
            assert of_large(listed) == 401
        assert {status for status, _, _ in asked} == {200}
        assert len(asked) > 50
        assert max(seconds for _, seconds, _ in asked) < ANSWERED_SECONDS
        assert platform.metric("large", "tokenry_unhandled_errors_total") == 0
    finally:
        platform._running.pop("large").kill()
        answers.close()


# --- twice, late, in any order -----------------------------------------------------------------------------------


def test_F28_revocations_posted_twice_and_late_and_told_twice_and_in_any_order_are_all_in_force(
    platform: FaultedPlatform,
) -> None:
    chance = random.Random(28)  # noqa: S311 -- the same in every run
    good, admin = platform.token(), platform.admin_token()
    tokens = [platform.token() for _ in range(24)]
    subject = f"late-{uuid.uuid4().hex}"
    now = int(time.time())
    cut_offs = [now - 5, now - 500, now - 50]
    rules = [{"type": "CLAIM", "data": {"claims": {"sub": subject}, "issued_before": each}} for each in cut_offs]
    posts = [{"type": "TOKEN", "data": {"token": token}} for token in tokens] * 2 + rules * 2
    chance.shuffle(posts)
    told: list[Exchanged] = []

    def mixed_up(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        """Every answer once in its turn, and after it earlier ones again."""
        if "/changes" not in target:
            return ask()
        if told and chance.random() < 0.5:
            return chance.choice(told)
        answer = ask()
        if answer.status == 200:
            told.append(answer)
        return answer

    platform.list_answers.change(mixed_up)
    platform.list_line.reset()
    url = platform.url("revocation", "/revocations")
    made: list[Answer] = []
    with ThreadPoolExecutor(6) as pool:
        for first in range(0, len(posts), 6):  # in a few waves, so that there are a few answers to mix up
            asked = [pool.submit(call, "POST", url, document=each, bearer=admin) for each in posts[first : first + 6]]
            made += [each.result() for each in asked]
            known = len(told)
            until(lambda: len(told) > known, seconds=60)  # noqa: B023 -- in its turn
    assert {answer.status for answer in made} <= {200, 201}
    for token in tokens:
        until(lambda: platform.tokeninfo(token) == 401, seconds=60)  # noqa: B023 -- in its turn
    assert len(told) > 3
    assert platform.tokeninfo(good) == 200
    platform.mend()
    # The service lists each token once, and of the cut-offs of one subject the latest is in force.
    ids = {answer.json["id"] for document, answer in zip(posts, made, strict=True) if document["type"] == "TOKEN"}
    assert len(ids) == len(tokens)
    listed = call("GET", platform.url("revocation", "/revocations/snapshot")).json["entries"]
    assert ids <= {each["id"] for each in listed}
    rules_made = {answer.json["id"] for document, answer in zip(posts, made, strict=True) if document in rules}
    assert max(each["issued_before"] for each in listed if each["id"] in rules_made) == max(cut_offs)
    assert all(platform.tokeninfo(token) == 401 for token in tokens)
    assert platform.tokeninfo(good) == 200
