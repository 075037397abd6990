import base64
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import (
    MAX_DEPTH,
    b64url_decode,
    b64url_decode_many,
    b64url_encode,
    dump_json,
    parse_json_object,
)

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)


@given(st.binary(max_size=70))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_base64url_is_what_was_encoded(data):
    assert b64url_decode(b64url_encode(data)) == data
    assert b64url_decode(b64url_encode(data).encode()) == data


def test_base64url_of_the_rfc_has_no_padding_and_the_url_alphabet():
    # RFC 7515 appendix C
    assert b64url_encode(bytes([3, 236, 255, 224, 193])) == "A-z_4ME"
    assert b64url_decode("A-z_4ME") == bytes([3, 236, 255, 224, 193])


@given(st.text(alphabet=ALPHABET, max_size=12))
@settings(max_examples=500, derandomize=True, deadline=None)
def test_base64url_that_is_read_has_one_spelling_only(text):
    try:
        data = b64url_decode(text)
    except ProtocolError:
        return
    assert b64url_encode(data) == text


PORTION = 1 << 20  # characters that are decoded in one call


@pytest.mark.parametrize("more", [-3, -2, -1, 0, 1, 2, 3, PORTION + 1])
def test_long_base64url_in_portions_is_the_same(more):
    data = random.Random(more).randbytes(PORTION + more)  # noqa: S311 -- the same ones in every run
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    assert b64url_encode(data) == text
    assert b64url_decode(text) == b64url_decode(text.encode()) == data


@pytest.mark.parametrize("place", [0, PORTION - 1, PORTION, 2 * PORTION - 1, 2 * PORTION, -1])
@pytest.mark.parametrize("character", ["=", "+", "\n", "é"])
def test_long_base64url_has_one_spelling_only(place, character):
    text = "A" * (2 * PORTION + 4)
    assert b64url_decode(text) == bytes(len(text) // 4 * 3)
    characters = list(text)
    characters[place] = character
    for wrong in ("".join(characters), text + "A", text + "AB", text + "AA=="):
        with pytest.raises(ProtocolError, match="canonical"):
            b64url_decode(wrong)


@pytest.mark.parametrize("length", [1, 2, 3, 32, 64])
def test_every_other_last_character_is_refused(length):
    text = b64url_encode(bytes(range(length)))
    accepted = []
    for last in ALPHABET:
        try:
            if b64url_decode(text[:-1] + last) == bytes(range(length)):
                accepted.append(last)
        except ProtocolError:
            continue
    assert accepted == [text[-1]]


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "AAAAA",
        "AA==",
        "AAA=",
        "=",
        "AB",
        "AAB",
        "AA A",
        "AA\n",
        "A+_A",
        "A/_A",
        "A.AA",
        "ÄAAA",
        "\udc80AAA",
        "AAA\0",
    ],
)
def test_what_is_not_canonical_base64url_is_refused(text):
    with pytest.raises(ProtocolError):
        b64url_decode(text)


@given(st.dictionaries(st.text(), VALUES, max_size=4))
@settings(max_examples=200, derandomize=True, deadline=None)
def test_json_is_what_was_written(value):
    assert parse_json_object(dump_json(value)) == value
    assert parse_json_object(json.dumps(value).encode()) == value


def test_json_is_written_compact_and_in_utf_8():
    assert dump_json({"a": ["ü", 1]}) == '{"a":["ü",1]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\ud800", {"\udfff": 1}])
def test_what_is_no_json_is_not_written(value):
    with pytest.raises(ValueError):
        dump_json({"a": value})


