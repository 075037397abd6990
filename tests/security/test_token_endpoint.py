"""D43 to D58: the token endpoint."""

import json
import time
from base64 import b64encode
from urllib.parse import quote, urlencode

import pytest

from tests.support.attacked import REALM, SENDER, AttackedPlatform, Talker, Watch, raw_exchange
from tests.support.http import Answer

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

FORM = "application/x-www-form-urlencoded"
GRANT = {"grant_type": "client_credentials", "realm": REALM}
PATH = "/oauth2/token"


@pytest.fixture
def issuer(platform: AttackedPlatform):
    talker = Talker(platform.address("issuer"))
    yield talker
    talker.close()


@pytest.fixture
def basic(platform: AttackedPlatform) -> str:
    return basic_field(*platform.basic(SENDER))


def basic_field(client_id: str, secret: str) -> str:
    return "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()


def post(issuer: Talker, form, *, authorization=None, content_type=FORM, target=PATH, **headers) -> Answer:
    fields = {"Content-Type": content_type} if content_type else {}
    if authorization is not None:
        fields["Authorization"] = authorization
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    return issuer.ask("POST", target, headers={**fields, **headers}, body=body)


def assert_error(answer: Answer, status: int, error: str) -> None:
    assert (answer.status, answer.json["error"]) == (status, error), answer
    assert answer.headers["cache-control"] == "no-store"
    assert set(answer.json) == {"error", "error_description"}


def essence(answer: Answer) -> tuple:
    """Everything of an answer but what differs between two answers to one and the same request."""
    headers = {name: value for name, value in answer.headers.items() if name not in {"date", "x-request-id"}}
    return answer.status, answer.body, headers


def password_grant(issuer, basic, username, password) -> Answer:
    form = {**GRANT, "grant_type": "password", "username": username, "password": password}
    return post(issuer, form, authorization=basic)


def test_D43_no_answer_tells_whether_a_user_exists(platform, issuer, basic) -> None:
    user = platform.identities.user
    wrong = password_grant(issuer, basic, user["username"], "not the password of this user")
    unknown = password_grant(issuer, basic, "nobody-of-this-name", "not the password of this user")
    a_client = password_grant(issuer, basic, SENDER, "not the password of this user")
    assert_error(wrong, 400, "invalid_grant")
    assert essence(wrong) == essence(unknown) == essence(a_client)
    assert password_grant(issuer, basic, user["username"], user["password"]).status == 200


@pytest.mark.parametrize("method", ["basic", "post"])
def test_D44_no_answer_tells_whether_a_client_exists(issuer, method) -> None:
    def attempt(client_id: str) -> Answer:
        secret = "not-the-secret-of-this-client-0123456789"
        if method == "basic":
            return post(issuer, GRANT, authorization=basic_field(client_id, secret))
        return post(issuer, {**GRANT, "client_id": client_id, "client_secret": secret})

    wrong, unknown = attempt(SENDER), attempt("nobody-of-this-name")
    assert_error(wrong, 401, "invalid_client")
    assert wrong.headers.get("www-authenticate", "").startswith("Basic realm=") is (method == "basic")
    assert essence(wrong) == essence(unknown) == essence(attempt("demo-user"))


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS"])
def test_D45_only_post_is_allowed(issuer, method) -> None:
    answer = issuer.ask(method, f"{PATH}?{urlencode(GRANT)}")
    assert (answer.status, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert_error(answer, 405, "invalid_request")


@pytest.mark.parametrize("content_type", ["application/json", "text/plain", "multipart/form-data; boundary=x", None])
def test_D46_only_a_form_is_read(issuer, basic, content_type) -> None:
    answer = post(issuer, json.dumps(GRANT).encode(), authorization=basic, content_type=content_type)
    assert_error(answer, 415, "invalid_request")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ("", "invalid_request"),
        ("grant_type=", "invalid_request"),
        ("grant_type=foo", "unsupported_grant_type"),
        ("grant_type=CLIENT_CREDENTIALS", "unsupported_grant_type"),
        ("grant_type=client_credentials%00", "unsupported_grant_type"),
        ("grant_type=client_credentials&grant_type=client_credentials", "invalid_request"),
        ("grant_type=client_credentials&grant_type=password", "invalid_request"),
        ("grant_type[]=client_credentials", "invalid_request"),
    ],
)
def test_D47_the_grant_type_is_sent_once_and_known(issuer, basic, form, error) -> None:
    answer = post(issuer, f"realm=%2Fservices&{form}".encode(), authorization=basic)
    assert_error(answer, 400, error)


