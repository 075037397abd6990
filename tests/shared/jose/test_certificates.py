import datetime as dt

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import authority, client_identity, make_identity, self_signed
from tokenry.errors import ProtocolError
from tokenry.jose.certificates import MAX_CERTIFICATE_BYTES, canonical_name, end_of_chain_file, read_certificate
from tokenry.jose.jwk import thumbprint


def test_names_of_every_kind_are_read():
    identity = make_identity(
        "CN=orders,OU=Shop,O=Example", dns=("a.example", "b.example"), uri=("spiffe://example/orders",),
        ip=("10.0.0.1", "fd00::1"), email=("ops@example.org",),
    )  # fmt: skip
    read = read_certificate(identity.der)
    assert read.subject == "CN=orders,OU=Shop,O=Example"
    assert read.dns == {"a.example", "b.example"}
    assert read.uri == {"spiffe://example/orders"}
    assert read.ip == {"10.0.0.1", "fd00::1"}
    assert read.email == {"ops@example.org"}


def test_a_certificate_without_other_names_has_none():
    read = read_certificate(self_signed().der)
    assert read.dns == read.uri == read.ip == read.email == frozenset()


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_the_key_is_known_by_its_jwk_thumbprint(curve):
    identity = make_identity(curve=curve)
    assert read_certificate(identity.der).key_thumbprint == thumbprint(identity.jwk)


def test_a_key_of_another_kind_has_no_thumbprint_here():
    assert read_certificate(make_identity(curve=ec.SECP521R1()).der).key_thumbprint is None


def test_the_time_of_validity_is_in_unix_seconds():
    end = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    read = read_certificate(make_identity(until=end).der)
    assert read.not_after == end.timestamp()
    assert read.not_before < read.not_after


@pytest.mark.parametrize("data", [b"", b"x", b"0" * (MAX_CERTIFICATE_BYTES + 1), client_identity().der[:-1]])
def test_what_is_no_certificate_is_refused(data):
    with pytest.raises(ProtocolError):
        read_certificate(data)


@given(st.integers(min_value=0), st.integers(min_value=0, max_value=255))
def test_a_damaged_certificate_is_read_or_refused_and_never_breaks(position, byte):
    der = bytearray(client_identity().der)
    der[position % len(der)] = byte
    try:
        read_certificate(bytes(der))
    except ProtocolError:
        return


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("CN=orders,O=Example", "CN=orders,O=Example"),
        ("2.5.4.3=orders", "CN=orders"),
        (r"CN=a\,b", r"CN=a\,b"),
    ],
)
def test_a_name_has_one_spelling(text, canonical):
    assert canonical_name(text) == canonical


@pytest.mark.parametrize("text", ["", "orders", "CN", "CN=a,=b", "CN=orders, O=Example"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(ProtocolError):
        canonical_name(text)


def test_the_canonical_name_is_that_of_a_certificate():
    assert read_certificate(authority().der).subject == canonical_name("CN=Test Authority")


def test_of_a_chain_file_the_first_certificate_is_the_one_that_is_shown():
    end = dt.datetime(2031, 2, 3, tzinfo=dt.UTC)
    own = make_identity("CN=issuer", until=end)
    for pem in (own.pem, own.pem + authority().pem, own.key_pem + own.pem, b"a line of text\n" + own.pem):
        assert end_of_chain_file(pem) == end.timestamp()


@pytest.mark.parametrize("pem", [b"", b"nonsense", self_signed().key_pem, self_signed().pem[:200]])
def test_a_file_without_a_certificate_has_no_end(pem):
    with pytest.raises(ProtocolError, match="no certificate"):
        end_of_chain_file(pem)