NOT_STRICT = {
    "empty": b"",
    "an array": b"[]",
    "a string": b'"x"',
    "a number": b"1",
    "null": b"null",
    "cut short": b'{"a":1',
    "something behind it": b'{"a":1}{}',
    "a trailing comma": b'{"a":1,}',
    "a comment": b'{"a":1/**/}',
    "single quotes": b"{'a':1}",
    "a name twice": b'{"sub":"svc","sub":"admin"}',
    "a name twice, one of them escaped": b'{"sub":"svc","s\\u0075b":"admin"}',
    "a name twice in an inner object": b'{"a":[{"b":1,"b":1}]}',
    "NaN": b'{"exp":NaN}',
    "Infinity": b'{"exp":Infinity}',
    "minus Infinity": b'{"exp":-Infinity}',
    "a float that overflows": b'{"exp":1e999}',
    "21 digits": b'{"exp":' + b"9" * 21 + b"}",
    "400 digits": b'{"exp":' + b"9" * 400 + b"}",
    "5000 digits": b'{"exp":' + b"9" * 5000 + b"}",
    "a float of 33 characters": b'{"exp":1.' + b"0" * 31 + b"}",
    "a leading zero": b'{"exp":01}',
    "a byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "UTF-16 without mark": '{"a":1}'.encode("utf-16-le"),
    "UTF-32": '{"a":1}'.encode("utf-32-be"),
    "Latin-1": b'{"a":"\xfc"}',
    "an overlong encoding": b'{"a":"\xc0\xaf"}',
    "an encoded surrogate": b'{"a":"\xed\xa0\x80"}',
    "a lone surrogate": b'{"sub":"\\ud800"}',
    "a lone surrogate in capitals": b'{"sub":"\\uDC00"}',
    "a lone surrogate in a name": b'{"\\ud800":1}',
    "surrogates in the wrong order": b'{"sub":"\\udc00\\ud800"}',
    "a control character": b'{"a":"\n"}',
    "a NUL behind": b"{}\0",
    "5000 arrays": b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}",
    "5000 objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "arrays that are not closed": b'{"a":' + b"[" * 100,
    "arrays behind quotes that only look escaped": b'{"a\\\\":' + b"[" * 100 + b"]" * 100 + b"}",
}


@pytest.mark.parametrize("document", NOT_STRICT.values(), ids=NOT_STRICT.keys())
def test_json_that_is_not_strict_is_refused_without_being_repeated(document):
    with pytest.raises(ProtocolError) as refused:
        parse_json_object(document)
    assert refused.value.__cause__ is None
    assert refused.value.__suppress_context__ or refused.value.__context__ is None
    assert str(refused.value) in {
        "not strict JSON",
        "JSON, but not an object",
        "something behind the JSON",
        f"JSON nested deeper than {MAX_DEPTH} levels, or not closed",
    }


def nested(levels):
    return b'{"a":' + b"[" * (levels - 1) + b"]" * (levels - 1) + b"}"


def test_the_depth_is_counted_exactly():
    assert parse_json_object(nested(MAX_DEPTH))
    with pytest.raises(ProtocolError):
        parse_json_object(nested(MAX_DEPTH + 1))
    assert parse_json_object(nested(3), max_depth=3)
    with pytest.raises(ProtocolError):
        parse_json_object(nested(4), max_depth=3)


def test_brackets_side_by_side_or_in_strings_are_no_depth():
    wide = {"back\\": [[], {}] * 100, '\\"': [], "[[[{{{": "[" * 100 + '\\"' + "{" * 100}
    assert parse_json_object(dump_json(wide)) == wide


def test_a_recursion_in_the_parser_is_a_refusal_too():
    with pytest.raises(ProtocolError):
        parse_json_object(nested(200_000), max_depth=10**6)


def test_pairs_of_surrogates_and_the_largest_numbers_are_read():
    assert parse_json_object(b'{"a":"\\ud83d\\ude00","b":-9223372036854775808,"c":18446744073709551615}') == {
        "a": "😀",
        "b": -(2**63),
        "c": 2**64 - 1,
    }
    assert parse_json_object(b' \n{"a" : 1.5e3 }\r\n') == {"a": 1500.0}


@given(st.integers(1, 40), st.lists(st.binary(min_size=40, max_size=40), max_size=5))
def test_many_texts_of_one_size_are_decoded_at_once(size, values):
    cut = [value[:size] for value in values]
    assert b64url_decode_many([b64url_encode(value) for value in cut], size=size) == cut


@given(st.lists(st.text(alphabet="ABab01-_+/=\né", max_size=7), min_size=1, max_size=4), st.integers(1, 5))
def test_many_texts_are_refused_exactly_when_one_of_them_is(texts, size):
    def alone(text):
        data = b64url_decode(text)
        if len(data) != size:
            raise ProtocolError("another size")
        return data

    try:
        expected = [alone(text) for text in texts]
    except ProtocolError:
        with pytest.raises(ProtocolError):
            b64url_decode_many(texts, size=size)
    else:
        assert b64url_decode_many(texts, size=size) == expected
