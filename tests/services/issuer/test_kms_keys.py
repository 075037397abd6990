"""An issuer whose signing keys are in a key management service: as good as sealed ones, and honest when it is away."""

import asyncio
import json
import threading

import jwt
import pytest
from moto import mock_aws

from tests.services.issuer.support import DAY, ISSUER_URL, NOW, SECRET, running
from tests.support.key_management import MemoryKeyManagement
from tokenry.client.token_source import ClientCredentials
from tokenry.errors import TokenFetchError
from tokenry.jose.jwks import KeySet
from tokenry.jose.remote import public_key_from_spki
from tokenry.revocation.lists import RevocationList
from tokenry.testing.clock import FakeClock
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator
from tokenry_issuer import remote_signing
from tokenry_registry.adapters.kms import AwsKeyManagement, make_client
from tokenry_registry.key_schedule import KeyTimes
from tokenry_registry.signing_keys import KeyUse, StoredKey

GRANT = {"grant_type": "client_credentials", "realm": "services"}
HOUR = 3600


def stored(management, *, activate_at, key_id=None):
    """The object of a key in *management*; with *key_id*: of another key there than the one it is named after."""
    made = management.create(use="token")
    public = public_key_from_spki(management.public_key(made))
    return StoredKey(
        kid=public.kid,
        use=KeyUse.TOKEN,
        times=KeyTimes(kid=public.kid, publish_at=NOW - DAY, activate_at=activate_at, retire_at=NOW + 30 * DAY),
        public_jwk=dict(public.members),
        kms_key_id=key_id or made,
    )


def put(around, key):
    around.store.put(f"keys/{key.kid}.json", key.to_json())


def validated(token, jwks):
    """What our validator says of *token*, by the published keys *jwks*."""
    ours = TrustedIssuer(issuer=ISSUER_URL, max_token_lifetime=HOUR)
    policy = ValidationPolicy(issuers=(ours,), audience=ISSUER_URL, list_warn_age=120.0, list_refuse_age=900.0)
    keys = KeySet.parse(json.dumps({"keys": jwks}).encode(), issuer=ISSUER_URL)
    nothing = RevocationList.of([], salts={}, epoch=1, max_token_lifetime=HOUR)
    return Validator(policy, remembered=1).validate(token, now=float(NOW), keys=keys, revocations=nothing, list_age=0.0)


async def ready(around):
    answer = await around.call("GET", "/readyz?verbose")
    return answer.status, answer.body.decode()


@pytest.fixture
def management():
    return MemoryKeyManagement()


@pytest.fixture
async def remote(management):
    """An issuer with an active key and a standby in *management*, and no other."""
    async with running(load=False, management=management) as around:
        for path in [path for path in around.store.objects if path.startswith("keys/")]:
            around.store.delete(path)
        around.kids = []
        for offset in (0, 10 * DAY):
            key = stored(management, activate_at=NOW - DAY + offset)
            put(around, key)
            around.kids.append(key.kid)
        yield around


async def published(around):
    return json.loads((await around.call("GET", "/.well-known/jwks.json")).body)["keys"]


async def test_its_tokens_are_those_of_any_other_key(remote):
    await remote.refresh()
    answer = await remote.token(GRANT)
    assert answer.status == 200
    assert answer.header["kid"] == remote.kids[0]
    token, keys = answer.json["access_token"], await published(remote)
    assert sorted(key["kid"] for key in keys) == sorted(remote.kids)
    jwk = next(key for key in keys if key["kid"] == remote.kids[0])
    said = jwt.decode(
        token,
        jwt.PyJWK(jwk),
        algorithms=["ES256"],
        audience=ISSUER_URL,
        options={"verify_exp": False, "verify_iat": False},
    )
    assert said["client_id"] == "orders"
    assert validated(token, keys).client_id == "orders"


async def test_a_token_costs_one_signature(remote, management):
    await remote.refresh()
    before = management.signed
    await remote.token(GRANT)
    assert management.signed == before + 1


async def test_the_private_half_is_nowhere_here(remote):
    await remote.refresh()
    key = remote.issuer.keyring.signer(lifetime=HOUR)
    assert key.remote
    assert not hasattr(key.private, "to_pkcs8_der")


