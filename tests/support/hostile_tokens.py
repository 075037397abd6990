"""Tokens named by what is wrong with them, each with the code that a validator of their issuer finds."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any, Final, TypeAlias

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.support.access_tokens import ABSENT, FORGE, Forge
from tokenry.errors import Reason
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.jose.jwk import PrivateKey

STRANGER: Final = PrivateKey.generate()
BASE64URL: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_Table: TypeAlias = dict[str, tuple[str, Reason]]


class _Original:
    """A good token in its parts, and what the forge that it came from has."""

    def __init__(self, forge: Forge) -> None:
        self.token, self.signed, self.header, self.claims = forge.token, forge.signed, forge.header, forge.claims
        self.issuer, self.audience, self.client = forge.issuer, forge.audience, forge.client
        self.key, self.now, self.lifetime = forge.key, forge.now, forge.lifetime
        self.good = forge.token()
        self.head, self.body, self.signature = self.good.split(".")
        self.header_bytes = dump_json(forge.header())
        self.claims_bytes = dump_json(forge.claims())


_OURS: Final = _Original(FORGE)
GOOD: Final = _OURS.good


def unsigned(it: _Original, head: dict[str, Any], signature: bytes = b"") -> str:
    """Return good claims under a changed header, with *signature* as it is."""
    return f"{b64url_encode(dump_json(it.header(**head)))}.{it.body}.{b64url_encode(signature)}"


def mac_with_the_public_key(it: _Original) -> str:
    """Return a token whose HS256 secret is the PEM of our public key (RFC 8725 section 2.1)."""
    private = serialization.load_der_private_key(it.key.to_pkcs8_der(), None)
    pem = private.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    signing_input = f"{b64url_encode(dump_json(it.header(alg='HS256')))}.{it.body}"
    return f"{signing_input}.{b64url_encode(hmac.digest(pem, signing_input.encode(), hashlib.sha256))}"


def der_signature(it: _Original) -> str:
    """Return a token with the right signature in the wrong form."""
    raw = jws.split(it.good).signature
    der = encode_dss_signature(int.from_bytes(raw[:32], "big"), int.from_bytes(raw[32:], "big"))
    return f"{it.head}.{it.body}.{b64url_encode(der)}"


def with_both_alphabets(it: _Original) -> str:
    """Return a good token with `-` and `_` in it, in the alphabet of RFC 4648 section 4."""
    number = 0
    while not {"-", "_"} <= set(compact := it.token(jti=f"number {number}")):
        number += 1
    return compact.replace("-", "+").replace("_", "/")


def other_last_characters(it: _Original) -> list[str]:
    """Return the 15 spellings of a good token whose signature decodes, leniently, to the same bytes."""
    bits = BASE64URL.index(it.signature[-1])  # 64 bytes: the last character carries two bits, four are unused
    others = [BASE64URL[bits | unused] for unused in range(1, 16)]
    spellings = [f"{it.head}.{it.body}.{it.signature[:-1]}{last}" for last in others]
    same = base64.urlsafe_b64decode(it.signature + "==")
    assert all(base64.urlsafe_b64decode(each.split(".")[2] + "==") == same for each in spellings)
    return spellings


def _with(it: _Original, name: str, value: Any) -> str:
    changes: dict[str, Any] = {name: value}
    return it.token(**changes)


def _values(*values: Any) -> tuple[Any, ...]:
    return values


def _raw_claims(it: _Original, text: str) -> str:
    """Return a token with the member *text* in place of the claims' `exp`."""
    rest = dump_json(it.claims(exp=ABSENT)).decode()
    return it.signed(it.header_bytes, f"{rest[:-1]},{text}}}".encode())


def _shapes(it: _Original) -> _Table:
    return {
        "empty": ("", Reason.NOT_COMPACT),
        "one part": ("opaque-token", Reason.NOT_COMPACT),
        "two parts": (f"{it.head}.{it.body}", Reason.NOT_COMPACT),
        "four parts": (f"{it.good}.", Reason.NOT_COMPACT),
        "five parts": (f"{it.good}.{it.body}.{it.signature}", Reason.NOT_COMPACT),
        "JSON serialisation": (
            dump_json({"payload": it.body, "protected": it.head, "signature": it.signature}).decode(),
            Reason.NOT_COMPACT,
        ),
        "21 MB": ("A" * 21_000_000, Reason.TOO_LARGE),
        "one byte too large": (
            f"{it.head}.{'A' * (8192 - len(it.head) - 1 - len(it.signature))}.{it.signature}",
            Reason.TOO_LARGE,
        ),
        "padding": (f"{it.good}==", Reason.NOT_CANONICAL),
        "padding of the payload": (f"{it.head}.{it.body}=.{it.signature}", Reason.NOT_CANONICAL),
        "the other alphabet": (with_both_alphabets(it), Reason.NOT_CANONICAL),
        "a space in front": (f" {it.good}", Reason.NOT_CANONICAL),
        "a line feed behind": (f"{it.good}\n", Reason.NOT_CANONICAL),
        "a NUL behind": (f"{it.good}\0", Reason.NOT_CANONICAL),
        "not ASCII": (f"{it.head}.{it.body}.é{it.signature[1:]}", Reason.NOT_CANONICAL),
        "full-width letters": (f"{it.head}.{it.body}.\uff21{it.signature[1:]}", Reason.NOT_CANONICAL),
        "lone surrogates": (f"{it.head}.{it.body}.\udcff{it.signature[1:]}", Reason.NOT_CANONICAL),
        "a length that no bytes have": (f"{it.head}.{it.body}.{it.signature}AAA", Reason.NOT_CANONICAL),
        **{
            f"unused bits {number}": (spelling, Reason.NOT_CANONICAL)
            for number, spelling in enumerate(other_last_characters(it), start=1)
        },
    }


