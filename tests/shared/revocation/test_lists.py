from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.revocation_entries import (
    ENTRIES,
    ISSUER,
    LIFETIME,
    NOW,
    SALT,
    SALTS,
    TOKENS,
    UNTIL,
    all_entry,
    claims_entry,
    jti_entry,
    judged,
    key_entry,
    list_of,
    token_entry,
    undo_entry,
)
from tokenry.errors import ProtocolError
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import claims_fingerprint, jti_fingerprint, key_fingerprint, token_fingerprint
from tokenry.revocation.lists import PRUNE_SECONDS, RevocationList, TooManyEntries
from tokenry.revocation.wire import document_of, format_binary_list

MANY = st.lists(ENTRIES, max_size=8)


def content(revocations):
    return format_binary_list(document_of(revocations, cursor="c"))


def hit(entries, token, *, now=NOW):
    return list_of(entries).hits(token, now=now)


# --- what an entry hits ---


def test_the_empty_list_hits_nothing():
    assert RevocationList.empty().hits(judged(), now=NOW) is None
    assert len(RevocationList.empty()) == 0


def test_an_id_hits_the_token_with_it_whatever_its_age():
    found = hit([jti_entry("j")], judged(jti="j", iat=NOW + 500))
    assert found is not None
    assert (found.kind, found.fingerprint) == (Kind.JTI, jti_fingerprint(ISSUER, "j", salt=SALT))
    assert hit([jti_entry("j")], judged(jti="k")) is None
    assert hit([jti_entry("j")], judged(jti=None)) is None


def test_an_id_of_another_issuer_is_another_token():
    assert hit([jti_entry("j")], judged(jti="j", iss="https://other.example")) is None


def test_a_token_is_hit_by_its_signing_input_even_without_an_id():
    found = hit([token_entry("h.p")], judged(jti=None, signing_input="h.p"))
    assert found is not None
    assert found.kind is Kind.TOKEN
    assert hit([token_entry("h.p")], judged(jti=None, signing_input="h.q")) is None


def test_a_key_hits_what_it_signed_for_its_issuer_for_ever():
    entries = [key_entry("k")]
    found = hit(entries, judged(kid="k"), now=NOW + 10**8)
    assert found is not None
    assert (found.kind, found.id) == (Kind.KEY, "key-k")
    assert hit(entries, judged(kid="k2")) is None
    assert hit(entries, judged(kid="k", iss="https://other.example")) is None
    assert list_of(entries).merge([], now=NOW + 10**8).hits(judged(kid="k"), now=NOW) is not None


def test_a_key_is_known_by_itself_under_any_salt_and_by_no_rule_that_hits_its_tokens():
    other = replace(key_entry("k2"), fingerprint=key_fingerprint(ISSUER, "k2", salt=b"b" * 16), salt="s2")
    held = RevocationList.of(
        [key_entry("k"), other, all_entry(before=NOW)], salts=SALTS | {"s2": b"b" * 16}, epoch=1, max_token_lifetime=1
    )
    assert held.has_key(ISSUER, "k")
    assert held.has_key(ISSUER, "k2")
    assert not held.has_key(ISSUER, "k3")
    assert not held.has_key("https://other.example", "k")
    assert not RevocationList.empty().has_key(ISSUER, "k")


def test_all_hits_what_was_issued_before_its_cut_off():
    found = hit([all_entry(before=NOW)], judged(iat=NOW - 1))
    assert found is not None
    assert (found.kind, found.fingerprint) == (Kind.ALL, None)
    assert hit([all_entry(before=NOW)], judged(iat=NOW)) is None


def test_a_cut_off_is_exclusive():
    rule = [claims_entry({"sub": "x"}, before=NOW)]
    assert hit(rule, judged(sub="x", iat=NOW - 1)) is not None
    assert hit(rule, judged(sub="x", iat=NOW)) is None


def test_a_rule_hits_only_a_token_that_carries_every_name_with_that_value():
    rule = [claims_entry({"sub": "x", "realm": "/services"})]
    found = hit(rule, judged(sub="x", realm="/services", more="z"))
    assert found is not None
    assert (found.kind, found.id) == (Kind.CLAIMS, "rule")
    assert hit(rule, judged(sub="x")) is None
    assert hit(rule, judged(realm="/services")) is None
    assert hit(rule, judged(sub="/services", realm="x")) is None
    assert hit(rule, judged(sub="x", realm="services")) is None
    assert hit(rule, judged(sub="x", realm="/customers")) is None


