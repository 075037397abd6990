"""S3 is away, slow, throttled, forbidden, empty or damaged: the issuer goes on with what it knows (F1 to F9)."""

import json
import time
from collections.abc import Callable

import pytest

from tests.support.fault_proxy import FaultProxy
from tests.support.faulted import REFRESH_SECONDS, FaultedPlatform, until
from tests.support.http_faults import Exchanged

pytestmark = pytest.mark.processes

Back = Callable[..., float]
AGE = "tokenry_credentials_age_seconds"
MISSED = 3 * REFRESH_SECONDS  # older than that: refreshes have failed
POLITE_SECONDS = 0.4  # between two attempts that may fail: ten failures, and an address is not listened to
QUICK_SECONDS = 3.0  # for a token, on a busy machine; every deadline of S3 is longer


def failed(platform: FaultedPlatform) -> float:
    """Return how many refreshes did not end well."""
    name = "tokenry_credentials_refreshes_total"
    return platform.metric("issuer", name) - platform.metric("issuer", name, result="ok")


def outage(platform: FaultedPlatform, back: Back, number: str, breaks: Callable[[], None]) -> float:
    """Break S3 by *breaks*, see that tokens are issued as before while the credentials get older, and mend it."""
    began, failures = time.monotonic(), failed(platform)
    breaks()
    while platform.metric("issuer", AGE) < MISSED or failed(platform) == failures:
        asked = time.monotonic()
        assert platform.grant().status == 200
        assert time.monotonic() - asked < QUICK_SECONDS
        assert time.monotonic() - began < 30, "the credentials do not get older"
        time.sleep(0.2)
    assert platform.is_ready("issuer")
    asked_meanwhile = len(platform.bucket_answers.since(began)) / (time.monotonic() - began)
    platform.mend()
    back(number, lambda: platform.metric("issuer", AGE) < 1.5 * REFRESH_SECONDS)
    return asked_meanwhile


def test_F01_unreachable_s3_stops_no_token(platform: FaultedPlatform, back: Back) -> None:
    outage(platform, back, "F1", platform.s3_line.cut)


def test_F02_silent_s3_stops_no_token_and_is_not_waited_for_longer_than_its_deadline(
    platform: FaultedPlatform, back: Back
) -> None:
    outage(platform, back, "F2", platform.s3_line.blackhole)  # ends only when a refresh was given up


def test_F02_slow_s3_stops_no_token(platform: FaultedPlatform, back: Back) -> None:
    outage(platform, back, "F2", lambda: platform.s3_line.delay(20.0, "down"))


def test_F03_throttling_stops_no_token_and_is_not_answered_by_asking_more_often(
    platform: FaultedPlatform, back: Back
) -> None:
    before = platform.metric("issuer", "tokenry_credentials_refreshes_total", result="SlowDown")
    asked = outage(platform, back, "F3", lambda: platform.bucket_answers.refuse_as_s3(503, "SlowDown"))
    assert platform.metric("issuer", "tokenry_credentials_refreshes_total", result="SlowDown") > before
    # Two things are refreshed, each with one retry; the revocation service's rules are read here as well.
    assert asked < 3 * 2 / REFRESH_SECONDS, f"{asked:.1f} requests a second"


def test_F07_lost_permission_stops_no_token(platform: FaultedPlatform, back: Back) -> None:
    outage(platform, back, "F7", lambda: platform.bucket_answers.refuse_as_s3(403, "AccessDenied"))


