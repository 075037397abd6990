"""`tokenry revoke bulk`: slices that can be sent again, failures by their lines, and an exit status that says so."""

import io
import json

import pytest
from typer.testing import CliRunner

from tokenry.http.fetch import Failure, FetchFailed, Response
from tokenry_cli import bulk as bulk_module
from tokenry_cli.__main__ import app
from tokenry_cli.bulk import PAUSE_SECONDS, TRIES, again, slices
from tokenry_cli.platform import Platform, Refused


class FakePlatform(Platform):
    """A service that takes every line but those that say `bad`, and remembers what it was sent."""

    sent: list
    refusals: list

    def __init__(self, context):
        pass

    def batch(self, lines, *, key):
        self.sent.append((key, lines))
        if self.refusals:
            raise self.refusals.pop(0)
        texts = lines.splitlines()
        failures = [
            {"line": number, "status": 400, "detail": "not a line of JSON"}
            for number, text in enumerate(texts, 1)
            if b"bad" in text
        ]
        self.answers[key] = failures
        accepted = len(texts) - len(failures)
        return {"id": key, "accepted": accepted, "failed": len(failures), **self._page(failures, 0)}

    def job(self, name, *, page=0):
        return self._page(self.answers[name], page)

    @staticmethod
    def _page(failures, page):
        more = failures[2 * page + 2 :]
        return {"failures": failures[2 * page : 2 * page + 2], "next_page": page + 1 if more else None}


