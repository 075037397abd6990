"""Exchanged tokens on real processes: a revocation of the first token reaches what was made from it."""

import json
import time

import pytest

from tests.support.http import call
from tests.support.platform import Deployment
from tokenry.oauth.token_endpoint import ACCESS_TOKEN_TYPE, TOKEN_EXCHANGE

pytestmark = pytest.mark.processes

ORDERS, STOCK = "https://orders.example.org", "https://stock.example.org"


@pytest.fixture
def platform(tmp_path, processes):
    deployment = Deployment(tmp_path, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    allow_exchange(deployment)
    return deployment


def allow_exchange(deployment):
    """Let the demo client call orders, and exchange what it has for stock."""
    root = deployment._folder.credentials / "realms" / "services"
    change(root / "realm.json", grant_types=["client_credentials", TOKEN_EXCHANGE])
    client = root / "clients" / f"{deployment.identities.client['client_id']}.json"
    change(
        client,
        audiences=[ORDERS, STOCK],
        grant_types=["client_credentials", TOKEN_EXCHANGE],
        token_exchange={"subject_audiences": [ORDERS, STOCK], "max_depth": 2},
    )


def change(path, **members):
    path.write_text(json.dumps(json.loads(path.read_bytes()) | members))


def ask(platform, **form):
    person = platform.identities.client
    return call(
        "POST",
        platform.url("issuer", "/oauth2/token"),
        form={"realm": "/services", **form},
        basic=(person["client_id"], person["client_secret"]),
    )


def exchange(platform, token):
    return ask(
        platform, grant_type=TOKEN_EXCHANGE, subject_token=token, subject_token_type=ACCESS_TOKEN_TYPE, audience=STOCK
    )


def until(condition, *, seconds, what):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.1)


def chain(platform):
    first = ask(platform, grant_type="client_credentials", audience=ORDERS).json["access_token"]
    second = exchange(platform, first)
    assert second.status == 200, second
    third = exchange(platform, second.json["access_token"])
    assert third.status == 200, third
    return first, second.json["access_token"], third.json["access_token"]


@pytest.mark.parametrize("revoked", [0, 1])
def test_a_revocation_of_the_subjects_token_hits_what_was_exchanged_from_it(platform, revoked):
    platform.start()
    tokens = chain(platform)
    assert [platform.tokeninfo(token) for token in tokens] == [200, 200, 200]
    assert platform.revoke_token(tokens[revoked]).status == 201
    expected = [200] * revoked + [401] * (3 - revoked)
    until(
        lambda: [platform.tokeninfo(token) for token in tokens] == expected,
        seconds=5,
        what="token info did not refuse what was made from the revoked token",
    )
    until(lambda: exchange(platform, tokens[revoked]).status == 400, seconds=5, what="it can still be exchanged")


def test_the_list_is_fresh_enough_to_exchange_by_at_any_moment(platform):
    platform.start()
    first = ask(platform, grant_type="client_credentials", audience=ORDERS).json["access_token"]
    answers = []
    for _ in range(40):  # over eight seconds: several times as long as a request for news is held
        answers.append(exchange(platform, first).status)
        time.sleep(0.2)
    assert answers == [200] * 40


def test_without_the_revocation_service_nothing_is_exchanged_and_first_tokens_are_issued(platform):
    platform.start()
    first = ask(platform, grant_type="client_credentials", audience=ORDERS).json["access_token"]
    platform.kill("revocation")
    until(lambda: exchange(platform, first).status == 503, seconds=10, what="it went on exchanging")
    assert ask(platform, grant_type="client_credentials").status == 200


def test_the_issuer_reads_a_list_that_asks_for_a_bearer_by_a_token_of_its_own(platform):
    scope = "revocation.read"
    platform._extra["revocation"]["TOKENRY_LIST_READ_SCOPE"] = scope
    platform._extra["issuer"]["TOKENRY_REVOCATION_READ_SCOPE"] = scope
    platform.start("issuer", "revocation")
    assert call("GET", platform.url("revocation", "/revocations/snapshot")).status == 401

    def reads():
        metrics = call("GET", platform.url("issuer", "/metrics")).body.decode()
        [age] = [line.split()[-1] for line in metrics.splitlines() if line.startswith("tokenry_revocation_list_age_se")]
        return age != "NaN"

    until(reads, seconds=20, what="the issuer does not read the list")
    first = ask(platform, grant_type="client_credentials", audience=ORDERS).json["access_token"]
    until(lambda: exchange(platform, first).status == 200, seconds=10, what="it does not exchange")