def test_F08_a_key_of_the_bucket_that_is_denied_stops_no_token(platform: FaultedPlatform, back: Back) -> None:
    """S3 reads objects under a key of its own; whoever may not use that key is told so for each object."""
    key = platform.client_key()
    good = platform.read_object(key)
    denied = (
        b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>KMS.DisabledException</Code><Message>no</Message></Error>'
    )

    def deny(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        return ask() if "list-type" in target else Exchanged(400, {"Content-Type": "application/xml"}, denied)

    def breaks() -> None:
        platform.bucket_answers.change(deny)
        platform.write_object(key, good + b"\n")  # so that it has to be read again

    outage(platform, back, "F8", breaks)
    platform.write_object(key, good)


def test_F05_an_emptied_bucket_is_no_deletion_of_everybody(platform: FaultedPlatform, back: Back) -> None:
    empty = (
        b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Name>b</Name><Prefix></Prefix><KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys>"
        b"<IsTruncated>false</IsTruncated></ListBucketResult>"
    )
    listing = {"Content-Type": "application/xml"}
    outage(platform, back, "F5", lambda: platform.bucket_answers.answer(200, empty, **listing))


@pytest.mark.parametrize("damage", ["truncated", "not JSON", "empty", "of another version"])
def test_F04_a_damaged_object_is_not_applied_and_told(platform: FaultedPlatform, back: Back, damage: str) -> None:
    key = platform.client_key()
    good = platform.read_object(key)
    bad = {
        "truncated": good[: len(good) // 2],
        "not JSON": b"\xff\xfe garbage",
        "empty": b"",
        "of another version": json.dumps(json.loads(good) | {"version": 99}).encode(),
    }[damage]
    platform.write_object(key, bad)
    until(lambda: platform.metric("issuer", "tokenry_credentials_objects_refused") == 1, seconds=30)
    assert platform.grant().status == 200
    assert platform.is_ready("issuer")
    platform.write_object(key, good)
    back("F4", lambda: platform.metric("issuer", "tokenry_credentials_objects_refused") == 0)


def test_F04_an_object_that_is_cut_on_the_way_is_not_applied(platform: FaultedPlatform, back: Back) -> None:
    """The length says more than there is: half an object must be told from a short one."""
    key = platform.client_key()
    good = platform.read_object(key)

    def cut(target: str, ask: Callable[[], Exchanged]) -> Exchanged:
        answer = ask()
        return answer if "list-type" in target else Exchanged(200, answer.headers, answer.body[:-40])

    platform.bucket_answers.change(cut)
    platform.write_object(key, good + b"\n")
    until(lambda: platform.metric("issuer", "tokenry_credentials_objects_refused") == 1, seconds=30)
    assert platform.grant().status == 200
    platform.write_object(key, good + b"\n\n")  # what was damaged is asked for again when it changes
    platform.mend()
    platform.write_object(key, good)
    back("F4", lambda: platform.metric("issuer", "tokenry_credentials_objects_refused") == 0)


def test_F06_a_client_that_is_removed_or_disabled_gets_no_token_within_a_period(
    platform: FaultedPlatform, back: Back
) -> None:
    key = platform.client_key()
    good = platform.read_object(key)
    try:
        platform.write_object(key, json.dumps(json.loads(good) | {"enabled": False}).encode())
        back("F6", lambda: platform.grant().status == 401, every=POLITE_SECONDS)
        platform.write_object(key, good)
        back("F6", lambda: platform.grant().status == 200, every=POLITE_SECONDS)
        platform.delete_object(key)
        back("F6", lambda: platform.grant().status == 401, every=POLITE_SECONDS)
        assert platform.admin_token()  # everybody else goes on
    finally:
        platform.write_object(key, good)
    back("F6", lambda: platform.grant().status == 200, every=POLITE_SECONDS)


def test_F09_an_issuer_that_starts_without_s3_is_not_ready_and_does_not_end(
    platform: FaultedPlatform, back: Back
) -> None:
    with FaultProxy(platform.bucket_answers.address) as line:
        line.cut()
        started = platform.another("issuer", "late-issuer", {"AWS_ENDPOINT_URL_S3": line.url})
        platform.wait_alive("late-issuer")
        until(lambda: platform.grant(service="late-issuer").status == 503, seconds=20)
        assert not platform.is_ready("late-issuer")
        assert platform.metric("late-issuer", "tokenry_ready") == 0
        assert "retry-after" in platform.grant(service="late-issuer").headers
        line.pass_()
        back("F9", lambda: platform.is_ready("late-issuer"))
        assert platform.grant(service="late-issuer").status == 200
        assert started.running
        started.kill()
