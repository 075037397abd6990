import json

import pytest

from tests.services.issuer.support import DAY, ISSUER_URL, NOW, MemoryStore
from tokenry.jose.jwks import KeySet
from tokenry.jose.sealing import EnvelopeKey
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import key_fingerprint
from tokenry.revocation.lists import RevocationList
from tokenry.testing.clock import FakeClock
from tokenry_issuer.keyring import Keyring
from tokenry_registry import bootstrap
from tokenry_registry.key_schedule import KeyState
from tokenry_registry.ports import StoreUnavailable
from tokenry_registry.realms import Refusal, RefusedObject

HOUR = 3600
SALT = b"s" * 32


def revoking(*kids, others=()):
    entries = [
        Entry(
            id=f"rev-{number}",
            kind=Kind.KEY,
            fingerprint=key_fingerprint(ISSUER_URL, kid, salt=SALT),
            salt="1",
            issued_before=None,
            in_force_until=None,
        )
        for number, kid in enumerate(kids)
    ]
    return RevocationList.of([*entries, *others], salts={"1": SALT}, epoch=1, max_token_lifetime=HOUR)


class Watched:
    def __init__(self, folder):
        self.folder = folder
        self.store, self.clock, self.refused = MemoryStore(), FakeClock(start=float(NOW)), []
        self.envelope = EnvelopeKey.generate()
        self.keyring = Keyring(
            self.store,
            issuer=ISSUER_URL,
            envelope=self.envelope,
            clock=self.clock,
            announce=660,
            on_refused=self.refused.append,
        )

    def add(self, *, publish_at=NOW - DAY, activate_at=None, retire_at=NOW + 30 * DAY, use="token"):
        kid = bootstrap.create_signing_key(
            self.folder,
            self.envelope,
            publish_at=publish_at,
            activate_at=publish_at if activate_at is None else activate_at,
            retire_at=retire_at,
            use=use,
        )
        self.store.put(f"keys/{kid}.json", (self.folder / f"keys/{kid}.json").read_bytes())
        return kid

    @property
    def signing(self):
        key = self.keyring.signer(lifetime=HOUR)
        return None if key is None else key.private.kid

    @property
    def published(self):
        published = self.keyring.jwk_set()
        return None if published is None else sorted(key["kid"] for key in json.loads(published.body)["keys"])


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


async def test_the_active_key_signs_and_the_standby_is_published(watched):
    active, standby = watched.add(), watched.add(activate_at=NOW + DAY)
    await watched.keyring.refresh()
    assert watched.signing == active
    assert watched.published == sorted([active, standby])
    assert watched.keyring.faults(lifetime=HOUR) == ()


async def test_a_rotation_happens_by_time_alone(watched):
    first, second = watched.add(retire_at=NOW + 2 * DAY), watched.add(activate_at=NOW + DAY)
    await watched.keyring.refresh()
    etag = watched.keyring.jwk_set().etag
    watched.clock.advance(DAY)
    assert watched.signing == second
    assert watched.keyring.jwk_set().etag == etag
    watched.clock.advance(DAY)
    assert watched.published == [second]
    assert watched.keyring.jwk_set().etag != etag
    assert watched.keyring.states(lifetime=HOUR)[first][0] is KeyState.RETIRED


async def test_without_keys_nothing_is_signed_or_published(watched):
    with pytest.raises(StoreUnavailable) as error:
        await watched.keyring.refresh()
    assert error.value.code == "no_key"
    assert watched.signing is None
    assert watched.published is None
    assert not watched.keyring.loaded


async def test_J10_keys_of_another_use_are_neither_used_nor_published(watched):
    token, other, introspection = watched.add(), watched.add(use="list"), watched.add(use="introspection")
    await watched.keyring.refresh()
    assert watched.published == [token]
    assert watched.refused == []
    assert {other, introspection}.isdisjoint(watched.keyring.states(lifetime=HOUR))


