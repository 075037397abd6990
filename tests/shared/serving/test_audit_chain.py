"""The audit log's hash chain: what is changed, removed, put in or cut off is found, and where it begins is named."""

import io
import json
import logging

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.serving.access_log import configure_logging
from tokenry.serving.audit_chain import FIRST, NOTHING, AuditChain, BrokenChain, Head, record_hash, record_of, verify
from tokenry.serving.audit_sink import chain_name
from tokenry.serving.settings import ServiceSettings

NOW = 1_800_000_000.1234


def made(count, instance="r1.abc"):
    chain = AuditChain(instance)
    return [chain.record("done", {"id": f"x{n}", "actor": {"sub": "jdoe"}}, now=NOW + n) for n in range(count)]


def broken(records, **more):
    with pytest.raises(BrokenChain) as caught:
        verify(records, **more)
    return caught.value.instance, caught.value.seq


def test_a_record_says_what_when_and_what_came_before():
    first, second = made(2)
    assert first == {
        "event": "done", "instance": "r1.abc", "seq": 1, "time": "2027-01-15T08:00:00.123Z", "id": "x0",
        "actor": {"sub": "jdoe"}, "previous": NOTHING, "hash": first["hash"],
    }  # fmt: skip
    assert second["previous"] == first["hash"] == record_hash(first)
    assert record_hash(dict(reversed(first.items()))) == first["hash"]


def test_a_whole_log_is_verified_in_any_order_and_with_repetitions():
    records = [*made(5), *made(3, "r2.def")]
    found = verify([*reversed(records), *records[:4]])
    assert [(each.instance, each.first, each.last) for each in found] == [("r1.abc", 1, 5), ("r2.def", 1, 3)]
    assert found[0].hash == records[4]["hash"]
    assert verify([]) == []


@pytest.mark.parametrize("number", range(5))
def test_a_record_that_is_missing_is_named(number):
    records = made(6)
    del records[number]
    assert broken(records) == ("r1.abc", number + 1)


@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("member", ["id", "time", "event", "actor", "previous", "hash", "new"])
def test_a_record_that_was_changed_is_named(number, member):
    records = made(5)
    records[number] = records[number] | {member: "f" * 64}
    assert broken(records) == ("r1.abc", number + 1)


def test_a_record_that_was_changed_with_its_hash_does_not_fit_the_next_one():
    records = made(5)
    records[2] = records[2] | {"id": "another"}
    records[2]["hash"] = record_hash(records[2])
    assert broken(records) == ("r1.abc", 4)


def test_two_records_of_one_number_are_found():
    other = AuditChain("r1.abc").record("another", {}, now=NOW)
    assert broken([*made(3), other]) == ("r1.abc", 1)


def test_an_end_that_was_cut_off_is_found_by_a_head_that_was_kept():
    records = made(5)
    head = Head(instance="r1.abc", seq=5, hash=records[4]["hash"])
    assert verify(records, heads=[head])
    assert verify(records[:3]), "without a head nobody can tell"
    assert broken(records[:3], heads=[head]) == ("r1.abc", 4)
    assert broken([], heads=[head]) == ("r1.abc", 1)
    assert verify([], heads=[Head(instance="r1.abc", seq=0, hash=NOTHING)]) == []


def test_a_chain_that_was_made_anew_is_found_by_a_head_that_was_kept():
    head = Head(instance="r1.abc", seq=3, hash=made(3)[2]["hash"])
    chain = AuditChain("r1.abc")
    anew = [chain.record("nothing happened", {}, now=NOW) for _ in range(5)]
    assert verify(anew)
    assert broken(anew, heads=[head]) == ("r1.abc", 3)


def test_a_part_is_verified_only_where_that_is_asked_for():
    records = made(9)[4:]
    assert broken(records) == ("r1.abc", FIRST)
    (found,) = verify(records, from_the_first=False)
    assert (found.first, found.last) == (5, 9)
    earlier = Head(instance="r1.abc", seq=2, hash="0" * 64)
    assert verify(records, heads=[earlier], from_the_first=False)
    assert broken([records[0], *records[2:]], from_the_first=False) == ("r1.abc", 6)


@pytest.mark.parametrize("name", ["seq", "hash", "previous", "instance", "time", "event", "ts", "level", "audit"])
def test_a_field_cannot_take_a_name_of_the_chains_or_of_the_logs(name):
    with pytest.raises(ValueError, match=name):
        AuditChain("i").record("done", {name: "x"}, now=NOW)


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["reason", "ticket", "names"]), st.text() | st.lists(st.text()) | st.integers(-(2**63), 2**63)
    )
)
def test_what_the_log_writes_is_what_was_hashed(fields):
    """Redaction and unusual characters included: the line is read back and verified."""
    out, root = io.StringIO(), logging.getLogger()
    before = (root.handlers[:], root.level)
    writer = configure_logging(ServiceSettings(environment="test"), service="test", stream=out)
    try:
        chain = AuditChain("i.1")
        for extra in ("plain", "token=abc Bearer eyJhbGciOiJub25lIn0.eyJhIjoxfQ.x"):
            record = chain.record("done", {**fields, "said": extra}, now=NOW)
            event = record.pop("event")
            structlog.get_logger("tokenry.audit").warning(event, audit=True, **record)
    finally:
        writer.close()
        root.handlers[:], _ = before
        root.setLevel(before[1])
        structlog.reset_defaults()
    lines = out.getvalue().splitlines()
    records = [record for line in lines if (record := record_of(line)) is not None]
    assert [(each.first, each.last) for each in verify(records)] == [(1, 2)]
    assert "eyJ" not in out.getvalue()


@pytest.mark.parametrize(
    "line", ["", "not json", "{}", '{"event": "request"}', '["audit"]', '{"audit": false}', '{"audit']
)
def test_other_lines_of_a_log_are_passed_over(line):
    assert record_of(line) is None


@pytest.mark.parametrize("change", [{"seq": "1"}, {"seq": True}, {"seq": 0}, {"instance": 5}, {"hash": "F" * 64},
                                    {"previous": None}, {"hash": "0" * 63}])  # fmt: skip
def test_an_audit_line_that_is_no_record_of_a_chain_is_an_error(change):
    with pytest.raises(ProtocolError):
        record_of(json.dumps(made(1)[0] | {"audit": True} | change))


def test_a_head_is_read_strictly():
    head = Head(instance="i", seq=3, hash="a" * 64)
    assert Head.read(head.members()) == head
    for wrong in ({}, [], None, head.members() | {"seq": -1}, head.members() | {"hash": "x"}):
        with pytest.raises(ProtocolError):
            Head.read(wrong)


def test_each_run_of_a_replica_has_a_chain_of_its_own():
    names = [chain_name("r1.example") for _ in range(100)]
    assert len(set(names)) == 100
    assert {name.rpartition(".")[0] for name in names} == {"r1.example"}
