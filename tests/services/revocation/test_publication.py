"""What is new since a cursor: nothing is lost, whatever appears late, moves, or is read by another replica."""

import hashlib
import json
import random
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import plan_b_hash
from tokenry.revocation.planb import PlanBList, PlanBRow, PlanBType, Refresh, global_rows
from tokenry.revocation.wire import parse_list
from tokenry.secret import Secret
from tokenry_revocation import publication as publication_module
from tokenry_revocation.cursors import Cursor, CursorGone
from tokenry_revocation.live import Live, LiveSheet
from tokenry_revocation.publication import Publication, document, entries_digest, written
from tokenry_revocation.records import Actor, Record, RecordType
from tokenry_revocation.requests import ClaimsTarget
from tokenry_revocation.revoking import Fingerprints, Signature, Terms, draft_claims
from tokenry_revocation.sheets import Sheet, spelled_name

NOW = 1_800_000_000
SALTS = {"s": bytes(32)}


def live(name, position=0, *, until=NOW + 600, undoes=None):
    kind = Kind.UNDO if undoes else Kind.ALL
    entry = Entry(
        id=name,
        kind=kind,
        issued_before=None if undoes else NOW,
        in_force_until=until,
        undoes=undoes,
    )
    return Live(
        id=name,
        type=RecordType.UNDO if undoes else RecordType.GLOBAL,
        revoked_at=NOW,
        in_force_until=until,
        entries=(entry,),
        rows=(),
        undoes=undoes,
        refresh_from=None,
        position=position,
    )


def plan_b():
    return PlanBList(skew=2.0, retention=200)


def publication(*records, overlap=0, position=0):
    made = Publication(epoch=7, overlap=overlap, plan_b=plan_b())
    made.add(records, now=NOW)
    made.advance(position)
    return made


def names(records):
    return {record.id for record in records}


def test_a_reader_with_the_same_records_has_no_news():
    made = publication(live("a", 1), live("b", 2), position=2)
    assert made.news(made.cursor(as_of=NOW)) == []


def test_a_reader_gets_what_was_acknowledged_before_the_store_gave_it_a_place():
    made = publication(live("a", 1), position=1)
    cursor = made.cursor(as_of=NOW)
    made.add([live("b")], now=NOW)
    assert names(made.news(cursor)) == {"b"}
    cursor = made.cursor(as_of=NOW)
    made.add([live("b", 2)], now=NOW)
    made.advance(2)
    assert made.news(cursor) == [], "its place is no news"
    assert made.news(made.cursor(as_of=NOW)) == []


def test_what_appears_below_the_position_within_the_overlap_is_news():
    made = publication(live("a", 100), overlap=20, position=100)
    cursor = made.cursor(as_of=NOW)
    made.add([live("late", 85)], now=NOW)
    assert names(made.news(cursor)) == {"late"}, "and of the rest only what lies beside it"
    made.add([live("later", 86)], now=NOW)
    assert names(made.news(cursor)) == {"late", "later"}


def test_a_record_that_was_written_again_is_at_its_later_place():
    made = publication(live("a", 5), overlap=2, position=10)
    before = made.cursor(as_of=NOW)
    made.add([live("a", 12)], now=NOW)
    assert names(made.news(before)) == {"a"}
    made.advance(12)
    assert made.news(made.cursor(as_of=NOW)) == []
    assert len(made) == 1


def test_what_is_out_of_force_is_not_taken_and_leaves():
    made = publication(live("dead", 1, until=NOW), live("a", 2, until=NOW + 5), position=2)
    assert names(made) == {"a"}
    assert made.prune(now=NOW + 4) == 0
    assert made.prune(now=NOW + 5) == 1
    assert names(made) == set()
    assert made.counts[RecordType.GLOBAL] == 0


