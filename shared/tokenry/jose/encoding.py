"""
Base64url and JSON, read strictly: one value has one spelling.

Leniency here would be a hole elsewhere: a revoked token could return in another spelling of itself, or two
readers of one document could see two different values.
"""

from __future__ import annotations

import binascii
import json
import math
from typing import TYPE_CHECKING, Any, NoReturn

from tokenry.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH = 32
"""
Objects and arrays within each other: a claim set needs three; recursion anywhere after us stays harmless.
"""

MAX_INTEGER_LENGTH = 20
"""Characters of an integer: all of 64 bits; `int` would take quadratic time on thousands of digits."""

MAX_FLOAT_LENGTH = 32
"""Characters of any other number: the longest that a double needs has 24."""

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
# The other alphabet's own characters, and padding, become what the strict decoder refuses.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/!!!")
_TO_URL = bytes.maketrans(b"+/", b"-_")
_PADDING = (b"", b"", b"==", b"=")  # by the length modulo 4
# What the last character may be, by the length modulo 4: the bits that no byte needs are zero (RFC 4648
# section 3.5).
_LAST = (_ALPHABET, b"", _ALPHABET[::16], _ALPHABET[::4])
# Characters that are decoded, and three quarters of them bytes that are encoded, without letting other threads run: a
# millisecond or so. The columns of a long signed list are hundreds of megabytes.
_PORTION = 1 << 20


def b64url_encode(data: bytes) -> str:
    """Return *data* as base64url without padding (RFC 7515 section 2)."""
    return b64url_bytes(data).decode("ascii")


def b64url_bytes(data: bytes) -> bytes:
    """Return *data* as the ASCII bytes of base64url without padding."""
    if len(data) > _PORTION:
        size = _PORTION // 4 * 3
        return b"".join([b64url_bytes(data[start : start + size]) for start in range(0, len(data), size)])
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=")


def b64url_decode(text: str | bytes) -> bytes:
    """
    Return the bytes that *text* is the canonical base64url form of (RFC 7515 section 2, RFC 4648 section
    3.5).

    Raises:
        ProtocolError: A character is outside the alphabet (padding is), the length is impossible, or unused
            bits are not zero.
    """
    if len(text) > _PORTION:
        return b"".join([b64url_decode(text[start : start + _PORTION]) for start in range(0, len(text), _PORTION)])
    data = text if isinstance(text, bytes) else _ascii(text)
    remainder = len(data) & 3
    try:
        if not remainder or data[-1] in _LAST[remainder]:
            return binascii.a2b_base64(data.translate(_TO_STANDARD) + _PADDING[remainder], strict_mode=True)
    except ValueError:
        pass
    raise ProtocolError("not canonical base64url without padding")


def b64url_decode_many(texts: Sequence[str], *, size: int) -> list[bytes]:
    """
    Return the same as `b64url_decode` of each of *texts*, in a fraction of the time; each stands for *size* bytes.

    Raises:
        ProtocolError: One of them is not the canonical form of so many bytes.
    """
    if not texts:
        return []
    length = (size * 4 + 2) // 3
    last, filler = _LAST[length & 3], "A" * (-length % 4)  # zero bits, up to a whole number of quanta
    if any(len(text) != length for text in texts):
        raise ProtocolError("not canonical base64url without padding")
    data = _ascii(filler.join(texts) + filler)
    width = length + len(filler)
    if data.translate(None, _ALPHABET) or data[length - 1 :: width].translate(None, last):
        raise ProtocolError("not canonical base64url without padding")
    decoded, step = binascii.a2b_base64(data.translate(_TO_STANDARD)), width // 4 * 3
    return [decoded[start : start + size] for start in range(0, len(decoded), step)]


def parse_json_object(data: bytes, *, max_depth: int = MAX_DEPTH) -> dict[str, Any]:
    """
    Return the JSON object that *data* is, read strictly (RFC 8259, narrowed by RFC 7493).

    UTF-8 without a byte order mark; no member name twice in an object; no NaN, no infinity, no number
    longer than `MAX_INTEGER_LENGTH` or `MAX_FLOAT_LENGTH`; no lone surrogate; at most *max_depth* levels.

    Raises:
        ProtocolError: It is not such an object. The message does not repeat the document.
    """
    try:
        text = data.decode("utf-8").strip(_WHITE_SPACE)
        # Looked for in `str`, where that takes a quarter of the time: most documents are flat and have no escapes.
        if ("[" in text or text.find("{", 1) > 0) and data.count(b"{") + data.count(b"[") > max_depth:
            _check_depth(data, max_depth)
        value, end = _scan(text, 0)
        if "\\" in text:
            dump_json(value)  # a surrogate that is not one of a pair cannot be encoded
    except (ValueError, StopIteration, RecursionError):  # StopIteration: nothing begins there that JSON knows
        # Without the cause: a decoding error carries the whole document, which may be confidential, into the
        # logs.
        raise ProtocolError("not strict JSON") from None
    if end != len(text):
        raise ProtocolError("something behind the JSON")
    if type(value) is not dict:
        raise ProtocolError("JSON, but not an object")
    return value


def dump_json(value: object) -> bytes:
    """
    Return *value* as compact JSON in UTF-8.

    Raises:
        ValueError: A number is not finite, or a string has a lone surrogate.
    """
    return _encode(value).encode("utf-8")


_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode  # costly to make


def _ascii(text: str) -> bytes:
    try:
        return text.encode("ascii")
    except UnicodeEncodeError:
        raise ProtocolError("not canonical base64url without padding") from None


def _check_depth(data: bytes, max_depth: int) -> None:
    """Refuse *data* that is nested deeper than *max_depth*, without recursion and at the speed of `bytes`."""
    outside_strings = b"".join(data.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')[::2])
    brackets = outside_strings.translate(_TO_BRACKETS, _NOT_BRACKETS)
    for _ in range(max_depth):
        brackets = brackets.replace(b"[]", b"")  # peels the innermost level
        if not brackets:
            return
    raise ProtocolError(f"JSON nested deeper than {max_depth} levels, or not closed")


_WHITE_SPACE = " \t\n\r"  # RFC 8259 section 2
_TO_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(members)
    if len(value) != len(members):
        raise ValueError("a member name occurs twice")
    return value


def _bounded_int(digits: str) -> int:
    if len(digits) > MAX_INTEGER_LENGTH:
        raise ValueError("a number is too long")
    return int(digits)


def _finite_float(digits: str) -> float:
    value = float(digits)
    if len(digits) > MAX_FLOAT_LENGTH or not math.isfinite(value):
        raise ValueError("a number is too long or too large")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_scan = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_int=_bounded_int,
    parse_float=_finite_float,
    parse_constant=_refuse_constant,
).scan_once  # type: ignore[attr-defined]  # what `raw_decode` calls