@pytest.fixture
def platform(monkeypatch):
    monkeypatch.setenv("TOKENRY_ISSUER", "http://127.0.0.1:9")
    monkeypatch.setenv("TOKENRY_REVOCATION_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("TOKENRY_CLIENT_ID", "admin")
    monkeypatch.setenv("TOKENRY_CLIENT_SECRET", "secret")
    FakePlatform.sent, FakePlatform.refusals, FakePlatform.answers = [], [], {}
    monkeypatch.setattr(bulk_module, "Platform", FakePlatform)
    monkeypatch.setattr(bulk_module, "SLICE_LINES", 3)
    monkeypatch.setattr(bulk_module, "PAUSE_SECONDS", 0.0)
    return FakePlatform


@pytest.fixture
def run(platform):
    return lambda *words, typed=None: CliRunner().invoke(app, ["revoke", "bulk", *map(str, words)], input=typed)


def refused(status):
    return Refused("the batch", Response(status=status, body=b"{}"))


def line(number):
    return json.dumps({"type": "TOKEN", "data": {"jti": f"id-{number}"}})


def test_a_file_is_sent_in_slices_whose_keys_follow_from_its_content(tmp_path, platform, run):
    file = tmp_path / "list"
    file.write_text("\n".join(map(line, range(7))))
    result = run("-f", file, "--output", "json")
    assert result.exit_code == 0, result.output
    first = list(platform.sent)
    assert [lines.count(b"\n") for _, lines in first] == [3, 3, 1]
    assert [key.rpartition(".")[2] for key, _ in first] == ["0", "1", "2"]
    platform.sent.clear()
    run("-f", file)
    assert platform.sent == first
    platform.sent.clear()
    file.write_text(line(8))
    run("-f", file)
    assert platform.sent[0][0] != first[0][0]


def test_lines_that_fail_are_named_kept_and_make_status_7(tmp_path, platform, run):
    file, out = tmp_path / "list", tmp_path / "failed"
    texts = [line(0), "bad 1", line(2), line(3), "bad 4", "bad 5", "bad 6", line(7)]
    file.write_text("\n".join(texts) + "\n")
    result = run("-f", file, "--failed-out", out, "--output", "json")
    assert result.exit_code == 7
    report = json.loads(result.stdout)
    assert (report["lines"], report["accepted"], report["failed"]) == (8, 4, 4)
    assert [failure["line"] for failure in report["failures"]] == [2, 5, 6, 7]
    assert out.read_text().splitlines() == ["bad 1", "bad 4", "bad 5", "bad 6"]


def test_a_batch_of_which_nothing_was_taken_has_failed(tmp_path, run):
    file = tmp_path / "list"
    file.write_text("bad\nbad\nbad\nbad\n")
    result = run("-f", file)
    assert result.exit_code == 1
    assert "line 4" in result.output


def test_what_may_be_over_in_a_moment_is_tried_again(tmp_path, platform, run):
    file = tmp_path / "list"
    file.write_text(line(1))
    platform.refusals = [refused(503), FetchFailed(Failure.TIMEOUT, "nobody"), refused(409)]
    assert run("-f", file).exit_code == 0
    assert len(platform.sent) == TRIES


def test_what_stays_stops_the_command_which_says_how_to_go_on(tmp_path, platform, run):
    file = tmp_path / "list"
    file.write_text("\n".join(map(line, range(7))))
    taken = platform.batch

    class SecondFails(platform):
        def batch(self, lines, *, key):
            if key.endswith(".1"):
                raise refused(403)
            return taken(self, lines, key=key)

    bulk_module.Platform = SecondFails
    result = run("-f", file, "--job", "mine")
    assert result.exit_code == 7
    assert "run the same again to go on" in result.output
    assert [key for key, _ in platform.sent] == ["mine.0"]


def test_standard_input_is_read_once(platform, run):
    result = run("-f", "-", "--job", "j", typed=line(1) + "\n" + line(2))
    assert result.exit_code == 0, result.output
    assert platform.sent == [("j.0", (line(1) + "\n" + line(2) + "\n").encode())]


def test_a_file_that_is_not_there_is_a_fault_of_the_caller(tmp_path, run):
    assert run("-f", tmp_path / "nothing").exit_code == 2


def test_pauses_between_tries_grow():
    slept = []

    def down():
        raise refused(503)

    with pytest.raises(Refused):
        again(down, sleep=slept.append)
    assert slept == [PAUSE_SECONDS * 2**attempt for attempt in range(TRIES - 1)]


def test_slices_keep_every_line():
    lines = [f"{n}\n".encode() for n in range(25_001)]
    assert b"".join(b"".join(each) for each in slices(io.BytesIO(b"".join(lines)))) == b"".join(lines)


def test_a_dry_run_reads_every_line_and_sends_none(tmp_path, platform, run):
    file = tmp_path / "list"
    file.write_text("\n".join([line(0), "", "no json", "[]"]) + "\n")
    result = run("-f", file, "--dry-run", "-o", "json")
    assert result.exit_code == 2
    assert [failure["line"] for failure in json.loads(result.stdout)["failures"]] == [3, 4]
    assert "nothing was revoked" in result.stderr
    assert platform.sent == []


def test_progress_is_said_in_lines_of_json_and_the_end_says_the_undo(tmp_path, platform, run):
    file = tmp_path / "list"
    file.write_text("\n".join(map(line, range(7))))
    result = run("-f", file, "--progress", "json", "-o", "json")
    events = [json.loads(text) for text in result.stderr.splitlines() if text.startswith("{")]
    assert [(event["event"], event["done"], event["total"]) for event in events] == [
        ("progress", 3, 7), ("progress", 6, 7), ("progress", 7, 7), ("end", 7, 7)
    ]  # fmt: skip
    assert "undo, one at a time: tokenry revoke undo ID" in result.stderr
    assert len(json.loads(result.stdout)["parts"]) == 3
    assert "{" not in run("-f", file, "--progress", "none", "-o", "name").stderr


def test_ctrl_c_says_what_is_in_force_and_ends_with_130(tmp_path, platform, run, monkeypatch):
    file = tmp_path / "list"
    file.write_text("\n".join(map(line, range(7))))

    class Interrupted(platform):
        def batch(self, lines, *, key):
            if self.sent:
                raise KeyboardInterrupt
            return super().batch(lines, key=key)

    monkeypatch.setattr(bulk_module, "Platform", Interrupted)
    result = run("-f", file)
    assert result.exit_code == 130
    assert "3 of 3 lines that were sent are in force" in result.stderr
