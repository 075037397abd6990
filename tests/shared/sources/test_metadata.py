import json

import pytest

from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.sources.metadata import metadata_urls, parse_metadata

ISSUER = "https://issuer.test"


def document(**members):
    return json.dumps({"issuer": ISSUER, **members}).encode()


def test_the_well_known_places_of_an_issuer_without_a_path():
    assert metadata_urls(ISSUER) == (
        "https://issuer.test/.well-known/oauth-authorization-server",
        "https://issuer.test/.well-known/openid-configuration",
    )


def test_a_path_goes_behind_the_one_place_and_before_the_other():
    assert metadata_urls("https://issuer.test/a/b/") == (
        "https://issuer.test/.well-known/oauth-authorization-server/a/b",
        "https://issuer.test/a/b/.well-known/openid-configuration",
    )


@pytest.mark.parametrize(
    "issuer", ["issuer.test", "https://issuer.test?x=1", "https://issuer.test#x", "https://issuer.test?", ""]
)
def test_an_identifier_that_is_no_url_without_query_and_fragment_is_refused(issuer):
    with pytest.raises(ConfigurationError):
        metadata_urls(issuer)


def test_endpoints_are_read_and_other_members_ignored():
    metadata = parse_metadata(
        document(jwks_uri="https://k/", token_endpoint="https://t/", revocation_list_uri="https://r/", x=[1]),
        issuer=ISSUER,
    )
    assert (metadata.jwks_uri, metadata.token_endpoint) == ("https://k/", "https://t/")
    assert (metadata.revocation_list_uri, metadata.introspection_endpoint) == ("https://r/", None)


@pytest.mark.parametrize(
    "other",
    ["https://issuer.test/", "https://ISSUER.test", "https://evil.test", "", None, ["https://issuer.test"]],
)
def test_M02_metadata_of_another_issuer_are_refused_byte_for_byte(other):
    with pytest.raises(ProtocolError, match="another issuer"):
        parse_metadata(document(issuer=other), issuer=ISSUER)


@pytest.mark.parametrize("uri", [5, "", "file:///etc/passwd", "https://u:p@h/", "//h/", "https://h/#f", ["https://h/"]])
def test_an_endpoint_that_is_no_url_refuses_the_document(uri):
    with pytest.raises(ProtocolError):
        parse_metadata(document(jwks_uri=uri), issuer=ISSUER)


@pytest.mark.parametrize("body", [b"", b"[]", b"<html>", b'{"issuer":"a","issuer":"b"}', b"\xff"])
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(ProtocolError):
        parse_metadata(body, issuer=ISSUER)
