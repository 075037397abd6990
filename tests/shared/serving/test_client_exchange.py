"""Client credentials as they are shown to the issuer, and what its answer means."""

from urllib.parse import parse_qs

import pytest

from tokenry.jose.encoding import dump_json
from tokenry.oauth.client_authentication import read_client_credential
from tokenry.oauth.form import parse_form
from tokenry.serving.addresses import UNIX_PEER
from tokenry.serving.client_exchange import Verdict, exchange_of, read_exchange

BASIC = "Basic YmFza2V0OnMzY3JldA=="  # basket:s3cret


def credential(*, basic):
    body = b"" if basic else b"client_id=basket&client_secret=s3cret"
    form = parse_form(body, content_type="application/x-www-form-urlencoded")
    found = read_client_credential([BASIC] if basic else [], form)
    assert found is not None
    return found


def sent(*, basic=True, **more):
    values = {"authorization": BASIC if basic else None, "realm": None, "address": "192.0.2.7", **more}
    exchange = exchange_of(credential(basic=basic), **values)
    assert "s3cret" not in repr(exchange)
    return exchange.headers, {name: values[0] for name, values in parse_qs(exchange.body.decode()).items()}


def test_basic_is_sent_on_as_it_came():
    headers, form = sent()
    assert (headers["Authorization"], headers["X-Forwarded-For"]) == (BASIC, "192.0.2.7")
    assert form == {"grant_type": "client_credentials"}


def test_a_secret_in_the_form_is_sent_in_the_form():
    headers, form = sent(basic=False, realm="/services", scope="token.introspect")
    assert "Authorization" not in headers
    assert form == {
        "grant_type": "client_credentials", "scope": "token.introspect", "realm": "/services", "client_id": "basket",
        "client_secret": "s3cret",
    }  # fmt: skip


def test_a_caller_on_a_socket_has_no_address_to_name():
    assert "X-Forwarded-For" not in sent(address=UNIX_PEER)[0]


def test_a_token_is_a_good_word():
    exchanged = read_exchange(200, dump_json({"access_token": "t", "scope": "a b"}))
    assert (exchanged.verdict, exchanged.token.reveal(), exchanged.scope) == (Verdict.GOOD, "t", "a b")
    assert "'t'" not in repr(exchanged)


@pytest.mark.parametrize(("status", "body", "verdict"), [
    (401, b"{}", Verdict.WRONG),
    (400, b'{"error":"invalid_client"}', Verdict.WRONG),
    (400, b'{"error":"invalid_scope"}', Verdict.NOT_ALLOWED),
    (400, b'{"error":"unauthorized_client"}', Verdict.NOT_ALLOWED),
    (400, b'{"error":"missing_realm"}', Verdict.NO_REALM),
    (404, b'{"error":"realm_not_found"}', Verdict.NO_REALM),
    (503, b"{}", Verdict.UNKNOWN),
    (200, b"{}", Verdict.UNKNOWN),
    (200, b'{"access_token":""}', Verdict.UNKNOWN),
    (200, b'{"access_token":5}', Verdict.UNKNOWN),
    (201, b'{"access_token":"t"}', Verdict.UNKNOWN),
    (401, b"<html>", Verdict.UNKNOWN),
    (200, b"[]", Verdict.UNKNOWN),
])  # fmt: skip
def test_every_other_answer_is_no_token(status, body, verdict):
    exchanged = read_exchange(status, body)
    assert (exchanged.verdict, exchanged.token) == (verdict, None)
