"""
D75 to D84, and D19: what the platform itself fetches comes from a stand-in that has been taken over.

A failed refresh never removes knowledge: the last good list, keys and credentials stay, grow older, and the refusal is
counted.
"""

import json
import re
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.attacked import REALM, SENDER, AttackedPlatform
from tests.support.http import call
from tests.system.conftest import until
from tokenry.http.fetch import Headers, HttpFetcher, Response
from tokenry.jose.encoding import b64url_encode
from tokenry.jose.jwk import PrivateKey
from tokenry.sources.events import EventKind
from tokenry.sources.keys import KeySource
from tokenry.sources.revocations import RevocationSource
from tokenry.testing.clock import FakeClock
from tokenry.testing.issuer import FakeIssuer
from tokenry.testing.server import LoopbackServer
from tokenry_registry import bootstrap

pytestmark = pytest.mark.processes

JSON = Headers([("content-type", "application/json")])


class StandIn:
    """An issuer and a revocation service on loopback that answer as scripted, by the last part of the path."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.issuer = FakeIssuer(clock=self.clock)
        self.instead: dict[str, object] = {}
        self.asked: list[str] = []
        self.server = LoopbackServer(self._answer)
        self.events: list = []

    def _answer(self, request):
        last = urlsplit(request.url).path.rsplit("/", 1)[-1]
        self.asked.append(last)
        answer = self.instead.get(last)
        if callable(answer):
            return answer(request)
        return answer if answer is not None else self.issuer.fetch(request)

    def keys(self) -> KeySource:
        return KeySource(
            self.issuer.issuer,
            jwks_uri=f"{self.server.url}/.well-known/jwks.json",
            fetcher=HttpFetcher(),
            clock=self.clock,
            on_event=self.events.append,
        )

    def revocations(self, **more) -> RevocationSource:
        return RevocationSource(
            self.server.url, fetcher=HttpFetcher(), clock=self.clock, on_event=self.events.append, **more
        )

    def good_list(self) -> Response:
        return self.issuer.fetch(self._request("/revocations/snapshot"))

    def _request(self, path):
        from tokenry.http.fetch import Request

        return Request(method="GET", url=f"https://x.test{path}", deadline_seconds=5, max_bytes=1 << 20)

    def reasons(self, kind: EventKind) -> set[str]:
        return {event.reason for event in self.events if event.kind is kind}


@pytest.fixture
def stand_in():
    stand_in = StandIn()
    yield stand_in
    stand_in.server.close()


def poll(source, clock, times=1) -> None:
    for _ in range(times):
        clock.advance(max(source._poller.step(), 1.0))


def age(snapshot, clock) -> float:
    return snapshot.age(now=clock.now(), monotonic=clock.monotonic())


@pytest.fixture
def listed(stand_in):
    """A reader that holds a good list with a hundred entries."""
    for _ in range(50):
        stand_in.issuer.revoke(stand_in.issuer.token())
    source = stand_in.revocations(max_entries=10_000)
    poll(source, stand_in.clock)
    assert len(source.snapshot().value) == 100
    yield source
    source.stop()


def assert_kept(stand_in, source, answer, *, times=3, rejected=True) -> None:
    """Serve *answer* for whatever is asked: what is held stays, gets older, and the refusal is told."""
    held = source.snapshot()
    before, refused = age(held, stand_in.clock), sum(source.counters.rejected.values())
    for name in ("changes", "snapshot", "jwks.json"):
        stand_in.instead[name] = answer
    poll(source, stand_in.clock, times)
    assert source.snapshot().value is held.value
    assert age(source.snapshot(), stand_in.clock) > before
    if rejected:
        assert sum(source.counters.rejected.values()) > refused
        assert stand_in.reasons(EventKind.REJECTED)
    # And it recovers by itself.
    stand_in.instead.clear()
    stand_in.clock.advance(120)
    poll(source, stand_in.clock, 3)
    assert age(source.snapshot(), stand_in.clock) < before + 60


def answered(stand_in, body: bytes, **stamp):
    """Return an answer with *body*, stamped as the good one but for *stamp*."""

    def answer(_request):
        good = stand_in.good_list()
        said = dict(part.split("=") for part in good.headers["tokenry-list"].split(", ")) | stamp
        fields = [
            ("content-type", "application/json"),
            ("tokenry-list", ", ".join(f"{k}={v}" for k, v in said.items())),
        ]
        return Response(status=200, headers=Headers(fields), body=body)

    return answer


@pytest.mark.parametrize(
    "body", [b"{}", b"<html>", b"", b"null", b"[]", b"\xff", b'{"entries":[]}', b"[" * 100_000, b"\x1f\x8b" + bytes(50)]
)
def test_D75_what_is_no_list_is_refused(stand_in, listed, body) -> None:
    assert_kept(stand_in, listed, answered(stand_in, body))


def json_list(stand_in) -> dict:
    return json.loads(stand_in.good_list().body)


def test_D75_a_list_cut_at_every_hundredth_byte_is_refused(stand_in, listed) -> None:
    body, held = stand_in.good_list().body, listed.snapshot().value
    for end in range(0, len(body) - 1, 100):
        stand_in.instead["changes"] = stand_in.instead["snapshot"] = answered(stand_in, body[:end])
        stand_in.clock.advance(60)
        poll(listed, stand_in.clock, 2)
        assert listed.snapshot().value is held
    assert listed.counters.rejected.total() >= len(body) // 100


def test_D76_an_earlier_epoch_is_refused_and_alarms(stand_in, listed) -> None:
    document = json_list(stand_in)
    earlier = document | {"epoch": document["epoch"] - 1}
    answer = answered(stand_in, json.dumps(earlier).encode(), epoch=str(earlier["epoch"]))
    assert_kept(stand_in, listed, answer)
    assert {reason for reason in stand_in.reasons(EventKind.REJECTED) if "epoch" in reason or "rollback" in reason}


def test_D76_an_emptied_list_of_the_same_epoch_forgets_nothing(stand_in, listed) -> None:
    document = json_list(stand_in) | {"entries": []}
    stand_in.instead["changes"] = stand_in.instead["snapshot"] = answered(stand_in, json.dumps(document).encode())
    poll(listed, stand_in.clock, 5)
    assert len(listed.snapshot().value) == 100


def test_D77_a_list_above_the_limits_is_refused_whole(stand_in, listed) -> None:
    document = json_list(stand_in)
    more = [
        {**document["entries"][0], "id": f"id-{number}", "fingerprint": b64url_encode(number.to_bytes(16, "big"))}
        for number in range(10_001)
    ]
    stand_in.clock.advance(1)
    assert_kept(stand_in, listed, answered(stand_in, json.dumps(document | {"entries": more}).encode()))


def test_D77_an_answer_of_64_mib_is_not_read_to_its_end(stand_in, listed) -> None:
    assert_kept(stand_in, listed, answered(stand_in, b" " * (64 << 20)), times=1, rejected=False)
    said = {*listed.counters.polls, *listed.counters.rejected}
    said |= stand_in.reasons(EventKind.FAILED) | stand_in.reasons(EventKind.REJECTED)
    assert [reason for reason in said if "large" in reason], said


def test_D78_one_malformed_entry_refuses_the_whole_list(stand_in, listed) -> None:
    document = json_list(stand_in)
    for change in (
        {"kind": "unknown"},
        {"fingerprint": "short"},
        {"in_force_until": "soon"},
        {"id": None},
        {"salt": "x"},
    ):
        entries = [*document["entries"], {**document["entries"][0], "id": "new", **change}]
        assert_kept(stand_in, listed, answered(stand_in, json.dumps(document | {"entries": entries}).encode()))


def test_D79_a_list_that_somebody_else_signed_is_no_list(stand_in, listed) -> None:
    """The reader's half for signed lists has its own tests; here a JWS stands where a list should."""
    from tokenry.jose import jws

    for key in (PrivateKey.generate(), PrivateKey.generate()):
        signed = jws.sign({"typ": "revocation-list+jwt"}, stand_in.good_list().body, key)
        assert_kept(stand_in, listed, answered(stand_in, signed.encode()))


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def keyed(stand_in):
    source = stand_in.keys()
    poll(source, stand_in.clock)
    assert source.snapshot() is not None
    yield source
    source.stop()