def test_D48_two_authorization_headers_are_refused_also_when_both_are_right(platform, basic) -> None:
    body = urlencode(GRANT).encode()
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: x\r\nAuthorization: {basic}\r\nAuthorization: {basic}\r\n"
        f"Content-Type: {FORM}\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    answer, _ = raw_exchange(platform.address("issuer"), head.encode() + body)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b'"invalid_request"' in answer


def test_D49_two_ways_of_authentication_are_refused(platform, issuer, basic) -> None:
    client_id, secret = platform.basic(SENDER)
    for extra in ({"client_id": client_id, "client_secret": secret}, {"client_secret": secret}):
        assert_error(post(issuer, {**GRANT, **extra}, authorization=basic), 400, "invalid_request")


@pytest.mark.parametrize(
    "credentials",
    [b"no colon", b"\xff\xfe:\xff", b":", b"a:", b"%zz:%zz", b"a%00b:c", b"a\r\nb:c", "é:é".encode(), b"a:b" * 3000],
    ids=repr,
)
def test_D50_malformed_basic_credentials_are_wrong_ones(issuer, credentials) -> None:
    answer = post(issuer, GRANT, authorization=b"Basic " + b64encode(credentials))
    assert_error(answer, 401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic realm=")


@pytest.mark.parametrize(
    "value", [b"Basic", b"Basic ", b"Basic !!!", b"Basic YTpi===", b"Basic \xff\xff", b"Basic YTpi YTpi"]
)
def test_D50_what_is_no_base64_is_a_wrong_credential(issuer, value) -> None:
    assert_error(post(issuer, GRANT, authorization=value), 401, "invalid_client")


@pytest.mark.parametrize("charset", ["bogus", "utf-16", "utf-7", "idna", "rot13", "zip", "x" * 1000])
def test_D51_an_odd_charset_is_a_malformed_request(issuer, basic, charset) -> None:
    answer = post(issuer, GRANT, authorization=basic, content_type=f"{FORM}; charset={charset}")
    assert_error(answer, 400, "invalid_request")


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "bogus", "deflate"])
def test_D51_an_odd_coding_is_refused(issuer, basic, coding) -> None:
    answer = post(issuer, GRANT, authorization=basic, **{"Content-Encoding": coding})
    assert_error(answer, 415, "invalid_request")


@pytest.mark.parametrize("body", [b"a" * (1 << 20) + b"a", b"a=1&" * 100_000], ids=["1 MiB + 1", "100,000 fields"])
def test_D52_a_body_that_is_too_large_is_refused_and_the_connection_closed(platform, body) -> None:
    head = f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    answer, seconds = raw_exchange(platform.address("issuer"), head, body)
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"\r\nConnection: close\r\n" in answer
    assert seconds < 10


def test_D52_many_small_fields_are_refused(issuer, basic) -> None:
    assert_error(post(issuer, b"a=1&" * 65 + urlencode(GRANT).encode(), authorization=basic), 400, "invalid_request")


@pytest.mark.parametrize("length", [72, 73, 10_000, 60_000])
def test_D53_a_long_password_is_a_wrong_one(platform, issuer, basic, length) -> None:
    username = platform.identities.user["username"]
    assert_error(password_grant(issuer, basic, username, "x" * length), 400, "invalid_grant")


@pytest.mark.parametrize(
    "scope", ["not-registered", 'a b"c', "a\\b", "a\x00", "é", "orders.read orders.write", " ", "a  b"]
)
def test_D54_a_scope_that_is_not_granted_is_refused(issuer, basic, scope) -> None:
    answer = post(issuer, {**GRANT, "scope": scope}, authorization=basic)
    if scope.split() in ([], ["a", "b"]):  # spaces only: none asked for; two spaces between: read or refused
        assert answer.status in {200, 400}
        assert answer.status == 200 or answer.json["error"] == "invalid_scope"
        return
    assert_error(answer, 400, "invalid_scope")


def test_D54_an_empty_scope_means_the_default(issuer, basic) -> None:
    answers = [post(issuer, {**GRANT, **extra}, authorization=basic).json["scope"] for extra in ({"scope": ""}, {})]
    assert answers == ["orders.read", "orders.read"]


