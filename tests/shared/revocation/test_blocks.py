import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.revocation.blocks import Block, TooManyEntries

# Few different bytes, so that examples share pages, prefixes and whole fingerprints.
FINGERPRINTS = st.builds(
    lambda head, tail: head + bytes(13) + tail,
    st.sampled_from([b"\x00\x00", b"\x00\x01", b"\x7f\xff", b"\xff\xff"]),
    st.binary(min_size=1, max_size=1),
)
CONTENT = st.dictionaries(FINGERPRINTS, st.integers(1, 5), max_size=40)


def many(count, *, seed=1):
    numbers = random.Random(seed)  # noqa: S311 -- the same ones in every run
    return {numbers.randbytes(16): numbers.randrange(1, 1000) for _ in range(count)}


def later(one, other):
    return {key: max(one.get(key, 0), other.get(key, 0)) for key in one.keys() | other.keys()}


def columns(content):
    keys = sorted(content)
    return b"".join(keys), b"".join(struct.pack(">I", content[key]) for key in keys)


@given(CONTENT)
def test_a_block_holds_what_it_was_made_of(content):
    block = Block.of(content)
    assert dict(block.items()) == content
    assert list(block.items()) == sorted(content.items())
    assert len(block) == len(content)
    assert block.columns() == columns(content)


@given(CONTENT, CONTENT)
def test_merging_keeps_the_later_of_two_expiries(held, news):
    block = Block.of(held)
    merged = block.merged(news)
    assert dict(merged.items()) == later(held, news)
    assert len(merged) == len(later(held, news))
    assert dict(block.items()) == held  # as before


@given(CONTENT, CONTENT)
def test_a_union_holds_what_either_holds(one, other):
    union = Block.of(one).union(Block.of(other))
    assert union.columns() == columns(later(one, other))


@pytest.mark.parametrize("sizes", [(20_000, 20_000), (20_000, 3_000), (3_000, 20_000), (20_000, 5), (5, 20_000)])
def test_a_union_of_blocks_of_any_sizes_has_the_later_of_two_expiries(sizes):
    one, other = many(sizes[0]), many(sizes[1], seed=2)
    shared = dict(list(one.items())[: min(sizes) // 2])
    other |= {key: expiry + random.Random(expiry).choice((-1, 0, 1)) for key, expiry in shared.items()}  # noqa: S311
    union = Block.of(one).union(Block.of(other))
    assert union.columns() == columns(later(one, other))
    assert len(union) == len(later(one, other))


class Counted(list):
    """Pages that count what is read of them."""

    entries = 0

    def __iter__(self):
        for page in super().__iter__():
            self.entries += len(page) // 20
            yield page


def test_a_union_of_too_many_is_refused_before_much_more_than_the_bound_was_looked_at():
    one, other = Block.of(many(20_000)), Block.of(many(20_000, seed=2))
    pages = Counted(other._pages)
    with pytest.raises(TooManyEntries, match="more than 25000 entries"):
        one.union(Block(pages, count=len(other)), most=25_000)
    assert pages.entries < 25_000 // 2 + 500  # with as many of the other block beside them
    assert len(one.union(other, most=40_000)) == 40_000


@pytest.mark.parametrize("sizes", [(20_000, 5), (5, 20_000), (20_000, 0), (0, 20_000)])
def test_a_union_is_refused_where_one_block_alone_or_a_few_more_are_too_many(sizes):
    one, other = Block.of(many(sizes[0])), Block.of(many(sizes[1], seed=2))
    with pytest.raises(TooManyEntries):
        one.union(other, most=sum(sizes) - 1)
    assert len(one.union(other, most=sum(sizes))) == sum(sizes)


@given(CONTENT, st.integers(0, 6))
def test_pruning_drops_exactly_what_is_over(content, now):
    pruned = Block.of(content).pruned(now)
    assert dict(pruned.items()) == {key: expiry for key, expiry in content.items() if expiry > now}


@pytest.mark.parametrize("count", [0, 1, 63, 64, 1_000, 20_000])
def test_a_block_of_any_size_finds_what_it_holds_and_nothing_else(count):
    content = many(count)
    block = Block.read(*columns(content))
    assert all(block.expiry(key) == expiry for key, expiry in content.items())
    assert all(key in block for key in content)
    strangers = many(1_000, seed=2)
    assert not any(key in block for key in strangers)
    assert not any(block.expiry(key) for key in strangers)


def test_a_block_that_grows_bit_by_bit_is_the_same_as_one_made_at_once():
    content = many(5_000)
    block = Block()
    items = list(content.items())
    for start in range(0, len(items), 100):
        block = block.merged(dict(items[start : start + 100]))
    assert block.columns() == Block.of(content).columns()
    assert max(map(len, block._pages)) < 20 * 256  # it was cut anew as it grew
    assert len(block.pruned(990)._pages) < 16  # and as it shrank


def test_news_copy_only_the_pages_that_they_fall_into():
    block = Block.of(many(20_000))
    merged = block.merged({b"\x80" * 16: 7})
    changed = sum(old is not new for old, new in zip(block._pages, merged._pages, strict=True))
    assert changed == 1


def test_what_says_nothing_new_gives_the_very_same_block():
    content = many(1_000)
    block = Block.of(content)
    assert block.merged({}) is block
    assert block.merged(dict(list(content.items())[:10])) is block
    assert block.union(Block.of(content)) is block
    assert block.union(Block()) is block
    assert Block().union(block) is block
    assert block.pruned(0) is block


def test_two_neighbours_that_spell_a_fingerprint_across_their_border_do_not_count():
    one, other = b"\x01" * 8 + b"\x02" * 8, b"\x02" * 8 + b"\x03" * 8
    block = Block.of({one: 1, other: 1})
    assert b"\x02" * 16 not in block
    aligned = Block.of({b"\x01" + b"\x02" * 15: 1, b"\x02" * 16: 2, b"\x02" * 15 + b"\x03": 3})
    assert aligned.expiry(b"\x02" * 16) == 2


def test_the_last_second_of_four_bytes_can_be_kept():
    assert Block.of({b"k" * 16: 2**32 - 1}).expiry(b"k" * 16) == 2**32 - 1


@pytest.mark.parametrize("place", [0, 1, 500, 16_384, 16_383, 16_385, 39_998])
@pytest.mark.parametrize("fault", ["swapped", "doubled"])
def test_columns_that_do_not_ascend_are_refused_wherever_the_fault_is(place, fault):
    keys = sorted(many(40_000))
    if fault == "swapped":
        keys[place], keys[place + 1] = keys[place + 1], keys[place]
    else:
        keys[place] = keys[place + 1]
    with pytest.raises(ProtocolError, match="sorted"):
        Block.read(b"".join(keys), bytes(4 * len(keys)))


def test_fingerprints_that_share_their_first_bytes_are_compared_whole():
    keys = [b"same" + bytes(11) + bytes([last]) for last in range(200)]
    assert len(Block.read(b"".join(keys), bytes(800))) == 200
    keys[7], keys[8] = keys[8], keys[7]
    with pytest.raises(ProtocolError, match="sorted"):
        Block.read(b"".join(keys), bytes(800))


@pytest.mark.parametrize(("fingerprints", "expiries"), [(15, 4), (17, 4), (16, 3), (16, 5), (16, 8), (0, 4), (16, 0)])
def test_columns_of_different_lengths_are_refused(fingerprints, expiries):
    with pytest.raises(ProtocolError, match="length"):
        Block.read(bytes(fingerprints), bytes(expiries))
