import json

import pytest

from tokenry.errors import ProtocolError
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.jose.jws import sign, split, twin
from tokenry.revocation.extension import EXTENSION_TYPE, MAX_EXTENSION_SECONDS, ListExtension, read_extension

ISSUER = "https://issuer.example.org"
KEY = PrivateKey.generate()
NOW = 1_800_000_000


def extension(**changes):
    members = {"issuer": ISSUER, "issued_at": NOW, "until": NOW + 3600, "name": "x1", "by": "jdoe", "reason": "fire"}
    return ListExtension(**{**members, **changes})


def read(text, *, key=KEY.public, issuer=ISSUER):
    return read_extension(text, issuer=issuer, key=key)


def resigned(change, *, typ=EXTENSION_TYPE):
    members = json.loads(split(extension().sign(KEY)).payload)
    change(members)
    return sign({"typ": typ}, dump_json(members), KEY)


def test_what_was_signed_is_read():
    assert read(extension(ticket="SEC-1").sign(KEY)) == extension(ticket="SEC-1")


def test_it_holds_from_its_time_to_its_end():
    word = extension()
    assert word.is_in_force(NOW, skew=2)
    assert word.is_in_force(NOW - 2, skew=2)
    assert not word.is_in_force(NOW - 2.1, skew=2)
    assert word.is_in_force(NOW + 3599.9, skew=2)
    assert not word.is_in_force(NOW + 3600, skew=2)
    assert not word.is_in_force(float("nan"), skew=2)


def test_it_lasts_for_a_day_at_most():
    extension(until=NOW + MAX_EXTENSION_SECONDS)
    for until in (NOW + MAX_EXTENSION_SECONDS + 1, NOW, NOW - 1):
        with pytest.raises(ProtocolError, match="24 hours"):
            extension(until=until)
        with pytest.raises(ProtocolError, match="24 hours"):
            read(resigned(lambda members, until=until: members.update(exp=until)))


def test_only_the_pinned_key_can_sign_one():
    with pytest.raises(ProtocolError, match="no trusted key"):
        read(extension().sign(PrivateKey.generate()))
    with pytest.raises(ProtocolError, match="signature"):
        read(twin(extension().sign(KEY)))


@pytest.mark.parametrize("typ", ["at+jwt", "revocation-list+jwt", "JWT"])
def test_a_statement_of_another_type_is_none(typ):
    with pytest.raises(ProtocolError, match="another type"):
        read(resigned(lambda members: None, typ=typ))


def test_one_for_another_platform_is_refused():
    with pytest.raises(ProtocolError, match="another issuer"):
        read(extension(issuer="https://other.example.org").sign(KEY))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.pop("exp"),
        lambda m: m.pop("sub"),
        lambda m: m.update(iat=True),
        lambda m: m.update(exp=str(NOW)),
        lambda m: m.update(exp=NOW + 0.5),
        lambda m: m.update(sub=""),
        lambda m: m.update(jti=5),
        lambda m: m.update(reason="x" * 501),
        lambda m: m.update(reason=7),
        lambda m: m.update(refuse_age=10**9),
    ],
)
def test_one_with_anything_amiss_is_refused(change):
    with pytest.raises(ProtocolError):
        read(resigned(change))


@pytest.mark.parametrize("text", ["", "a.b.c", "x" * 9000, "é.é.é"])
def test_garbage_is_refused(text):
    with pytest.raises(ProtocolError):
        read(text)