def jwks(stand_in) -> dict:
    return json.loads(stand_in.issuer.key_set().to_jwks(stand_in.issuer.issuer))


def as_jwks(document) -> Response:
    return Response(status=200, headers=JSON, body=json.dumps(document).encode())


REDIRECT = Response(status=302, headers=Headers([("location", "http://127.0.0.1:9/jwks.json")]), body=b"")


@pytest.mark.parametrize(
    "answer",
    [
        as_jwks({"keys": []}),
        as_jwks({}),
        as_jwks({"keys": {}}),
        as_jwks([]),
        Response(status=500, body=b"oops"),
        REDIRECT,
        Response(status=200, headers=JSON, body=b"<html>"),
        Response(status=200, headers=JSON, body=b" " * (1 << 20)),
        Response(status=204, body=b""),
    ],
    ids=["no keys", "no member", "an object", "an array", "500", "a redirect", "HTML", "1 MiB", "204"],
)
def test_D80_a_bad_answer_for_keys_keeps_the_keys(stand_in, keyed, answer) -> None:
    assert_kept(stand_in, keyed, answer, rejected=False)
    assert "9" not in stand_in.asked


def test_D81_two_keys_under_one_id_refuse_the_set(stand_in, keyed) -> None:
    document = jwks(stand_in)
    other = PrivateKey.generate().public.to_jwk() | {"kid": document["keys"][0]["kid"]}
    assert_kept(stand_in, keyed, as_jwks({"keys": [*document["keys"], other]}))


