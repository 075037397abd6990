import copy
import json
import pickle

import pytest

from tests.support.access_tokens import KEY, claims
from tokenry.errors import InvalidToken
from tokenry.revocation.judged import MAX_VIA
from tokenry.validation.claim_set import MAX_NUMERIC_DATE, read_claim_set, read_only

# Each malformed claim has its hostile token in tests/support/hostile_tokens.py.

VALUE = {"a": [1, {"b": [None, "x"]}, []], "self": {"value": {}}, "c": True}


def test_a_value_that_cannot_be_changed_is_equal_and_can_be_dumped():
    frozen = read_only(VALUE)
    assert frozen == VALUE
    assert json.loads(json.dumps(frozen)) == VALUE
    assert isinstance(frozen, dict)
    assert isinstance(frozen["a"], list)


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value.update(a=1),
        lambda value: value.pop("a"),
        lambda value: value.clear(),
        lambda value: value.setdefault("z", 1),
        lambda value: value.popitem(),
        lambda value: value.__setitem__("a", 1),
        lambda value: value.__delitem__("a"),
        lambda value: value.__ior__({"a": 1}),
        lambda value: value["a"].append(1),
        lambda value: value["a"].extend([1]),
        lambda value: value["a"].insert(0, 1),
        lambda value: value["a"].pop(),
        lambda value: value["a"].remove(1),
        lambda value: value["a"].clear(),
        lambda value: value["a"].sort(),
        lambda value: value["a"].reverse(),
        lambda value: value["a"].__setitem__(0, 1),
        lambda value: value["a"].__delitem__(0),
        lambda value: value["a"].__iadd__([1]),
        lambda value: value["a"].__imul__(2),
        lambda value: value["a"][1]["b"].append(1),
        lambda value: value["self"]["value"].update(x=1),
    ],
)
def test_nothing_in_it_can_be_changed(change):
    frozen = read_only(VALUE)
    with pytest.raises(TypeError, match="copy"):
        change(frozen)
    assert frozen == VALUE


def test_a_copy_of_it_is_an_ordinary_value():
    frozen = read_only(VALUE)
    for copied in (copy.deepcopy(frozen), pickle.loads(pickle.dumps(frozen))):  # noqa: S301 -- our own bytes
        assert copied == VALUE
        copied["a"][1]["b"].append(5)
        copied["more"] = 1
    assert frozen == VALUE


def test_the_largest_date_is_read():
    assert read_claim_set(claims(exp=MAX_NUMERIC_DATE), kid=KEY.kid, foreign=False).exp == MAX_NUMERIC_DATE


@pytest.mark.parametrize("via", ["a", [1], [None], {}, None, ["a"] * (MAX_VIA + 1)])
def test_the_ids_of_a_chain_are_a_short_list_of_texts(via):
    with pytest.raises(InvalidToken):
        read_claim_set(claims(via_jti=via), kid=KEY.kid, foreign=False)


def test_a_chain_as_long_as_can_be_is_read():
    via = ["a"] * MAX_VIA
    assert read_claim_set(claims(via_jti=via), kid=KEY.kid, foreign=False).claims["via_jti"] == via
