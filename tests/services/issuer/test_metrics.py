"""What operators watch and alert on."""

import math

from prometheus_client.parser import text_string_to_metric_families

from tests.services.issuer.support import DAY, NOW, running
from tokenry.revocation.lists import RevocationList


async def samples(issuer):
    text = (await issuer.call("GET", "/metrics")).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_end_of_each_signing_key_is_shown_under_its_kid():
    async with running() as issuer:
        kids = sorted(issuer.issuer.keyring.states(lifetime=3600))
        shown = {
            labels[0][1]: value
            for (name, labels), value in (await samples(issuer)).items()
            if name == "tokenry_signing_key_expiry_timestamp_seconds"
        }
        assert shown == dict.fromkeys(kids, NOW + 30 * DAY)
        assert len(kids) == 2


async def test_the_age_of_the_list_is_shown_where_there_is_a_list_to_read():
    async with running() as issuer:
        assert ("tokenry_revocation_list_age_seconds", ()) not in await samples(issuer)
    async with running(with_list=True) as issuer:
        assert math.isnan((await samples(issuer))["tokenry_revocation_list_age_seconds", ()])
        issuer.revocations.publish(RevocationList.empty(), age=7.0)
        assert (await samples(issuer))["tokenry_revocation_list_age_seconds", ()] == 7.0


async def test_saturation_can_be_told_from_load():
    async with running(secret_check_threads=3, secret_check_queue=5) as issuer:
        shown = await samples(issuer)
        assert shown["tokenry_secret_checks_waiting", ()] == 0
        assert shown["tokenry_secret_checks_capacity", ()] == 8


async def test_the_clock_and_the_readiness_are_shown_by_every_service():
    async with running(load=False) as issuer:
        assert (await samples(issuer))["tokenry_ready", ()] == 0
    async with running() as issuer:
        shown = await samples(issuer)
        assert shown["tokenry_clock_timestamp_seconds", ()] == NOW
        assert shown["tokenry_ready", ()] == 1
