"""What the issuer makes of revocations: it signs nothing that would be born dead, and uses no revoked key."""

import pytest

from tests.services.issuer.support import ISSUER_URL, NOW, running
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import claims_fingerprint, key_fingerprint
from tokenry.revocation.lists import RevocationList

GRANT = {"grant_type": "client_credentials", "realm": "services"}
SALT = b"s" * 32
HOUR = 3600


def revocations(*entries):
    return RevocationList.of(entries, salts={"1": SALT}, epoch=1, max_token_lifetime=HOUR)


def rule(issued_before, block_until=None, **claims):
    return Entry(
        id=f"rule-{issued_before}",
        kind=Kind.CLAIMS,
        fingerprint=claims_fingerprint(claims.items(), salt=SALT),
        salt="1",
        names=tuple(sorted(claims)),
        issued_before=issued_before,
        in_force_until=NOW + 2 * HOUR,
        block_until=block_until,
    )


def key(kid):
    return Entry(
        id="key-1",
        kind=Kind.KEY,
        fingerprint=key_fingerprint(ISSUER_URL, kid, salt=SALT),
        salt="1",
        issued_before=None,
        in_force_until=None,
    )


@pytest.fixture
async def issuer():
    async with running(with_list=True) as around:
        around.revocations.publish(revocations())
        yield around


async def withheld(issuer, form=None):
    answer = await issuer.token(form or GRANT)
    assert (answer.status, answer.error) == (503, "temporarily_unavailable")
    assert int(answer.headers["Retry-After"]) > 0
    return True


async def test_D36_a_token_that_a_cut_off_ahead_would_hit_is_not_issued_until_it_has_passed(issuer):
    issuer.revocations.publish(revocations(rule(NOW + 3, sub="orders")))
    assert await withheld(issuer)
    assert (await issuer.token({**GRANT, "realm": "plan-b"})).status == 503
    issuer.clock.advance(2.9)
    assert await withheld(issuer)
    issuer.clock.advance(0.1)
    assert (await issuer.token(GRANT)).claims["iat"] == NOW + 3


async def test_what_the_rule_does_not_fit_is_issued(issuer):
    issuer.revocations.publish(revocations(rule(NOW + 3, sub="orders", realm="/employees")))
    assert (await issuer.token(GRANT)).status == 200
    issuer.revocations.publish(revocations(rule(NOW + 3, sub="robot")))
    assert (await issuer.token(GRANT)).status == 200
    assert await withheld(issuer, {"grant_type": "password", "realm": "services", "username": "robot",
                                   "password": "correct horse battery staple", "scope": "uid"})  # fmt: skip


async def test_client_id_and_azp_are_one_name(issuer):
    issuer.revocations.publish(revocations(rule(NOW + 3, client_id="orders")))
    assert await withheld(issuer)


async def test_a_block_holds_until_its_end_whatever_the_cut_off(issuer):
    issuer.revocations.publish(revocations(rule(NOW - 10, block_until=NOW + 600, sub="orders")))
    assert await withheld(issuer)
    issuer.clock.advance(599)
    assert await withheld(issuer)
    issuer.clock.advance(1)
    assert (await issuer.token(GRANT)).status == 200


async def test_everything_revoked_in_this_second_stops_this_second_only(issuer):
    everything = Entry(
        id="all-1", kind=Kind.ALL, fingerprint=None, salt=None, issued_before=NOW + 1, in_force_until=NOW + HOUR
    )
    issuer.revocations.publish(revocations(everything))
    assert await withheld(issuer)
    issuer.clock.advance(1)
    assert (await issuer.token(GRANT)).status == 200


async def test_a_withheld_token_is_counted(issuer):
    issuer.revocations.publish(revocations(rule(NOW + 3, sub="orders")))
    await withheld(issuer)
    assert b"tokenry_tokens_withheld_total 1.0" in (await issuer.call("GET", "/metrics")).body


async def test_a_revoked_key_leaves_the_jwk_set_at_once_and_the_standby_signs(issuer):
    first = (await issuer.token(GRANT)).header["kid"]
    before = await issuer.call("GET", "/.well-known/jwks.json")
    issuer.revocations.publish(revocations(key(first)))
    after = await issuer.call("GET", "/.well-known/jwks.json", headers={"If-None-Match": before.headers["ETag"]})
    assert after.status == 200
    assert first not in {each["kid"] for each in after.json["keys"]}
    assert len(after.json["keys"]) == 1
    assert (await issuer.token(GRANT)).header["kid"] == after.json["keys"][0]["kid"] != first


async def test_the_token_endpoint_alone_also_obeys_a_revoked_key(issuer):
    first = (await issuer.token(GRANT)).header["kid"]
    issuer.revocations.publish(revocations(key(first)))
    assert (await issuer.token(GRANT)).header["kid"] != first


async def test_without_any_key_left_it_is_503_everywhere(issuer):
    kids = [each["kid"] for each in (await issuer.call("GET", "/.well-known/jwks.json")).json["keys"]]
    issuer.revocations.publish(revocations(*(key(kid) for kid in kids[:1])))
    await issuer.token(GRANT)
    issuer.revocations.publish(revocations(key(kids[1])))
    assert await withheld(issuer)
    assert (await issuer.call("GET", "/.well-known/jwks.json")).status == 503
    assert (await issuer.call("GET", "/readyz")).status == 503


