"""Forms are read strictly, and repeat nothing of what was sent."""

from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.oauth.errors import OAuthError
from tokenry.oauth.form import FORM, MAX_PARAMETERS, Form, parse_form, parse_query


def test_values_are_percent_decoded_utf8() -> None:
    form = parse_form(b"a=%C3%A4+b&c=1%2B1", content_type=FORM)
    assert (form.one("a"), form.one("c")) == ("ä b", "1+1")


def test_T03_a_parameter_without_a_value_is_absent() -> None:
    form = parse_form(b"scope=&realm", content_type=FORM)
    assert form.one("scope") is None
    assert form.one("realm") is None


def test_T04_a_parameter_sent_twice_is_refused_where_it_is_read() -> None:
    form = parse_form(b"scope=a&scope=b&other=1&other=2&realm=&realm=x", content_type=FORM)
    for name in ("scope", "realm"):
        with pytest.raises(OAuthError, match="more than once") as refused:
            form.one(name)
        assert refused.value.code == "invalid_request"
    assert form.every("other") == ("1", "2")


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", "multipart/form-data; boundary=x", "text/plain"]
)
def test_a_body_of_another_type_is_415(content_type: str | None) -> None:
    with pytest.raises(OAuthError) as refused:
        parse_form(b"a=1", content_type=content_type)
    assert refused.value.status == 415


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf-8"', "us-ascii"])
def test_utf8_may_be_named(charset: str) -> None:
    assert parse_form(b"a=1", content_type=f"{FORM}; charset={charset}").one("a") == "1"


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"a=1", f"{FORM}; charset=bogus"),  # D51
        (b"a=1", f"{FORM}; charset=utf-16"),
        (b"a=%ff", FORM),
        (b"a=\xff", FORM),
        (b"&".join([b"a=1"] * (MAX_PARAMETERS + 1)), FORM),  # D52
        (b"&" * 100_000, FORM),
    ],
)
def test_what_is_no_utf8_form_is_invalid_request(body: bytes, content_type: str) -> None:
    with pytest.raises(OAuthError) as refused:
        parse_form(body, content_type=content_type)
    assert (refused.value.status, refused.value.code) == (400, "invalid_request")


@given(st.binary(max_size=200), st.one_of(st.none(), st.just(FORM), st.text(max_size=60)))
def test_any_body_gives_a_form_or_a_refusal(body: bytes, content_type: str | None) -> None:
    try:
        form = parse_form(body, content_type=content_type)
    except OAuthError as error:
        assert error.status in {400, 415}
    else:
        assert isinstance(form, Form)


@given(st.text(max_size=100))
def test_any_query_gives_a_form_or_a_refusal(query: str) -> None:
    try:
        parse_query(query)
    except OAuthError as error:
        assert error.status == 400


def test_a_form_never_shows_what_it_holds() -> None:
    assert "hunter2" not in repr(parse_form(b"password=hunter2", content_type=FORM))


@given(st.text(alphabet="ab=&+%2fC3é41", max_size=40).map(lambda text: text.encode("utf-8", "replace")))
def test_a_form_is_read_as_the_standard_library_reads_it(body: bytes) -> None:
    try:
        expected = parse_qsl(body.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict")
    except ValueError:  # a `UnicodeDecodeError`, of either
        with pytest.raises(OAuthError):
            parse_form(body, content_type=FORM)
        return
    form = parse_form(body, content_type=FORM)
    assert form.names() == {name for name, _ in expected}
    for name in form.names():
        assert form.every(name) == tuple(value for key, value in expected if key == name and value)
