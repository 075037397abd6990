"""Tokens named by what is wrong with them, each with the code that a validator of their issuer finds."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.support.access_tokens import ABSENT, AUDIENCE, ISSUER, KEY, LIFETIME, NOW, claims, header, signed, token
from tokenry.errors import Reason
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.jose.jwk import PrivateKey

STRANGER: Final = PrivateKey.generate()
BASE64URL: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
GOOD: Final = token()
HEAD, BODY, SIGNATURE = GOOD.split(".")

_HEADER: Final = dump_json(header())
_CLAIMS: Final = dump_json(claims())


def unsigned(head: dict[str, Any], signature: bytes = b"") -> str:
    """Return good claims under a changed header, with *signature* as it is."""
    return f"{b64url_encode(dump_json(header(**head)))}.{BODY}.{b64url_encode(signature)}"


def mac_with_the_public_key() -> str:
    """Return a token whose HS256 secret is the PEM of our public key (RFC 8725 section 2.1)."""
    private = serialization.load_der_private_key(KEY.to_pkcs8_der(), None)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signing_input = f"{b64url_encode(dump_json(header(alg='HS256')))}.{BODY}"
    return f"{signing_input}.{b64url_encode(hmac.digest(pem, signing_input.encode(), hashlib.sha256))}"


def der_signature() -> str:
    """Return a token with the right signature in the wrong form."""
    raw = jws.split(GOOD).signature
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    return f"{HEAD}.{BODY}.{b64url_encode(der)}"


def with_both_alphabets() -> str:
    """Return a good token with `-` and `_` in it, in the alphabet of RFC 4648 section 4."""
    number = 0
    while not {"-", "_"} <= set(compact := token(jti=f"number {number}")):
        number += 1
    return compact.replace("-", "+").replace("_", "/")


def other_last_characters() -> list[str]:
    """Return the 15 spellings of a good token whose signature decodes, leniently, to the same bytes."""
    bits = BASE64URL.index(SIGNATURE[-1])  # 64 bytes: the last character carries two bits, four are unused
    others = [BASE64URL[bits | unused] for unused in range(1, 16)]
    spellings = [f"{HEAD}.{BODY}.{SIGNATURE[:-1]}{last}" for last in others]
    same = base64.urlsafe_b64decode(SIGNATURE + "==")
    assert all(base64.urlsafe_b64decode(each.split(".")[2] + "==") == same for each in spellings)
    return spellings


def _with(name: str, value: Any) -> str:
    changes: dict[str, Any] = {name: value}
    return token(**changes)


def _values(*values: Any) -> tuple[Any, ...]:
    return values


def _raw_claims(text: str) -> str:
    """Return a token with the member *text* in place of the claims' `exp`."""
    rest = dump_json(claims(exp=ABSENT)).decode()
    return signed(_HEADER, f"{rest[:-1]},{text}}}".encode())


SHAPES: Final[dict[str, tuple[str, Reason]]] = {
    "empty": ("", Reason.NOT_COMPACT),
    "one part": ("opaque-token", Reason.NOT_COMPACT),
    "two parts": (f"{HEAD}.{BODY}", Reason.NOT_COMPACT),
    "four parts": (f"{GOOD}.", Reason.NOT_COMPACT),
    "five parts": (f"{GOOD}.{BODY}.{SIGNATURE}", Reason.NOT_COMPACT),
    "JSON serialisation": (
        dump_json({"payload": BODY, "protected": HEAD, "signature": SIGNATURE}).decode(),
        Reason.NOT_COMPACT,
    ),
    "21 MB": ("A" * 21_000_000, Reason.TOO_LARGE),
    "one byte too large": (
        f"{HEAD}.{'A' * (8192 - len(HEAD) - 1 - len(SIGNATURE))}.{SIGNATURE}",
        Reason.TOO_LARGE,
    ),
    "padding": (f"{GOOD}==", Reason.NOT_CANONICAL),
    "padding of the payload": (f"{HEAD}.{BODY}=.{SIGNATURE}", Reason.NOT_CANONICAL),
    "the other alphabet": (with_both_alphabets(), Reason.NOT_CANONICAL),
    "a space in front": (f" {GOOD}", Reason.NOT_CANONICAL),
    "a line feed behind": (f"{GOOD}\n", Reason.NOT_CANONICAL),
    "a NUL behind": (f"{GOOD}\0", Reason.NOT_CANONICAL),
    "not ASCII": (f"{HEAD}.{BODY}.é{SIGNATURE[1:]}", Reason.NOT_CANONICAL),
    "full-width letters": (f"{HEAD}.{BODY}.\uff21{SIGNATURE[1:]}", Reason.NOT_CANONICAL),
    "lone surrogates": (f"{HEAD}.{BODY}.\udcff{SIGNATURE[1:]}", Reason.NOT_CANONICAL),
    "a length that no bytes have": (f"{HEAD}.{BODY}.{SIGNATURE}AAA", Reason.NOT_CANONICAL),
    **{
        f"unused bits {number}": (spelling, Reason.NOT_CANONICAL)
        for number, spelling in enumerate(other_last_characters(), start=1)
    },
}

