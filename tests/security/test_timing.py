"""
How long a refusal takes says no more than the refusal: whether a client or a user exists cannot be measured.

The measure is the one of the rank test by Mann and Whitney: the share of pairs in which one kind of attempt took longer
than the other, 0.5 when nothing can be told. Attempts of both kinds alternate in random order, so that whatever else
the machine does hits both alike. The band around 0.5 is `SIGMAS` standard errors wide: for distributions that are equal
a test fails by chance in less than one of 300,000 runs, and fails in practice always when one of both skips the hash.
"""

import http.client
import math
import random
import time
import uuid
from base64 import b64encode
from urllib.parse import urlencode

import argon2
import pytest

from tests.support.attacked import REALM, AttackedPlatform
from tests.system.conftest import until
from tokenry_registry import bootstrap

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

SIGMAS = 4.7
SLOW_REALM = "/slow"
SUBJECTS = 40  # each fails a few times only: the more often a subject failed, the longer its next attempt is delayed
ROUNDS = 10
FROM = "127.0.0.77"  # an address at which none of these has ever succeeded


class Attempts:
    """Token requests on one kept connection, from an address of their own."""

    def __init__(self, platform: AttackedPlatform) -> None:
        self._connection = http.client.HTTPConnection(*platform.address("issuer"), timeout=10, source_address=(FROM, 0))

    def seconds(self, form: dict[str, str], *, basic: tuple[str, str], expect: int) -> float:
        """Return how long the refusal of one request takes, from its last byte to that of the answer."""
        headers = {
            "Content-Type": "application/x-www-form-urlencoded",
            "Authorization": "Basic " + b64encode(":".join(basic).encode()).decode(),
        }
        body = urlencode(form)
        began = time.perf_counter()
        self._connection.request("POST", "/oauth2/token", body, headers)
        answer = self._connection.getresponse()
        answer.read()
        taken = time.perf_counter() - began
        assert answer.status == expect, answer.status
        return taken

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def attempts(platform: AttackedPlatform):
    attempts = Attempts(platform)
    yield attempts
    attempts.close()


def share(slower: list[float], faster: list[float]) -> float:
    """Return the share of pairs in which one of *slower* took longer; ties count half."""
    above = sum((a > b) + 0.5 * (a == b) for a in slower for b in faster)
    return above / (len(slower) * len(faster))


def band(first: int, second: int) -> float:
    """Return how far from 0.5 the share may be by chance."""
    return SIGMAS * math.sqrt((first + second + 1) / (12 * first * second))


def measured(one, other, *, subjects: int, rounds: int) -> float:
    """Return the share for attempts `one(number)` and `other(number)`, alternating in random order."""
    rng = random.Random(77)  # noqa: S311 -- an order, no secret
    taken: dict[object, list[float]] = {one: [], other: []}
    for _ in range(rounds):
        for number in range(subjects):
            for attempt in rng.sample([one, other], 2):
                taken[attempt].append(attempt(number))
    return share(taken[one], taken[other])


@pytest.fixture(scope="module")
def clients(platform: AttackedPlatform) -> list[str]:
    """Clients that exist, of names that look like those that do not."""
    run = uuid.uuid4().hex[:8]
    names = [f"client-{run}-{number:02}" for number in range(SUBJECTS)]
    for name in names:
        platform.add_client(name, scopes=["a"], created_at=int(time.time()))
    until(lambda: platform.grant(names[-1]).status == 200, seconds=20)
    return names


@pytest.fixture(scope="module")
def slow_users(platform: AttackedPlatform) -> list[str]:
    """Users of a realm of their own, whose passwords are hashed slowly."""
    # Little memory and three passes: what a thread once took for a hash stays with the process.
    hasher = argon2.PasswordHasher(time_cost=3, memory_cost=8192, parallelism=1)
    names, secret = [f"user-{number:02}" for number in range(10)], bootstrap.new_secret()
    stored = hasher.hash("the right password")
    for name in names:
        bootstrap.write_user(platform.credentials, SLOW_REALM, name, hashes=[stored], created_at=1)
    platform.secrets["slow-client"] = secret
    platform.sent.add(secret)
    bootstrap.write_client(
        platform.credentials,
        SLOW_REALM,
        "slow-client",
        hashes=[bootstrap.hash_secret(secret)],
        created_at=1,
        grant_types=["password"],
    )
    bootstrap.write_realm(platform.credentials, SLOW_REALM, environment="dev", grant_types=["password"])
    form = {"realm": SLOW_REALM, "grant_type": "password", "username": names[0], "password": "the right password"}
    until(lambda: platform.grant("slow-client", **form).status == 200, seconds=20)
    return names


def test_D44_an_unknown_client_takes_as_long_as_a_wrong_secret(attempts: Attempts, clients: list[str]) -> None:
    form = {"grant_type": "client_credentials", "realm": REALM}

    def wrong(number: int) -> float:
        return attempts.seconds(form, basic=(clients[number], "w" * 43), expect=401)

    def unknown(number: int) -> float:
        return attempts.seconds(form, basic=(f"{clients[number][:-2]}x{number}", "w" * 43), expect=401)

    found = measured(wrong, unknown, subjects=SUBJECTS, rounds=ROUNDS)
    assert abs(found - 0.5) < band(SUBJECTS * ROUNDS, SUBJECTS * ROUNDS), found


def test_D43_an_unknown_user_takes_as_long_as_a_wrong_password(
    platform: AttackedPlatform, attempts: Attempts, slow_users: list[str]
) -> None:
    basic = platform.basic("slow-client")
    form = {"realm": SLOW_REALM, "grant_type": "password", "password": "not the right one!"}

    def wrong(number: int) -> float:
        return attempts.seconds({**form, "username": slow_users[number]}, basic=basic, expect=400)

    def unknown(number: int) -> float:
        return attempts.seconds({**form, "username": f"user-x{number}"}, basic=basic, expect=400)

    found = measured(wrong, unknown, subjects=10, rounds=10)
    assert abs(found - 0.5) < band(100, 100), found


def test_the_measure_sees_a_hash_that_is_skipped(
    platform: AttackedPlatform, attempts: Attempts, slow_users: list[str]
) -> None:
    """What the two tests above would see of an issuer that looked up the user first."""
    basic = platform.basic("slow-client")
    form = {"realm": SLOW_REALM, "grant_type": "password", "password": "not the right one!"}

    def hashed(number: int) -> float:
        return attempts.seconds({**form, "username": f"user-y{number}"}, basic=basic, expect=400)

    def skipped(number: int) -> float:
        return attempts.seconds({**form, "grant_type": "unheard-of"}, basic=basic, expect=400)

    assert measured(hashed, skipped, subjects=10, rounds=6) > 0.5 + band(60, 60)


def test_the_band_is_what_is_said() -> None:
    assert 2 * (1 - 0.5 * (1 + math.erf(SIGMAS / math.sqrt(2)))) < 1 / 300_000
    assert share([1, 2, 3], [1, 2, 3]) == 0.5
    assert share([4, 5], [1, 2, 3]) == 1.0
