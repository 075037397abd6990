"""tokenry.compat.tokens beside the real python-tokens: the same program, the same outcome."""

import importlib
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tokenry.http.fetch import Headers, Response
from tokenry.testing import FakeIssuer
from tokenry.testing.issuer import CLIENT_ID, CLIENT_SECRET, PASSWORD, USERNAME

MODULES = ("tokenry.compat.tokens", "tokens")


@pytest.fixture
def issuer():
    with FakeIssuer() as issuer:
        yield issuer


@pytest.fixture
def folder(tmp_path):
    write(tmp_path)
    return tmp_path


def write(folder, *, password=PASSWORD, secret=CLIENT_SECRET):
    user = {"application_username": USERNAME, "application_password": password}
    (folder / "user.json").write_text(json.dumps(user))
    (folder / "client.json").write_text(json.dumps({"client_id": CLIENT_ID, "client_secret": secret}))


@pytest.fixture(params=MODULES)
def tokens(request, monkeypatch, issuer, folder):
    """Either module, freshly imported with the environment of an old program."""
    for name in ("OAUTH_ACCESS_TOKEN_URL", "OAUTH2_ACCESS_TOKENS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OAUTH2_ACCESS_TOKEN_URL", f"{issuer.issuer}/oauth2/access_token?realm=/services")
    monkeypatch.setenv("CREDENTIALS_DIR", str(folder))
    return fresh(request.param)


def fresh(name):
    sys.modules.pop(name, None)
    return importlib.import_module(name)


def requests_of(issuer):
    return [request for request in issuer.requests if request.path == "/oauth2/access_token"]


def test_a_managed_token_is_fetched_with_the_password_grant(tokens, issuer):
    tokens.configure()
    tokens.manage("example", ["orders.read", "orders.write"])
    tokens.start()
    info = issuer.validator().validate(tokens.get("example"))
    assert (info.sub, info.client_id, info.scope) == (USERNAME, CLIENT_ID, {"orders.read", "orders.write"})
    [request] = requests_of(issuer)
    assert (request.form.one("grant_type"), request.query.one("realm")) == ("password", "/services")


def test_a_token_of_an_hour_is_fetched_once(tokens, issuer):
    tokens.manage("example", ["a"])
    assert len({tokens.get("example") for _ in range(10)}) == 1
    assert len(requests_of(issuer)) == 1


def test_tokens_of_different_names_have_their_own_scopes(tokens, issuer):
    tokens.manage("one", ["a"])
    tokens.manage("two")
    validator = issuer.validator()
    assert validator.validate(tokens.get("one")).scope == {"a"}
    assert validator.validate(tokens.get("two")).scope == frozenset()


def test_a_token_that_was_not_declared_is_a_key_error(tokens):
    with pytest.raises(KeyError):
        tokens.get("unknown")


def test_fixed_tokens_of_the_environment_win(tokens, monkeypatch, issuer):
    monkeypatch.setenv("OAUTH2_ACCESS_TOKENS", "example=fixed,other=second")
    tokens.manage("example", ["a"])
    assert (tokens.get("example"), tokens.get("other")) == ("fixed", "second")
    assert requests_of(issuer) == []


def test_a_mounted_token_wins_and_is_read_again(tokens, folder, issuer):
    tokens.manage("example", ["a"])
    file = folder / "example-token-secret"
    file.write_text(" mounted\n")
    assert tokens.get("example") == "mounted"
    file.write_text("rotated")
    assert tokens.get("example") == "rotated"
    assert requests_of(issuer) == []


def test_from_file_only(tokens):
    tokens.configure(from_file_only=True)
    tokens.manage("example", ["a"])
    with pytest.raises(tokens.InvalidCredentialsError, match="Failed to read token"):
        tokens.get("example")


def test_without_a_url(tokens):
    tokens.configure(url=None)
    tokens.manage("example", ["a"])
    with pytest.raises(tokens.ConfigurationError, match="Missing OAuth access token URL"):
        tokens.get("example")


@pytest.mark.parametrize("content", [None, "{", "{}", '{"client_id": "x"}'])
def test_credentials_that_cannot_be_used(tokens, folder, content):
    tokens.manage("example", ["a"])
    (folder / "client.json").unlink() if content is None else (folder / "client.json").write_text(content)
    with pytest.raises(tokens.InvalidCredentialsError):
        tokens.get("example")


