"""
Generated input for every parser: noise, damaged good input, the hostile files, and any JSON value in any place.

Whatever comes, a parser accepts or refuses in the words that it says it refuses with. The coverage-guided fuzzer
(`make fuzz`) goes on from the same table for as long as it is given.
"""

import copy
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile_tokens import BASE64URL, GOOD
from tests.support.parsers import HOSTILE_FILES, PARSERS

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["\x00", "\ud800", "é", "a" * 5000, "../x", "-1", "1e999", "https://evil.example", "NaN", ""])
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
TEXT = [name for name, parser in PARSERS.items() if not parser.seeds[0].lstrip().startswith(b"{")]
DOCUMENTS = [name for name in PARSERS if name not in TEXT]


def places(document, path=()):
    """Yield the path of every value in *document*."""
    yield path
    children = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for name, value in children:
        yield from places(value, (*path, name))


def changed(document, path, value, *, remove=False):
    """Return *document* with *value* at *path*, or without what was there."""
    if not path:
        return value
    document = copy.deepcopy(document)
    inner = document
    for name in path[:-1]:
        inner = inner[name]
    if remove:
        del inner[path[-1]]
    else:
        inner[path[-1]] = value
    return document


@pytest.mark.parametrize("name", PARSERS)
def test_what_is_good_is_accepted(name):
    """Else all that follows would test the first line of the parser only."""
    accepted = [PARSERS[name].try_one(seed) for seed in PARSERS[name].seeds]
    needs_more = {"signed list", "stored key", "certificate", "certificate header", "client assertion"}
    assert all(accepted) or name in needs_more


@pytest.mark.parametrize("name", PARSERS)
@given(data=st.data())
@settings(max_examples=60)
def test_noise_and_damage_are_accepted_or_refused(name, data):
    parser = PARSERS[name]
    if data.draw(st.booleans()):
        parser.try_one(data.draw(st.binary(max_size=300)))
        return
    seed = bytearray(data.draw(st.sampled_from(parser.seeds)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(seed)))
        end = min(len(seed), start + data.draw(st.integers(0, 8)))
        piece = data.draw(
            st.binary(max_size=6) | st.sampled_from([b"\0", b"\xff", b'"', b"%", b"=", b"&", b";", b"\r\n"])
        )
        seed[start:end] = piece
    parser.try_one(bytes(seed))


@pytest.mark.parametrize("name", DOCUMENTS)
@given(data=st.data())
@settings(max_examples=150)
def test_any_value_in_any_place_of_a_document_is_accepted_or_refused(name, data):
    parser = PARSERS[name]
    document = json.loads(data.draw(st.sampled_from(parser.seeds)))
    path = data.draw(st.sampled_from(list(places(document))))
    remove = bool(path) and data.draw(st.booleans())
    parser.try_one(json.dumps(changed(document, path, data.draw(VALUES), remove=remove)).encode())


@pytest.mark.parametrize("path", sorted(HOSTILE_FILES.rglob("*.*")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_hostile_files_are_refused(path):
    """Each file is named after what is wrong with it, and begins a corpus of the fuzzer."""
    assert not PARSERS[path.parent.name].try_one(path.read_bytes())


def test_there_are_hostile_files_for_each_fuzzed_parser():
    assert {"token", "jwks", "list", "form"} <= {path.name for path in HOSTILE_FILES.iterdir()}


def test_no_change_of_one_character_of_a_good_token_passes():
    """All positions with all other characters: more than 16,000 tokens."""
    parser, tried = PARSERS["token"], 0
    assert parser.try_one(GOOD.encode())
    for position, character in enumerate(GOOD):
        for other in BASE64URL:
            if other != character:
                assert not parser.try_one(f"{GOOD[:position]}{other}{GOOD[position + 1 :]}".encode()), (position, other)
                tried += 1
    assert tried > 16_000


def test_no_splice_of_two_good_tokens_passes():
    from tests.support.access_tokens import token

    others = [token(sub="other"), token(exp=1_800_000_100), token(jti="z")]
    rng = random.Random(9)  # noqa: S311 -- the same splices in every run
    for _ in range(2_000):
        other = rng.choice(others)
        cut, size = rng.randrange(len(GOOD)), rng.randrange(1, 60)
        spliced = GOOD[:cut] + other[cut : cut + size] + GOOD[cut + size :]
        if spliced not in {GOOD, other}:
            assert not PARSERS["token"].try_one(spliced.encode())