def test_what_ends_together_leaves_a_few_at_a_time_and_what_comes_meanwhile_stays():
    made = publication(*[live(f"a-{number}", number + 1, until=NOW + 5) for number in range(2000)], position=2000)
    steps = made.prune_some(now=NOW + 5)
    dropped = [next(steps)]
    assert 0 < dropped[0] == 2000 - len(made) < 500
    made.add([live("new", 2001)], now=NOW + 5)
    assert made.prune(now=NOW + 5) == 2000 - dropped[0], "another one may prune meanwhile"
    dropped += steps
    assert sum(dropped) == dropped[0]
    assert (names(made), len(made), made.counts[RecordType.GLOBAL]) == ({"new"}, 1, 1)
    assert entries_digest(made) == entries_digest(publication(live("new", 2001), position=2001))


def test_an_undone_record_is_known_as_undone_until_its_undo_is_over():
    made = publication(live("a", 1), live("b", 2, undoes="a"), position=2)
    assert made.is_undone("a")
    made.prune(now=NOW + 600)
    assert not made.is_undone("a")


def test_the_version_grows_only_when_something_changes():
    made = publication(live("a", 1))
    version = made.version
    made.add([live("a", 1)], now=NOW)
    made.prune(now=NOW)
    assert made.version == version
    made.add([live("b", 2)], now=NOW)
    assert made.version == version + 1


def test_a_delta_that_is_longer_than_the_snapshot_is_worth_is_gone(monkeypatch):
    monkeypatch.setattr(publication_module, "MAX_DELTA_ENTRIES", 2)
    made = publication(position=0)
    cursor = made.cursor(as_of=NOW)
    made.add([live(f"r{n}", n + 1) for n in range(3)], now=NOW)
    with pytest.raises(CursorGone):
        made.news(cursor)


def test_a_cursor_comes_back_as_it_was_given_out():
    slices = (0, 2**64 - 1, 5)
    cursor = Cursor(epoch=7, position=123, as_of=NOW * 1000, digest=2**64 - 1, width=500, first=7, slices=slices)
    assert Cursor.parse(cursor.format(), epoch=7) == cursor
    with pytest.raises(CursorGone):
        Cursor.parse(cursor.format(), epoch=8)


@given(st.text(max_size=60))
def test_no_text_makes_a_cursor_raise_anything_else(text):
    with suppress(CursorGone):
        Cursor.parse(text, epoch=1)


def test_the_etag_is_that_of_the_records_and_not_of_their_order():
    first, second = publication(live("a", 1), live("b", 2)), publication(live("b", 1), live("a", 2))
    assert entries_digest(first) == entries_digest(second)
    assert entries_digest(first) != entries_digest(publication(live("a", 1)))


def test_a_document_has_the_entries_of_its_records():
    made = publication(live("a", 1), position=1)
    listed = document(made, cursor=made.cursor(as_of=NOW), salts=SALTS, max_token_lifetime=60)
    assert [entry.id for entry in listed.entries] == ["a"]


@dataclass
class Replica:
    """A replica over a log whose writers stamp with clocks that differ by at most the overlap."""

    made: Publication
    log: list = field(default_factory=list)

    def read(self, clock, overlap):
        after = self.made.position
        self.made.add([live(n, p) for n, p, at in self.log if p > after - overlap and at <= clock], now=NOW)
        self.made.advance(clock)


