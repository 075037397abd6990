"""The audit log of administration and of the command line: one chain each, which `tokenry audit verify` verifies."""

import json
import multiprocessing
import stat

import pytest

from tests.services.admin.support import ACTOR
from tokenry.errors import ConfigurationError
from tokenry.serving.audit_chain import BrokenChain, record_of, verify
from tokenry.serving.audit_sink import Chained
from tokenry.testing.clock import FakeClock
from tokenry_admin.adapters.audit_file import AuditFile
from tokenry_admin.audit import AuditLog

NOW = 1_800_000_000.0


def records(path):
    return [record_of(line) for line in path.read_text().splitlines()]


def test_the_lines_of_the_service_are_one_chain_and_a_missing_one_shows():
    lines = []
    audit = AuditLog(
        Chained(lambda event, fields: lines.append({"event": event, **fields}), instance="a.1", clock=FakeClock(NOW))
    )
    for number in range(4):
        audit.noted("keys rotated", actor=ACTOR, kids=[f"k{number}"])
    (chain,) = verify(lines)
    assert (chain.instance, chain.first, chain.last) == ("a.1", 1, 4)
    with pytest.raises(BrokenChain, match="record 2 of"):
        verify([lines[0], *lines[2:]])
    lines[3]["kids"] = ["another"]
    with pytest.raises(BrokenChain, match="record 4 of"):
        verify(lines)


def test_each_run_goes_on_with_the_chain_of_the_file(tmp_path):
    path = tmp_path / "audit.jsonl"
    for run in range(3):
        file = AuditFile(path, instance=f"host.{run}", clock=FakeClock(NOW + run))
        AuditLog(file).noted("keys written", actor={"operator": "jdoe"}, kids=["k"])
        file.close()
    (chain,) = verify(records(path))
    assert (chain.instance, chain.last) == ("host.0", 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    # A whole run taken out of the middle shows, which it would not if each run had a chain of its own.
    lines = path.read_text().splitlines()
    with pytest.raises(BrokenChain, match="record 2"):
        verify([record_of(lines[0]), record_of(lines[2])])


def write_some(path, count):
    file = AuditFile(path, instance="host", clock=FakeClock(NOW))
    for _ in range(count):
        AuditLog(file).noted("created", actor=ACTOR)
    file.close()


def test_commands_at_the_same_time_make_one_chain(tmp_path):
    path = tmp_path / "audit.jsonl"
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=write_some, args=(path, 25)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(60)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    (chain,) = verify(records(path))
    assert chain.last == 75


@pytest.mark.parametrize("damage", ["half a line", '{"audit":true}\n', "text\n"])
def test_a_file_whose_end_is_damaged_is_refused_before_anything_is_done(tmp_path, damage):
    path = tmp_path / "audit.jsonl"
    write_some(path, 2)
    path.write_text(path.read_text() + damage)
    with pytest.raises(ConfigurationError, match="no whole audit record"):
        AuditFile(path, instance="host", clock=FakeClock(NOW))


def test_a_last_record_that_was_changed_is_not_gone_on_with(tmp_path):
    path = tmp_path / "audit.jsonl"
    write_some(path, 2)
    path.write_text(
        path.read_text().replace('"event":"created","instance":"host","seq":2', '"event":"x","instance":"host","seq":2')
    )
    assert json.loads(path.read_text().splitlines()[-1])["event"] == "x"
    with pytest.raises(ConfigurationError, match="no whole audit record"):
        AuditFile(path, instance="host", clock=FakeClock(NOW))


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_done(tmp_path):
    with pytest.raises(ConfigurationError, match="nothing was done"):
        AuditFile(tmp_path / "no-folder/audit.jsonl", instance="host", clock=FakeClock(NOW))
