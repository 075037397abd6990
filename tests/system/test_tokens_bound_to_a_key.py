"""A token that is bound to a key (DPoP), over the real platform: issuer, library, introspection, revocation."""

import json
import time

import pytest

from tests.support.platform import Deployment
from tests.support.processes import Processes
from tokenry import ANY_AUDIENCE, ClientCredentials, Introspector, InvalidToken, TokenFetchError, TokenValidator
from tokenry.dpop import Asked, Dpop
from tokenry.protect import Protection, Refused

pytestmark = pytest.mark.processes
BASE = "https://orders.example"


@pytest.fixture(scope="module")
def platform(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dpop")
    processes = Processes(folder)
    deployment = Deployment(folder, processes)
    deployment.use_folder()
    deployment.use_sqlite()
    client_id = deployment.identities.client["client_id"]
    path = next((folder / "platform").rglob(f"realms/services/clients/{client_id}.json"))
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dpop": True}))
    deployment.start()
    yield deployment
    processes.end()


def source(platform, *, admin=False, **more):
    identity = platform.identities.admin if admin else platform.identities.client
    return ClientCredentials(
        more.pop("scope", ""),
        issuer=platform.url("issuer", ""),
        client_id=identity["client_id"],
        client_secret=identity["client_secret"],
        realm="/services",
        environ={},
        **more,
    )


def test_from_the_issuer_to_a_service_and_out_of_force(platform):
    token = source(platform, dpop=True).get()
    with TokenValidator(platform.url("issuer", ""), audience=ANY_AUDIENCE) as validator:
        ours = Protection(validator=validator, dpop=Dpop(BASE))

        def call(path="/orders", proof_of="/orders"):
            sent = token.headers("GET", BASE + proof_of)
            return ours.admit([sent["Authorization"]], asked=lambda: Asked("GET", path, [sent["DPoP"]]))

        assert call().claims["cnf"] == {"jkt": token.prover.jkt}
        with pytest.raises(Refused):
            call(proof_of="/other")
        with pytest.raises(InvalidToken):
            validator.validate(token.value)
        assert platform.tokeninfo(token.value) == 401  # it is no bearer token there either
        remote = Introspector(platform.url("issuer", ""), audience=ANY_AUDIENCE, source=introspecting(platform))
        asked = Protection(validator=remote, dpop=Dpop(BASE))
        sent = token.headers("GET", f"{BASE}/orders")
        seen = asked.admit([sent["Authorization"]], asked=lambda: Asked("GET", "/orders", [sent["DPoP"]]))
        assert seen.claims["cnf"] == {"jkt": token.prover.jkt}
        remote.stop()
        assert platform.revoke_token(token.value).status == 201
        end = time.monotonic() + 30
        while True:
            try:
                call()
            except Refused:
                break
            assert time.monotonic() < end, "the revocation did not arrive"
            time.sleep(0.1)


def introspecting(platform):
    return source(platform, admin=True, scope="token.introspect")


def test_a_client_that_is_not_set_to_it_gets_none(platform):
    with pytest.raises(TokenFetchError, match="not of token_type DPoP"):
        source(platform, admin=True, dpop=True).get()
    assert source(platform).get().prover is None
