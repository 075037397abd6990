"""
What P-256 signatures are verified with: OpenSSL's arithmetic, by the cryptography, or AWS-LC's, by awscrt.

Verifying is most of what a token costs at its first sight. AWS-LC takes a fifth less time for it than the OpenSSL that
the cryptography brings, and leaves more of the processor's caches to what follows. So it is used where awscrt is
installed (the extra `aws-lc`), unless something else was chosen.

Invariants:
    * It is given nothing but a digest, a signature in the one DER form that we wrote ourselves from numbers in their
      range, and a key that the cryptography has read and checked.
    * It is used only after it has accepted a published signature and refused altered ones, in this very process.
    * We sign with the cryptography alone: its nonces are deterministic (RFC 6979).
"""

from __future__ import annotations

import sys
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from tokenry.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable

    Verifier = Callable[[bytes, bytes], None]
    """Returns if the second argument is a DER signature over the first, a digest; raises `InvalidSignature` if not."""
    Maker = Callable[[ec.EllipticCurvePublicKey], Verifier]


class Arithmetic(StrEnum):
    """What verifies: `auto` is AWS-LC where it is installed and passes its test, else OpenSSL."""

    AUTO = "auto"
    OPENSSL = "openssl"
    AWS_LC = "aws-lc"


def choose(arithmetic: Arithmetic) -> None:
    """
    Verify with *arithmetic*: with all keys that are read from now on.

    Raises:
        ConfigurationError: AWS-LC was asked for, and awscrt is not installed or does not verify as it must.
    """
    global _maker  # noqa: PLW0603 -- a process has one
    _maker = _found(arithmetic)


def chosen() -> Arithmetic:
    """Return what keys that are read now are verified with: `openssl` or `aws-lc`."""
    return Arithmetic.OPENSSL if _current() is _openssl else Arithmetic.AWS_LC


def p256_verifier(key: ec.EllipticCurvePublicKey) -> Verifier:
    """Return what verifies signatures over SHA-256 digests by *key*, a key on P-256."""
    return _current()(key)


def openssl_verifier(key: ec.EllipticCurvePublicKey, scheme: ec.ECDSA) -> Verifier:
    """Return what verifies signatures over digests by *key*, a key on any curve; the hash is that of *scheme*."""
    verify = key.verify
    return lambda digest, signature: verify(signature, digest, scheme)


_openssl = partial(openssl_verifier, scheme=ec.ECDSA(Prehashed(hashes.SHA256())))
_OTHERS: Final = frozenset({"darwin", "win32"})  # where awscrt asks the system's library, whatever that does
_maker: Maker | None = None


def _current() -> Maker:
    global _maker  # noqa: PLW0603 -- as above
    if _maker is None:
        _maker = _found(Arithmetic.AUTO)
    return _maker


def _found(arithmetic: Arithmetic) -> Maker:
    found = None if arithmetic is Arithmetic.OPENSSL else _aws_lc()
    if found is None and arithmetic is Arithmetic.AWS_LC:
        raise ConfigurationError(
            ["aws-lc: awscrt is not installed, too old or faulty; install the extra tokenry[aws-lc], or choose openssl"]
        )
    return found or _openssl


def _aws_lc() -> Maker | None:
    """Return what makes verifiers of AWS-LC, if it is there and can be trusted."""
    if sys.platform in _OTHERS:
        return None
    try:
        from awscrt.crypto import EC
    except ImportError:  # not installed, or without these keys
        return None

    def make(key: ec.EllipticCurvePublicKey) -> Verifier:
        der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        is_good = EC.new_key_from_der_data(der).verify

        def verify(digest: bytes, signature: bytes) -> None:
            if is_good(digest, signature) is not True:
                raise InvalidSignature

        return verify

    return make if _verifies(make) else None


# RFC 6979 section A.2.5: the public key, SHA-256 of "sample", and the signature over it.
_X = 0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6
_Y = 0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299
_R = 0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716
_S = 0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8
_DIGEST = bytes.fromhex("af2bdbe1aa9b6ec1e2ade1d694f41fc71a831d0268e9891562113d8a62add1bf")


def _verifies(make: Maker) -> bool:
    """Tell whether a published signature is accepted, and refused when a bit of it or of the digest is another one."""
    other_digest = bytes([_DIGEST[0] ^ 1]) + _DIGEST[1:]
    try:
        verify = make(ec.EllipticCurvePublicNumbers(_X, _Y, ec.SECP256R1()).public_key())
        verify(_DIGEST, encode_dss_signature(_R, _S))
    except Exception:  # noqa: BLE001 -- whatever is wrong with it, there is another one
        return False
    return all(
        _refuses(verify, digest, encode_dss_signature(r, s))
        for digest, r, s in ((other_digest, _R, _S), (_DIGEST, _R ^ 1, _S), (_DIGEST, _R, _S ^ 1))
    )


def _refuses(verify: Verifier, digest: bytes, signature: bytes) -> bool:
    try:
        verify(digest, signature)
    except InvalidSignature:
        return True
    except Exception:  # noqa: BLE001 -- as above
        return False
    return False