@pytest.mark.parametrize(
    "change",
    [
        {"y": "A" * 43},
        {"crv": "P-384"},
        {"kty": "oct", "k": "c2VjcmV0"},
        {"use": "enc"},
        {"d": "A" * 43},
        {"x": ""},
        {"alg": "HS256"},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        {"key_ops": ["sign"]},
    ],
    ids=["off the curve", "P-384", "oct", "enc", "private", "no x", "HS256", "RSA", "for signing"],
)
def test_D82_a_key_that_is_none_is_refused_and_the_others_serve(stand_in, keyed, change) -> None:
    document = jwks(stand_in)
    bad = PrivateKey.generate().public.to_jwk() | change
    stand_in.instead["jwks.json"] = as_jwks({"keys": [bad, *document["keys"]]})
    stand_in.clock.advance(60)
    poll(keyed, stand_in.clock, 2)
    issuer = stand_in.issuer.issuer
    assert keyed.snapshot().value.kids(issuer) == {key["kid"] for key in document["keys"]}
    assert "bad_key" in stand_in.reasons(EventKind.ALARM)


def test_D19_a_token_of_a_key_that_was_removed_is_refused_after_the_next_read(stand_in, keyed) -> None:
    issuer = stand_in.issuer.issuer
    (old,) = keyed.snapshot().value.kids(issuer)
    stand_in.issuer.rotate_key(keep_old=False)
    stand_in.clock.advance(60)
    poll(keyed, stand_in.clock, 2)
    assert old not in keyed.snapshot().value.kids(issuer)
    assert keyed.snapshot().value.find(issuer, old) is None


# --- credentials ----------------------------------------------------------------------------------------------------


def object_path(platform: AttackedPlatform, client_id: str):
    return platform.credentials / "realms" / REALM.strip("/") / "clients" / f"{client_id}.json"


def rejected(platform: AttackedPlatform) -> float:
    metrics = call("GET", platform.url("issuer", "/metrics")).body.decode()
    found = re.findall(r"^tokenry_credentials_rejected_total\{[^}]*\} ([0-9.]+)$", metrics, re.MULTILINE)
    return sum(map(float, found))