def _headers(it: _Original) -> _Table:
    return {
        "empty header": (f".{it.body}.{it.signature}", Reason.MALFORMED_HEADER),
        "header an array": (it.signed(b"[]", it.claims_bytes), Reason.MALFORMED_HEADER),
        "alg twice": (it.signed(b'{"alg":"none",' + it.header_bytes[1:], it.claims_bytes), Reason.MALFORMED_HEADER),
        "kid twice": (it.signed(b'{"kid":"a",' + it.header_bytes[1:], it.claims_bytes), Reason.MALFORMED_HEADER),
        "header with a byte order mark": (
            it.signed(b"\xef\xbb\xbf" + it.header_bytes, it.claims_bytes),
            Reason.MALFORMED_HEADER,
        ),
        "header in UTF-16": (
            it.signed(it.header_bytes.decode().encode("utf-16"), it.claims_bytes),
            Reason.MALFORMED_HEADER,
        ),
        "kid missing": (it.token(head={"kid": ABSENT}), Reason.MALFORMED_HEADER),
        "kid null": (it.token(head={"kid": None}), Reason.MALFORMED_HEADER),
        "kid a number": (it.token(head={"kid": 5}), Reason.MALFORMED_HEADER),
        "kid empty": (it.token(head={"kid": ""}), Reason.MALFORMED_HEADER),
        "kid a list": (it.token(head={"kid": [it.key.kid]}), Reason.MALFORMED_HEADER),
        "kid of 4 kB": (it.token(head={"kid": "k" * 4096}), Reason.MALFORMED_HEADER),
        "kid of 10 kB": (it.token(head={"kid": "k" * 10_000}), Reason.TOO_LARGE),
        "crit of a claim": (it.token(head={"crit": ["exp"]}), Reason.UNSUPPORTED_CRITICAL),
        "crit with its extension": (it.token(head={"crit": ["x"], "x": 1}), Reason.UNSUPPORTED_CRITICAL),
        "crit empty": (it.token(head={"crit": []}), Reason.UNSUPPORTED_CRITICAL),
        "unencoded payload": (it.token(head={"crit": ["b64"], "b64": False}), Reason.UNSUPPORTED_CRITICAL),
        "unencoded payload, not said to be critical": (it.token(head={"b64": False}), Reason.UNSUPPORTED_CRITICAL),
        "alg none": (unsigned(it, {"alg": "none"}), Reason.WRONG_ALGORITHM),
        "alg nOnE": (unsigned(it, {"alg": "nOnE"}), Reason.WRONG_ALGORITHM),
        "alg none with a good signature": (it.token(head={"alg": "none"}), Reason.WRONG_ALGORITHM),
        "alg HS256 with our public key": (mac_with_the_public_key(it), Reason.WRONG_ALGORITHM),
        "alg missing": (it.token(head={"alg": ABSENT}), Reason.WRONG_ALGORITHM),
        "alg in small letters": (it.token(head={"alg": "es256"}), Reason.WRONG_ALGORITHM),
        "alg a list": (it.token(head={"alg": ["ES256"]}), Reason.MALFORMED_HEADER),
        "alg not this issuer's": (it.token(head={"alg": "RS256"}), Reason.WRONG_ALGORITHM),
        "alg of a larger curve": (it.token(head={"alg": "ES384"}), Reason.WRONG_ALGORITHM),
        **{
            f"typ {typ}": (it.token(head={"typ": typ}), Reason.WRONG_TYPE)
            for typ in (
                "JWT",
                "jwt",
                "dpop+jwt",
                "secevent+jwt",
                "logout+jwt",
                "token-introspection+jwt",
                "txntoken+jwt",
                "client-authentication+jwt",
                "statuslist+jwt",
                "revocation-list+jwt",
                "wit+jwt",
                "",
                "at+jwt ",
                "at_jwt",
                "application/json",
                "application/application/at+jwt",
                "aT+jW\uff34",
            )
        },
        **{
            f"{name} {value!r}": (it.token(head={name: value}), Reason.MALFORMED_HEADER)
            for name in ("typ", "cty", "jku", "x5u", "x5t", "x5t#S256", "jwk", "x5c")
            for value in (5, None, True)
        },
        "typ missing": (it.token(head={"typ": ABSENT}), Reason.WRONG_TYPE),
    }