HEADERS: Final[dict[str, tuple[str, Reason]]] = {
    "empty header": (f".{BODY}.{SIGNATURE}", Reason.MALFORMED_HEADER),
    "header an array": (signed(b"[]", _CLAIMS), Reason.MALFORMED_HEADER),
    "alg twice": (signed(b'{"alg":"none",' + _HEADER[1:], _CLAIMS), Reason.MALFORMED_HEADER),
    "kid twice": (signed(b'{"kid":"a",' + _HEADER[1:], _CLAIMS), Reason.MALFORMED_HEADER),
    "header with a byte order mark": (signed(b"\xef\xbb\xbf" + _HEADER, _CLAIMS), Reason.MALFORMED_HEADER),
    "header in UTF-16": (signed(_HEADER.decode().encode("utf-16"), _CLAIMS), Reason.MALFORMED_HEADER),
    "kid missing": (token(head={"kid": ABSENT}), Reason.MALFORMED_HEADER),
    "kid null": (token(head={"kid": None}), Reason.MALFORMED_HEADER),
    "kid a number": (token(head={"kid": 5}), Reason.MALFORMED_HEADER),
    "kid empty": (token(head={"kid": ""}), Reason.MALFORMED_HEADER),
    "kid a list": (token(head={"kid": [KEY.kid]}), Reason.MALFORMED_HEADER),
    "kid of 4 kB": (token(head={"kid": "k" * 4096}), Reason.MALFORMED_HEADER),
    "kid of 10 kB": (token(head={"kid": "k" * 10_000}), Reason.TOO_LARGE),
    "crit of a claim": (token(head={"crit": ["exp"]}), Reason.UNSUPPORTED_CRITICAL),
    "crit with its extension": (token(head={"crit": ["x"], "x": 1}), Reason.UNSUPPORTED_CRITICAL),
    "crit empty": (token(head={"crit": []}), Reason.UNSUPPORTED_CRITICAL),
    "unencoded payload": (token(head={"crit": ["b64"], "b64": False}), Reason.UNSUPPORTED_CRITICAL),
    "unencoded payload, not said to be critical": (token(head={"b64": False}), Reason.UNSUPPORTED_CRITICAL),
    "alg none": (unsigned({"alg": "none"}), Reason.WRONG_ALGORITHM),
    "alg nOnE": (unsigned({"alg": "nOnE"}), Reason.WRONG_ALGORITHM),
    "alg none with a good signature": (token(head={"alg": "none"}), Reason.WRONG_ALGORITHM),
    "alg HS256 with our public key": (mac_with_the_public_key(), Reason.WRONG_ALGORITHM),
    "alg missing": (token(head={"alg": ABSENT}), Reason.WRONG_ALGORITHM),
    "alg in small letters": (token(head={"alg": "es256"}), Reason.WRONG_ALGORITHM),
    "alg a list": (token(head={"alg": ["ES256"]}), Reason.MALFORMED_HEADER),
    "alg not this issuer's": (token(head={"alg": "RS256"}), Reason.WRONG_ALGORITHM),
    "alg of a larger curve": (token(head={"alg": "ES384"}), Reason.WRONG_ALGORITHM),
    **{
        f"typ {typ}": (token(head={"typ": typ}), Reason.WRONG_TYPE)
        for typ in (
            "JWT", "jwt", "dpop+jwt", "secevent+jwt", "logout+jwt", "token-introspection+jwt", "txntoken+jwt",
            "client-authentication+jwt", "statuslist+jwt", "revocation-list+jwt", "wit+jwt", "", "at+jwt ",
            "at_jwt", "application/json", "application/application/at+jwt", "aT+jW\uff34",
        )
    },
    **{
        f"{name} {value!r}": (token(head={name: value}), Reason.MALFORMED_HEADER)
        for name in ("typ", "cty", "jku", "x5u", "x5t", "x5t#S256", "jwk", "x5c")
        for value in (5, None, True)
    },
    "typ missing": (token(head={"typ": ABSENT}), Reason.WRONG_TYPE),
}  # fmt: skip