DAMAGES = {
    "cut": lambda body: body[: len(body) // 2],
    "XML": lambda body: b"<xml/>",
    "empty": lambda body: b"",
    "no members": lambda body: b"{}",
    "other member": lambda body: body.replace(b'"client_id"', b'"client_idd"'),
    "other client": lambda body: body.replace(b"damaged-", b"admin-"),
    "a word": lambda body: body.replace(b'"enabled": true', b'"enabled": "true"'),
    "twice": lambda body: body.replace(b'"enabled": true', b'"enabled": true, "enabled": true'),
    "BOM": lambda body: b"\xef\xbb\xbf" + body,
    "deep": lambda body: b"[" * 50_000,
    "2 MiB": lambda body: body + b" " * (2 << 20),
}


@pytest.fixture(scope="module")
def damaged(platform: AttackedPlatform) -> Iterator[dict[str, bytes]]:
    """Clients whose objects were damaged, each in another way, all in one refresh; with their good bodies."""
    names = {damage: f"damaged-{number}" for number, damage in enumerate(DAMAGES)}
    for name in names.values():
        platform.add_client(name, scopes=["a"], created_at=1)
    until(lambda: all(platform.grant(name).status == 200 for name in names.values()), seconds=20)
    good = {damage: object_path(platform, name).read_bytes() for damage, name in names.items()}
    before = rejected(platform)
    for damage, change in DAMAGES.items():
        assert change(good[damage]) != good[damage], damage
        object_path(platform, names[damage]).write_bytes(change(good[damage]))
    until(lambda: rejected(platform) >= before + len(DAMAGES), seconds=30)
    yield good
    for damage, body in good.items():
        object_path(platform, names[damage]).write_bytes(body)
    until(lambda: "refused" not in call("GET", platform.url("issuer", "/readyz?verbose")).body.decode(), seconds=20)


@pytest.mark.parametrize("damage", DAMAGES)
def test_D83_a_damaged_object_changes_nothing_and_is_counted(platform: AttackedPlatform, damaged, damage) -> None:
    client_id = json.loads(damaged[damage])["client_id"]
    assert platform.grant(client_id).status == 200
    assert call("GET", platform.url("issuer", "/readyz")).status == 200
    verbose = call("GET", platform.url("issuer", "/readyz?verbose")).body.decode()
    assert f"{len(DAMAGES)} " in verbose
    assert "refused" in verbose


NO_HASHES = ("x", "", "$2b$12$short", "$argon2id$v=19$m=999999999,t=9,p=9$YQ$YQ", "sha256:", "md5:x")


def test_D84_clients_whose_hash_is_none_are_refused_and_the_others_are_served(platform: AttackedPlatform) -> None:
    paths, before = {}, rejected(platform)
    good = json.loads(object_path(platform, SENDER).read_bytes())
    try:
        for number, text in enumerate(NO_HASHES):
            client_id = f"odd-{number}-{time.monotonic_ns()}"
            paths[client_id] = object_path(platform, client_id)
            secrets = [{"hash": text, "created_at": int(time.time())}]
            paths[client_id].write_text(json.dumps(good | {"client_id": client_id, "secrets": secrets}))
        until(lambda: rejected(platform) >= before + len(NO_HASHES), seconds=20)
        form, url = {"grant_type": "client_credentials", "realm": REALM}, platform.url("issuer", "/oauth2/token")
        for client_id in paths:
            answer = call("POST", url, form=form, basic=(client_id, "any-secret-0123456789"))
            assert (answer.status, answer.json["error"]) == (401, "invalid_client")
        assert platform.grant(SENDER).status == 200
    finally:
        for path in paths.values():
            path.unlink(missing_ok=True)


def test_a_mass_removal_is_refused(platform: AttackedPlatform) -> None:
    """Whoever can empty the bucket must not be able to lock everybody out with one refresh."""
    clients = [f"crowd-{number}" for number in range(60)]
    secret = bootstrap.new_secret()
    for client_id in clients:
        bootstrap.write_client(
            platform.credentials, REALM, client_id, hashes=[bootstrap.hash_secret(secret)], created_at=1
        )
    form = {"grant_type": "client_credentials", "realm": REALM}
    url = platform.url("issuer", "/oauth2/token")

    def known(client_id: str) -> bool:
        return call("POST", url, form=form, basic=(client_id, secret)).status == 200

    until(lambda: known(clients[-1]), seconds=20)
    saved = {client_id: object_path(platform, client_id).read_bytes() for client_id in clients}
    try:
        for client_id in clients:
            object_path(platform, client_id).unlink()
        time.sleep(3)
        assert known(clients[0])
    finally:
        for client_id, body in saved.items():
            object_path(platform, client_id).write_bytes(body)