@pytest.mark.parametrize("value", [5, None, True, ["x"], {"x": "x"}, 1.5])
def test_a_claim_that_is_no_string_is_not_carried(value):
    assert hit([claims_entry({"sub": "x"})], judged(sub=value)) is None


def test_client_id_and_azp_are_one_name():
    rule = [claims_entry({"client_id": "c", "sub": "x"})]
    assert hit(rule, judged(sub="x", client_id="c")) is not None
    assert hit(rule, judged(sub="x", azp="c")) is not None
    assert hit(rule, judged(sub="x", azp="c", client_id="d")) is not None
    assert hit(rule, judged(sub="x", azp="d", client_id="c")) is not None
    assert hit(rule, judged(sub="x", azp="d", client_id="d")) is None
    assert hit(rule, judged(sub="x", azp=["c"], client_id="c")) is not None


@pytest.mark.parametrize("name", ["iss", "jti", "root_jti"])
def test_registered_names_work_as_claims(name):
    assert (
        hit(
            [claims_entry({name: "v"})],
            judged(**{"jti": None, name: "v"}) if name == "root_jti" else token_with(name),
        )
        is not None
    )


def token_with(name):
    token = judged(jti="v" if name == "jti" else None, iss="v" if name == "iss" else ISSUER)
    token.claims = {name: "v"}
    return token


def test_the_latest_cut_off_counts_whatever_the_order():
    late, early = (
        claims_entry({"sub": "x"}, before=NOW, entry_id="l"),
        claims_entry({"sub": "x"}, before=NOW - 50, entry_id="e"),
    )
    for entries in ([late, early], [early, late]):
        found = hit(entries, judged(sub="x", iat=NOW - 10))
        assert found is not None
        assert found.id == "l"


def test_of_a_wide_and_a_narrow_rule_the_stricter_one_counts():
    wide, narrow = (
        claims_entry({"realm": "/s"}, before=NOW - 50),
        claims_entry({"sub": "x"}, before=NOW, entry_id="n"),
    )
    found = hit([wide, narrow], judged(sub="x", realm="/s", iat=NOW - 10))
    assert found is not None
    assert found.id == "n"


def test_a_blocking_rule_hits_any_age_until_it_ends():
    rule = list_of([claims_entry({"sub": "x"}, before=NOW, block_until=NOW + 10)])
    assert rule.has_blocks
    assert rule.hits(judged(sub="x", iat=NOW + 5), now=NOW + 9.9) is not None
    assert rule.hits(judged(sub="x", iat=NOW + 5), now=NOW + 10) is None
    assert rule.hits(judged(sub="y", iat=NOW + 5), now=NOW) is None
    assert rule.hits(judged(sub="x", iat=NOW - 1), now=NOW + 10) is not None
    assert not list_of([claims_entry({"sub": "x"})]).has_blocks


def test_the_earliest_moment_of_a_chain_of_exchanges_decides():
    rule = [claims_entry({"sub": "x"}, before=NOW)]
    assert hit(rule, judged(sub="x", iat=NOW + 30, root_iat=NOW - 1)) is not None
    assert hit(rule, judged(sub="x", iat=NOW + 30, root_iat=NOW)) is None
    assert hit(rule, judged(sub="x", iat=NOW - 1, root_iat=NOW + 30)) is not None
    assert hit([all_entry(before=NOW)], judged(iat=NOW + 30, root_iat=NOW - 1)) is not None


@pytest.mark.parametrize("root_iat", ["1800000000", True, 1.8e9, None, [], -1])
def test_a_root_iat_that_is_no_sane_number_is_as_old_as_can_be(root_iat):
    assert hit([all_entry(before=1)], judged(root_iat=root_iat, iat=NOW)) is not None


def test_an_id_hits_what_was_exchanged_for_it():
    assert hit([jti_entry("root")], judged(jti="new", root_jti="root")) is not None
    assert hit([jti_entry("new")], judged(jti="new", root_jti="root")) is not None
    assert hit([jti_entry("root")], judged(jti="new", root_jti="root", iss="https://other.example")) is None
    assert hit([jti_entry("root")], judged(jti="new", root_jti=["root"])) is None
    between = judged(jti="new", root_jti="root", via_jti=["one", "two"])
    assert all(hit([jti_entry(jti)], between) is not None for jti in ("root", "one", "two", "new"))
    assert hit([jti_entry("three")], between) is None
    assert hit([jti_entry("one")], judged(jti="new", via_jti="one")) is None