async def test_while_it_is_away_there_are_no_tokens_and_readiness_says_why_and_it_recovers_by_itself(
    remote, management
):
    await remote.refresh()
    assert (await ready(remote))[0] == 200
    management.outage = "timeout"
    answer = await remote.token(GRANT)
    assert (answer.status, answer.error) == (503, "temporarily_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    status, why = await ready(remote)
    assert status == 503
    assert "the key management service does not sign" in why
    assert "timeout" in why
    assert len(await published(remote)) == 2  # tokens in use go on
    management.outage = None
    assert (await ready(remote))[0] == 503
    assert not remote.issuer.keyring.settled  # so the next try comes after seconds, without traffic
    await remote.issuer.keyring.refresh()
    assert (await ready(remote))[0] == 200
    assert (await remote.token(GRANT)).status == 200


async def test_F34_an_issuer_that_starts_while_it_is_away_is_not_ready_and_still_publishes(remote, management):
    management.outage = "EndpointConnectionError"
    await remote.refresh()
    status, why = await ready(remote)
    assert status == 503
    assert "EndpointConnectionError" in why
    assert (await remote.token(GRANT)).status == 503
    assert len(await published(remote)) == 2
    management.outage = None
    await remote.issuer.keyring.refresh()
    assert (await ready(remote))[0] == 200
    assert (await remote.token(GRANT)).status == 200


async def test_F34_it_recovers_also_while_the_store_is_away(remote, management):
    management.outage = "timeout"
    await remote.refresh()
    management.outage, remote.store.outage = None, "timeout"
    with pytest.raises(Exception, match="timeout"):
        await remote.issuer.keyring.refresh()
    assert (await remote.token(GRANT)).status == 200


async def test_a_token_that_a_client_holds_lives_on(remote, management):
    await remote.refresh()
    clock = FakeClock(start=float(NOW))
    source = ClientCredentials(
        token_url=remote.url + "/oauth2/token", client_id="orders", client_secret=SECRET, realm="services",
        clock=clock, environ={}, pause=clock.advance,
    )  # fmt: skip
    held = await asyncio.to_thread(source.get)
    management.outage = "timeout"
    clock.advance(HOUR - 300)  # past the moment at which the next one is wanted
    assert (await asyncio.to_thread(source.get)).value == held.value
    clock.advance(600)
    with pytest.raises(TokenFetchError):
        await asyncio.to_thread(source.get)


async def test_an_id_that_leads_to_another_key_never_signs_and_hinders_no_other(remote, management):
    wrong = stored(management, activate_at=NOW - 60, key_id=next(iter(management.keys)))
    put(remote, wrong)
    await remote.refresh()
    answer = await remote.token(GRANT)
    assert answer.header["kid"] == remote.kids[0]
    assert (await ready(remote))[0] == 200
    assert (
        'tokenry_credentials_rejected_total{cause="malformed"} 1.0'
        in (await remote.call("GET", "/metrics")).body.decode()
    )


async def test_a_standby_in_trouble_degrades_and_does_not_stop(remote, management):
    await remote.refresh()
    standby = list(management.keys)[1]
    key = management.keys.pop(standby)
    remote.issuer.keyring.remote.troubles[remote.kids[1]] = "timeout"
    await remote.issuer.keyring.refresh()
    status, why = await ready(remote)
    assert (status, "NotFoundException" in why) == (200, True)
    assert (await remote.token(GRANT)).status == 200
    management.keys[standby] = key
    await remote.issuer.keyring.refresh()
    assert remote.issuer.keyring.remote.troubles == {}


async def test_new_times_of_a_key_leave_it_signing_at_every_moment(remote, management):
    await remote.refresh()
    remote.store.change(f"keys/{remote.kids[0]}.json", retire_at=NOW + 40 * DAY)
    management.outage = "timeout"
    await remote.issuer.keyring.refresh()
    assert remote.issuer.keyring.signer(lifetime=HOUR).times.retire_at == NOW + 40 * DAY


async def test_a_slow_service_holds_up_nothing_else_and_a_full_queue_is_refused_at_once(remote, management):
    await remote.refresh()
    go_on, began = threading.Event(), threading.Event()

    def wait():
        began.set()
        assert go_on.wait(20)

    management.before_sign = wait
    asking = [asyncio.ensure_future(remote.token(GRANT)) for _ in range(3)]
    assert await asyncio.to_thread(began.wait, 20)
    assert len(await published(remote)) == 2  # the loop is free
    remote.issuer.keyring.remote._waiting += remote_signing.MAX_WAITING
    refused = await remote.token(GRANT)
    assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    remote.issuer.keyring.remote._waiting -= remote_signing.MAX_WAITING
    go_on.set()
    assert {answer.status for answer in await asyncio.gather(*asking)} == {200}


async def test_with_the_adapter_for_aws():
    with mock_aws():
        management = AwsKeyManagement(lambda: make_client(region="eu-central-1", access_key=("test", "test")))
        key = stored(management, activate_at=NOW - 60)
        async with running(load=False, management=management) as around:
            put(around, key)
            await around.refresh()
            answer = await around.token(GRANT)
            assert answer.header["kid"] == key.kid
            assert validated(answer.json["access_token"], await published(around)).client_id == "orders"


async def test_without_a_key_management_service_such_a_key_is_refused_and_hinders_no_other(issuer, management):
    key = stored(management, activate_at=NOW - 60)
    put(issuer, key)
    await issuer.refresh()
    assert (await issuer.token(GRANT)).header["kid"] != key.kid
