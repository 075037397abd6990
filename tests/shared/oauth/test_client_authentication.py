"""Client authentication by secret (RFC 6749 section 2.3.1)."""

from base64 import b64encode
from urllib.parse import quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.oauth.client_authentication import MAX_CLIENT_ID, MAX_SECRET, read_client_credential
from tokenry.oauth.errors import OAuthError
from tokenry.oauth.form import Form


def basic(client_id: str, secret: str) -> str:
    return "Basic " + b64encode(f"{client_id}:{secret}".encode()).decode()


@given(
    st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text),
    st.text(max_size=30),
)
def test_C03_basic_is_form_decoded_whatever_the_characters(client_id: str, secret: str) -> None:
    credential = read_client_credential([basic(quote_plus(client_id), quote_plus(secret))], Form())
    assert credential is not None
    first = credential.readings[0]
    assert (first.client_id, first.secret.reveal()) == (client_id, secret)


def test_a_client_that_does_not_encode_is_read_literally_second() -> None:
    credential = read_client_credential([basic("app", "p+q%20r:s")], Form())
    assert credential is not None
    assert [reading.secret.reveal() for reading in credential.readings] == ["p q r:s", "p+q%20r:s"]


def test_where_both_readings_agree_there_is_one() -> None:
    credential = read_client_credential([basic("app", "secret")], Form())
    assert credential is not None
    assert len(credential.readings) == 1


def test_an_undecodable_percent_sequence_leaves_the_literal_reading() -> None:
    credential = read_client_credential([basic("app", "100%ff")], Form())
    assert credential is not None
    assert [reading.secret.reveal() for reading in credential.readings] == ["100%ff"]


def test_C02_post_works() -> None:
    credential = read_client_credential([], Form([("client_id", "app"), ("client_secret", "s")]))
    assert credential is not None
    assert credential.method == "client_secret_post"
    assert credential.refusal().headers == ()


def test_no_credential_is_none() -> None:
    assert read_client_credential([], Form()) is None
    assert read_client_credential([], Form([("client_id", "app")])) is None


@pytest.mark.parametrize(
    ("authorization", "pairs"),
    [
        ([basic("a", "b")], [("client_id", "a"), ("client_secret", "b")]),  # D49
        ([basic("a", "b")], [("client_secret", "")]),
        ([basic("a", "b")], [("client_assertion", "x")]),
        ([basic("a", "b"), basic("a", "b")], []),  # D48
        ([basic("a", "b")], [("client_id", "other")]),
        ([], [("client_secret", "b")]),
        ([], [("client_id", "a"), ("client_id", "b"), ("client_secret", "s")]),
    ],
)
def test_C01_more_than_one_method_is_invalid_request(authorization: list[str], pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(OAuthError) as refused:
        read_client_credential(authorization, Form(pairs))
    assert refused.value.code == "invalid_request"


def test_the_same_client_id_beside_basic_is_an_identifier() -> None:
    assert read_client_credential([basic("a", "b")], Form([("client_id", "a")])) is not None


@pytest.mark.parametrize(
    "header",
    [
        "Basic " + b64encode(b"no-colon").decode(),  # D50
        "Basic !!!!",
        "Basic " + b64encode(b"\xff\xfe:x").decode(),
        "Basic \udcff\udcfe",
        "Basic",
        "Bearer a.b.c",
        "Digest x",
        basic("", "secret"),
        basic("a" * (MAX_CLIENT_ID + 1), "s"),
        basic("a", "s" * (MAX_SECRET + 1)),
        "Basic " + "A" * 100_000,
    ],
)
def test_D50_what_is_not_basic_is_a_failed_authentication(header: str) -> None:
    with pytest.raises(OAuthError) as refused:
        read_client_credential([header], Form())
    assert (refused.value.status, refused.value.code) == (401, "invalid_client")
    assert refused.value.headers[0][0] == "WWW-Authenticate"


@given(st.text(max_size=80))
def test_any_header_gives_a_credential_or_a_refusal(header: str) -> None:
    try:
        read_client_credential([header], Form())
    except OAuthError as error:
        assert error.status in {400, 401}


def test_a_secret_is_in_no_repr() -> None:
    assert "hunter2" not in repr(read_client_credential([basic("a", "hunter2")], Form()))
