"""Certificates in header fields, and what a bound token demands (RFC 8705, RFC 9440)."""

import base64
import hashlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.certificates import client_identity
from tokenry.errors import ProtocolError
from tokenry.oauth.confirmation import Shown, demanded_by
from tokenry.oauth.mutual_tls import MAX_HEADER, HeaderForm, PresentedCertificate, bound_to, read_certificate_header

DER, PEM = client_identity().der, client_identity().pem.decode()
RFC9440 = f":{base64.b64encode(DER).decode()}:"
ESCAPED = quote(PEM, safe="")


def test_RFC_9440_writes_the_der_form_between_colons():
    assert read_certificate_header([RFC9440], HeaderForm.RFC9440) == DER
    assert read_certificate_header([f" {RFC9440} "], HeaderForm.RFC9440) == DER


@pytest.mark.parametrize("safe", ["", "/:=+ -"])
def test_nginx_writes_the_pem_form_percent_encoded(safe):
    assert read_certificate_header([quote(PEM, safe=safe)], HeaderForm.ESCAPED_PEM) == DER


@pytest.mark.parametrize("form", HeaderForm)
@pytest.mark.parametrize("values", [[], [""], [" "]])
def test_no_field_and_an_empty_one_are_no_certificate(form, values):
    assert read_certificate_header(values, form) is None


@pytest.mark.parametrize("form", HeaderForm)
@pytest.mark.parametrize(
    "values",
    [
        [RFC9440, RFC9440], ["", ""], [RFC9440[:-1]], [RFC9440[1:]], ["::"], [":"], [":*:"], [":QQ:"],
        [RFC9440 + ";x=1"],
        [f"{RFC9440}, {RFC9440}"], [PEM.replace("BEGIN", "BEGUN")], [quote(PEM + PEM)], ["ä"],
        [":" + "A" * MAX_HEADER + ":"],
        [quote("-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----")],
        [quote("-----BEGIN CERTIFICATE-----\nQQ\n-----END CERTIFICATE-----")],
        [quote("-----BEGIN PRIVATE KEY-----\nQUJD\n-----END PRIVATE KEY-----")],
    ],
)  # fmt: skip
def test_what_is_not_one_certificate_is_refused(form, values):
    with pytest.raises(ProtocolError):
        read_certificate_header(values, form)


def test_a_form_is_not_taken_for_the_other():
    for value, form in ((RFC9440, HeaderForm.ESCAPED_PEM), (ESCAPED, HeaderForm.RFC9440)):
        with pytest.raises(ProtocolError):
            read_certificate_header([value], form)


@given(st.text(max_size=200), st.sampled_from(list(HeaderForm)))
def test_any_text_is_read_or_refused(text, form):
    try:
        read_certificate_header([text], form)
    except ProtocolError:
        return


def test_the_thumbprint_is_the_hash_of_the_der_form():
    expected = base64.urlsafe_b64encode(hashlib.sha256(DER).digest()).decode().rstrip("=")
    presented = PresentedCertificate(der=DER, chain_verified=True)
    assert presented.thumbprint == expected
    assert demanded_by(bound_to(presented.thumbprint)) == Shown(certificate=expected)
    assert "der" not in repr(presented)


@pytest.mark.parametrize(
    "cnf",
    [
        None,
        "x",
        [],
        {},
        {"jkt": "x"},
        {"x5t#S256": ""},
        {"x5t#S256": 5},
        {"x5t#S256": "x", "jkt": "y"},
        {"X5T#S256": "x"},
        {"x5t#S256": "A" * 43, "x5u": "A" * 43},
    ],
)
def test_V25_a_demand_that_is_not_understood_is_no_demand_that_can_be_met(cnf):
    assert demanded_by(cnf) is None