def test_every_salt_of_the_list_is_tried():
    other = b"another salt of enough bytes"
    entry = replace(jti_entry("j"), salt="s2", fingerprint=jti_fingerprint(ISSUER, "j", salt=other))
    revocations = list_of([jti_entry("k")]).merge([entry], now=NOW, salts={"s2": other})
    assert revocations.hits(judged(jti="j"), now=NOW) is not None
    assert revocations.hits(judged(jti="k"), now=NOW) is not None
    assert revocations.hits(judged(jti="l"), now=NOW) is None


def test_fingerprints_remembered_under_one_salt_do_not_answer_for_another():
    token = judged(jti="j")
    assert list_of([jti_entry("j")]).hits(token, now=NOW) is not None
    other = RevocationList.of(
        [replace(jti_entry("j"), fingerprint=token_fingerprint("x", salt=SALT))],
        salts={"s1": b"same name, other salt"},
        epoch=1,
        max_token_lifetime=LIFETIME,
    )
    assert other.hits(token, now=NOW) is None


def test_rules_on_the_same_names_under_two_salts_are_both_looked_up():
    other = b"another salt of enough bytes"
    rule = claims_entry({"sub": "x"}, entry_id="2")
    moved = replace(rule, salt="s2", fingerprint=claims_fingerprint([("sub", "x")], salt=other))
    revocations = list_of([claims_entry({"sub": "y"})]).merge([moved], now=NOW, salts={"s2": other})
    assert revocations.hits(judged(sub="x"), now=NOW) is not None
    assert revocations.hits(judged(sub="y"), now=NOW) is not None
    assert revocations.hits(judged(sub="z"), now=NOW) is None


# --- merging ---


@given(MANY, TOKENS)
def test_merging_the_same_news_again_changes_nothing(entries, token):
    once = list_of(entries)
    assert once.merge(entries, now=NOW) is once


@given(MANY, MANY, TOKENS)
def test_the_order_of_news_does_not_matter(one, other, token):
    forwards = list_of(one).merge(other, now=NOW)
    backwards = list_of(other).merge(one, now=NOW)
    assert content(forwards) == content(backwards)
    found, again = forwards.hits(token, now=NOW), backwards.hits(token, now=NOW)
    assert (found is None) == (again is None)


@given(MANY, MANY, MANY)
def test_news_may_be_gathered_before_they_are_merged(one, two, three):
    step_by_step = list_of(one).merge(two, now=NOW).merge(three, now=NOW)
    at_once = list_of(one).merge([*two, *three], now=NOW)
    assert content(step_by_step) == content(at_once)


@given(MANY, MANY, TOKENS)
def test_a_token_once_hit_stays_hit_unless_something_is_undone(one, other, token):
    before = list_of(one).hits(token, now=NOW)
    other = [entry for entry in other if entry.kind is not Kind.UNDO]
    after = list_of(one).merge(other, now=NOW).hits(token, now=NOW)
    assert before is None or after is not None


@given(MANY, TOKENS, st.integers(0, 200))
def test_a_token_once_missed_is_missed_by_the_same_list_ever_after(entries, token, later):
    revocations = list_of(entries)
    if revocations.hits(token, now=NOW) is None:
        assert revocations.hits(token, now=NOW + later) is None


@given(MANY, TOKENS, st.integers(0, 200))
def test_what_a_list_says_is_what_its_entries_say(entries, token, seconds):
    """The plain meaning, without indexes, blocks or memory."""
    now = NOW + seconds
    undone = {entry.undoes for entry in entries if entry.kind is Kind.UNDO}
    in_force = [entry for entry in entries if entry.id not in undone or entry.kind is Kind.KEY or entry.single]
    expected = any(means(entry, token, now) for entry in in_force)
    assert (list_of(entries).hits(token, now=now) is not None) == expected


