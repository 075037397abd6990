"""D33 to D42: what is revoked stays refused however it is spelt, and nothing else is refused with it."""

import time
import uuid

import pytest

from tests.support.access_tokens import Forge
from tests.support.attacked import CHANNELS, AttackedPlatform, Presenter, Talker
from tests.support.http import Answer, call
from tests.system.conftest import until
from tokenry.jose import jws
from tokenry.jose.encoding import dump_json

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

PROMISE_SECONDS = 31.0  # the bound by polling; held requests make it a fraction of a second
LEEWAY = 5


@pytest.fixture
def forge(platform: AttackedPlatform) -> Forge:
    """A forge whose good tokens are issued now, ten seconds ago, so that any cut-off of today hits them."""
    return platform.forge(now=int(time.time()) - 10)


def token_of(forge: Forge, **changes) -> str:
    return forge.token(jti=uuid.uuid4().hex, exp=changes.pop("exp", int(time.time()) + 600), **changes)


def revoke(platform: AttackedPlatform, document: dict) -> Answer:
    url = platform.url("revocation", "/revocations")
    return call("POST", url, document=document, bearer=platform.admin_bearer())


def revoke_claims(platform: AttackedPlatform, *, issued_before: int | None = None, **claims: str) -> dict:
    data = {"claims": claims} | ({} if issued_before is None else {"issued_before": issued_before})
    answer = revoke(platform, {"type": "CLAIM", "data": data})
    assert answer.status == 201, answer
    return answer.json


def refused(presenter: Presenter, token: str, *channels: str) -> bool:
    """Tell whether *token* is refused on each of *channels*; anything but a clear yes or no is a failure."""
    verdicts = set()
    for channel in channels or CHANNELS:
        answer = presenter.present(token, channel)
        assert answer is not None
        assert answer.status in {200, 401}, (channel, answer)
        verdicts.add(answer.status == 401 or answer.body == b'{"active":false}')
    return verdicts == {True}


def wait_refused(presenter: Presenter, token: str, *channels: str) -> None:
    until(lambda: refused(presenter, token, *channels), seconds=PROMISE_SECONDS)


def entries(platform: AttackedPlatform) -> list[dict]:
    return call("GET", platform.url("revocation", "/revocations/snapshot")).json["entries"]


def test_D33_the_twin_of_a_revoked_token_is_refused(platform, presenter, forge) -> None:
    token = token_of(forge)
    assert revoke(platform, {"type": "TOKEN", "data": {"token": token}}).status == 201
    wait_refused(presenter, token)
    assert refused(presenter, jws.twin(token))
    assert refused(presenter, f"{token}==", "form", "introspection")


def test_D33_revoking_the_twin_revokes_the_token(platform, presenter, forge) -> None:
    token = token_of(forge)
    assert revoke(platform, {"type": "TOKEN", "data": {"token": jws.twin(token)}}).status == 201
    wait_refused(presenter, token)


def test_D33_a_padded_copy_is_not_taken_for_the_token(platform, forge) -> None:
    """To store it would make the owner believe that the token is dead."""
    token = token_of(forge)
    for spelling in (f"{token}==", f"{token}.", f" {token}"):
        answer = revoke(platform, {"type": "TOKEN", "data": {"token": spelling}})
        assert answer.status == 400, (spelling[-4:], answer)


def test_D34_a_revoked_token_is_refused_by_every_way_in(platform, presenter, forge) -> None:
    token = token_of(forge)
    assert not refused(presenter, token)
    assert revoke(platform, {"type": "TOKEN", "data": {"token": token}}).status == 201
    wait_refused(presenter, token, *CHANNELS)
    for scheme in ("bearer", "BEARER", "bEaReR"):
        for service, path in (("tokeninfo", "/oauth2/tokeninfo"), ("guarded", "/orders")):
            answer = call("GET", platform.url(service, path), headers={"Authorization": f"{scheme} {token}"})
            assert answer.status == 401, (service, scheme)


def test_D35_a_claims_rule_hits_no_token_that_has_the_value_under_another_name(platform, presenter, forge) -> None:
    name = f"a-{uuid.uuid4().hex}"
    hit = token_of(forge, sub=name)
    spared = token_of(forge, sub=f"{name}-other", client_id=name, azp=name)
    revoke_claims(platform, sub=name)
    wait_refused(presenter, hit)
    assert not refused(presenter, spared)