def _keys_and_issuers(it: _Original) -> _Table:
    return {
        **{
            f"iss {iss!r}": (_with(it, "iss", iss), Reason.UNTRUSTED_ISSUER)
            for iss in (
                "https://issuer.test.example",
                it.issuer.upper(),
                f"{it.issuer}/",
                f" {it.issuer}",
                f"{it.issuer}\0",
                [it.issuer],
                {"a": it.issuer},
                "",
                None,
                5,
                True,
            )
        },
        "iss missing": (it.token(iss=ABSENT), Reason.UNTRUSTED_ISSUER),
        "kid of a stranger": (it.token(key=STRANGER), Reason.UNKNOWN_KEY),
        "kid a path": (it.token(head={"kid": "../../../../dev/null"}), Reason.UNKNOWN_KEY),
        "kid a query": (it.token(head={"kid": "k1' OR '1'='1"}), Reason.UNKNOWN_KEY),
        "kid with a NUL": (it.token(head={"kid": f"{it.key.kid}\0"}), Reason.UNKNOWN_KEY),
        "key in the header": (
            it.signed(dump_json(it.header(STRANGER, jwk=STRANGER.public.to_jwk())), it.claims_bytes, key=STRANGER),
            Reason.UNKNOWN_KEY,
        ),
    }


def _signatures(it: _Original) -> _Table:
    return {
        "signed by a stranger under our kid": (it.token(key=STRANGER, head={"kid": it.key.kid}), Reason.BAD_SIGNATURE),
        "key in the header, our kid": (
            it.token(key=STRANGER, head={"kid": it.key.kid, "jwk": STRANGER.public.to_jwk()}),
            Reason.BAD_SIGNATURE,
        ),
        "key by address in the header": (
            it.token(
                key=STRANGER, head={"kid": it.key.kid, "jku": "http://127.0.0.1:9/jwks", "x5u": "http://127.0.0.1:9/"}
            ),
            Reason.BAD_SIGNATURE,
        ),
        "certificate in the header": (
            it.token(key=STRANGER, head={"kid": it.key.kid, "x5c": ["AAAA"]}),
            Reason.BAD_SIGNATURE,
        ),
        "no signature": (f"{it.head}.{it.body}.", Reason.BAD_SIGNATURE),
        "zeros for a signature": (unsigned(it, {}, bytes(64)), Reason.BAD_SIGNATURE),
        "the twin": (jws.twin(it.good), Reason.BAD_SIGNATURE),
        "the signature in DER": (der_signature(it), Reason.BAD_SIGNATURE),
        "the signature of another token": (
            f"{it.head}.{it.body}.{it.token(sub='x').split('.')[2]}",
            Reason.BAD_SIGNATURE,
        ),
        "other claims under the signature": (
            f"{it.head}.{it.token(sub='x').split('.')[1]}.{it.signature}",
            Reason.BAD_SIGNATURE,
        ),
    }