async def test_a_token_that_would_outlive_the_memory_of_its_revocation_is_not_issued(issuer):
    short = RevocationList.of((), salts={"1": SALT}, epoch=1, max_token_lifetime=600)
    issuer.revocations.publish(short)
    assert await withheld(issuer)
    assert (await issuer.token({**GRANT, "realm": "plan-b"})).json["expires_in"] == 600
    verbose = (await issuer.call("GET", "/readyz?verbose")).json["checks"]["revocations"]
    assert verbose["status"] == "degraded"
    assert "TOKENRY_MAX_TOKEN_LIFETIME" in verbose["detail"]


async def test_readiness_alone_also_sees_that_the_last_key_was_revoked(issuer):
    kids = list(issuer.issuer.keyring.states(lifetime=HOUR))
    issuer.revocations.publish(revocations(key(kids[0])))
    verbose = (await issuer.call("GET", "/readyz?verbose")).json
    assert "no standby" in verbose["checks"]["keys"]["detail"]
    issuer.revocations.publish(revocations(key(kids[1])))
    assert (await issuer.call("GET", "/readyz")).status == 503


async def test_a_list_of_any_age_is_obeyed_and_a_stale_one_stops_nothing_else(issuer):
    issuer.revocations.publish(revocations(rule(NOW + HOUR, sub="robot")))
    issuer.clock.advance(hours=0.5)
    assert (await issuer.token(GRANT)).status == 200
    verbose = (await issuer.call("GET", "/readyz?verbose")).json
    assert verbose["checks"]["revocations"]["status"] == "degraded"


async def test_at_start_the_first_list_is_waited_for_and_not_for_ever():
    async with running(with_list=True) as issuer:
        assert await withheld(issuer)
        assert (await issuer.call("GET", "/.well-known/jwks.json")).status == 503
        assert (await issuer.call("GET", "/readyz")).status == 503
        issuer.clock.advance(10)
        assert (await issuer.token(GRANT)).status == 200
        assert (await issuer.call("GET", "/.well-known/jwks.json")).status == 200
        verbose = await issuer.call("GET", "/readyz?verbose")
        assert verbose.status == 200
        assert verbose.json["checks"]["revocations"]["status"] == "degraded"


async def test_a_list_ends_the_wait_at_once():
    async with running(with_list=True) as issuer:
        issuer.revocations.publish(revocations())
        assert (await issuer.token(GRANT)).status == 200
        assert (await issuer.call("GET", "/readyz")).status == 200


async def test_at_start_a_kept_list_is_obeyed_and_a_fresh_one_is_waited_for_all_the_same():
    async with running(with_list=True) as issuer:
        kids = list(issuer.issuer.keyring.states(lifetime=HOUR))
        issuer.revocations.publish(revocations(key(kids[0])), age=5 * HOUR)
        assert await withheld(issuer)
        issuer.clock.advance(10)
        assert (await issuer.token(GRANT)).header["kid"] == kids[1]
        published = (await issuer.call("GET", "/.well-known/jwks.json")).json["keys"]
        assert [each["kid"] for each in published] == [kids[1]]


# --- clocks -------------------------------------------------------------------------------------------------


async def test_F47_an_issuer_whose_clock_is_ahead_signs_nothing_until_it_is_right(issuer):
    """Its tokens would say to be younger than they are, and outlive the cut-off of a revocation."""
    issuer.clock.advance(10)  # nothing is waited for any more
    assert (await issuer.token(GRANT)).status == 200
    issuer.clock.set_wall_clock(issuer.clock.now() + 600)  # the list held is from before the step
    assert await withheld(issuer)
    issuer.revocations.publish(revocations(), ahead=600)
    assert await withheld(issuer)
    ready = await issuer.call("GET", "/readyz?verbose")
    assert ready.status == 503
    assert "600 s ahead" in ready.json["checks"]["revocations"]["detail"]
    assert (await issuer.call("GET", "/.well-known/jwks.json")).status == 200  # what was signed is verified on
    metrics = (await issuer.call("GET", "/metrics")).body.decode()
    assert "tokenry_issuer_clock_ahead_seconds 600.0" in metrics
    issuer.clock.set_wall_clock(issuer.clock.now() - 600)
    issuer.revocations.publish(revocations())
    assert (await issuer.token(GRANT)).status == 200


@pytest.mark.parametrize("ahead", [-600.0, -5.0, 0.0, 2.0, 4.9])
async def test_F47_a_clock_that_is_behind_or_within_the_bound_stops_nothing(issuer, ahead):
    issuer.revocations.publish(revocations(), ahead=ahead)
    assert (await issuer.token(GRANT)).status == 200


async def test_F47_an_old_list_is_no_sign_of_a_clock_that_is_off(issuer):
    issuer.revocations.publish(revocations(), age=20)
    issuer.clock.advance(3 * HOUR)
    assert (await issuer.token(GRANT)).status == 200
