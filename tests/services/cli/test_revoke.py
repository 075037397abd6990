import json

import pytest
from typer.testing import CliRunner

from tokenry.revocation.documents import ListDocument
from tokenry.revocation.entries import Entry, Kind
from tokenry_cli.__main__ import app
from tokenry_cli.output import parse_moment, span
from tokenry_cli.revoke import denied, listed
from tokenry_cli.validators import furthest_behind_first, is_late

SALTS = {"s": b"0123456789abcdef"}
NOW = 1_800_000_000


def test_what_is_in_force_is_listed_by_revocation_and_without_what_was_undone():
    rule = Entry(
        id="r2", kind=Kind.CLAIMS, fingerprint=b"c" * 16, salt="s", names=("sub",), issued_before=NOW,
        in_force_until=NOW + 50,
    )  # fmt: skip
    single = {"fingerprint": b"a" * 16, "salt": "s", "in_force_until": NOW + 100}
    entries = (
        Entry(id="r1", kind=Kind.JTI, **single),
        Entry(id="r1", kind=Kind.TOKEN, **single),
        rule,
        Entry(id="r3", kind=Kind.ALL, issued_before=NOW, in_force_until=NOW + 20),
        Entry(id="r4", kind=Kind.UNDO, undoes="r3", in_force_until=NOW + 20),
        Entry(id="r5", kind=Kind.KEY, fingerprint=b"k" * 16, salt="s"),
    )
    rows = listed(ListDocument(cursor="c", epoch=1, salts=SALTS, max_token_lifetime=60, entries=entries))
    assert [row["id"] for row in rows] == ["r5", "r2", "r1"]
    assert rows[2]["kinds"] == ["jti", "token"]
    assert (rows[1]["names"], rows[1]["issued_before"]) == (["sub"], NOW)


def test_the_validator_that_is_furthest_behind_comes_first():
    rows = [{"name": name, "lag": lag} for name, lag in (("a", 1.0), ("b", None), ("c", 40.0))]
    assert [row["name"] for row in furthest_behind_first(rows)] == ["c", "a", "b"]
    assert [is_late(row) for row in rows] == [False, False, True]


@pytest.fixture
def run(monkeypatch):
    monkeypatch.setenv("TOKENRY_ISSUER", "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setenv("TOKENRY_REVOCATION_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TOKENRY_CLIENT_ID", "admin")
    monkeypatch.setenv("TOKENRY_CLIENT_SECRET", "secret")
    return lambda *words, typed="": CliRunner().invoke(app, ["revoke", *words], input=typed)


@pytest.mark.parametrize("words", [("all",), ("key", "k1")])
def test_the_big_hammer_needs_somebody_who_says_so(run, words):
    result = run(*words, typed=f"{words[-1]}\n")  # a pipe is nobody
    assert result.exit_code == 2
    assert "nobody is there to ask; nothing was changed" in result.output
    assert "--yes" in result.output


@pytest.mark.parametrize("words", [("all", "--yes"), ("key", "k1", "-y"), ("all", "--dry-run")])
def test_what_was_confirmed_is_sent(run, words):
    result = run(*words)
    assert result.exit_code == 1  # nobody answers
    assert "nothing is known to be revoked" in result.output


@pytest.mark.parametrize("word", ["--wait", "--wait=30"])
def test_wait_may_have_a_value_or_none(run, word):
    assert run("claim", "sub=x", word).exit_code == 1


@pytest.mark.parametrize("word", ["--wait=x", "--wait=0"])
def test_a_wait_that_is_none_is_refused(run, word):
    assert run("claim", "sub=x", word).exit_code == 2


def test_the_help_says_what_status_6_means(run):
    assert "status 6" in " ".join(run("claim", "--help").output.replace("│", " ").split())
    assert json.dumps(run("--help").exit_code) == "0"


@pytest.mark.parametrize(("known", "words"), [
    (None, "not known: the service's store does not answer"),
    ((0, None, 0, False), "never, as far as validators have reported"),
    ((1, 0.4, 1, False), "once since, last 0 s ago, from 1 validator"),
    ((1284, 12.0, 3, False), "1,284 times since, last 12 s ago, from 3 validators"),
    ((9, 300.0, 20, True), "9 times since, last 5 min ago, from 20 validators or more"),
])  # fmt: skip
def test_how_often_a_revocation_has_refused_tokens_is_said_in_words(known, words):
    names = ("count", "last_seconds_ago", "validators", "validators_are_more")
    assert denied(None if known is None else dict(zip(names, known, strict=True))) == words


def test_a_span_of_time_is_said_in_its_unit():
    assert [span(seconds) for seconds in (5, 119, 120, 7199, 7200, 172_800)] == [
        "5 s", "119 s", "2 min", "120 min", "2 h", "2 d"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "second"),
    [
        ("now", NOW), ("2h", NOW - 7200), ("90s", NOW - 90), (str(NOW - 5), NOW - 5), ("2027-01-15T07:00Z", NOW - 3600),
        ("2027-01-15T08:00:00+01:00", NOW - 3600), ("2027-01-15T07:00", NOW - 3600),
    ],
)  # fmt: skip
def test_a_moment_can_be_said_in_several_ways(text, second):
    assert parse_moment(text, now=NOW + 0.5) == second


@pytest.mark.parametrize("text", ["", "tomorrow", "-2h", "2027-01-16T00:00Z", "9" * 30, str(NOW + 3600)])
def test_what_is_no_moment_or_one_to_come_is_refused(text):
    with pytest.raises(ValueError, match=r"no moment|in the future"):
        parse_moment(text, now=NOW)


def test_a_wrong_moment_is_a_mistake_of_use(run):
    result = run("claim", "sub=x", "--issued-before", "soon")
    assert result.exit_code == 2
    assert "2h" in result.stderr
