"""D70 to D74: the revocation API. Nothing that is refused may change anything."""

import json
import time

import pytest

from tests.support.access_tokens import Forge
from tests.support.attacked import AttackedPlatform, Talker
from tests.support.http import Answer, call
from tokenry.jose.jwk import PrivateKey

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

NOW = int(time.time())
TOKEN = {"type": "TOKEN", "data": {"jti": "an-id"}}


@pytest.fixture
def forge(platform: AttackedPlatform) -> Forge:
    return platform.forge()


@pytest.fixture
def revocation(platform: AttackedPlatform):
    talker = Talker(platform.address("revocation"))
    yield talker
    talker.close()


@pytest.fixture(autouse=True)
def unchanged(platform: AttackedPlatform):
    """The list is the same after a refusal as before."""
    before = entries(platform)
    yield
    assert entries(platform) == before


def entries(platform: AttackedPlatform) -> list[dict]:
    return call("GET", platform.url("revocation", "/revocations/snapshot")).json["entries"]


def post(revocation: Talker, body: bytes, *, bearer: str | None = None, path="/revocations", **headers: str) -> Answer:
    fields = {"Content-Type": "application/json", **headers}
    if bearer is not None:
        fields["Authorization"] = f"Bearer {bearer}"
    return revocation.ask("POST", path, headers=fields, body=body)


def assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json["status"] == status


def test_D70_nobody_revokes_without_being_known_and_allowed(platform, revocation, forge) -> None:
    body = json.dumps(TOKEN).encode()
    assert_problem(post(revocation, body), 401)
    hostile = [
        "garbage",
        forge.token(scope="revocation.write", exp=forge.now - 1),
        forge.token(scope="revocation.write", aud="https://other.example"),
        forge.token(scope="revocation.write", key=PrivateKey.generate()),
    ]
    for token in hostile:
        assert_problem(post(revocation, body, bearer=token), 401)
    assert_problem(post(revocation, body, bearer=forge.token(scope="revocation.writer revocation")), 403)
    writer = forge.token(scope="revocation.write")
    for document in (
        {"type": "KEY", "data": {"kid": forge.key.kid}},
        {"type": "GLOBAL", "data": {}, "confirm": True},
        {"type": "CLAIM", "data": {"claims": {"sub": "demo"}}},
    ):
        assert_problem(post(revocation, json.dumps(document).encode(), bearer=writer), 403)


def test_D70_basic_credentials_do_not_revoke_for_others(platform, revocation) -> None:
    answer = call("POST", platform.url("revocation", "/revocations"), document=TOKEN, basic=platform.basic("admin"))
    assert_problem(answer, 401)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'"x"',
        b"null",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b"{}",
        b'{"type":"TOKEN"}',
        b'{"type":"TOKEN","data":null}',
        b'{"type":"TOKEN","data":[]}',
        b'{"type":"TOKEN","data":{}}',
        b'{"type":"token","data":{"jti":"x"}}',
        b'{"type":["TOKEN"],"data":{"jti":"x"}}',
        b'{"type":"NEWS","data":{"jti":"x"}}',
        b'{"type":"TOKEN","type":"TOKEN","data":{"jti":"x"}}',
        b'{"type":"TOKEN","data":{"jti":"x","jti":"y"}}',
        b'{"type":"TOKEN","data":{"jti":"x"},"unknown":1}',
        b'{"type":"TOKEN","data":{"jti":"x","unknown":1}}',
        b'{"type":"TOKEN","data":{"jti":""}}',
        b'{"type":"TOKEN","data":{"jti":5}}',
        b'{"type":"TOKEN","data":{"jti":"x","expires_at":NaN}}',
        b'{"type":"TOKEN","data":{"jti":"x","iss":"https://evil.example"}}',
        b'{"type":"TOKEN","data":{"jti":"' + b"x" * 2000 + b'"}}',
        b'{"a":' * 5000 + b"1" + b"}" * 5000,
        b'{"type":"GLOBAL","data":{}}',
        b'{"type":"GLOBAL","data":{},"confirm":"true"}',
        b'{"type":"KEY","data":{}}',
        b'{"type":"KEY","data":{"kid":5}}',
    ],
    ids=lambda body: repr(body[:50]),
)
def test_D71_what_is_not_understood_is_refused(platform, revocation, body) -> None:
    assert_problem(post(revocation, body, bearer=platform.admin_bearer()), 400)


@pytest.mark.parametrize(
    "issued_before",
    [NOW + 3600, str(NOW), -1, 0, 1e20, 10**20, 1.5, True, [NOW], {}, "", NOW - 10**8, -(10**30)],
    ids=repr,
)
def test_D72_a_cut_off_that_cannot_be_meant_is_refused(platform, revocation, issued_before) -> None:
    for document in (
        {"type": "CLAIM", "data": {"claims": {"sub": "x"}, "issued_before": issued_before}},
        {"type": "GLOBAL", "data": {"issued_before": issued_before}, "confirm": True},
    ):
        assert_problem(post(revocation, json.dumps(document).encode(), bearer=platform.admin_bearer()), 400)