def means(entry: Entry, token, now):
    match entry.kind:
        case Kind.JTI:
            return token.jti is not None and entry.fingerprint == jti_fingerprint(ISSUER, token.jti, salt=SALT)
        case Kind.TOKEN:
            return entry.fingerprint == token_fingerprint(token.signing_input, salt=SALT)
        case Kind.KEY:
            return entry == key_entry(token.kid)
        case Kind.ALL:
            return token.iat < entry.issued_before
        case Kind.CLAIMS:
            carried = {name: token.claims[name] for name in entry.names if name in token.claims}
            fits = entry.fingerprint == claims_entry(carried).fingerprint if carried else False
            return fits and (token.iat < entry.issued_before or now < (entry.block_until or 0))
        case _:
            return False


@given(MANY)
def test_no_entry_leaves_before_it_is_out_of_force(entries):
    revocations = list_of(entries)
    for now in (UNTIL - 51, UNTIL - 50, UNTIL - 1, UNTIL, UNTIL + 49):
        revocations = revocations.merge([], now=now).compact(now=now)
        assert content(revocations) == content(
            list_of([e for e in entries if e.in_force_until is None or e.in_force_until > now])
        )


def test_what_is_out_of_force_when_it_arrives_is_not_taken():
    held = list_of([jti_entry("j")])
    assert held.merge([jti_entry("late", until=NOW)], now=NOW) is held
    assert len(held.merge([jti_entry("late", until=NOW + 1)], now=NOW)) == 2


def test_merging_drops_what_is_over_every_few_minutes():
    held = list_of([jti_entry("j", until=NOW + 10), claims_entry({"sub": "x"}, until=NOW + 10)])
    assert len(held.merge([], now=NOW + PRUNE_SECONDS - 1)) == 2
    assert len(held.merge([], now=NOW + PRUNE_SECONDS)) == 0


def test_of_two_expiries_of_one_token_the_later_one_counts():
    held = list_of([jti_entry("j", until=UNTIL, entry_id="1")])
    for entries in (
        [jti_entry("j", until=UNTIL - 50, entry_id="2")],
        [jti_entry("j", until=UNTIL, entry_id="3")],
    ):
        assert held.merge(entries, now=NOW) is held
    longer = held.merge([jti_entry("j", until=UNTIL + 9, entry_id="4")], now=NOW)
    assert longer.compact(now=UNTIL + 8).hits(judged(jti="j"), now=NOW) is not None


def test_two_entries_under_one_id_are_both_in_force():
    entries = [claims_entry({"sub": "x"}, entry_id="same"), claims_entry({"sub": "y"}, entry_id="same")]
    assert hit(entries, judged(sub="x")) is not None
    assert hit(entries, judged(sub="y")) is not None


@given(MANY, MANY, TOKENS, st.integers(0, 200))
def test_merging_changes_nothing_about_the_list_before(one, other, token, seconds):
    held = list_of(one)
    before = (content(held), held.hits(token, now=NOW + seconds))
    held.merge(other, now=NOW)
    held.compact(now=UNTIL + 100)
    assert (content(held), held.hits(token, now=NOW + seconds)) == before


def test_a_new_rule_does_not_reach_into_the_list_before():
    held = list_of([claims_entry({"sub": "x"}), key_entry("k"), jti_entry("j", undoable=True)])
    more = [claims_entry({"sub": "y"}, entry_id="2"), key_entry("k2"), jti_entry("j2", undoable=True), all_entry()]
    held.merge(more, now=NOW)
    for token in (judged(sub="y"), judged(kid="k2"), judged(jti="j2"), judged()):
        assert held.hits(token, now=NOW) is None
        assert held.merge(more, now=NOW).hits(token, now=NOW) is not None


def test_a_rule_that_blocks_is_noticed_however_it_arrives_and_until_it_leaves():
    blocking, other = claims_entry({"sub": "x"}, block_until=NOW + 9), claims_entry({"sub": "y"}, entry_id="2")
    assert list_of([blocking]).merge([other], now=NOW).has_blocks
    assert list_of([other]).merge([blocking], now=NOW).has_blocks
    assert not list_of([blocking]).merge([undo_entry("rule")], now=NOW).has_blocks
    assert not list_of([blocking]).compact(now=UNTIL).has_blocks


# --- undoing ---


