"""Metadata of a protected resource (RFC 9728): made, found, and not believed about anybody else."""

import json

import pytest

from tokenry.client.resources import discover_resource
from tokenry.errors import ConfigurationError, ProtocolError
from tokenry.http.fetch import Response
from tokenry.oauth.protected_resource import ProtectedResource, metadata_url, read_protected_resource
from tokenry.protect import Protection

ORDERS = "https://orders.example"
ISSUER = "https://issuer.example"
OURS = ProtectedResource(resource=ORDERS, authorization_servers=(ISSUER,), scopes=("orders.read",), dpop=True)


def document(**changes):
    members = json.loads(OURS.document()) | changes
    return json.dumps({name: value for name, value in members.items() if value is not None}).encode()


def test_what_a_service_says_is_read_as_it_was_meant():
    assert read_protected_resource(OURS.document(), resource=ORDERS) == OURS
    assert json.loads(OURS.document()) == {
        "resource": ORDERS,
        "authorization_servers": [ISSUER],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["orders.read"],
        "dpop_signing_alg_values_supported": ["ES256"],
    }


# RFC 9728 section 3.1
@pytest.mark.parametrize(
    ("resource", "url"),
    [
        ("https://resource.example.com", "https://resource.example.com/.well-known/oauth-protected-resource"),
        ("https://resource.example.com/", "https://resource.example.com/.well-known/oauth-protected-resource"),
        ("https://a.example/resource1", "https://a.example/.well-known/oauth-protected-resource/resource1"),
        ("https://a.example:8443/x?y=z", "https://a.example:8443/.well-known/oauth-protected-resource/x?y=z"),
    ],
)
def test_M9_where_the_document_is(resource, url):
    assert metadata_url(resource) == url


@pytest.mark.parametrize(
    "resource",
    ["http://orders.example", "orders.example", "https://", "https://orders.example/#x", "https://u@orders.example",
     "https://orders.example/a b", "urn:orders", "https://orders.example:x"],
)  # fmt: skip
def test_M9_an_identifier_is_an_https_url_without_fragment(resource):
    with pytest.raises(ProtocolError):
        metadata_url(resource)
    with pytest.raises(ProtocolError):
        read_protected_resource(document(resource=resource), resource=resource)
    with pytest.raises(ConfigurationError, match="resource"):
        ProtectedResource(resource=resource, authorization_servers=(ISSUER,))


@pytest.mark.parametrize(
    "changes",
    [
        {"resource": None},
        {"resource": "https://orders.example/"},
        {"resource": "https://ORDERS.example"},
        {"resource": "https://other.example"},
        {"resource": [ORDERS]},
        {"authorization_servers": None},
        {"authorization_servers": []},
        {"authorization_servers": ISSUER},
        {"authorization_servers": [ISSUER, 1]},
        {"authorization_servers": [ISSUER] * 17},
        {"scopes_supported": "orders.read"},
    ],
    ids=str,
)
def test_M9_a_document_of_another_service_is_not_used(changes):
    with pytest.raises(ProtocolError):
        read_protected_resource(document(**changes), resource=ORDERS)


class Answers:
    def __init__(self, status, body):
        self.asked, self._response = [], Response(status=status, body=body)

    def fetch(self, request):
        self.asked.append(request.url)
        return self._response

    def cancel(self):
        pass


def test_M9_it_is_found_from_the_identifier_and_compared_with_it():
    answers = Answers(200, OURS.document())
    assert discover_resource(ORDERS, fetcher=answers).authorization_servers == (ISSUER,)
    assert answers.asked == [f"{ORDERS}/.well-known/oauth-protected-resource"]
    with pytest.raises(ProtocolError, match="another service's"):
        discover_resource("https://stock.example", fetcher=answers)
    with pytest.raises(ProtocolError, match="404"):
        discover_resource(ORDERS, fetcher=Answers(404, OURS.document()))


def test_M10_its_url_stands_in_challenges():
    challenge = Protection(validator=None, resource_metadata=OURS.url).challenge()
    assert challenge == f'Bearer resource_metadata="{ORDERS}/.well-known/oauth-protected-resource"'


def test_a_service_without_an_issuer_is_a_fault():
    with pytest.raises(ConfigurationError, match="authorization_servers"):
        ProtectedResource(resource=ORDERS, authorization_servers=())
