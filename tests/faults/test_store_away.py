"""Cassandra is away, slow, half open or not set up: what is acknowledged is stored, nothing else is (F12 to F20)."""

import time
import uuid
from collections.abc import Callable

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.faulted import FaultedPlatform, until
from tests.support.http import call

pytestmark = pytest.mark.processes

Back = Callable[..., float]
READS_FAILED = "tokenry_revocation_reads_failed_total"
AGE = "tokenry_revocation_list_age_seconds"
POSTS = "http_server_request_duration_seconds_count"
OLD = 6.0  # seconds: a list of a store that is read is half a second old, and the bound on the skew


def as_of(platform: FaultedPlatform, service: str = "revocation") -> float:
    """Return up to which moment the list of *service* says that it is complete."""
    stamp = call("GET", platform.url(service, "/revocations/snapshot")).headers["tokenry-list"]
    return float(dict(part.strip().split("=") for part in stamp.split(","))["as_of"])


def entries(platform: FaultedPlatform) -> list[str]:
    """Return the ids of what is in the list."""
    return [each["id"] for each in call("GET", platform.url("revocation", "/revocations/snapshot")).json["entries"]]


def no_quorum(platform: FaultedPlatform, back: Back, breaks: Callable[[], None]) -> None:
    token, admin, other = platform.token(), platform.admin_token(), platform.token()
    assert platform.tokeninfo(token) == 200
    failed = platform.metric("revocation", READS_FAILED)
    breaks()
    answer = platform.revoke(token, admin=admin)
    assert answer.status == 503, answer  # and never 201
    assert "retry-after" in answer.headers
    until(lambda: platform.metric("revocation", READS_FAILED) > failed, seconds=30)
    stopped = as_of(platform)
    until(lambda: platform.metric("revocation", AGE) > OLD, seconds=30)
    assert as_of(platform) == stopped  # the list gets old and says so; it never claims what it does not know
    assert platform.metric("revocation", POSTS, http_request_method="POST", http_response_status_code="503") > 0
    assert platform.tokeninfo(other) == 200
    assert platform.grant().status == 200
    platform.mend()
    began = time.monotonic()
    statuses = []

    def stored() -> bool:
        statuses.append(platform.revoke(token, admin=admin).status)
        return statuses[-1] in {200, 201}

    back("F12", stored)
    assert set(statuses) <= {200, 201, 503}
    back("F12", lambda: platform.metric("revocation", AGE) < OLD)
    until(lambda: platform.tokeninfo(token) == 401, seconds=31)
    assert time.monotonic() - began < 60


def test_F12_without_a_quorum_nothing_is_acknowledged_and_the_list_stops_claiming(
    platform: FaultedPlatform, back: Back
) -> None:
    no_quorum(platform, back, platform.store_line.cut)


def test_F12_with_a_silent_store_nothing_is_acknowledged_and_the_list_stops_claiming(
    platform: FaultedPlatform, back: Back
) -> None:
    no_quorum(platform, back, platform.store_line.blackhole)


def test_F13_a_slow_store_makes_posts_slow_and_loses_none(platform: FaultedPlatform, back: Back) -> None:
    tokens, admin = [platform.token() for _ in range(3)], platform.admin_token()
    platform.store_line.delay(0.3)
    for token in tokens:
        began = time.monotonic()
        assert platform.revoke(token, admin=admin).status == 201
        assert time.monotonic() - began > 0.3
    for token in tokens:
        until(lambda token=token: platform.tokeninfo(token) == 401, seconds=31)
    platform.mend()
    back("F13", lambda: platform.metric("revocation", AGE) < OLD)


def test_F14_a_write_of_unknown_outcome_is_503_and_its_repetition_is_one_revocation(
    platform: FaultedPlatform, back: Back
) -> None:
    """The store gets the write; its answer does not arrive."""
    token, admin, key = platform.token(), platform.admin_token(), uuid.uuid4().hex
    known = set(entries(platform))
    platform.store_line.blackhole("down")
    answer = platform.revoke(token, admin=admin, key=key)
    assert answer.status == 503
    assert "retry-after" in answer.headers
    platform.mend()
    ids = []

    def stored() -> bool:
        again = platform.revoke(token, admin=admin, key=key)
        if again.status in {200, 201}:
            ids.append(again.json["id"])
        return bool(ids)

    back("F14", stored)
    assert platform.revoke(token, admin=admin, key=key).json["id"] == ids[0]
    until(lambda: platform.tokeninfo(token) == 401, seconds=31)
    new = [name for name in entries(platform) if name not in known]
    assert {name.partition(".")[0] for name in new} == {ids[0].partition(".")[0]}, (new, ids)


def test_F18_a_store_that_is_not_set_up_is_said_and_waited_for(platform: FaultedPlatform, back: Back) -> None:
    url = platform._extra["revocation"]["TOKENRY_STORE_URL"]
    missing = {"TOKENRY_STORE_URL": f"{url.rpartition('/')[0]}/missing_{uuid.uuid4().hex[:8]}"}
    started = platform.another("revocation", "not-set-up", missing)
    platform.wait_alive("not-set-up")
    until(lambda: "--create-schema" in str(platform.checks("not-set-up")), seconds=30)
    assert not platform.is_ready("not-set-up")
    assert platform.revoke(platform.token(), admin=platform.admin_token(), service="not-set-up").status == 503
    made = platform._processes.start(
        "create-schema",
        [platform.python, "-m", "tokenry_revocation", "--create-schema"],
        env=platform._environment("revocation") | missing | {"TOKENRY_STORE_REPLICATION": "datacenter1=1"},
    )
    assert made.wait(seconds=120) == 0, made.output()
    back("F18", lambda: platform.is_ready("not-set-up"))
    assert platform.revoke(platform.token(), admin=platform.admin_token(), service="not-set-up").status == 201
    started.kill()


def test_F20_a_replica_that_cannot_read_does_not_claim_what_another_one_has_acknowledged(
    platform: FaultedPlatform, back: Back
) -> None:
    """The asymmetric cut that shows a list that fails open: posts succeed, and their readers look elsewhere."""
    host, port = platform.store_line.target
    with FaultProxy((host, port)) as line:
        url = platform._extra["revocation"]["TOKENRY_STORE_URL"]
        own = {"TOKENRY_STORE_URL": url.replace(str(platform.store_line.address[1]), str(line.address[1]))}
        other = platform.another("revocation", "other-replica", own)
        platform._running["other-replica"].wait_until_http(platform.url("other-replica", "/readyz"), seconds=60)
        token, admin = platform.token(), platform.admin_token()
        platform.store_line.blackhole()  # token info reads from this one
        until(lambda: platform.metric("revocation", AGE) > OLD, seconds=30)
        assert platform.revoke(token, admin=admin, service="other-replica").status == 201
        acknowledged = time.time()
        answer = call("GET", platform.url("tokeninfo", "/oauth2/tokeninfo"), bearer=token)
        assert as_of(platform) < acknowledged
        if answer.status == 200:  # by its old list, and it says how old
            stamp = dict(part.strip().split("=") for part in answer.headers["tokenry-list"].split(","))
            assert float(stamp["as_of"]) < acknowledged
        assert as_of(platform, "other-replica") > stopped_before(acknowledged)
        platform.mend()
        back("F20", lambda: platform.tokeninfo(token) == 401)
        other.kill()


def stopped_before(moment: float) -> float:
    """Return what a list that is read must be complete up to at *moment*: a read, and the bound on the skew."""
    return moment - OLD
