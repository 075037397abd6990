from dataclasses import replace

import pytest

from tests.support.revocation_entries import NOW, all_entry, claims_entry, jti_entry, key_entry, token_entry, undo_entry
from tokenry.errors import ProtocolError
from tokenry.revocation.entries import MAX_TIME, Entry, Kind

JTI = jti_entry("j")
RULE = claims_entry({"realm": "/services", "sub": "jdoe"})


@pytest.mark.parametrize(
    ("entry", "changes"),
    [
        (JTI, {"id": ""}),
        (JTI, {"id": "x" * 129}),
        (JTI, {"id": "two words"}),
        (JTI, {"id": "line\n"}),
        (JTI, {"id": 5}),
        (JTI, {"kind": "jti"}),
        (JTI, {"fingerprint": None}),
        (JTI, {"fingerprint": b"x" * 15}),
        (JTI, {"fingerprint": b"x" * 17}),
        (JTI, {"fingerprint": "x" * 16}),
        (JTI, {"salt": None}),
        (JTI, {"salt": ""}),
        (JTI, {"in_force_until": None}),
        (JTI, {"in_force_until": 0}),
        (JTI, {"in_force_until": -1}),
        (JTI, {"in_force_until": MAX_TIME + 1}),
        (JTI, {"in_force_until": float(NOW)}),
        (JTI, {"in_force_until": True}),
        (JTI, {"issued_before": NOW}),
        (JTI, {"names": ("sub",)}),
        (JTI, {"block_until": NOW}),
        (JTI, {"undoes": "x"}),
        (JTI, {"undoable": 1}),
        (token_entry("t"), {"issued_before": NOW}),
        (RULE, {"issued_before": None}),
        (RULE, {"issued_before": 0}),
        (RULE, {"issued_before": "1"}),
        (RULE, {"names": ()}),
        (RULE, {"names": ("sub", "realm")}),
        (RULE, {"names": ("sub", "sub")}),
        (RULE, {"names": ("azp", "sub")}),
        (RULE, {"names": ("", "sub")}),
        (RULE, {"names": ("s" * 129,)}),
        (RULE, {"names": tuple("abcdefghi")}),
        (RULE, {"names": ["sub"]}),
        (RULE, {"names": (5,)}),
        (RULE, {"fingerprint": None}),
        (RULE, {"block_until": 0}),
        (RULE, {"block_until": RULE.in_force_until + 1}),
        (RULE, {"undoable": True}),
        (key_entry("k"), {"in_force_until": NOW}),
        (key_entry("k"), {"undoable": True}),
        (key_entry("k"), {"salt": None}),
        (all_entry(), {"issued_before": None}),
        (all_entry(), {"fingerprint": b"x" * 16, "salt": "s1"}),
        (all_entry(), {"salt": "s1"}),
        (all_entry(), {"block_until": NOW}),
        (undo_entry("x"), {"undoes": None}),
        (undo_entry("x"), {"undoes": "two words"}),
        (undo_entry("x"), {"in_force_until": None}),
        (undo_entry("x"), {"names": ("sub",)}),
    ],
)
def test_an_entry_that_is_not_exactly_one_of_its_kind_cannot_be_made(entry, changes):
    with pytest.raises(ProtocolError):
        replace(entry, **changes)


def test_a_rule_may_have_eight_names_and_block():
    names = dict.fromkeys("abcdefgh", "v")
    assert len(claims_entry(names, block_until=NOW + 5).names) == 8


def test_only_a_token_or_id_that_cannot_be_undone_is_kept_without_its_entry():
    assert JTI.single
    assert token_entry("t").single
    assert not replace(JTI, undoable=True).single
    assert not any(entry.single for entry in (RULE, key_entry("k"), all_entry(), undo_entry("x")))


def test_an_entry_shows_nothing_of_what_it_names():
    assert "jdoe" not in repr(RULE)
    assert isinstance(RULE, Entry)
    assert RULE.kind is Kind.CLAIMS