def _claims(it: _Original) -> _Table:
    return {
        **{
            f"payload {payload!r}": (it.signed(it.header_bytes, payload), Reason.MALFORMED_CLAIMS)
            for payload in (b"", b"[]", b'"x"', b"1", b"null", b"\xff", b"{}{}", b"\xef\xbb\xbf" + it.claims_bytes)
        },
        "a nested token": (it.signed(it.header_bytes, it.good.encode()), Reason.MALFORMED_CLAIMS),
        "claims in UTF-16": (
            it.signed(it.header_bytes, it.claims_bytes.decode().encode("utf-16")),
            Reason.MALFORMED_CLAIMS,
        ),
        "sub twice": (it.signed(it.header_bytes, b'{"sub":"admin",' + it.claims_bytes[1:]), Reason.MALFORMED_CLAIMS),
        "iss twice": (it.signed(it.header_bytes, b'{"iss":"x",' + it.claims_bytes[1:]), Reason.MALFORMED_CLAIMS),
        "thousands of arrays deep": (
            it.signed(it.header_bytes, b'{"x":' + b"[" * 2500 + b"]" * 2500 + b"}"),
            Reason.MALFORMED_CLAIMS,
        ),
        "sub with a lone surrogate": (
            it.signed(it.header_bytes, it.claims_bytes.replace(f'"sub":"{it.client}"'.encode(), b'"sub":"\\ud800"')),
            Reason.MALFORMED_CLAIMS,
        ),
        **{
            f"exp {text}": (_raw_claims(it, f'"exp":{text}'), Reason.MALFORMED_CLAIMS)
            for text in (
                f'"{it.now + 60}"',
                "1e30",
                "1.8e9",
                f"{it.now + 60}.0",
                f"{it.now + 60}.5",
                "NaN",
                "Infinity",
                "-1",
                "9" * 400,
                "9" * 5000,
                "9" * 20,
                "true",
                "null",
                f"[{it.now + 60}]",
                "{}",
                '""',
            )
        },
        "exp missing": (it.token(exp=ABSENT), Reason.MALFORMED_CLAIMS),
        "iat missing": (it.token(iat=ABSENT), Reason.MALFORMED_CLAIMS),
        **{
            f"iat {iat!r}": (_with(it, "iat", iat), Reason.MALFORMED_CLAIMS)
            for iat in _values(
                str(it.now), True, False, None, float(it.now), it.now + 0.5, -1, 253_402_300_800, [it.now], {}
            )
        },
        "iat NaN": (
            it.signed(it.header_bytes, it.claims_bytes.replace(f'"iat":{it.now}'.encode(), b'"iat":NaN')),
            Reason.MALFORMED_CLAIMS,
        ),
        **{
            f"{name} {date!r}": (_with(it, name, date), Reason.MALFORMED_CLAIMS)
            for name in ("nbf", "root_iat")
            for date in (str(it.now), True, None, float(it.now), -1, 10**19)
        },
        "sub missing": (it.token(sub=ABSENT), Reason.MALFORMED_CLAIMS),
        **{
            f"sub {sub!r}": (_with(it, "sub", sub), Reason.MALFORMED_CLAIMS)
            for sub in _values(5, "", ["stock"], None, True, {})
        },
        **{
            f"scope {scope!r}": (_with(it, "scope", scope), Reason.MALFORMED_CLAIMS)
            for scope in (
                5,
                ["a", 5],
                [["a"]],
                None,
                True,
                {"a": 1},
                "a  b",
                " a",
                "a\tb",
                'a"',
                ["a b"],
                [""],
                "é",
            )
        },
        **{
            f"{name} {value!r}": (_with(it, name, value), Reason.MALFORMED_CLAIMS)
            for name in ("jti", "root_jti", "client_id", "azp", "realm")
            for value in _values(5, "", None, ["x"], True, {})
        },
        "realm without its slash": (it.token(realm="services"), Reason.MALFORMED_CLAIMS),
        **{
            f"aud {aud!r}": (_with(it, "aud", aud), Reason.MALFORMED_CLAIMS)
            for aud in (5, None, True, {it.audience: 1}, [it.audience, 5], [[it.audience]])
        },
    }


def _times(it: _Original) -> _Table:
    return {
        "expired this very second": (it.token(exp=it.now), Reason.EXPIRED),
        "expired, within what others call leeway": (it.token(exp=it.now - 1), Reason.EXPIRED),
        "expired for years": (it.token(exp=0, iat=0), Reason.EXPIRED),
        "issued in 6 s": (it.token(iat=it.now + 6), Reason.NOT_YET_VALID),
        "issued in 600 s": (it.token(iat=it.now + 600), Reason.NOT_YET_VALID),
        "valid in 600 s": (it.token(nbf=it.now + 600), Reason.NOT_YET_VALID),
        "a second too long": (it.token(exp=it.now + it.lifetime + 1), Reason.LIFETIME_TOO_LONG),
        "for a thousand years": (it.token(exp=it.now + 31_536_000_000), Reason.LIFETIME_TOO_LONG),
        "issued in 1970": (it.token(iat=0), Reason.LIFETIME_TOO_LONG),
    }


def _audiences(it: _Original) -> _Table:
    return {
        f"for {aud!r}": (it.token(aud=aud), Reason.WRONG_AUDIENCE)
        for aud in (
            ABSENT,
            [],
            "",
            "https://payments.example",
            [f"{it.audience}/", it.audience.upper()],
            it.audience[:-1],
        )
    } | {
        "bound to a key": (it.token(cnf={"jkt": "x"}), Reason.UNCONFIRMED),
        "bound to null": (it.token(cnf=None), Reason.UNCONFIRMED),
    }


def hostile_tokens(forge: Forge) -> _Table:
    """Return hostile tokens made with the key of *forge*, by step and then by name."""
    it = _Original(forge)
    steps = (_shapes, _headers, _keys_and_issuers, _signatures, _claims, _times, _audiences)
    return {name: hostile for step in steps for name, hostile in step(it).items()}


AUDIENCES: Final = _audiences(_OURS)
"""Those that are refused only by whoever has an audience, and those bound to a key."""

HOSTILE: Final = hostile_tokens(FORGE)
"""All of them, by step."""
