"""
One validation in its own process, beside a bare verification by the cryptography: CPU microseconds a call.

`python -m tests.bench.in_process ENTRIES...` prints JSON. The cases take turns, round by round, so that a machine that
is busy for a while disturbs all of them; what counts is the median over the rounds.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import time
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.support.access_tokens import AUDIENCE, ISSUER, KEY, KEYS, LIFETIME, NOW, token
from tokenry.jose import jws
from tokenry.revocation.blocks import Block
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.lists import RevocationList
from tokenry.validation.policy import TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import Validator
from tokenry_issuer import minting
from tokenry_issuer.grants import Grant
from tokenry_registry.realms import Realm

if TYPE_CHECKING:
    from collections.abc import Callable

    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

SALT = b"a salt of the list, 32 bytes long"[:32]
POLICY = ValidationPolicy(issuers=(TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME),), audience=AUDIENCE)
SCOPE = frozenset({"orders.read"})
NAME_LISTS = (1, 5, 20)
CALLS = 400
ROUNDS = 15


def list_of(entries: int) -> RevocationList:
    """Return a list of so many revoked tokens, none of which is ours."""
    bare = RevocationList.of([], salts={"s": SALT}, epoch=1, max_token_lifetime=LIFETIME, max_entries=20_000_000)
    if not entries:
        return bare
    raw = os.urandom(16 * entries)
    fingerprints = b"".join(sorted(raw[start : start + 16] for start in range(0, len(raw), 16)))
    block = Block.read(fingerprints, (NOW + LIFETIME).to_bytes(4, "big") * entries)
    return bare.merge([], now=NOW, block=block)


def list_with_names(count: int) -> RevocationList:
    """Return a list with rules of *count* different sets of claim names, all of which the token carries."""
    names = ["sub", "realm", "client_id", "jti", "iss"]
    sets = [tuple(n for bit, n in enumerate(names) if mask >> bit & 1) for mask in range(1, 32)][:count]
    entries = [
        Entry(
            id=f"r{number}",
            kind=Kind.CLAIMS,
            fingerprint=number.to_bytes(16, "big"),
            salt="s",
            in_force_until=NOW + LIFETIME,
            names=tuple(sorted(chosen)),
            issued_before=NOW,
        )
        for number, chosen in enumerate(sets)
    ]
    return RevocationList.of(entries, salts={"s": SALT}, epoch=1, max_token_lifetime=LIFETIME)


def private_key() -> EllipticCurvePrivateKey:
    key = serialization.load_der_private_key(KEY.to_pkcs8_der(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def bare_verify(compact: str) -> Callable[[], object]:
    """Return the check of the signature of *compact*, with everything prepared beforehand."""
    parts = jws.split(compact)
    key, scheme = private_key().public_key(), ec.ECDSA(hashes.SHA256())
    r, s = (int.from_bytes(half, "big") for half in (parts.signature[:32], parts.signature[32:]))
    der = encode_dss_signature(r, s)
    return lambda: key.verify(der, parts.signing_input, scheme)


def bare_sign(compact: str) -> Callable[[], object]:
    """Return the signing of what *compact* signs, deterministic (RFC 6979) as the issuer's is."""
    signing_input = jws.split(compact).signing_input
    key, scheme = private_key(), ec.ECDSA(hashes.SHA256(), deterministic_signing=True)
    return lambda: key.sign(signing_input, scheme)


def minted() -> Callable[[], object]:
    """Return the making of one access token: id, claims, JSON, signature."""
    realm = Realm(name="/services", environment="bench")
    grant = Grant(
        grant_type="client_credentials",
        realm=realm,
        client_id="orders",
        subject="orders",
        scope=frozenset({"orders.read", "orders.write"}),
        audience=(ISSUER,),
        lifetime=3600,
    )

    def mint() -> object:
        jti = minting.new_jti(os.urandom(minting.JTI_BYTES))
        claims = minting.build_claims(grant, issuer=ISSUER, now=time.time(), jti=jti)
        return minting.sign(claims, grant=grant, signer=KEY)

    return mint


def validation(validator: Validator, compact: str, *lists: RevocationList) -> Callable[[], object]:
    """Return one validation; several *lists* take turns, as if each request met a fresh one."""
    turn = 0

    def validate() -> object:
        nonlocal turn
        turn += 1
        return validator.validate(
            # A new string each time, as every request brings one: its hash has to be computed again.
            compact[:1] + compact[1:],
            now=NOW + 1.5,
            keys=KEYS,
            revocations=lists[turn % len(lists)],
            list_age=3.0,
            scope=SCOPE,
        )

    return validate


def all_different(revocations: RevocationList, count: int) -> Callable[[], object]:
    """Return one validation of a token that was never seen before."""
    tokens = [token(jti=f"different-{number}") for number in range(count)]
    validator, turn = Validator(POLICY), 0

    def validate() -> object:
        nonlocal turn
        turn += 1
        return validator.validate(
            tokens[turn % count], now=NOW + 1.5, keys=KEYS, revocations=revocations, list_age=3.0, scope=SCOPE
        )

    return validate


def remembered(compact: str, *lists: RevocationList) -> Callable[[], object]:
    call = validation(Validator(POLICY), compact, *lists)
    for _ in range(3 * len(lists)):
        call()
    return call


def cases(sizes: list[int]) -> dict[str, Callable[[], object]]:
    """Return what is measured, by name."""
    compact = token()
    found: dict[str, Callable[[], object]] = {"cryptography verify": bare_verify(compact)}
    found["cryptography sign"] = bare_sign(compact)
    found["mint an access token"] = minted()
    for size in sizes:
        held = list_of(size)
        found[f"validate, {size:,} revocations"] = validation(Validator(POLICY, remembered=0), compact, held)
        found[f"validate remembered, {size:,} revocations"] = remembered(compact, held)
        found[f"validate remembered, {size:,} revocations, new list each time"] = remembered(
            compact, held, held.at_epoch(2, max_token_lifetime=LIFETIME)
        )
    for count in NAME_LISTS:
        held = list_with_names(count)
        found[f"validate, {count} claim-name lists"] = validation(Validator(POLICY, remembered=0), compact, held)
        found[f"validate remembered, {count} claim-name lists"] = remembered(compact, held)
        found[f"validate remembered, {count} claim-name lists, new list each time"] = remembered(
            compact, held, held.at_epoch(2, max_token_lifetime=LIFETIME)
        )
    found["validate, all-different tokens"] = all_different(list_of(1000), CALLS * (ROUNDS + 2))
    return found


def measured(calls: dict[str, Callable[[], object]], *, rounds: int, count: int) -> dict[str, list[float]]:
    """Return the CPU microseconds of one call in each round, by case."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.freeze()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.process_time_ns()
            for _ in range(count):
                call()
            found[name].append((time.process_time_ns() - began) / count / 1000)
    return found


def main() -> None:
    """Measure with lists of the sizes in the arguments, and print JSON."""
    sizes = [int(text) for text in sys.argv[1:]] or [0, 1000]
    found = measured(cases(sizes), rounds=ROUNDS, count=CALLS)
    print(json.dumps({name: statistics.median(values) for name, values in found.items()}))  # noqa: T201


if __name__ == "__main__":
    main()
