import pytest

from tests.services.issuer.support import settings
from tokenry.errors import ConfigurationError
from tokenry_issuer.__main__ import main
from tokenry_issuer.settings import Settings
from tokenry_registry.bootstrap import create_envelope_key
from tokenry_registry.location import bucket_of, folder_of

GOOD = {
    "TOKENRY_ISSUER": "https://issuer.example.org",
    "TOKENRY_CREDENTIALS_URL": "s3://bucket/prefix/",
    "TOKENRY_ENVELOPE_KEY_FILE": "/run/secrets/envelope.key",
}


def faults(**changes):
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment({**GOOD, **changes})
    return refused.value.faults


def test_three_settings_are_enough():
    read = Settings.from_environment(GOOD)
    assert read.issuer == "https://issuer.example.org"
    assert read.max_token_lifetime == 3600
    assert read.credentials_refresh_interval == 30
    assert read.announce == 660


def test_every_missing_setting_is_told_at_once():
    with pytest.raises(ConfigurationError) as refused:
        Settings.from_environment({})
    told = "\n".join(refused.value.faults)
    assert all(name in told for name in GOOD)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TOKENRY_ISSUER", "issuer.example.org"),
        ("TOKENRY_ISSUER", "https://issuer.example.org?x=1"),
        ("TOKENRY_ISSUER", "http://issuer.example.org"),
        ("TOKENRY_CREDENTIALS_URL", "/srv/credentials"),
        ("TOKENRY_CREDENTIALS_URL", "s3:///prefix"),
        ("TOKENRY_CREDENTIALS_URL", "file://host/folder"),
        ("TOKENRY_CREDENTIALS_URL", "https://bucket/"),
        ("TOKENRY_MAX_TOKEN_LIFETIME", "25h"),
        ("TOKENRY_MAX_TOKEN_LIFETIME", "1.5"),
        ("TOKENRY_MAX_TOKEN_LIFETIME", "forever"),
        ("TOKENRY_CREDENTIALS_REFRESH_INTERVAL", "61s"),
        ("TOKENRY_CREDENTIALS_REFRESH_INTERVAL", "0"),
        ("TOKENRY_CREDENTIALS_HARD_AGE", "100s"),
        ("TOKENRY_CREDENTIALS_REMOVAL_SHARE", "1.5"),
        ("TOKENRY_JWKS_MAX_AGE", "301s"),
        ("TOKENRY_REVOCATION_URL", "http://revocation.example.org"),
        ("TOKENRY_SECRET_CHECK_THREADS", "0"),
        ("TOKENRY_FAILURES_PER_CLIENT", "0"),
        ("TOKENRY_LISTEN_ADDRESS", "0.0.0.0:8080"),
        ("TOKENRY_CREDENTIALS_REFRESH", "30s"),
    ],
)
def test_a_wrong_setting_stops_the_start_and_is_named(name, value):
    assert any(fault.startswith(name) for fault in faults(**{name: value})), faults(**{name: value})


def test_several_faults_are_told_together():
    told = faults(TOKENRY_ISSUER="x", TOKENRY_CREDENTIALS_URL="y", TOKENRY_JWKS_MAX_AGE="1h")
    assert {fault.split(":")[0] for fault in told} >= {"TOKENRY_ISSUER", "TOKENRY_JWKS_MAX_AGE"}


def test_F58_a_hard_age_shorter_than_a_few_refreshes_is_a_contradiction():
    assert faults(TOKENRY_CREDENTIALS_HARD_AGE="100s")
    Settings.from_environment({**GOOD, "TOKENRY_CREDENTIALS_HARD_AGE": "120s"})


def test_T24_plain_http_is_for_loopback_only():
    assert faults(TOKENRY_ISSUER="http://issuer.example.org")
    assert faults(TOKENRY_LISTEN_ADDRESS="0.0.0.0:8080")
    Settings.from_environment({**GOOD, "TOKENRY_ISSUER": "http://127.0.0.1:9080"})


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("s3://bucket", ("bucket", "")),
        ("s3://bucket/", ("bucket", "")),
        ("s3://bucket/a/b", ("bucket", "a/b/")),
        ("s3://bucket/a/b/", ("bucket", "a/b/")),
    ],
)
def test_a_bucket_and_its_prefix(url, place):
    assert bucket_of(url) == place


def test_a_folder_with_odd_characters():
    assert str(folder_of("file:///srv/my%20folder/")) == "/srv/my folder"


def test_settings_show_no_secret():
    assert "envelope" in repr(settings())


# --- the command ----------------------------------------------------------------------------------------------


def test_checking_good_settings_ends_with_0(capsys):
    assert main(["--check-settings"], GOOD) == 0


def test_checking_wrong_settings_ends_with_2_and_all_faults(capsys):
    assert main(["--check-settings"], {"TOKENRY_ISSUER": "x"}) == 2
    told = capsys.readouterr().err
    assert "TOKENRY_ISSUER" in told
    assert "TOKENRY_CREDENTIALS_URL" in told


def test_F34_a_start_without_its_envelope_key_ends_with_2(tmp_path, capsys):
    environ = {**GOOD, "TOKENRY_ENVELOPE_KEY_FILE": str(tmp_path / "none")}
    assert main([], environ) == 2
    assert "TOKENRY_ENVELOPE_KEY_FILE" in capsys.readouterr().err


def test_a_start_with_an_envelope_key_that_others_may_read_ends_with_2(tmp_path, capsys):
    path = tmp_path / "envelope.key"
    create_envelope_key(path)
    path.chmod(0o644)
    assert main([], {**GOOD, "TOKENRY_ENVELOPE_KEY_FILE": str(path)}) == 2
    assert "chmod 600" in capsys.readouterr().err
