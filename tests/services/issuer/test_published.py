"""F33: an issuer whose key is missing in the JWK Set as the world sees it must not sign."""

import asyncio
import json
import random

import pytest

from tests.services.issuer.support import DAY, NOW, running
from tokenry.http.fetch import Failure, FetchFailed, HttpFetcher, Response
from tokenry_issuer.published import SOON, PublishedCheck

GRANT = {"grant_type": "client_credentials", "realm": "services"}
HOUR = 3600


class World:
    """What is found at the public URL."""

    def __init__(self):
        self.answer, self.requests = None, []

    def says(self, kids, *, status=200):
        self.answer = Response(status=status, body=json.dumps({"keys": [{"kid": kid} for kid in kids]}).encode())

    def fetch(self, request):
        self.requests.append(request)
        if self.answer is None:
            raise FetchFailed(Failure.CONNECT, "nobody")
        return self.answer

    def cancel(self):
        pass


@pytest.fixture
async def watched():
    async with running() as around:
        around.world, around.results = World(), []
        around.check = PublishedCheck(
            around.issuer.keyring,
            url=around.url + "/.well-known/jwks.json",
            fetcher=around.world,
            interval=60.0,
            observe=around.results.append,
            uniform=random.Random(1),  # noqa: S311 -- jitter
        )
        yield around


async def readiness(around):
    answer = await around.call("GET", "/readyz?verbose")
    return answer.status, answer.body.decode()


async def test_F33_with_the_keys_of_another_issuer_at_its_url_it_signs_no_more_until_its_own_are_there(watched):
    ours = watched.issuer.keyring.published_kids()
    watched.world.says(["somebody-elses"])
    assert await watched.check.once() == SOON
    answer = await watched.token(GRANT)
    assert (answer.status, answer.error) == (503, "temporarily_unavailable")
    status, why = await readiness(watched)
    assert (status, "missing in the published JWK Set" in why) == (503, True)
    assert "tokenry_signing_keys_missing 2.0" in (await watched.call("GET", "/metrics")).body.decode()
    watched.world.says(ours)
    assert 54.0 <= await watched.check.once() <= 60.0
    assert (await watched.token(GRANT)).status == 200
    assert (await readiness(watched))[0] == 200
    assert watched.results == ["missing", "ok"]


async def test_F33_an_empty_set_says_as_much(watched):
    watched.world.says([])
    await watched.check.once()
    assert (await watched.token(GRANT)).status == 503


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (None, "unreachable"),
        (Response(status=503), "unreachable"),
        (Response(status=404, body=b'{"keys": []}'), "unreachable"),
        (Response(status=200, body=b"<html>a balancer's page</html>"), "unreadable"),
        (Response(status=200, body=b'{"keys": "none"}'), "unreadable"),
    ],
)
async def test_F33_what_does_not_say_so_changes_nothing_either_way(watched, answer, result):
    watched.world.answer = answer
    await watched.check.once()
    assert (await watched.token(GRANT)).status == 200
    watched.world.says([])
    await watched.check.once()
    watched.world.answer = answer
    await watched.check.once()
    assert (await watched.token(GRANT)).status == 503  # what was known stays known
    assert watched.results == [result, "missing", result]


async def test_a_key_that_the_world_knows_signs_in_the_place_of_one_that_it_does_not(watched):
    first, standby = watched.issuer.keyring.published_kids()
    watched.world.says([standby])
    await watched.check.once()
    assert (await watched.token(GRANT)).header["kid"] == standby
    assert (await readiness(watched))[0] == 200
    assert watched.issuer.keyring.absent == {first}


async def test_a_key_that_came_after_the_question_is_not_held_to_the_answer(watched, tmp_path):
    watched.world.says(watched.issuer.keyring.published_kids())
    late = watched.add_key(activate_at=NOW - 60, publish_at=NOW - DAY, folder=tmp_path)

    class Loading(World):
        def fetch(self, request):
            asyncio.run_coroutine_threadsafe(watched.issuer.keyring.refresh(), loop).result(10)
            return watched.world.fetch(request)

    loop = asyncio.get_running_loop()
    watched.check._fetcher = Loading()
    await watched.check.once()
    assert late in watched.issuer.keyring.published_kids()
    assert (await watched.token(GRANT)).header["kid"] == late


async def test_caches_on_the_way_are_told_to_ask(watched):
    await watched.check.once()
    assert watched.world.requests[0].headers["Cache-Control"] == "no-cache"


async def test_against_itself_over_http_all_is_well(watched):
    watched.check._fetcher = HttpFetcher()
    await watched.check.once()
    assert watched.results == ["ok"]


async def test_before_there_is_a_key_it_does_not_ask():
    async with running(load=False) as around:
        world, results = World(), []
        check = PublishedCheck(
            around.issuer.keyring, url="https://x/", fetcher=world, interval=60.0, observe=results.append
        )
        assert await check.once() == SOON
        assert (world.requests, results) == ([], ["no_key"])