@pytest.mark.parametrize("first", ["rule", "undo"])
def test_an_undo_lifts_a_rule_whichever_arrives_first(first):
    rule, undo = claims_entry({"sub": "x"}), undo_entry("rule")
    revocations = list_of([rule] if first == "rule" else [undo])
    revocations = revocations.merge([undo] if first == "rule" else [rule], now=NOW)
    assert revocations.hits(judged(sub="x"), now=NOW) is None
    assert revocations.merge([rule], now=NOW) is revocations  # it does not come back


def test_an_undo_lifts_nothing_else():
    entries = [
        claims_entry({"sub": "x"}, before=NOW - 50, entry_id="other"),
        claims_entry({"sub": "x"}),
        undo_entry("rule"),
    ]
    assert hit(entries, judged(sub="x", iat=NOW - 51)) is not None
    assert hit(entries, judged(sub="x", iat=NOW - 50)) is None


def test_an_undo_lifts_a_revocation_of_everything():
    assert hit([all_entry(), undo_entry("everything")], judged()) is None


def test_a_token_can_be_undone_only_when_it_was_a_test():
    undo = undo_entry("jti-j")
    assert hit([jti_entry("j", undoable=True)], judged(jti="j")) is not None
    assert hit([jti_entry("j", undoable=True), undo], judged(jti="j")) is None
    assert hit([jti_entry("j"), undo], judged(jti="j")) is not None
    assert (
        hit([jti_entry("j", undoable=True, entry_id="t"), undo_entry("t"), jti_entry("j")], judged(jti="j")) is not None
    )


def test_a_key_cannot_be_undone():
    assert hit([key_entry("k"), undo_entry("key-k")], judged(kid="k")) is not None


def test_an_undo_lives_as_long_as_what_it_lifts():
    revocations = list_of([claims_entry({"sub": "x"}), undo_entry("rule")])
    for now in range(NOW, UNTIL + PRUNE_SECONDS, PRUNE_SECONDS):
        revocations = revocations.merge([], now=now)
        assert revocations.hits(judged(sub="x"), now=now) is None
    assert len(revocations.compact(now=UNTIL)) == 0


# --- what is refused ---


def test_a_list_that_would_grow_too_long_is_refused_and_the_one_held_stays():
    held = list_of([jti_entry(str(number)) for number in range(3)], max_entries=4)
    with pytest.raises(ProtocolError, match="more than 4"):
        held.merge([jti_entry("x"), jti_entry("y")], now=NOW)
    assert len(held) == 3
    assert len(held.merge([jti_entry("x")], now=NOW)) == 4


def test_what_is_over_makes_room():
    held = list_of([jti_entry(str(number), until=NOW + 10) for number in range(4)], max_entries=4)
    assert len(held.merge([jti_entry("x")], now=NOW + 11)) == 1


def test_of_a_block_that_is_too_long_with_what_is_held_what_is_over_does_not_count():
    held = list_of([jti_entry(str(number), until=NOW + 10) for number in range(4)], max_entries=4)
    more = [jti_entry(f"new-{number}", until=NOW + 20) for number in range(4)]
    block = list_of([*more, jti_entry("old", until=NOW + 10)]).block
    with pytest.raises(TooManyEntries, match="more than 4 entries"):
        held.merge([], now=NOW + 9, block=block)
    assert len(held) == 4
    merged = held.merge([], now=NOW + 11, block=block)
    assert len(merged) == 4
    assert all(merged.has(entry) for entry in more)


def test_an_entry_under_a_salt_that_is_not_there_is_refused():
    with pytest.raises(ProtocolError, match="salt"):
        list_of([]).merge([replace(jti_entry("j"), salt="s9")], now=NOW)


def test_a_salt_that_is_too_short_or_contradicts_the_one_held_is_refused():
    with pytest.raises(ProtocolError, match="16 bytes"):
        list_of([]).merge([], now=NOW, salts={"s2": b"x" * 15})
    with pytest.raises(ProtocolError, match="two salts"):
        list_of([]).merge([], now=NOW, salts={"s1": b"y" * 32})
    with pytest.raises(ProtocolError, match="at most 8"):
        list_of([]).merge([], now=NOW, salts={str(number): b"y" * 32 for number in range(8)})
    assert list_of([]).salts == SALTS


def test_neither_a_list_nor_a_token_shows_what_it_holds():
    assert repr(list_of([jti_entry("j")])) == "<RevocationList of 1 entries, epoch 1>"
    assert "secret-subject" not in repr(judged(sub="secret-subject"))
