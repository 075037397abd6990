"""Tokens bound to a key of the client (DPoP, RFC 9449 section 5), for clients that ask for it, and for no others."""

import pytest
from structlog.testing import capture_logs

from tests.services.issuer.support import ISSUER_URL, running
from tests.services.issuer.test_token_endpoint import GRANT, ORDERS, refused
from tokenry.client.proofs import ProofKey


async def proof_for(issuer, *, method="POST", path="/oauth2/token", key=None, token=None):
    key = key or ProofKey(issuer.clock)
    return key, key.prove(method, ISSUER_URL + path, token=token)


async def ask(issuer, *proofs, **members):
    return await issuer.token({**GRANT, **members}, headers=[("DPoP", proof) for proof in proofs])


@pytest.fixture(params=[True, "required"])
async def issuer(request):
    async with running() as issuer:
        issuer.store.change(ORDERS, dpop=request.param)
        await issuer.refresh()
        yield issuer


async def test_V26_the_token_is_bound_to_the_key_that_signed_the_proof(issuer):
    key, proof = await proof_for(issuer)
    answer = await ask(issuer, proof)
    assert answer.status == 200, answer.body
    assert answer.json["token_type"] == "DPoP"
    assert answer.claims["cnf"] == {"jkt": key.jkt}


async def test_the_alias_of_the_endpoint_is_an_endpoint_too(issuer):
    _, proof = await proof_for(issuer, path="/oauth2/access_token")
    assert (await ask(issuer, proof)).status == 200


async def test_V26_a_proof_is_good_once(issuer):
    _, proof = await proof_for(issuer)
    assert (await ask(issuer, proof)).status == 200
    assert refused(await ask(issuer, proof), 400, "invalid_dpop_proof")


@pytest.mark.parametrize("bad", [{"method": "GET"}, {"path": "/oauth2/other"}, {"path": ""}])
async def test_V26_a_proof_for_something_else_is_refused(issuer, bad):
    _, proof = await proof_for(issuer, **bad)
    assert refused(await ask(issuer, proof), 400, "invalid_dpop_proof")


async def test_V26_two_proofs_and_garbage_are_refused(issuer):
    (_, one), (_, two) = [await proof_for(issuer) for _ in range(2)]
    for proofs in ((one, two), ("garbage",), ("",)):
        assert refused(await ask(issuer, *proofs), 400, "invalid_dpop_proof")


async def test_V26_an_old_proof_is_refused(issuer):
    _, proof = await proof_for(issuer)
    issuer.clock.advance(61)
    assert refused(await ask(issuer, proof), 400, "invalid_dpop_proof")


async def test_the_key_is_no_authentication(issuer):
    _, proof = await proof_for(issuer)
    answer = await issuer.token(GRANT, client=("orders", "wrong"), headers=[("DPoP", proof)])
    assert refused(answer, 401, "invalid_client")
    assert (await ask(issuer, proof)).status == 200  # and it was not used up by that


async def test_without_a_proof_it_depends_on_the_client():
    async with running() as issuer:
        issuer.store.change(ORDERS, dpop=True)
        await issuer.refresh()
        answer = await ask(issuer)
        assert (answer.json["token_type"], "cnf" in answer.claims) == ("Bearer", False)
        issuer.store.change(ORDERS, dpop="required")
        await issuer.refresh()
        assert refused(await ask(issuer), 400, "invalid_dpop_proof")


@pytest.mark.parametrize("members", [{}, {"dpop": False}])
async def test_a_client_that_does_not_ask_for_it_gets_a_bearer_token_as_before(members):
    async with running() as issuer:
        issuer.store.change(ORDERS, **members)
        await issuer.refresh()
        for proofs in ((await proof_for(issuer))[1:], ("garbage",), ()):
            answer = await ask(issuer, *proofs)
            assert answer.status == 200
            assert answer.json["token_type"] == "Bearer"
            assert "cnf" not in answer.claims


@pytest.mark.parametrize("value", ["optional", "yes", 1, [], None, ""])
async def test_another_word_in_the_client_object_is_refused_and_the_last_good_one_stays(value):
    async with running() as issuer:
        issuer.store.change(ORDERS, dpop="required")
        await issuer.refresh()
        issuer.store.change(ORDERS, dpop=value)
        await issuer.refresh()
        assert refused(await ask(issuer), 400, "invalid_dpop_proof")


async def test_metadata_say_so_and_the_audit_record_names_the_key(issuer):
    document = await issuer.call("GET", "/.well-known/oauth-authorization-server")
    assert document.json["dpop_signing_alg_values_supported"] == ["ES256"]
    key, proof = await proof_for(issuer)
    with capture_logs() as logs:
        await ask(issuer, proof)
    records = [entry for entry in logs if entry["event"] == "token_issued"]
    assert [entry["bound_to_key"] for entry in records] == [key.jkt]
    assert proof not in str(logs)