@settings(max_examples=150)
@given(seed=st.integers(0, 2**32), overlap=st.sampled_from([0, 1, 5, 20]))
def test_a_reader_of_any_replicas_never_lacks_what_was_acknowledged_before_its_as_of(seed, overlap):
    chance, clock, log, acknowledged = random.Random(seed), 100, [], {}  # noqa: S311 -- not a secret
    replicas = [Replica(Publication(epoch=1, overlap=overlap, plan_b=plan_b()), log) for _ in range(3)]
    held, cursor = set(), None
    for number in range(60):
        clock += chance.randrange(4)
        action = chance.random()
        if action < 0.4:
            name = f"r{number}"
            # a writer whose stamp is old by less than the overlap, and never ahead of what readers have read
            log.append((name, clock + 1 - chance.randrange(overlap + 1), clock))
            acknowledged[name] = clock
            if chance.random() < 0.5:
                chance.choice(replicas).made.add([live(name)], now=NOW)
            clock += 1
        elif action < 0.7:
            chance.choice(replicas).read(clock, overlap)
        else:
            replica = chance.choice(replicas)
            as_of = replica.made.position
            news = replica.made.news(cursor) if cursor is not None else list(replica.made)
            held |= names(news)
            missing = {name for name, at in acknowledged.items() if at < as_of} - held
            assert not missing
            cursor = replica.made.cursor(as_of=as_of)


@settings(max_examples=100)
@given(seed=st.integers(0, 2**32))
def test_plan_bs_list_follows_what_comes_goes_and_is_taken_back(seed):
    chance = random.Random(seed)  # noqa: S311 -- not a secret
    made, now, kept = Publication(epoch=1, overlap=0, plan_b=plan_b()), float(NOW), {}
    for number in range(25):
        now += chance.choice([0, 0.5, 1, 3, 61])
        each = live(f"r{number}", number + 1, until=int(now) + chance.randrange(1, 400))
        each.revoked_at = int(now)
        each.rows = tuple(
            global_rows(issued_before=int(now) + chance.randrange(-20, 6), revoked_at=int(now))[0]
            for _ in range(chance.randrange(3))
        )
        if chance.random() < 0.15:
            each.type, each.refresh_from, each.rows = RecordType.REFRESH_FROM, int(now) - 30, ()
            each.revoked_at, each.in_force_until = int(now) + 3, None
        elif number and chance.random() < 0.1:
            each.undoes, each.rows = f"r{chance.randrange(number)}", ()
        made.add([each], now=now)
        kept[each.id] = each
        if chance.random() < 0.1:
            made.prune(now=now)
        undone = {one.undoes for one in kept.values()}
        fresh = PlanBList(skew=2.0, retention=200)
        for one in kept.values():
            if one.refresh_from is not None:
                fresh.notify(Refresh(since=one.refresh_from, timestamp=one.revoked_at))
            for row in one.rows:
                if one.in_force(now) and one.id not in undone:
                    fresh.add(row, until=one.in_force_until)
        for since in (0, now - 30, now - 1):
            assert sorted_rows(made.plan_b.body(after=since, now=now)) == sorted_rows(fresh.body(after=since, now=now))


def sorted_rows(body):
    answer = json.loads(body)
    return answer["meta"], answer["revocations"]


# --- records ----------------------------------------------------------------------------------------------


TERMS = Terms(
    issuer="https://issuer.example.org",
    max_token_lifetime=3600,
    skew=2.0,
    propagation_bound=30.5,
    plan_b_bound=60.5,
    hashing_salt=Secret("a-salt-of-the-tests-only"),
)
FINGERPRINTS = Fingerprints(TERMS.hashing_salt)
VALUES = st.dictionaries(
    st.sampled_from(["sub", "client_id", "realm", "iss", "jti", "team"]),
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8),
    min_size=1,
    max_size=4,
)


def claims_record(claims):
    plan_b = not any("|" in value for value in claims.values())
    target = ClaimsTarget(claims=tuple(sorted(claims.items())), issued_before=NOW, block_until=None, plan_b=plan_b)
    draft = draft_claims(target, now=NOW, terms=TERMS, fingerprints=FINGERPRINTS)
    name = FINGERPRINTS.identity(draft.canonical, 0)
    by = Signature(actor=Actor(iss="i", sub="s"), rule="r@1", reason="why", ticket="T")
    return draft.record(name, terms=TERMS, by=by)


@settings(max_examples=100)
@given(VALUES)
def test_a_record_comes_back_from_its_bytes_as_it_was(claims):
    record = claims_record(claims)
    assert Record.from_bytes(record.to_bytes()) == record


