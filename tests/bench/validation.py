"""
One validation, measured as a ratio to the bare signature check of the cryptography in the same run.

Ratios, because seconds say more about the machine than about the code. Run it with `python
tests/bench/validation.py` from the project's root, with nothing else running.
"""

from __future__ import annotations

import sys
import timeit
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.support.access_tokens import AUDIENCE, ISSUER, KEY, KEYS, LIFETIME, NOW, token
from tokenry.jose import jws
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.lists import RevocationList
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator

if TYPE_CHECKING:
    from collections.abc import Callable

SALT = b"a salt of the list, 32 bytes long"[:32]
POLICY = ValidationPolicy(issuers=(TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME),), audience=AUDIENCE)


def a_list() -> RevocationList:
    """Return a list with entries of every kind, none of which hits."""
    until = NOW + LIFETIME

    def entry(number: int, kind: Kind, **members: object) -> Entry:
        members |= {"fingerprint": number.to_bytes(16, "big"), "salt": "s", "in_force_until": until}
        return Entry(id=f"r{number}", kind=kind, **members)  # type: ignore[arg-type]

    return RevocationList.of(
        [
            *(entry(number, Kind.JTI) for number in range(1000)),
            *(entry(number, Kind.CLAIMS, names=("sub",), issued_before=NOW) for number in range(1000, 1100)),
        ],
        salts={"s": SALT},
        epoch=1,
        max_token_lifetime=LIFETIME,
    )


ROUNDS = 15
CALLS = 400


def best(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """
    Return the best seconds of one call of each: what disturbs only ever adds.

    They take turns, so that a machine that is busy for a while disturbs all of them.
    """
    rounds = [{name: timeit.timeit(call, number=CALLS) for name, call in calls.items()} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in rounds) / CALLS for name in calls}


def bare_verification(compact: str) -> Callable[[], object]:
    """Return the check of the signature of *compact*, with everything prepared beforehand."""
    parts = jws.split(compact)
    key = serialization.load_der_private_key(KEY.to_pkcs8_der(), None).public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    r, s = (int.from_bytes(half, "big") for half in (parts.signature[:32], parts.signature[32:]))
    der, scheme = encode_dss_signature(r, s), ec.ECDSA(hashes.SHA256())
    return lambda: key.verify(der, parts.signing_input, scheme)


def validation(validator: Validator, compact: str, revocations: RevocationList) -> Callable[[], object]:
    """Return one validation, as a service with a list does it."""

    def validate() -> object:
        return validator.validate(
            # A new string each time, as every request brings one: its hash has to be computed again.
            compact[:1] + compact[1:],
            now=NOW + 1.5,
            keys=KEYS,
            revocations=revocations,
            list_age=3.0,
            scope=frozenset({"orders.read"}),
        )

    return validate


def measure() -> dict[str, float]:
    """Return seconds by what was measured."""
    compact, revocations = token(), a_list()
    remembered = validation(Validator(POLICY), compact, revocations)
    for _ in range(3):
        remembered()
    each_time = Validator(POLICY, remembered=0)
    return best(
        {
            "bare": bare_verification(compact),
            "with signature": validation(each_time, compact, revocations),
            "with signature, empty list": validation(each_time, compact, RevocationList.empty()),
            "remembered": remembered,
        }
    )


def main() -> None:
    """Print what was measured, in microseconds and as a ratio."""
    measured = measure()
    for name, value in measured.items():
        print(f"{name:28} {value * 1e6:8.2f} µs   {value / measured['bare']:6.3f} x bare")  # noqa: T201


if __name__ == "__main__":
    main()
