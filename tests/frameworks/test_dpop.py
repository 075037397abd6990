"""Tokens that are bound to a key (DPoP, RFC 9449) in every framework: with a proof 200, in every other way 401."""

import pytest

from tests.support.frameworks import APPLICATIONS
from tokenry.client.proofs import ProofKey
from tokenry.dpop import Dpop
from tokenry.testing import FakeClock, FakeIssuer

BASE = "https://orders.example"
ALGS = 'DPoP algs="ES256"'


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def issuer(clock):
    return FakeIssuer(clock=clock)


@pytest.fixture(params=APPLICATIONS)
def make(request, issuer, clock):
    def make(**options):
        options = {"dpop": Dpop(BASE, clock=clock)} | options
        return APPLICATIONS[request.param](issuer.validator(), **options)

    return make


@pytest.fixture
def app(make):
    return make()


def fields(issuer, path="/orders", method="GET", **token):
    return list(issuer.dpop_headers(method, BASE + path, "basket", scope="orders.read", **token).items())


def test_V26_a_token_with_its_proof_gets_through(app, issuer):
    answer = app.call("GET", "/orders", fields(issuer))
    assert (answer.status, answer.json) == (200, {"caller": "basket"})
    assert app.call("GET", "/plain", fields(issuer, "/plain")).json == {"caller": "basket"}


def test_V26_a_bound_token_is_no_bearer_token(app, issuer):
    token, proof = (value for _, value in fields(issuer))
    token = token.removeprefix("DPoP ")
    for more in ([], [("DPoP", proof)]):
        answer = app.call("GET", "/orders", [("Authorization", f"Bearer {token}"), *more])
        assert (answer.status, answer.json) == (401, {"error": "invalid_token"})
        assert answer.challenge == f'Bearer error="invalid_token", {ALGS}'


def test_V26_a_bearer_token_stays_one(app, issuer):
    good = [("Authorization", f"Bearer {issuer.token('basket', scope='orders.read')}")]
    assert app.call("GET", "/orders", good).status == 200


def test_V26_a_proof_does_not_make_a_bearer_token_bound(app, issuer, clock):
    token = issuer.token("basket", scope="orders.read")
    proof = ProofKey(clock).prove("GET", f"{BASE}/orders", token=token)
    answer = app.call("GET", "/orders", [("Authorization", f"DPoP {token}"), ("DPoP", proof)])
    assert (answer.status, answer.challenge) == (401, 'DPoP error="invalid_token", algs="ES256"')


def test_V26_the_key_is_the_tokens_own(app, issuer, clock):
    (_, authorization), _ = fields(issuer)
    token = authorization.removeprefix("DPoP ")
    proof = ProofKey(clock).prove("GET", f"{BASE}/orders", token=token)
    answer = app.call("GET", "/orders", [("Authorization", authorization), ("DPoP", proof)])
    assert (answer.status, answer.json) == (401, {"error": "invalid_token"})


@pytest.mark.parametrize(
    ("path", "method", "proofs"),
    [("/plain", "GET", 1), ("/orders", "POST", 1), ("/orders", "GET", 0), ("/orders", "GET", 2)],
)
def test_V26_a_proof_is_for_this_request_and_one(app, issuer, path, method, proofs):
    sent = fields(issuer, path, method)
    sent = [sent[0], *[sent[1]] * proofs]
    answer = app.call("GET", "/orders", sent)
    assert (answer.status, answer.json) == (401, {"error": "invalid_dpop_proof"})
    assert answer.challenge == 'DPoP error="invalid_dpop_proof", algs="ES256"'


def test_V26_a_proof_is_good_once_and_soon(app, issuer, clock):
    sent, later = fields(issuer), fields(issuer)
    statuses = [app.call("GET", "/orders", sent).status for _ in range(3)]
    assert statuses == [200, 401, 401]
    clock.advance(61)
    assert app.call("GET", "/orders", later).json == {"error": "invalid_dpop_proof"}


def test_a_refused_token_does_not_use_up_room(make, issuer, clock):
    app = make(dpop=Dpop(BASE, clock=clock, max_remembered=2))
    for _ in range(5):
        assert app.call("GET", "/orders", fields(issuer, expired=True)).status == 401
    assert app.call("GET", "/orders", fields(issuer)).status == 200
    busy = app.call("GET", "/orders", fields(issuer))  # half of the room is for one key
    assert (busy.status, busy.json["error"]) == (503, "temporarily_unavailable")
    assert busy.challenge is None
    clock.advance(61)
    assert app.call("GET", "/orders", fields(issuer)).status == 200


def test_a_missing_scope_is_403_in_the_schemes_own_words(app, issuer):
    sent = list(issuer.dpop_headers("GET", f"{BASE}/orders", scope="other").items())
    answer = app.call("GET", "/orders", sent)
    assert answer.status == 403
    assert answer.challenge == 'DPoP error="insufficient_scope", scope="orders.read", algs="ES256"'


def test_without_a_token_both_schemes_are_offered(app):
    answer = app.call("GET", "/orders", [])
    assert (answer.status, answer.challenge, answer.body) == (401, f"Bearer, {ALGS}", b"")


def test_a_service_may_ask_for_proofs_only(make, issuer, clock):
    app = make(dpop=Dpop(BASE, clock=clock, required=True))
    bearer = [("Authorization", f"Bearer {issuer.token(scope='orders.read')}")]
    for sent in ([], bearer):
        answer = app.call("GET", "/orders", sent)
        assert (answer.status, answer.challenge) == (401, ALGS)
    assert app.call("GET", "/orders", fields(issuer)).status == 200


def test_V26_a_service_that_reads_no_proofs_refuses_bound_tokens(make, issuer):
    app = make(dpop=None)
    sent = fields(issuer)
    answer = app.call("GET", "/orders", sent)
    assert (answer.status, answer.challenge) == (401, "Bearer")  # to it, the scheme is no token
    bearer = [("Authorization", sent[0][1].replace("DPoP", "Bearer")), sent[1]]
    assert app.call("GET", "/orders", bearer).json == {"error": "invalid_token"}


def test_a_token_may_ask_for_a_key_and_a_certificate(app, issuer):
    cnf = {"jkt": issuer.proof_key.jkt, "x5t#S256": "A" * 43}
    token = issuer.token("basket", scope="orders.read", claims={"cnf": cnf})
    proof = issuer.proof_key.prove("GET", f"{BASE}/orders", token=token)
    answer = app.call("GET", "/orders", [("Authorization", f"DPoP {token}"), ("DPoP", proof)])
    assert (answer.status, answer.json) == (401, {"error": "invalid_token"})


def test_no_answer_repeats_the_token_or_the_proof(app, issuer):
    sent = fields(issuer, expired=True)
    answer = app.call("GET", "/orders", sent)
    for _, value in sent:
        assert value.split(" ")[-1] not in str(answer.headers) + answer.body.decode()