async def test_M05_the_jwk_set_has_no_private_member_and_what_a_validator_needs(watched):
    watched.add()
    await watched.keyring.refresh()
    body = watched.keyring.jwk_set().body
    (key,) = json.loads(body)["keys"]
    assert set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"}
    assert (key["kty"], key["crv"], key["use"], key["alg"]) == ("EC", "P-256", "sig", "ES256")
    assert len(key["x"]) == len(key["y"]) == 43
    assert KeySet.parse(body, issuer=ISSUER_URL).kids(ISSUER_URL) == {key["kid"]}


async def test_a_damaged_key_keeps_its_last_good_version(watched):
    kid = watched.add()
    await watched.keyring.refresh()
    watched.store.put(f"keys/{kid}.json", b"{")
    await watched.keyring.refresh()
    assert watched.signing == kid
    assert watched.refused == [Refusal.MALFORMED]


async def test_a_key_that_does_not_open_hinders_no_other(watched):
    good = watched.add()
    watched.envelope = EnvelopeKey.generate()
    watched.add(activate_at=NOW - 1)
    await watched.keyring.refresh()
    assert watched.signing == good
    assert watched.published == [good]
    assert watched.refused == [Refusal.MALFORMED]


async def test_F05_an_empty_listing_of_keys_is_refused(watched):
    kid = watched.add()
    await watched.keyring.refresh()
    watched.store.objects.clear()
    with pytest.raises(RefusedObject):
        await watched.keyring.refresh()
    assert watched.signing == kid


async def test_F01_an_outage_leaves_the_keys_in_force(watched):
    kid = watched.add()
    await watched.keyring.refresh()
    watched.store.outage = "timeout"
    with pytest.raises(StoreUnavailable):
        await watched.keyring.refresh()
    assert watched.signing == kid


async def test_a_revoked_key_is_dropped_at_once_and_the_standby_signs(watched):
    active, standby = watched.add(), watched.add(activate_at=NOW + DAY)
    await watched.keyring.refresh()
    assert watched.published == sorted([active, standby])
    watched.keyring.obey(revoking(active))
    assert watched.signing == standby
    assert watched.published == [standby]
    assert active not in watched.keyring.states(lifetime=HOUR)


async def test_a_key_once_revoked_never_comes_back(watched):
    active, standby = watched.add(), watched.add(activate_at=NOW + DAY)
    await watched.keyring.refresh()
    watched.keyring.obey(revoking(active))
    watched.keyring.obey(revoking())
    watched.store.put(f"keys/{active}.json", (watched.folder / f"keys/{active}.json").read_bytes())
    await watched.keyring.refresh()
    assert watched.signing == standby
    assert watched.published == [standby]


async def test_a_key_that_was_revoked_before_it_was_ever_seen_is_never_used(watched):
    good = watched.add()
    await watched.keyring.refresh()
    bad = watched.add(activate_at=NOW - 1)
    revocations = revoking(bad)
    watched.keyring.obey(revocations)
    await watched.keyring.refresh()
    watched.keyring.obey(revocations)
    assert watched.signing == good
    assert watched.published == [good]


async def test_the_last_key_revoked_leaves_nothing_to_sign_with_rather_than_a_revoked_one(watched):
    only = watched.add()
    await watched.keyring.refresh()
    watched.keyring.obey(revoking(only))
    assert watched.signing is None
    assert watched.published is None


async def test_rules_over_tokens_do_not_stop_keys(watched):
    kid = watched.add()
    await watched.keyring.refresh()
    everything = Entry(
        id="all-1", kind=Kind.ALL, fingerprint=None, salt=None, issued_before=NOW + 10, in_force_until=NOW + DAY
    )
    watched.keyring.obey(revoking(others=[everything]))
    assert watched.signing == kid


async def test_another_issuers_key_of_the_same_kid_is_none_of_ours(watched):
    kid = watched.add()
    await watched.keyring.refresh()
    entry = Entry(
        id="rev-x", kind=Kind.KEY, fingerprint=key_fingerprint("https://other.example.org", kid, salt=SALT),
        salt="1", issued_before=None, in_force_until=None,
    )  # fmt: skip
    watched.keyring.obey(RevocationList.of([entry], salts={"1": SALT}, epoch=1, max_token_lifetime=HOUR))
    assert watched.signing == kid
