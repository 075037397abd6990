"""Settings: none that is dangerous has a default, and all faults are told at once."""

import asyncio

import aiohttp
import pytest

from tests.services.revocation.conftest import ISSUER, SALT
from tokenry.errors import ConfigurationError
from tokenry.serving.keys import HEALTH
from tokenry.serving.server import serve
from tokenry_revocation.__main__ import CheckedSettings, compose, main, rule_objects
from tokenry_revocation.adapters.rules_directory import RulesDirectory
from tokenry_revocation.app import needed_retention
from tokenry_revocation.settings import Settings

GOOD = {
    "TOKENRY_ISSUER": ISSUER,
    "TOKENRY_STORE_URL": "sqlite:////nowhere/store.db",
    "TOKENRY_REVOCATION_HASHING_SALT": SALT,
}


def faults(**changes):
    environ = {name: value for name, value in {**GOOD, **changes}.items() if value is not None}
    with pytest.raises(ConfigurationError) as caught:
        CheckedSettings.from_environment(environ)
    return "\n".join(caught.value.faults)


def test_the_least_settings_are_enough():
    settings = CheckedSettings.from_environment(GOOD)
    terms = settings.terms
    assert (terms.max_token_lifetime, terms.skew, terms.retention) == (3600, 2.0, 3720)
    assert (terms.propagation_bound, terms.plan_b_bound) == (30.5, 60.5)
    assert settings.issuers == {ISSUER}


def test_without_a_salt_there_is_no_start():
    assert "TOKENRY_REVOCATION_HASHING_SALT: is not set" in faults(TOKENRY_REVOCATION_HASHING_SALT=None)


def test_plan_bs_name_of_the_salt_works():
    environ = {**GOOD, "REVOCATION_HASHING_SALT": SALT}
    del environ["TOKENRY_REVOCATION_HASHING_SALT"]
    assert Settings.from_environment(environ).revocation_hashing_salt.reveal() == SALT


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"TOKENRY_REVOCATION_HASHING_SALT": "short"}, "TOKENRY_REVOCATION_HASHING_SALT"),
        ({"TOKENRY_STORE_URL": "postgres://x"}, "TOKENRY_STORE_URL"),
        ({"TOKENRY_STORE_URL": "sqlite://relative"}, "TOKENRY_STORE_URL"),
        ({"TOKENRY_STORE_URL": "cassandra://"}, "TOKENRY_STORE_URL"),
        ({"TOKENRY_STORE_URL": None}, "TOKENRY_STORE_URL"),
        ({"TOKENRY_ISSUER": None}, "TOKENRY_ISSUER"),
        ({"TOKENRY_ISSUER": "issuer"}, "TOKENRY_ISSUER"),
        ({"TOKENRY_ISSUER": "http://elsewhere.example.org"}, "TOKENRY_ISSUER"),
        ({"TOKENRY_CLOCK_SKEW": "6s"}, "TOKENRY_CLOCK_SKEW"),
        ({"TOKENRY_MAX_TOKEN_LIFETIME": "0"}, "TOKENRY_MAX_TOKEN_LIFETIME"),
        ({"TOKENRY_MAX_TOKEN_LIFETIME": "1.5s"}, "TOKENRY_MAX_TOKEN_LIFETIME"),
        ({"TOKENRY_RULES_URL": "https://x"}, "TOKENRY_RULES_URL"),
        ({"TOKENRY_REVOCABLE_CLAIMS": "aud"}, "TOKENRY_REVOCABLE_CLAIMS"),
        ({"TOKENRY_REVOCABLE_CLAIMS": "azp"}, "TOKENRY_REVOCABLE_CLAIMS"),
        ({"TOKENRY_REVOCABLE_CLAIMS": "x" * 129}, "TOKENRY_REVOCABLE_CLAIMS"),
        ({"TOKENRY_LIST_READ_SCOPE": 'a"b'}, "TOKENRY_LIST_READ_SCOPE"),
        ({"TOKENRY_STORE_REPLICATION": "dc1"}, "TOKENRY_STORE_REPLICATION"),
        ({"TOKENRY_MAX_HELD_REQUESTS": "-1"}, "TOKENRY_MAX_HELD_REQUESTS"),
        ({"TOKENRY_STORE_URI": "x"}, "TOKENRY_STORE_URI"),
        ({"TOKENRY_REVOCATION_RETENTION": "2h"}, "TOKENRY_REVOCATION_RETENTION"),
    ],
)
def test_wrong_settings_are_named(changes, name):
    assert name in faults(**changes)