@settings(max_examples=200)
@given(VALUES, VALUES)
def test_R10_different_rules_have_different_ids_and_fingerprints(one, other):
    first, second = claims_record(one), claims_record(other)
    assert (first.id == second.id) == (one == other)
    assert (first.entries[0].fingerprint == second.entries[0].fingerprint) == (one == other)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"format":1}', b'{"format":2,"id":"a"}', b'{"format":1,"type":"X"}', b"\xff"],
)
def test_bodies_that_are_no_records_are_refused(body):
    with pytest.raises(ProtocolError):
        Record.from_bytes(body)


def test_a_record_with_a_member_that_is_not_known_is_refused():
    body = claims_record({"sub": "a"}).to_bytes()
    with pytest.raises(ProtocolError):
        Record.from_bytes(body.replace(b'{"format":1,', b'{"format":1,"later":true,'))


def test_a_row_of_plan_b_is_kept_with_its_true_cut_off():
    (row,) = Record.from_bytes(claims_record({"sub": "a"}).to_bytes()).plan_b
    assert row == PlanBRow(
        type=PlanBType.CLAIM,
        hash=plan_b_hash("a", salt=TERMS.hashing_salt.reveal()),
        names=("sub",),
        issued_before=NOW,
        revoked_at=NOW,
    )


# --- tokens by the million --------------------------------------------------------------------------------


def token_sheet(lines=1, *, until=NOW + 600, **columns):
    chance = random.Random(lines + until)  # noqa: S311 -- a spread, not a secret
    values = {"ids": chance.randbytes(16 * lines), "id_hashes": chance.randbytes(32 * lines), **columns}
    return Sheet(revoked_at=NOW, in_force_until=until, issued_before=NOW, salt="s", **values)


def tokens(name, lines=1, position=0, **changes):
    bits = hashlib.sha256(name.encode()).digest()[: 20 if lines == 1 else 15]
    return LiveSheet(id=spelled_name(bits), sheet=token_sheet(lines, **changes), position=position)


def told(made, cursor=None):
    """The ids and fingerprints that a reader is sent."""
    records = made if cursor is None else made.news(cursor)
    body = b"".join(written(records, cursor=made.cursor(as_of=NOW), salts=SALTS, max_token_lifetime=60))
    return {(entry.id, entry.fingerprint) for entry in parse_list(body).entries}


def test_tokens_are_told_like_everything_else():
    one, many = tokens("one", 1, 3), tokens("many", 7, 4)
    expected = {(entry.id, entry.fingerprint) for each in (one, many) for entry in each.entries}
    made = publication(one, many, live("rule", 5), position=5)
    assert told(made) == {*expected, ("rule", None)}
    assert len(expected) == 8
    assert len(made) == 9
    assert made.counts[RecordType.TOKEN] == 8
    assert told(made, publication().cursor(as_of=0)) == {*expected, ("rule", None)}
    assert len(made.plan_b) == 8


def test_what_is_written_in_pieces_is_the_document():
    records = [tokens("one", 1, 3), live("rule", 5), tokens("many", 450, 4), live("undo", 6, undoes="rule")]
    made = publication(*records, position=6)
    terms = {"cursor": made.cursor(as_of=NOW), "salts": SALTS, "max_token_lifetime": 60}
    pieces = list(written(records, **terms))
    assert len(pieces) > 3
    assert parse_list(b"".join(pieces)) == document(records, **terms)
    assert parse_list(b"".join(written([], **terms))) == document([], **terms)


def test_a_token_gets_its_place_and_its_news_once():
    made = publication(position=1)
    before = made.cursor(as_of=NOW)
    made.add([tokens("one")], now=NOW)
    assert len(told(made, before)) == 1
    cursor = made.cursor(as_of=NOW)
    assert not made.add([tokens("one", position=2)], now=NOW)
    assert made.knows(tokens("one").id, 2)
    assert not made.knows(tokens("one").id, 3)
    made.advance(2)
    assert not made.has_news(cursor)
    assert not made.has_news(made.cursor(as_of=NOW))
    assert len(told(made, before)) == 1