def test_new_credentials_are_used_for_the_next_request(tokens, issuer, folder):
    tokens.manage("example", ["a"])
    issuer.users = {USERNAME: "rotated"}
    with pytest.raises(Exception, match=r"400|invalid_grant"):
        tokens.get("example")
    write(folder, password="rotated")
    end = time.monotonic() + 10
    while True:  # ours does not ask again within a second
        try:
            assert tokens.get("example")
            break
        except Exception:  # noqa: BLE001 -- theirs and ours raise different families
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize("body", [b"{}", b'{"access_token":"","expires_in":3600}', b'{"access_token":"x"}', b"[]"])
def test_an_answer_without_a_token(tokens, issuer, body):
    tokens.manage("example", ["a"])
    for _ in range(5):
        issuer.enqueue(Response(status=200, headers=Headers([("Content-Type", "application/json")]), body=body))
    with pytest.raises(tokens.InvalidTokenResponse):
        tokens.get("example")


# The real one's own: it calls `logger.warn`.
WARNS = pytest.mark.filterwarnings("ignore:The 'warn' method is deprecated:DeprecationWarning")


@WARNS
def test_an_old_token_is_used_while_the_issuer_is_away(tokens, issuer, monkeypatch):
    tokens.manage("example", ["a"])
    first = tokens.get("example")
    issuer.down = True
    tokens.TOKENS["example"]["expires_at"] = time.time() - 30  # within the minute of tolerance
    assert tokens.get("example") == first


@WARNS
def test_an_expiration_can_be_ignored(tokens, issuer):
    tokens.manage("example", ["a"], ignore_expiration=True)
    first = tokens.get("example")
    issuer.down = True
    tokens.TOKENS["example"]["expires_at"] = time.time() - 3600
    assert tokens.get("example") == first


# --- where ours is different on purpose ---


@pytest.fixture
def ours(monkeypatch, issuer, folder):
    monkeypatch.delenv("OAUTH2_ACCESS_TOKENS", raising=False)
    monkeypatch.setenv("OAUTH2_ACCESS_TOKEN_URL", f"{issuer.issuer}/oauth2/access_token")
    monkeypatch.setenv("CREDENTIALS_DIR", str(folder))
    return fresh("tokenry.compat.tokens")


def test_a_token_of_ten_minutes_is_not_fetched_on_every_call(ours, issuer):
    issuer.lifetime = 600
    ours.manage("example", ["a"])
    assert len({ours.get("example") for _ in range(20)}) == 1
    assert len(requests_of(issuer)) == 1


@pytest.mark.parametrize(
    ("ago", "ignoring", "given"), [(30, False, True), (90, False, False), (3600, True, True)], ids=str
)
def test_once_the_source_has_no_token_the_old_one_is_given_within_its_tolerance(ours, issuer, ago, ignoring, given):
    ours.manage("example", ["a"], ignore_expiration=ignoring)
    first = ours.get("example")
    issuer.down = True
    ours._sources.of("example", ("a",)).invalidate(first)
    ours.TOKENS["example"]["expires_at"] = time.time() - ago
    if given:
        assert ours.get("example") == first
    else:
        with pytest.raises(ours.InvalidTokenResponse):
            ours.get("example")


def test_forty_threads_make_one_request(ours, issuer):
    ours.manage("example", ["a"])
    with ThreadPoolExecutor(40) as pool:
        assert len(set(pool.map(lambda _: ours.get("example"), range(40)))) == 1
    assert len(requests_of(issuer)) == 1


def test_passwords_are_not_sent_unencrypted_unless_it_is_said(ours):
    ours.configure(url="http://tokens.internal/oauth2/access_token")
    ours.manage("example", ["a"])
    with pytest.raises(ours.ConfigurationError, match="not encrypted"):
        ours.get("example")


def test_errors_show_no_password(ours, issuer):
    issuer.users = {}
    ours.manage("example", ["a"])
    with pytest.raises(ours.InvalidTokenResponse) as caught:
        ours.get("example")
    assert PASSWORD not in str(caught.value)
    assert caught.value.error == "invalid_grant"