@pytest.mark.parametrize(
    "claims",
    [
        {},
        [],
        None,
        {"sub": ["a"]},
        {"sub": 5},
        {"sub": None},
        {"sub": ""},
        {"": "x"},
        {"sub": "x" * 1025},
        {"sub": "a|b"},
        {"sub": "\ud800"},
        {f"claim{number}": "x" for number in range(11)},
        {
            "sub": "x",
            "iss": "x",
            "realm": "x",
            "client_id": "x",
            "jti": "x",
            "root_jti": "x",
            "a": "x",
            "b": "x",
            "c": "x",
        },
        {"iat": "5"},
        {"exp": "5"},
        {"aud": "x"},
        {"scope": "x"},
        {"client_id": "x", "azp": "y"},
        {"unheard-of": "x"},
    ],
    ids=lambda claims: repr(claims)[:60],
)
def test_D73_claims_that_no_rule_can_have_are_refused(platform, revocation, claims) -> None:
    body = json.dumps({"type": "CLAIM", "data": {"claims": claims}}).encode()
    assert_problem(post(revocation, body, bearer=platform.admin_bearer()), 400)


def test_D74_a_token_that_can_never_match_is_not_stored(platform, revocation, forge) -> None:
    good = forge.token()
    head, payload, signature = good.split(".")
    for token in (
        "garbage",
        "a.b.c",
        f"{head}.{payload}.",
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{good}=",
        forge.token(key=PrivateKey.generate(), head={"kid": forge.key.kid}),
        forge.token(iss="https://evil.example"),
        forge.token(head={"alg": "none"}),
        "A" * 9000,
        " ",
        "\ud800",
        5,
        None,
        [good],
    ):
        body = json.dumps({"type": "TOKEN", "data": {"token": token}}).encode()
        answer = post(revocation, body, bearer=platform.admin_bearer())
        assert_problem(answer, 400)
        assert not (isinstance(token, str) and len(token) > 20 and token.encode() in answer.body)


def test_a_body_that_is_too_large_is_refused(platform, revocation) -> None:
    body = json.dumps({"type": "TOKEN", "data": {"jti": "x"}, "reason": "x" * 70_000}).encode()
    answer = post(revocation, body, bearer=platform.admin_bearer())
    assert_problem(answer, 413)


@pytest.mark.parametrize("key", ["", "x" * 256, "é", "a b", "\t"])
def test_an_idempotency_key_that_is_none_is_refused(platform, revocation, key) -> None:
    answer = revocation.ask(
        "POST",
        "/revocations",
        headers={
            "Content-Type": "application/json",
            "Authorization": f"Bearer {platform.admin_bearer()}",
            "Idempotency-Key": key.encode(),
        },
        body=json.dumps(TOKEN).encode(),
    )
    assert_problem(answer, 400)


@pytest.mark.parametrize(
    "target",
    [
        "/revocations",
        "/revocations?from=",
        "/revocations?from=yesterday",
        "/revocations?from=NaN",
        "/revocations?from=1e999",
        "/revocations?from=" + "9" * 400,
        "/revocations/changes?after=x",
        "/revocations/changes?after=1.2.3.4",
        "/revocations/changes?after=-1.-1.x",
        "/revocations/changes?after=" + "9" * 500,
        "/revocations/changes?after=%00",
        "/revocations/changes?after=1&after=2",
        "/revocations/changes?wait=x",
        "/revocations/changes?wait=-1",
        "/revocations/changes?wait=NaN",
        "/revocations/%2e%2e",
        "/revocations/" + "x" * 5000,
        "/revocations/%00",
        "/revocations/%ff",
        "/validators",
        "/jobs/x",
        "/revocations/snapshot/../../etc/passwd",
    ],
    ids=lambda target: target[:50],
)
def test_reading_with_parameters_that_are_none_is_refused(platform, revocation, target) -> None:
    answer = revocation.ask("GET", target)
    assert 400 <= answer.status < 500, answer


@pytest.mark.parametrize(
    "name", ["x" * 5000, "a/b/c", "\x01", "a\t1", "é/1", "<script>alert(1)</script>/1", "/", "a/", "/1"]
)
def test_a_reader_with_an_odd_name_is_still_given_the_list(platform, revocation, name) -> None:
    """Whoever cannot name itself must not be left without revocations."""
    raw = name.encode()
    if any(byte < 0x20 and byte != 9 for byte in raw):
        return
    answer = revocation.ask("GET", "/revocations/snapshot", headers={"Tokenry-Instance": raw})
    assert answer.status == 200
    views = call("GET", platform.url("revocation", "/validators"), bearer=platform.admin_bearer())
    assert views.status == 200
    assert "<script>" not in views.body.decode()


@pytest.mark.parametrize(
    "header", ["Tokenry-List", "If-None-Match", "Accept", "Accept-Encoding", "Range", "Origin", "Cookie"]
)
@pytest.mark.parametrize(
    "value", ["", "*", "x" * 4000, '"', ",,,,", "bytes=0-1,2-3", "gzip;q=NaN", "application/*;q=x", "a" * 10]
)
def test_no_header_of_a_reader_is_a_fault_of_ours(platform, revocation, header, value) -> None:
    answer = revocation.ask("GET", "/revocations/snapshot", headers={header: value})
    assert answer.status in {200, 304, 400, 406, 416}, answer
