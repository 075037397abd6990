import json
import stat

import pytest
from typer.testing import CliRunner

from tokenry.revocation.extension import read_extension
from tokenry.sources.extension import pinned_key
from tokenry_cli.__main__ import app
from tokenry_cli.extend import parse_until

NOW = 1_800_000_000.5
ISSUER = "https://issuer.example.org"


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("TOKENRY_ISSUER", ISSUER)
    return lambda *words: CliRunner().invoke(app, ["validators", *map(str, words)])


@pytest.fixture
def keys(run, tmp_path):
    private, public = tmp_path / "private.pem", tmp_path / "public.jwk"
    assert run("extend-key", private, public).exit_code == 0
    return private, public


def test_a_word_is_signed_that_validators_with_the_public_key_believe(run, keys, tmp_path):
    private, public = keys
    out = tmp_path / "extension.jwt"
    result = run(
        "extend", "--until", "4h", "--key", private, "--reason", "fire", "--ticket", "S-1", "--by", "jo", "--out", out
    )
    assert result.exit_code == 0, result.output
    word = read_extension(out.read_text().strip(), issuer=ISSUER, key=pinned_key(public.read_text()))
    assert (word.by, word.reason, word.ticket) == ("jo", "fire", "S-1")
    assert word.until - word.issued_at == 4 * 3600


def test_without_a_file_it_is_printed(run, keys):
    result = run("extend", "--until", "30m", "--key", keys[0], "--reason", "fire")
    assert read_extension(result.stdout.strip(), issuer=ISSUER, key=pinned_key(keys[1].read_text()))


def test_the_private_key_is_for_its_owner_and_the_public_one_has_no_secret(keys):
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert "d" not in json.loads(public.read_text())


def test_no_key_is_overwritten(run, keys):
    before = keys[0].read_bytes()
    assert run("extend-key", *keys).exit_code == 5
    assert keys[0].read_bytes() == before


@pytest.mark.parametrize("until", ["25h", "0s", "yesterday", "2020-01-01T00:00Z", ""])
def test_an_end_that_is_no_end_is_refused(run, keys, until):
    assert run("extend", "--until", until, "--key", keys[0], "--reason", "fire").exit_code == 2


def test_a_key_that_is_none_is_refused(run, tmp_path):
    (tmp_path / "key").write_text("nothing")
    assert run("extend", "--until", "1h", "--key", tmp_path / "key", "--reason", "fire").exit_code == 2
    assert run("extend", "--until", "1h", "--key", tmp_path / "gone", "--reason", "fire").exit_code == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("+5m", 300), ("24h", 86400), ("2027-01-15T09:00:00+01:00", 0)]
)
def test_an_end_is_a_span_or_a_moment(text, seconds):
    expected = 1_800_000_000 + seconds if seconds else 1_800_000_000
    assert parse_until(text, now=NOW - (0 if seconds else 60)) == expected
