"""The bound on the entries of a list is a setting of every service that reads one, and each of them keeps to it."""

import asyncio

import aiohttp
import pytest

from tests.services.issuer.test_settings import GOOD
from tokenry.clock import SystemClock
from tokenry.errors import ConfigurationError
from tokenry.serving.metrics import Metrics
from tokenry.serving.server import serve
from tokenry.sources.keys import KeySource
from tokenry.testing.issuer import FakeIssuer
from tokenry_admin import __main__ as admin
from tokenry_admin.settings import Settings as AdminSettings
from tokenry_issuer import __main__ as issuing
from tokenry_issuer.instruments import Instruments
from tokenry_issuer.settings import Settings as IssuerSettings
from tokenry_revocation.settings import Settings as RevocationSettings
from tokenry_tokeninfo import __main__ as tokeninfo
from tokenry_tokeninfo.settings import Settings as TokeninfoSettings

NAME = "TOKENRY_LIST_MAX_ENTRIES"
ENTRIES = 6
REFUSED = 'tokenry_revocation_rejected_total{reason="malformed"}'


@pytest.fixture
def fake_issuer():
    """A platform on a loopback port whose list has so many entries."""
    with FakeIssuer() as issuer:
        for _ in range(ENTRIES // 2):  # a token is listed by its id and by itself
            issuer.revoke(issuer.token())
        yield issuer


async def said(session, url):
    async with session.get(url) as answer:
        return answer.status, await answer.text()


async def test_token_info_takes_a_list_of_as_many_entries_as_were_set_and_refuses_a_longer_one(fake_issuer):
    for most, ready, told in (
        (ENTRIES, 200, f"tokenry_revocation_list_entries {ENTRIES}.0"),
        (ENTRIES - 1, 503, REFUSED),
    ):
        settings = TokeninfoSettings.from_environment({"TOKENRY_ISSUER": fake_issuer.issuer, NAME: str(most)})
        async with (
            serve(tokeninfo.compose(settings)(), ["127.0.0.1:0"]) as server,
            aiohttp.ClientSession(server.url) as session,
            asyncio.timeout(20),
        ):
            status, metrics = 0, ""
            while status != ready or told not in metrics:  # or the deadline ends it
                status, _ = await said(session, "/readyz")
                _, metrics = await said(session, "/metrics")


def of_issuer(settings):
    return issuing._revocation_source(settings, Instruments(Metrics(service="issuer")), None, SystemClock())


def of_admin(settings):
    clock = SystemClock()
    return admin._revocations(settings, clock=clock, keys=KeySource(settings.issuer, clock=clock))


@pytest.mark.parametrize(
    ("settings_class", "more", "source_of"),
    [
        (IssuerSettings, GOOD, of_issuer),
        (AdminSettings, {"TOKENRY_CREDENTIALS_URL": "file:///nowhere/"}, of_admin),
    ],
)
def test_the_issuer_and_the_administration_refuse_a_list_above_what_was_set(
    fake_issuer, settings_class, more, source_of
):
    address = {"TOKENRY_ISSUER": fake_issuer.issuer, "TOKENRY_REVOCATION_URL": fake_issuer.issuer}
    for most in (ENTRIES, ENTRIES - 1):
        source = source_of(settings_class.from_environment({**more, **address, NAME: str(most)}))
        source._poller.step()
        assert (source.snapshot() is not None) is (most == ENTRIES)
        assert source.counters.rejected == ({} if most == ENTRIES else {"malformed": 1})
        source.stop()


@pytest.mark.parametrize("settings_class", [TokeninfoSettings, IssuerSettings, AdminSettings, RevocationSettings])
@pytest.mark.parametrize("value", ["0", "-1", "100000001", "many"])
def test_a_number_that_no_list_may_have_stops_the_start(settings_class, value):
    with pytest.raises(ConfigurationError) as caught:
        settings_class.from_environment({NAME: value})
    assert [fault for fault in caught.value.faults if fault.startswith(NAME)]