def test_D36_a_cut_off_spares_later_tokens_and_none_of_the_same_second(platform, presenter, forge) -> None:
    name = f"b-{uuid.uuid4().hex}"
    second = int(time.time())
    said = revoke_claims(platform, sub=name)
    assert said["revoked_at"] >= second
    cut_off = next(entry["issued_before"] for entry in entries(platform) if entry["id"].partition(":")[0] == said["id"])
    same_second, ahead = token_of(forge, sub=name, iat=second), token_of(forge, sub=name, iat=cut_off - 1)
    later = token_of(forge, sub=name, iat=cut_off)
    assert second + 2 <= cut_off <= second + 5
    wait_refused(presenter, same_second)
    assert refused(presenter, ahead)
    until(lambda: not refused(presenter, later), seconds=10)


def test_D37_a_validator_that_was_just_started_never_accepts_a_revoked_token(platform, presenter, forge) -> None:
    token = token_of(forge)
    assert revoke(platform, {"type": "TOKEN", "data": {"token": token}}).status == 201
    wait_refused(presenter, token)
    platform.stop("tokeninfo")
    platform.start("tokeninfo", wait=False)
    seen: set[int] = set()
    began = time.monotonic()
    while 401 not in seen and time.monotonic() - began < 60:
        try:
            seen.add(platform.tokeninfo(token))
        except OSError:
            continue  # not listening yet
    assert seen <= {401, 503}
    assert 401 in seen
    until(platform.is_well, seconds=30)


def test_D38_the_later_of_two_cut_offs_rules_in_whatever_order_they_come(platform, presenter, forge) -> None:
    name, now = f"c-{uuid.uuid4().hex}", int(time.time())
    between = token_of(forge, sub=name, iat=now - 20)
    assert not refused(presenter, between)
    revoke_claims(platform, sub=name, issued_before=now - 5)
    revoke_claims(platform, sub=name, issued_before=now - 60)
    wait_refused(presenter, between)
    last = token_of(forge, sub=name, iat=now - 90)
    wait_refused(presenter, last)  # the older rule has arrived too
    assert refused(presenter, between)


def test_D39_the_stricter_of_two_rules_holds(platform, presenter, forge) -> None:
    name, realm, now = f"d-{uuid.uuid4().hex}", f"/r{uuid.uuid4().hex}", int(time.time())
    token = token_of(forge, sub=name, realm=realm, iat=now - 20)
    other = token_of(forge, sub=f"{name}-other", realm=realm, iat=now - 20)
    revoke_claims(platform, realm=realm, issued_before=now - 60)
    revoke_claims(platform, sub=name, issued_before=now - 5)
    wait_refused(presenter, token)
    assert not refused(presenter, other)
    revoke_claims(platform, realm=realm, issued_before=now - 5)
    wait_refused(presenter, other)


def test_D40_a_revoked_token_stays_refused_beyond_its_end(platform, presenter, forge) -> None:
    end = int(time.time()) + 2
    token = token_of(forge, exp=end)
    assert revoke(platform, {"type": "TOKEN", "data": {"token": token}}).status == 201
    wait_refused(presenter, token, "header", "middleware")
    while time.time() < end + LEEWAY - 1:
        assert refused(presenter, token, "header", "middleware")
        time.sleep(0.1)


def test_D41_a_token_that_has_expired_is_taken_and_not_listed(platform, forge) -> None:
    before = len(entries(platform))
    token = token_of(forge, iat=forge.now - 4000, exp=forge.now - 2000)
    answer = revoke(platform, {"type": "TOKEN", "data": {"token": token}})
    assert answer.status == 201
    assert len(entries(platform)) == before
    assert not [entry for entry in entries(platform) if entry["id"].partition(":")[0] == answer.json["id"]]


def test_D42_a_token_revoked_a_thousand_times_is_listed_once(platform, presenter, forge) -> None:
    token = token_of(forge)
    before = len(entries(platform))
    talker = Talker(platform.address("revocation"))
    headers = {"Authorization": f"Bearer {platform.admin_bearer()}", "Content-Type": "application/json"}
    body = dump_json({"type": "TOKEN", "data": {"token": token}})
    answers = [talker.ask("POST", "/revocations", headers=headers, body=body) for _ in range(1000)]
    talker.close()
    assert [answer.status for answer in answers] == [201] + [200] * 999
    assert len({answer.body for answer in answers}) == 1
    wait_refused(presenter, token)
    after = entries(platform)
    assert len(after) - before == 2  # one revocation: by its id and by its signing input
    assert {entry["kind"] for entry in after[-2:]} <= {"jti", "token"}
