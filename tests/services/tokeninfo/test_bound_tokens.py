"""Tokens that are bound to a certificate (RFC 8705 section 3) at token info, introspection and /auth."""

import base64

import pytest

from tests.services.tokeninfo.conftest import bearer, introspector
from tests.support.access_tokens import token
from tests.support.certificates import client_identity
from tokenry.oauth.mutual_tls import PresentedCertificate

MINE, OTHER = client_identity(), client_identity("stock")
CNF = {"x5t#S256": PresentedCertificate(der=MINE.der, chain_verified=True).thumbprint}
BOUND = token(cnf=CNF)


def field(identity):
    return {"Client-Cert": f":{base64.b64encode(identity.der).decode()}:"}


@pytest.fixture
async def behind_proxy(start):
    async with start(trusted_proxies="127.0.0.0/8", client_certificate_header="Client-Cert") as running:
        yield running


@pytest.mark.parametrize("path", ["/oauth2/tokeninfo", "/auth?authenticated=1"])
async def test_V25_the_proxys_certificate_makes_it_good(behind_proxy, path):
    for _ in range(3):  # the quick way, which knows nothing of certificates, must not spoil it
        for headers, status in ((field(MINE), 200), (field(OTHER), 401), ({}, 401), ({"Client-Cert": "garbage"}, 400)):
            answer = await behind_proxy.ask("GET", path, headers=bearer(BOUND) | headers)
            assert answer.status == status, (headers, answer.body)


@pytest.mark.parametrize("path", ["/oauth2/tokeninfo", "/auth?authenticated=1"])
async def test_T25_a_caller_cannot_write_the_field_itself(start, path):
    for changes in ({}, {"trusted_proxies": "10.0.0.0/8", "client_certificate_header": "Client-Cert"}):
        async with start(**changes) as service:
            answer = await service.ask("GET", path, headers=bearer(BOUND) | field(MINE))
            assert answer.status == 401


async def test_V25_an_unknown_demand_is_refused_whatever_is_presented(behind_proxy):
    for cnf in ({"jkt": "x"}, {**CNF, "jkt": "x"}):
        answer = await behind_proxy.ask("GET", "/oauth2/tokeninfo", headers=bearer(token(cnf=cnf)) | field(MINE))
        assert answer.status == 401
        assert (await behind_proxy.introspect(token(cnf=cnf))).json == {"active": False}


async def test_I9_introspection_says_what_it_is_bound_to_and_leaves_the_comparison_to_who_asks(service):
    answer = (await service.introspect(BOUND)).json
    assert answer["active"] is True
    assert answer["cnf"] == CNF


async def test_the_callers_own_token_may_be_bound_too(behind_proxy):
    caller = bearer(introspector(cnf=CNF))
    assert (await behind_proxy.introspect(BOUND, headers=caller)).status == 401
    assert (await behind_proxy.introspect(BOUND, headers=caller | field(OTHER))).status == 401
    assert (await behind_proxy.introspect(BOUND, headers=caller | field(MINE))).json["active"] is True