KEYS_AND_ISSUERS: Final[dict[str, tuple[str, Reason]]] = {
    **{
        f"iss {iss!r}": (_with("iss", iss), Reason.UNTRUSTED_ISSUER)
        for iss in (
            "https://issuer.test.example", ISSUER.upper(), f"{ISSUER}/", f" {ISSUER}", f"{ISSUER}\0",
            [ISSUER], {"a": ISSUER}, "", None, 5, True,
        )
    },
    "iss missing": (token(iss=ABSENT), Reason.UNTRUSTED_ISSUER),
    "kid of a stranger": (token(key=STRANGER), Reason.UNKNOWN_KEY),
    "kid a path": (token(head={"kid": "../../../../dev/null"}), Reason.UNKNOWN_KEY),
    "kid a query": (token(head={"kid": "k1' OR '1'='1"}), Reason.UNKNOWN_KEY),
    "kid with a NUL": (token(head={"kid": f"{KEY.kid}\0"}), Reason.UNKNOWN_KEY),
    "key in the header": (
        signed(dump_json(header(STRANGER, jwk=STRANGER.public.to_jwk())), _CLAIMS, key=STRANGER),
        Reason.UNKNOWN_KEY,
    ),
}  # fmt: skip

SIGNATURES: Final[dict[str, tuple[str, Reason]]] = {
    "signed by a stranger under our kid": (token(key=STRANGER, head={"kid": KEY.kid}), Reason.BAD_SIGNATURE),
    "key in the header, our kid": (
        token(key=STRANGER, head={"kid": KEY.kid, "jwk": STRANGER.public.to_jwk()}), Reason.BAD_SIGNATURE,
    ),
    "key by address in the header": (
        token(key=STRANGER, head={"kid": KEY.kid, "jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9/"}),
        Reason.BAD_SIGNATURE,
    ),
    "certificate in the header": (
        token(key=STRANGER, head={"kid": KEY.kid, "x5c": ["AAAA"]}), Reason.BAD_SIGNATURE,
    ),
    "no signature": (f"{HEAD}.{BODY}.", Reason.BAD_SIGNATURE),
    "zeros for a signature": (unsigned({}, bytes(64)), Reason.BAD_SIGNATURE),
    "the twin": (jws.twin(GOOD), Reason.BAD_SIGNATURE),
    "the signature in DER": (der_signature(), Reason.BAD_SIGNATURE),
    "the signature of another token": (f"{HEAD}.{BODY}.{token(sub='x').split('.')[2]}", Reason.BAD_SIGNATURE),
    "other claims under the signature": (
        f"{HEAD}.{token(sub='x').split('.')[1]}.{SIGNATURE}", Reason.BAD_SIGNATURE,
    ),
}  # fmt: skip