def test_all_faults_are_told_at_once():
    told = faults(TOKENRY_REVOCATION_HASHING_SALT="x", TOKENRY_STORE_URL="x", TOKENRY_RULES_URL="x")
    assert told.count("TOKENRY_") >= 3


def test_the_salt_that_everybody_knows_is_refused_in_production():
    known = {"TOKENRY_REVOCATION_HASHING_SALT": "seasaltisthebest"}
    assert "everybody" in faults(TOKENRY_ENVIRONMENT="production", **known)
    assert Settings.from_environment({**GOOD, **known})


@pytest.mark.parametrize("lifetime", [3600, 30 * 86_400])
def test_the_stores_log_keeps_what_tokens_and_rules_need_and_no_longer(lifetime):
    settings = Settings.from_environment({**GOOD, "TOKENRY_MAX_TOKEN_LIFETIME": str(lifetime)})
    latest_cutoff = 1 + 2 * settings.clock_skew
    assert lifetime + 120 + 60 + latest_cutoff <= needed_retention(settings) < lifetime + 300


def test_replication_is_read_as_names_and_numbers():
    settings = Settings.from_environment({**GOOD, "TOKENRY_STORE_REPLICATION": "eu=3,us=2"})
    assert settings.replication == {"eu": 3, "us": 2}
    assert Settings.from_environment(GOOD).replication is None


def test_a_secret_is_in_no_text():
    settings = Settings.from_environment({**GOOD, "TOKENRY_STORE_PASSWORD": "pass-canary"})
    assert SALT not in repr(settings)
    assert "pass-canary" not in repr(settings)


def test_checking_the_settings_exits_with_2_on_faults(capsys):
    assert main(["--check-settings"], GOOD) == 0
    assert main(["--check-settings"], {}) == 2
    told = capsys.readouterr().err
    assert "TOKENRY_ISSUER" in told
    assert "TOKENRY_STORE_URL" in told


def test_the_schema_is_created_once_and_again_harmlessly(tmp_path, capsys):
    environ = {**GOOD, "TOKENRY_STORE_URL": f"sqlite://{tmp_path}/store.db"}
    assert main(["--create-schema"], environ) == 0
    first = capsys.readouterr().out
    assert main(["--create-schema"], environ) == 0
    assert capsys.readouterr().out == first
    assert (tmp_path / "store.db").stat().st_mode & 0o077 == 0


def test_creating_the_schema_tells_what_is_wrong(tmp_path, capsys):
    assert main(["--create-schema"], {}) == 2
    assert main(["--create-schema"], {**GOOD, "TOKENRY_STORE_URL": f"sqlite://{tmp_path}/no/where/s.db"}) == 1
    assert "cannot be created" in capsys.readouterr().err


def test_rules_come_from_a_folder_a_bucket_or_nowhere(tmp_path):
    assert rule_objects(None) is None
    assert isinstance(rule_objects(f"file://{tmp_path}/"), RulesDirectory)


async def test_F56_on_the_store_of_another_environment_it_does_not_become_ready(tmp_path, capsys):
    environ = {
        "TOKENRY_ISSUER": "http://127.0.0.1:1",
        "TOKENRY_STORE_URL": f"sqlite://{tmp_path}/store.db",
        "TOKENRY_REVOCATION_HASHING_SALT": SALT,
    }
    production, staging = ({**environ, "TOKENRY_ENVIRONMENT": name} for name in ("production", "staging"))
    assert await asyncio.to_thread(main, ["--create-schema"], production) == 0
    assert await asyncio.to_thread(main, ["--create-schema"], staging) == 2
    refusal = "the store belongs to the environment production, and TOKENRY_ENVIRONMENT is staging"
    assert refusal in capsys.readouterr().err

    app = compose(CheckedSettings.from_environment(staging))()
    async with serve(app, ["127.0.0.1:0"]) as server, aiohttp.ClientSession() as session, asyncio.timeout(20):
        told = ""
        while refusal not in told:
            async with session.get(f"{server.url}/readyz?verbose") as answer:
                assert answer.status == 503
                told = await answer.text()
            await asyncio.sleep(0.05)
        async with session.get(f"{server.url}/revocations/changes") as answer:
            assert answer.status == 503
        app[HEALTH].drain()
