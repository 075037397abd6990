"""Each defect that must not come back (section 4 of the wire contract) has tests by its number: `contract_4_N`."""

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

DEFECTS = {
    1: "a revoked token is revived by another spelling",
    2: "a claims rule hits by value alone, with a name missing, or ambiguously",
    3: "a claim of another type takes validators down",
    4: "a token without a time counts as never revoked",
    5: "no list at the start, a list of any age for ever, a poll that is refused for ever",
    6: "lost in its own second, by a clock ahead, or around a refresh; a second refresh that kills",
    7: "raw tokens or values are stored or printed",
    8: "a public salt, wrong hashes at once, rows skipped silently",
    9: "two retention times disagree",
    10: "one bad key spoils the set, coordinates lack their zeros, an emptied set is accepted",
    11: "an error repeats the request or an exception",
    12: "a cached opaque token outlives its end; ten calls at a time and no more",
    13: "a client's secret is not checked; any user with any client",
    14: "a second rule with the same value under another name is lost",
    15: "a poll position that never moves is refused at last; a slow list is never loaded",
    16: "no leeway for a clock a second behind",
    17: "administration is open to every valid token; `uid` by itself",
    18: "a client hammers the issuer, or fetches at every call",
    19: "400 for a bad token, 401 when validation is down",
}

_NAME = re.compile(r"^(?:async )?def test_contract_4_(\d+)_\w+\(", re.MULTILINE)


def numbered() -> dict[int, int]:
    """Return how many tests carry each number."""
    found: dict[int, int] = {}
    for path in TESTS.rglob("test_*.py"):
        for number in _NAME.findall(path.read_text(encoding="utf-8")):
            found[int(number)] = found.get(int(number), 0) + 1
    return found


@pytest.mark.parametrize("number", DEFECTS)
def test_every_defect_has_a_test_by_its_number(number: int) -> None:
    assert numbered().get(number, 0) >= 1, DEFECTS[number]


def test_no_number_means_nothing() -> None:
    assert numbered().keys() == DEFECTS.keys()