@pytest.mark.parametrize(
    "realm", ["../admin", "/services\x00", "/services/../plan-b", "//services", "/SERVICES", "services "]
)
def test_D55_a_realm_is_a_name_and_no_path(issuer, basic, realm) -> None:
    answer = post(issuer, {**GRANT, "realm": realm}, authorization=basic)
    assert answer.status == 400
    assert answer.json["error"] in {"realm_not_found", "invalid_request"}


def test_D56_a_user_name_writes_no_line_into_the_log(platform, issuer, basic, watch: Watch) -> None:
    forged = "forged-line-of-an-attacker"
    watch.look()
    username = f'x"}}\r\n{{"event": "{forged}", "level": "info"}}'
    assert_error(password_grant(issuer, basic, username, "whatever-it-is"), 400, "invalid_grant")
    time.sleep(0.3)
    lines = watch.look()["issuer"].splitlines()
    assert [line for line in lines if "token_refused" in line or '"request"' in line]
    for line in lines:
        assert json.loads(line)["event"] != forged
        assert forged not in line  # nor is what was typed repeated at all


@pytest.mark.parametrize("password", ["", " ", "\t", "null", "\x00"])
def test_D57_an_empty_or_blank_password_is_none(platform, issuer, basic, password) -> None:
    answer = password_grant(issuer, basic, platform.identities.user["username"], password)
    assert_error(answer, 400, "invalid_grant")


def test_D57_a_password_that_is_null_is_absent(platform, issuer, basic) -> None:
    form = {**GRANT, "grant_type": "password", "username": platform.identities.user["username"]}
    assert_error(post(issuer, form, authorization=basic), 400, "invalid_request")


def test_D58_credentials_in_the_query_are_refused_and_not_logged(platform, issuer, watch: Watch) -> None:
    client_id, secret = platform.basic(SENDER)
    watch.look()
    query = urlencode({"client_id": client_id, "client_secret": secret})
    assert_error(post(issuer, GRANT, target=f"{PATH}?{query}"), 400, "invalid_request")
    assert_error(post(issuer, {}, target=f"{PATH}?{urlencode(GRANT)}"), 400, "invalid_request")
    time.sleep(0.3)
    text = watch.look()["issuer"]
    assert '"route"' in text
    for told in (secret, quote(secret), "client_secret=", "?"):
        assert told not in text


def test_a_flood_of_failures_from_one_address_is_answered_429_and_other_addresses_are_not(tmp_path, processes) -> None:
    """The limits themselves, which the platform of this folder has out of the way; see docs/limits.md."""
    import http.client

    platform = AttackedPlatform(tmp_path, processes)
    for name in ("TOKENRY_FAILURES_PER_CLIENT", "TOKENRY_FAILURES_PER_ADDRESS"):
        del platform._extra["issuer"][name]
    del platform._extra["issuer"]["TOKENRY_CREDENTIALS_REFRESH_INTERVAL"]
    platform.start("issuer", "revocation", wait=False)
    platform.process("issuer").wait_until_http(platform.url("issuer", "/readyz"), seconds=60)

    def attempt(client_id: str, secret: str, *, source: str) -> tuple[int, str | None]:
        connection = http.client.HTTPConnection(*platform.address("issuer"), timeout=5, source_address=(source, 0))
        headers = {"Authorization": basic_field(client_id, secret), "Content-Type": FORM}
        connection.request("POST", PATH, urlencode(GRANT), headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status, answer.getheader("Retry-After")

    client_id, secret = platform.basic(SENDER)
    first = [attempt(client_id, "wrong-secret-0123456789", source="127.0.0.2")[0] for _ in range(15)]
    assert first[:10] == [401] * 10
    assert first[-1] == 429
    status, retry_after = attempt(client_id, secret, source="127.0.0.2")
    assert (status, int(retry_after or 0) > 0) == (429, True)  # also the right secret, from there
    assert attempt(client_id, secret, source="127.0.0.3")[0] == 200
    many = [attempt(f"nobody-{number}", "wrong-secret-0123456789", source="127.0.0.4")[0] for number in range(130)]
    assert many[:95] == [401] * 95
    assert 429 in many
    assert attempt(client_id, secret, source="127.0.0.5")[0] == 200