CLAIMS: Final[dict[str, tuple[str, Reason]]] = {
    **{
        f"payload {payload!r}": (signed(_HEADER, payload), Reason.MALFORMED_CLAIMS)
        for payload in (b"", b"[]", b'"x"', b"1", b"null", b"\xff", b"{}{}", b"\xef\xbb\xbf" + _CLAIMS)
    },
    "a nested token": (signed(_HEADER, GOOD.encode()), Reason.MALFORMED_CLAIMS),
    "claims in UTF-16": (signed(_HEADER, _CLAIMS.decode().encode("utf-16")), Reason.MALFORMED_CLAIMS),
    "sub twice": (signed(_HEADER, b'{"sub":"admin",' + _CLAIMS[1:]), Reason.MALFORMED_CLAIMS),
    "iss twice": (signed(_HEADER, b'{"iss":"x",' + _CLAIMS[1:]), Reason.MALFORMED_CLAIMS),
    "thousands of arrays deep": (
        signed(_HEADER, b'{"x":' + b"[" * 2500 + b"]" * 2500 + b"}"), Reason.MALFORMED_CLAIMS,
    ),
    "sub with a lone surrogate": (
        signed(_HEADER, _CLAIMS.replace(b'"sub":"stock"', b'"sub":"\\ud800"')), Reason.MALFORMED_CLAIMS,
    ),
    **{
        f"exp {text}": (_raw_claims(f'"exp":{text}'), Reason.MALFORMED_CLAIMS)
        for text in (
            f'"{NOW + 60}"', "1e30", "1.8e9", f"{NOW + 60}.0", f"{NOW + 60}.5", "NaN", "Infinity", "-1",
            "9" * 400, "9" * 5000, "9" * 20, "true", "null", f"[{NOW + 60}]", "{}", '""',
        )
    },
    "exp missing": (token(exp=ABSENT), Reason.MALFORMED_CLAIMS),
    "iat missing": (token(iat=ABSENT), Reason.MALFORMED_CLAIMS),
    **{
        f"iat {iat!r}": (_with("iat", iat), Reason.MALFORMED_CLAIMS)
        for iat in _values(str(NOW), True, False, None, float(NOW), NOW + 0.5, -1, 253_402_300_800, [NOW], {})
    },
    "iat NaN": (signed(_HEADER, _CLAIMS.replace(b'"iat":1800000000', b'"iat":NaN')), Reason.MALFORMED_CLAIMS),
    **{
        f"{name} {date!r}": (_with(name, date), Reason.MALFORMED_CLAIMS)
        for name in ("nbf", "root_iat")
        for date in (str(NOW), True, None, float(NOW), -1, 10**19)
    },
    "sub missing": (token(sub=ABSENT), Reason.MALFORMED_CLAIMS),
    **{
        f"sub {sub!r}": (_with("sub", sub), Reason.MALFORMED_CLAIMS)
        for sub in _values(5, "", ["stock"], None, True, {})
    },
    **{
        f"scope {scope!r}": (_with("scope", scope), Reason.MALFORMED_CLAIMS)
        for scope in (
            5, ["a", 5], [["a"]], None, True, {"a": 1}, "a  b", " a", "a\tb", 'a"', ["a b"], [""], "é",
        )
    },
    **{
        f"{name} {value!r}": (_with(name, value), Reason.MALFORMED_CLAIMS)
        for name in ("jti", "root_jti", "client_id", "azp", "realm")
        for value in _values(5, "", None, ["x"], True, {})
    },
    "realm without its slash": (token(realm="services"), Reason.MALFORMED_CLAIMS),
    **{
        f"aud {aud!r}": (_with("aud", aud), Reason.MALFORMED_CLAIMS)
        for aud in (5, None, True, {AUDIENCE: 1}, [AUDIENCE, 5], [[AUDIENCE]])
    },
}  # fmt: skip

TIMES: Final[dict[str, tuple[str, Reason]]] = {
    "expired this very second": (token(exp=NOW), Reason.EXPIRED),
    "expired, within what others call leeway": (token(exp=NOW - 1), Reason.EXPIRED),
    "expired for years": (token(exp=0, iat=0), Reason.EXPIRED),
    "issued in 6 s": (token(iat=NOW + 6), Reason.NOT_YET_VALID),
    "issued in 600 s": (token(iat=NOW + 600), Reason.NOT_YET_VALID),
    "valid in 600 s": (token(nbf=NOW + 600), Reason.NOT_YET_VALID),
    "a second too long": (token(exp=NOW + LIFETIME + 1), Reason.LIFETIME_TOO_LONG),
    "for a thousand years": (token(exp=NOW + 31_536_000_000), Reason.LIFETIME_TOO_LONG),
    "issued in 1970": (token(iat=0), Reason.LIFETIME_TOO_LONG),
}

AUDIENCES: Final[dict[str, tuple[str, Reason]]] = {
    f"for {aud!r}": (token(aud=aud), Reason.WRONG_AUDIENCE)
    for aud in (ABSENT, [], "", "https://payments.example", [f"{AUDIENCE}/", AUDIENCE.upper()], AUDIENCE[:-1])
} | {
    "bound to a key": (token(cnf={"jkt": "x"}), Reason.UNCONFIRMED),
    "bound to null": (token(cnf=None), Reason.UNCONFIRMED),
}

HOSTILE: Final = SHAPES | HEADERS | KEYS_AND_ISSUERS | SIGNATURES | CLAIMS | TIMES | AUDIENCES
"""All of them, by step."""
