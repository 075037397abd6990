"""Lists and keys do not come, come late, damaged or from long ago: what is known stays in force (F24 to F31, F55)."""

import itertools
import threading
import time
from collections.abc import Callable

import pytest

from tests.support.access_tokens import Forge
from tests.support.faulted import KEYS_SECONDS, FaultedPlatform, until
from tests.support.http import call
from tests.support.http_faults import Exchanged

pytestmark = pytest.mark.processes

Back = Callable[..., float]
AGE = "tokenry_revocation_list_age_seconds"
REFUSED = "tokenry_revocation_rejected_total"
KEYS = "tokenry_jwks_last_success_timestamp_seconds"
# A held request brings a fresh list at least every 25 s; what was asked for once more brings it at once.
OLD = 28.0


@pytest.mark.parametrize("breaks", ["cut", "blackhole"])
def test_F24_F55_without_its_list_a_validator_goes_on_by_the_one_it_has_and_forgets_nothing(
    platform: FaultedPlatform, back: Back, breaks: str
) -> None:
    """It reaches the issuer and not the list. That it refuses at its limit is in tests/system/test_real_parts.py."""
    good, before, meanwhile = platform.token(), platform.token(), platform.token()
    admin = platform.admin_token()
    assert platform.revoke(before, admin=admin).status == 201
    until(lambda: platform.tokeninfo(before) == 401, seconds=31)
    getattr(platform.list_line, breaks)()
    assert platform.revoke(meanwhile, admin=admin).status == 201
    began = platform.metric("tokeninfo", AGE)
    until(lambda: platform.metric("tokeninfo", AGE) > began + 3, seconds=20)
    assert platform.tokeninfo(good) == 200
    assert platform.tokeninfo(before) == 401
    assert platform.tokeninfo(platform.token()) == 200  # a new one, of an issuer that it reaches
    platform.mend()
    back("F24", lambda: platform.tokeninfo(meanwhile) == 401)


DAMAGES: dict[str, Callable[[Exchanged], Exchanged]] = {
    "cut short": lambda good: Exchanged(good.status, good.headers, good.body[: len(good.body) // 2]),
    "another byte": lambda good: Exchanged(
        good.status, good.headers, good.body[:40] + bytes([good.body[40] ^ 0xFF]) + good.body[41:]
    ),
    "a page of a proxy": lambda _: Exchanged(200, {"Content-Type": "text/html"}, b"<html>log in</html>"),
    "an empty object": lambda good: Exchanged(200, good.headers, b"{}"),
    "an earlier store": lambda good: Exchanged(
        good.status, dict(good.headers) | {"Tokenry-List": "epoch=1, as_of=1.0, age=0.1"}, good.body
    ),
    "of ten minutes from now": lambda good: Exchanged(
        good.status, dict(good.headers) | {"Tokenry-List": f"epoch=1, as_of={time.time() + 600}, age=0.1"}, good.body
    ),
}


def test_F26_a_list_that_is_damaged_is_refused_and_told_and_the_last_good_one_stays(
    platform: FaultedPlatform, back: Back
) -> None:
    """Each answer has another damage; tests/security/test_documents.py has each of them alone (D75 to D79)."""
    good, revoked, admin = platform.token(), platform.token(), platform.admin_token()
    assert platform.revoke(revoked, admin=admin).status == 201
    until(lambda: platform.tokeninfo(revoked) == 401, seconds=31)
    refused = platform.metric("tokeninfo", REFUSED)
    damages = itertools.cycle(DAMAGES.values())
    platform.list_answers.change(lambda _target, ask: next(damages)(ask()))
    platform.list_line.reset()  # whatever is held is asked for again
    until(lambda: platform.metric("tokeninfo", REFUSED) >= refused + 2, seconds=60)
    assert platform.tokeninfo(revoked) == 401
    assert platform.tokeninfo(good) == 200
    meanwhile = platform.token()
    assert platform.revoke(meanwhile, admin=admin).status == 201
    platform.mend()
    back("F26", lambda: platform.tokeninfo(meanwhile) == 401)


def test_F29_a_stale_copy_makes_nothing_young_and_takes_nothing_away(platform: FaultedPlatform, back: Back) -> None:
    """A cache between validator and service answers with what it once saw, as if that were of now."""
    admin, early, late = platform.admin_token(), platform.token(), platform.token()
    kept: dict[str, Exchanged] = {}

    def remember(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        answer = ask()
        if answer.status == 200:
            kept.setdefault(target.partition("?")[0], answer)
        return answer

    platform.list_answers.change(remember)
    platform.list_line.reset()
    assert platform.revoke(early, admin=admin).status == 201
    until(lambda: platform.tokeninfo(early) == 401 and bool(kept), seconds=31)
    assert platform.revoke(late, admin=admin).status == 201
    until(lambda: platform.tokeninfo(late) == 401, seconds=31)
    oldest = min(kept.values(), key=lambda answer: answer.headers.get("Tokenry-List", ""))
    platform.list_answers.change(lambda _target, _ask: oldest)
    platform.list_line.reset()
    age = platform.metric("tokeninfo", AGE)
    until(lambda: platform.metric("tokeninfo", AGE) > age + 3, seconds=20)  # by as_of, not by when it was fetched
    assert platform.tokeninfo(late) == 401
    platform.mend()
    back("F29", lambda: platform.metric("tokeninfo", AGE) < OLD)


def test_F30_without_the_issuer_tokens_in_use_go_on_and_the_keys_get_older(
    platform: FaultedPlatform, back: Back
) -> None:
    token, revoked, admin = platform.token(), platform.token(), platform.admin_token()
    platform.keys_line.cut()
    seen = platform.metric("tokeninfo", KEYS)
    until(lambda: time.time() - platform.metric("tokeninfo", KEYS) > 3 * KEYS_SECONDS + 1, seconds=30)
    assert platform.metric("tokeninfo", KEYS) <= seen + KEYS_SECONDS + 1
    assert platform.tokeninfo(token) == 200
    assert platform.revoke(revoked, admin=admin).status == 201
    until(lambda: platform.tokeninfo(revoked) == 401, seconds=31)
    platform.mend()
    back("F30", lambda: time.time() - platform.metric("tokeninfo", KEYS) < 2 * KEYS_SECONDS + 1)


def test_F31_a_flood_of_tokens_under_unknown_keys_is_refused_and_asks_the_issuer_next_to_nothing(
    platform: FaultedPlatform,
) -> None:
    from tokenry.jose.jwk import PrivateKey

    good = platform.token()
    statuses: list[int] = []

    def flood(number: int) -> None:
        for _ in range(25):
            forge = Forge(
                issuer=platform.keys_line.url,
                audience="x",
                key=PrivateKey.generate(),
                now=int(time.time()),
                lifetime=600,
                client=f"c{number}",
                jti="x",
            )
            statuses.append(platform.tokeninfo(forge.token()))

    reads = platform.metric("tokeninfo", "tokenry_jwks_poll_total")
    began = time.monotonic()
    threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    assert set(statuses) == {401}
    # Once an interval as always, and one more in ten seconds; each is two documents at most.
    assert platform.metric("tokeninfo", "tokenry_jwks_poll_total") - reads <= 2 * (took / KEYS_SECONDS + took / 10 + 3)
    assert platform.tokeninfo(good) == 200
    assert call("GET", platform.url("tokeninfo", "/healthz")).status == 200
