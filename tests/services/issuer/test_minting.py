import secrets

import jwt
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.services.issuer.support import decoded
from tokenry.jose.encoding import b64url_decode, dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry_issuer.exchange import Origin
from tokenry_issuer.grants import Grant
from tokenry_issuer.minting import CLAIMS, JTI_BYTES, ClaimsTemplate, build_claims, new_jti, sign
from tokenry_registry.realms import ClaimsProfile, Realm, TokenType

ISSUER = "https://issuer.example.org"
KEY = PrivateKey.generate()
ORDER_OF_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def grant(**changes):
    return Grant(
        **{
            "grant_type": "client_credentials",
            "realm": Realm(name="/services", environment="test"),
            "client_id": "orders",
            "subject": "orders",
            "scope": frozenset({"b", "a"}),
            "audience": (ISSUER,),
            "lifetime": 3600,
            **changes,
        }
    )


def claims(now=1_800_000_000.9, jti="j" * 27, **changes):
    return build_claims(grant(**changes), issuer=ISSUER, now=now, jti=jti)


def test_J02_J03_all_required_claims_are_there():
    assert claims() == {
        "iss": ISSUER, "sub": "orders", "aud": ISSUER, "client_id": "orders", "azp": "orders",
        "exp": 1_800_003_600, "iat": 1_800_000_000, "jti": "j" * 27, "scope": "a b", "realm": "/services",
    }  # fmt: skip


def test_J03_the_subject_is_the_one_that_was_granted_for_and_for_a_client_itself():
    for name in ("orders", "a b", "ü", "https://client.example.org", "x" * 256):
        said = claims(client_id=name, subject=name)
        assert said["sub"] == said["client_id"] == said["azp"] == name
    by_user = claims(client_id="orders", subject="robot")
    assert (by_user["sub"], by_user["client_id"]) == ("robot", "orders")


@given(
    name=st.text(min_size=1),
    scope=st.frozensets(st.text("abc.:", min_size=1)),
    audience=st.lists(st.text(min_size=1), min_size=1, max_size=3).map(tuple),
    profile=st.sampled_from(ClaimsProfile),
    bound=st.sampled_from([{}, {"confirmation": "c" * 43}, {"key": "k" * 43}]),
    now=st.floats(0, 2**33),
    randomness=st.binary(min_size=JTI_BYTES, max_size=JTI_BYTES),
)
@examples(deadline=None)
def test_a_template_that_is_filled_in_is_the_claims_written_down(
    name, scope, audience, profile, bound, now, randomness
):
    granted = grant(
        client_id=name, subject=name, scope=scope, audience=audience, **bound,
        realm=Realm(name="/services", environment="test", claims_profile=profile),
    )  # fmt: skip
    jti = new_jti(randomness)
    template = ClaimsTemplate(granted, issuer=ISSUER)
    expected = build_claims(granted, issuer=ISSUER, now=now, jti=jti)
    assert template.fill(issued_at=int(now), jti=jti) == dump_json(expected)
    assert template.steady == {n: value for n, value in expected.items() if n not in {"exp", "iat", "jti"}}


def test_a_token_that_ends_with_another_has_no_template():
    origin = Origin(act={}, root_iat=0, root_jti="r", via_jti=(), expires_at=1)
    with pytest.raises(ValueError, match="no template"):
        ClaimsTemplate(grant(origin=origin), issuer=ISSUER)


def test_the_metadata_name_exactly_the_claims_that_there_are():
    assert set(CLAIMS) == set(claims())


def test_J04_scope_is_one_string_and_in_the_plan_b_profile_a_list():
    assert claims()["scope"] == "a b"
    plan_b = Realm(name="/plan-b", environment="test", claims_profile=ClaimsProfile.PLAN_B)
    assert claims(realm=plan_b)["scope"] == ["a", "b"]
    assert claims(scope=frozenset())["scope"] == ""
    assert claims(realm=plan_b, scope=frozenset())["scope"] == []


def test_J13_one_audience_is_a_string_and_several_are_a_list():
    assert claims(audience=("x",))["aud"] == "x"
    assert claims(audience=("x", "y"))["aud"] == ["x", "y"]


def test_J01_the_header_says_what_it_is():
    token = sign(claims(), grant=grant(), signer=KEY).token.reveal()
    assert decoded(token)[0] == {"alg": "ES256", "kid": KEY.kid, "typ": "at+jwt"}
    plain = grant(realm=Realm(name="/x", environment="test", token_type=TokenType.JWT))
    assert decoded(sign(claims(), grant=plain, signer=KEY).token.reveal())[0]["typ"] == "JWT"


def test_J08_the_signature_is_64_bytes_unpadded_and_low():
    for number in range(40):
        token = sign(claims(jti=f"{number:027}"), grant=grant(), signer=KEY).token.reveal()
        assert "=" not in token
        signature = b64url_decode(token.split(".")[2])
        assert len(signature) == 64
        assert int.from_bytes(signature[32:], "big") <= ORDER_OF_P256 // 2


def test_J09_the_same_claims_have_the_same_signature():
    first, second = (sign(claims(), grant=grant(), signer=KEY).token.reveal() for _ in range(2))
    assert first == second


def test_an_independent_library_verifies_the_token():
    token = sign(claims(), grant=grant(), signer=KEY).token.reveal()
    key = jwt.PyJWK(KEY.public.to_jwk())
    read = jwt.decode(token, key, algorithms=["ES256"], audience=ISSUER, options={"verify_iat": False})
    assert read == claims()


def test_J07_ids_have_160_bits_and_do_not_repeat():
    ids = {new_jti(secrets.token_bytes(JTI_BYTES)) for _ in range(100_000)}
    assert len(ids) == 100_000
    assert all(len(b64url_decode(jti)) == 20 for jti in list(ids)[:100])


def test_T23_an_id_of_fewer_than_128_bits_is_refused():
    new_jti(b"x" * 16)
    with pytest.raises(ValueError, match="128"):
        new_jti(b"x" * 15)


def test_the_token_does_not_show_itself():
    minted = sign(claims(), grant=grant(), signer=KEY)
    assert minted.token.reveal() not in repr(minted)
    assert minted.kid == KEY.kid


@given(st.text(max_size=60), st.frozensets(st.from_regex(r"[!#-\[\]-~]{1,10}", fullmatch=True), max_size=20))
@examples(max_examples=100)
def test_whatever_is_granted_is_read_back_unchanged(subject, scope):
    made = claims(subject=subject.encode("utf-8", "ignore").decode(), scope=scope)
    token = sign(made, grant=grant(), signer=KEY).token.reveal()
    payload = decoded(token)[1]
    assert payload == made
    assert dump_json(payload) == dump_json(made)
    assert frozenset(payload["scope"].split()) == scope