def test_tokens_leave_when_they_are_out_of_force_and_the_digest_with_them():
    made = publication(live("rule", 1), position=4)
    digest = entries_digest(made)
    made.add([tokens("one", 1, 2, until=NOW + 5), tokens("many", 3, 3, until=NOW + 6)], now=NOW)
    assert made.prune(now=NOW + 5) == 1
    assert made.prune(now=NOW + 6) == 1
    assert (names(made), entries_digest(made), len(made)) == ({"rule"}, digest, 1)
    assert len(made.plan_b) == 0


def test_a_hash_is_kept_once_and_not_with_every_record():
    made = publication(tokens("many", 5, 1))
    (record,) = made
    assert record.sheet.id_hashes == b""
    assert len(made.plan_b) == 5


def test_only_the_slices_that_changed_are_sent_again():
    made = publication(overlap=4000, position=100_000)
    made.add([live(f"r{n}", 96_000 + 10 * n) for n in range(400)], now=NOW)
    cursor = made.cursor(as_of=NOW)
    assert len(cursor.format()) < 512
    made.add([live("late", 97_003)], now=NOW)
    made.add([live("new", 100_400)], now=NOW)
    sent = names(made.news(Cursor.parse(cursor.format(), epoch=7)))
    assert {"late", "new"} <= sent
    assert len(sent) <= 2 + 500 / 10


def test_what_a_sweep_finds_below_all_readers_reaches_them_all_the_same():
    made = publication(live("a", 1000), overlap=100, position=100_000)
    cursor = made.cursor(as_of=NOW)
    made.add([live("overlooked", 2000), tokens("token", position=3000)], now=NOW)
    assert names(made.news(cursor)) == {"overlooked", tokens("token").id}
    assert not made.add([live("overlooked", 2000), tokens("token", position=3000)], now=NOW)
    assert not made.has_news(made.cursor(as_of=NOW))


@pytest.mark.parametrize("overlap", [0, 500])
def test_old_records_are_forgotten_as_news_and_never_as_records(monkeypatch, overlap):
    monkeypatch.setattr(publication_module, "MAX_DELTA_ENTRIES", 50)
    made = publication(overlap=overlap)
    old = made.cursor(as_of=NOW)
    for number in range(5_000):
        made.add([live(f"r{number}", 100 * number + 1)], now=NOW)
        made.advance(100 * number + 1)
        if number == 4_980:
            recent = made.cursor(as_of=NOW)
    assert len(made) == 5_000
    assert len(made._slices) < 200
    with pytest.raises(CursorGone):
        made.news(old)
    assert {f"r{n}" for n in range(4_981, 5_000)} <= names(made.news(recent))


def test_a_cursor_from_a_server_with_another_overlap_is_answered_with_more_and_never_less():
    ours, theirs = publication(overlap=400, position=1000), publication(overlap=800, position=1000)
    records = [live(f"r{n}", n) for n in range(300, 1000, 10)]
    theirs.add(records[:-1], now=NOW)
    ours.add(records, now=NOW)
    sent = names(ours.news(theirs.cursor(as_of=NOW)))
    assert records[-1].id in sent


def test_a_long_record_before_the_cursor_does_not_count_as_news():
    made = publication(tokens("before", 900, 1), position=1)
    for number in range(2, 40):
        made.add([tokens(f"more{number}", 900, number)], now=NOW)
    made.advance(39)
    cursor = made.cursor(as_of=NOW)
    made.add([tokens("new", 10, 40)], now=NOW)
    made.advance(40)
    assert len(told(made, cursor)) == 10
    assert not made.has_news(made.cursor(as_of=NOW))
