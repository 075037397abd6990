import math
import timeit
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.access_tokens import ABSENT, AUDIENCE, ISSUER, KEY, KEYS, LIFETIME, NOW, claims, token
from tests.support.hostile_tokens import BASE64URL, GOOD, HOSTILE, STRANGER
from tokenry.claims import TokenInfo
from tokenry.errors import InsufficientScope, InvalidToken, Reason, TokenryError, UnknownKey, Unready, ValidatorNotReady
from tokenry.jose import jws
from tokenry.jose.encoding import b64url_encode, dump_json
from tokenry.jose.jwk import Algorithm, PrivateKey
from tokenry.jose.jwks import KeySet
from tokenry.revocation.entries import Entry, Kind
from tokenry.revocation.fingerprints import claims_fingerprint, key_fingerprint, token_fingerprint
from tokenry.revocation.lists import RevocationList
from tokenry.validation.policy import ANY_AUDIENCE, TrustedIssuer, ValidationPolicy
from tokenry.validation.validator import MAX_HEADERS, RevokedToken, Validator

SALT = bytes(range(32))
TRUSTED = TrustedIssuer(issuer=ISSUER, max_token_lifetime=LIFETIME)
POLICY = ValidationPolicy(issuers=(TRUSTED,), audience=AUDIENCE)
EMPTY = RevocationList.empty()


def validate(compact, *, validator=None, now=NOW, keys=KEYS, revocations=EMPTY, list_age=1.0, **narrowing):
    validator = validator or Validator(POLICY)
    return validator.validate(compact, now=now, keys=keys, revocations=revocations, list_age=list_age, **narrowing)


def refusal(compact, **world):
    with pytest.raises(InvalidToken) as refused:
        validate(compact, **world)
    return refused.value.reason


def revoking(*entries):
    return RevocationList.of(entries, salts={"s": SALT}, epoch=1, max_token_lifetime=LIFETIME)


def entry(kind, fingerprint, **members):
    until = None if kind is Kind.KEY else NOW + 2 * LIFETIME
    return Entry(id="r1", kind=kind, fingerprint=fingerprint, salt="s", in_force_until=until, **members)


def revoked(compact):
    signing_input = compact.rpartition(".")[0]
    return revoking(entry(Kind.TOKEN, token_fingerprint(signing_input, salt=SALT)))


@pytest.fixture
def validator():
    return Validator(POLICY)


@pytest.fixture
def warm(validator):
    """A validator that remembers GOOD."""
    for _ in range(3):
        validate(GOOD, validator=validator)
    assert len(validator._verified) == 1
    return validator


# --- a good token ---------------------------------------------------------------------------------


def test_a_good_token_says_what_was_minted():
    assert validate(GOOD) == TokenInfo(
        iss=ISSUER,
        sub="stock",
        client_id="stock",
        aud=(AUDIENCE,),
        scope=frozenset({"orders.read", "orders.write"}),
        exp=NOW + LIFETIME,
        iat=NOW,
        jti="MTIzNDU2Nzg5MGFiY2RlZg",
        realm="/services",
        kid=KEY.kid,
        claims=validate(GOOD).claims,
    )


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"scope": ["b", "a"]}, "scope", {"a", "b"}),
        ({"scope": []}, "scope", set()),
        ({"scope": ""}, "scope", set()),
        ({"scope": ABSENT}, "scope", set()),
        ({"aud": ["x", AUDIENCE]}, "aud", ("x", AUDIENCE)),
        ({"client_id": ABSENT, "azp": "berry"}, "client_id", "berry"),
        ({"client_id": "stock", "azp": "berry"}, "client_id", "stock"),
        ({"client_id": ABSENT, "azp": ABSENT}, "client_id", None),
        ({"realm": ABSENT}, "realm", None),
        ({"jti": ABSENT}, "jti", None),
        ({"sub": "\U0001f600"}, "sub", "\U0001f600"),
        ({"nbf": NOW}, "iat", NOW),
    ],
)
def test_what_may_differ_is_read(changes, field, value):
    assert getattr(validate(token(**changes)), field) == value


@pytest.mark.parametrize("typ", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
def test_the_type_is_compared_in_any_letter_case(typ):
    assert validate(token(head={"typ": typ}))


def test_hints_where_a_key_might_be_found_are_ignored_in_a_good_token():
    hints = {
        "jku": "http://127.0.0.1:9/",
        "jwk": STRANGER.public.to_jwk(),
        "x5u": "http://127.0.0.1:9/",
        "x5c": [],
    }
    assert validate(token(head=hints)).kid == KEY.kid


def test_the_claims_cannot_be_changed_for_the_next_request(warm):
    info = validate(token(roles=[{"name": "reader"}]), validator=warm)
    changes = [
        lambda: info.claims.__setitem__("sub", "admin"),
        lambda: info.claims.update(sub="admin"),
        lambda: info.claims["roles"].append("admin"),
        lambda: info.claims["roles"][0].update(name="admin"),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="copy"):
            change()
    assert info.claims["roles"] == [{"name": "reader"}]


# --- steps 1 to 7 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("compact", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_token_is_refused_with_the_code_of_its_first_fault(compact, reason, warm):
    assert refusal(compact) is reason
    assert refusal(compact, validator=warm) is reason
    assert refusal(compact, validator=warm) is reason
    assert len(warm._verified) == 1
    assert validate(GOOD, validator=warm)


def test_every_reason_has_a_hostile_token():
    in_other_tests = {Reason.REVOKED, Reason.INACTIVE}
    assert {reason for _, reason in HOSTILE.values()} | in_other_tests == set(Reason)


@pytest.mark.parametrize(("compact", "reason"), HOSTILE.values(), ids=HOSTILE.keys())
def test_a_bad_token_is_refused_even_when_nothing_else_can_be_judged(compact, reason):
    assert refusal(compact, list_age=math.inf) is reason
    assert refusal(compact, revocations=None) is reason


def test_a_refusal_quotes_nothing_of_the_token():
    for compact, _ in HOSTILE.values():
        with pytest.raises(TokenryError) as refused:
            validate(compact)
        error = refused.value
        assert error.__cause__ is None
        assert error.__context__ is None or error.__suppress_context__
        assert str(error).startswith("the access token is not valid (")
        assert len(str(error)) < 80


@pytest.mark.parametrize("position", range(len(GOOD)))
def test_no_character_can_be_changed(position):
    validator = Validator(POLICY)
    place = BASE64URL.find(GOOD[position])
    others = {BASE64URL[(place + step) % 64] for step in (1, 4, 16, 32, 63)} | set(".=A+")
    for other in others - {GOOD[position]}:
        changed = GOOD[:position] + other + GOOD[position + 1 :]
        with pytest.raises(InvalidToken):
            validate(changed, validator=validator)


@given(st.text(max_size=100) | st.text(alphabet=BASE64URL + ".=", max_size=300))
@settings(max_examples=300, derandomize=True, deadline=None)
def test_any_text_is_judged(text):
    with pytest.raises(InvalidToken):
        validate(text)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=10)
    | st.sampled_from([NOW, NOW + 60, ISSUER, AUDIENCE, "/services", "orders.read"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = [
    "iss",
    "sub",
    "aud",
    "client_id",
    "azp",
    "exp",
    "iat",
    "nbf",
    "jti",
    "scope",
    "realm",
    "cnf",
    "other",
]


@pytest.mark.parametrize("name", NAMES)
@given(value=JSON)
@settings(max_examples=40, derandomize=True, deadline=None)
def test_any_value_of_any_claim_is_judged(name, value):
    try:
        compact = token(**{name: value})
    except ValueError:  # NaN, infinity, lone surrogate: there is no such JSON
        return
    try:
        info = validate(compact)
    except InvalidToken:
        return
    assert type(info.sub) is str
    assert info.sub
    assert type(info.exp) is type(info.iat) is int
    assert NOW < info.exp <= info.iat + LIFETIME
    assert info.iat <= NOW + 5
    assert AUDIENCE in info.aud
    assert all(type(each) is str for each in (*info.aud, *info.scope))
    assert {type(info.jti), type(info.realm), type(info.client_id)} <= {str, type(None)}
    assert info.iss == ISSUER


@pytest.mark.parametrize("name", ["alg", "kid", "typ", "crit", "jku", "jwk", "x5c", "cty", "zip", "enc"])
@given(value=JSON)
@settings(max_examples=25, derandomize=True, deadline=None)
def test_any_value_in_the_header_is_judged(name, value):
    try:
        compact = token(head={name: value})
    except ValueError:
        return
    try:
        validate(compact)
    except InvalidToken:
        return
    assert name not in {"alg", "kid", "typ", "crit"}


def test_the_last_moment_and_the_first():
    assert validate(token(exp=NOW + 1), now=NOW + 0.999)
    assert refusal(token(exp=NOW + 1), now=NOW + 1.0) is Reason.EXPIRED
    assert validate(token(iat=NOW + 5, exp=NOW + 60))
    assert refusal(token(iat=NOW + 5, exp=NOW + 60), now=NOW - 0.001) is Reason.NOT_YET_VALID
    assert validate(token(nbf=NOW + 5))
    assert refusal(token(nbf=NOW + 6)) is Reason.NOT_YET_VALID
    assert validate(token(exp=NOW + LIFETIME))


def test_contract_4_16_the_leeway_is_for_the_beginning_and_not_for_the_end():
    patient = Validator(replace(POLICY, leeway=60))
    assert validate(token(iat=NOW + 60, exp=NOW + 61), validator=patient)
    assert refusal(token(exp=NOW), validator=patient) is Reason.EXPIRED
    strict = Validator(replace(POLICY, leeway=0))
    assert refusal(token(iat=NOW + 1), validator=strict) is Reason.NOT_YET_VALID


def test_a_time_that_is_no_number_accepts_nothing():
    for now in (math.nan, math.inf, -math.inf):
        assert refusal(GOOD, now=now) in {Reason.EXPIRED, Reason.NOT_YET_VALID}


def test_one_of_several_names_is_enough_for_the_audience():
    several = Validator(replace(POLICY, audience=("https://old.example", AUDIENCE)))
    assert validate(token(aud=["https://old.example"]), validator=several)
    assert validate(token(), validator=several)
    assert refusal(token(aud="https://payments.example"), validator=several) is Reason.WRONG_AUDIENCE


def test_any_audience_is_accepted_only_where_the_owner_said_so():
    anybody = Validator(replace(POLICY, audience=ANY_AUDIENCE))
    for aud in (ABSENT, [], "x", ["x", "y"]):
        assert validate(token(aud=aud), validator=anybody)
    assert refusal(token(aud=5), validator=anybody) is Reason.MALFORMED_CLAIMS


def test_a_caller_can_narrow_the_audience_and_not_widen_it():
    anybody = Validator(replace(POLICY, audience=ANY_AUDIENCE))
    assert validate(token(aud=["x", "y"]), validator=anybody, audience="y")
    assert refusal(token(aud=["x"]), validator=anybody, audience="y") is Reason.WRONG_AUDIENCE
    assert refusal(token(aud=ABSENT), validator=anybody, audience="y") is Reason.WRONG_AUDIENCE
    assert refusal(token(aud=["x"]), audience="x") is Reason.WRONG_AUDIENCE
    assert validate(token(aud=["x", AUDIENCE]), audience="x")


# --- issuers --------------------------------------------------------------------------------------

OTHER = "https://foreign.example"


def test_a_key_vouches_for_its_own_issuer_only():
    other = KeySet.of(OTHER, [STRANGER.public])
    both = Validator(replace(POLICY, issuers=(TRUSTED, replace(TRUSTED, issuer=OTHER))))
    keys = KeySet.union(KEYS, other)
    assert validate(token(iss=OTHER, key=STRANGER), validator=both, keys=keys).iss == OTHER
    assert refusal(token(iss=ISSUER, key=STRANGER), validator=both, keys=keys) is Reason.UNKNOWN_KEY
    assert refusal(token(iss=OTHER, key=KEY), validator=both, keys=keys) is Reason.UNKNOWN_KEY


def test_two_issuers_with_one_kid_keep_their_own_keys():
    jwk = STRANGER.public.to_jwk() | {"kid": KEY.kid}
    other = KeySet.parse(dump_json({"keys": [jwk]}), issuer=OTHER)
    both = Validator(replace(POLICY, issuers=(TRUSTED, replace(TRUSTED, issuer=OTHER))))
    keys = KeySet.union(KEYS, other)
    as_other = token(iss=OTHER, key=STRANGER, head={"kid": KEY.kid})
    assert validate(as_other, validator=both, keys=keys).iss == OTHER
    assert refusal(token(iss=OTHER), validator=both, keys=keys) is Reason.BAD_SIGNATURE
    forged = token(iss=ISSUER, key=STRANGER, head={"kid": KEY.kid})
    assert refusal(forged, validator=both, keys=keys) is Reason.BAD_SIGNATURE


def test_untyped_tokens_are_for_issuers_that_were_configured_so():
    lenient = Validator(replace(POLICY, issuers=(replace(TRUSTED, accept_untyped=True),)))
    for typ in ("JWT", "jwt", ABSENT, "at+jwt"):
        assert validate(token(head={"typ": typ}), validator=lenient)
    for typ in ("dpop+jwt", "logout+jwt", "", "application/jwt"):
        assert refusal(token(head={"typ": typ}), validator=lenient) is Reason.WRONG_TYPE


RSA = rsa.generate_private_key(public_exponent=65537, key_size=2048)
P384 = ec.generate_private_key(ec.SECP384R1())


def foreign_keys():
    """One key of each algorithm, all of one issuer."""
    rsa_numbers, ec_numbers = RSA.public_key().public_numbers(), P384.public_key().public_numbers()

    def text(number, size):
        return b64url_encode(number.to_bytes(size, "big"))

    jwks = [
        {"kty": "RSA", "kid": "RS256", "n": text(rsa_numbers.n, 256), "e": "AQAB"},
        {
            "kty": "EC",
            "kid": "ES384",
            "crv": "P-384",
            "x": text(ec_numbers.x, 48),
            "y": text(ec_numbers.y, 48),
        },
        STRANGER.public.to_jwk() | {"kid": "ES256"},
    ]
    return KeySet.parse(dump_json({"keys": jwks}), issuer=OTHER, algorithms=tuple(Algorithm))


def foreign_token(alg, kid):
    """A token of the foreign issuer, signed with *alg*."""
    head = dump_json({"alg": alg, "kid": kid})
    signing_input = f"{b64url_encode(head)}.{b64url_encode(dump_json(claims(iss=OTHER)))}"
    data = signing_input.encode()
    if alg == "RS256":
        signature = RSA.sign(data, padding.PKCS1v15(), hashes.SHA256())
    elif alg == "ES384":
        r, s = decode_dss_signature(P384.sign(data, ec.ECDSA(hashes.SHA384())))
        signature = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    else:
        signature = STRANGER.sign(data)
    return f"{signing_input}.{b64url_encode(signature)}"


def trusting_foreign(*algorithms):
    trusted = TrustedIssuer(
        issuer=OTHER, max_token_lifetime=LIFETIME, foreign=True, accept_untyped=True, algorithms=algorithms
    )
    return Validator(replace(POLICY, issuers=(TRUSTED, trusted)))


@pytest.mark.parametrize("alg", list(Algorithm))
def test_a_foreign_issuer_signs_with_what_was_configured_for_it(alg):
    keys = foreign_keys()
    compact = foreign_token(alg, alg)
    assert validate(compact, validator=trusting_foreign(alg), keys=keys).iss == OTHER
    others = [each for each in Algorithm if each != alg]
    assert refusal(compact, validator=trusting_foreign(*others), keys=keys) is Reason.WRONG_ALGORITHM
    for kid in others:
        mixed = foreign_token(alg, kid)
        assert refusal(mixed, validator=trusting_foreign(*Algorithm), keys=keys) is Reason.WRONG_ALGORITHM


def test_the_twin_is_a_foreign_issuers_affair_and_revoked_with_its_token():
    foreign = Validator(replace(POLICY, issuers=(replace(TRUSTED, foreign=True),)))
    for compact in (GOOD, jws.twin(GOOD)):
        assert validate(compact, validator=foreign)
        assert refusal(compact, validator=foreign, revocations=revoked(GOOD)) is Reason.REVOKED
    assert validate(token(realm="services"), validator=foreign).realm == "services"


# --- keys -----------------------------------------------------------------------------------------


def test_without_keys_of_the_issuer_nothing_can_be_said():
    for keys in (None, KeySet.of(OTHER, [KEY.public]), KeySet.of(ISSUER, [])):
        with pytest.raises(ValidatorNotReady) as unready:
            validate(GOOD, keys=keys)
        assert unready.value.cause is Unready.NO_KEYS


def test_an_unknown_key_names_the_issuer_to_ask_again():
    with pytest.raises(UnknownKey) as unknown:
        validate(token(key=STRANGER))
    assert unknown.value.issuer == ISSUER


def test_a_token_dies_with_its_key(warm):
    without = KeySet.of(ISSUER, [STRANGER.public])
    assert refusal(GOOD, validator=warm, keys=without) is Reason.UNKNOWN_KEY
    assert len(warm._verified) == 0
    assert validate(GOOD, validator=warm)


def test_a_token_dies_with_a_key_that_is_replaced_under_the_same_kid(warm):
    jwk = STRANGER.public.to_jwk() | {"kid": KEY.kid}
    replaced = KeySet.parse(dump_json({"keys": [jwk]}), issuer=ISSUER)
    assert refusal(GOOD, validator=warm, keys=replaced) is Reason.BAD_SIGNATURE


def test_a_remembered_token_survives_a_new_set_with_its_key(warm):
    again = KeySet.parse(KeySet.of(ISSUER, [KEY.public, STRANGER.public]).to_jwks(), issuer=ISSUER)
    assert validate(GOOD, validator=warm, keys=again)
    assert len(warm._verified) == 1
    assert validate(GOOD, validator=warm, keys=again)


def test_a_remembered_token_needs_keys_too(warm):
    with pytest.raises(ValidatorNotReady):
        validate(GOOD, validator=warm, keys=None)


# --- revocation -----------------------------------------------------------------------------------


LISTS = {
    "the token": revoked(GOOD),
    "its subject": revoking(
        entry(
            Kind.CLAIMS,
            claims_fingerprint([("sub", "stock")], salt=SALT),
            names=("sub",),
            issued_before=NOW + 1,
        )
    ),
    "its key": revoking(entry(Kind.KEY, key_fingerprint(ISSUER, KEY.kid, salt=SALT))),
    "everything": revoking(
        Entry(
            id="r2",
            kind=Kind.ALL,
            fingerprint=None,
            salt=None,
            issued_before=NOW + 1,
            in_force_until=NOW + 7200,
        )
    ),
}


@pytest.mark.parametrize("revocations", LISTS.values(), ids=LISTS.keys())
def test_a_revoked_token_is_refused_remembered_or_not(revocations, warm):
    assert refusal(GOOD, revocations=revocations) is Reason.REVOKED
    for _ in range(3):
        assert refusal(GOOD, validator=warm, revocations=revocations) is Reason.REVOKED
    with pytest.raises(RevokedToken) as refused:
        validate(GOOD, validator=warm, revocations=revocations)
    assert refused.value.hit.kind in Kind
    assert refused.value.info.sub == "stock"


def test_a_revoked_token_is_refused_on_a_list_of_any_age():
    for age in (math.inf, math.nan, 10**9):
        assert refusal(GOOD, revocations=revoked(GOOD), list_age=age) is Reason.REVOKED


def test_others_are_not_revoked_with_it(warm):
    other = token(jti="another")
    assert validate(other, validator=warm, revocations=revoked(GOOD)).jti == "another"


def test_without_a_list_or_on_an_old_one_nothing_is_accepted(warm):
    for validator in (Validator(POLICY), warm):
        with pytest.raises(ValidatorNotReady) as unready:
            validate(GOOD, validator=validator, revocations=None)
        assert unready.value.cause is Unready.NO_LIST
        for age in (900.1, math.inf, math.nan):
            with pytest.raises(ValidatorNotReady) as unready:
                validate(GOOD, validator=validator, list_age=age)
            assert unready.value.cause is Unready.LIST_TOO_OLD
        assert validate(GOOD, validator=validator, list_age=900.0)


def test_who_only_looks_at_tokens_may_do_without_a_list():
    looking = Validator(replace(POLICY, requires_list=False))
    assert validate(GOOD, validator=looking, revocations=None, list_age=math.inf)
    assert validate(GOOD, validator=looking, list_age=math.inf)
    assert refusal(GOOD, validator=looking, revocations=revoked(GOOD), list_age=math.inf) is Reason.REVOKED


class CountingList:
    """Stands for a list: counts what it is asked."""

    def __init__(self, *, blocked_until=0):
        self.asked = 0
        self.blocked_until = blocked_until

    def hits(self, judged, *, now):
        self.asked += 1
        return "a hit" if now < self.blocked_until else None


def test_one_list_is_asked_once_about_a_remembered_token(validator):
    first, second = CountingList(), CountingList()
    for _ in range(5):
        validate(GOOD, validator=validator, revocations=first)
    assert first.asked == 2  # the first sight is not remembered
    for _ in range(5):
        validate(GOOD, validator=validator, revocations=second)
    assert second.asked == 1
    validate(GOOD, validator=validator, revocations=first)
    assert first.asked == 3


def test_a_list_is_asked_again_when_the_clock_went_back(warm):
    blocking = CountingList(blocked_until=NOW + 10)
    assert validate(GOOD, validator=warm, revocations=blocking, now=NOW + 10)
    assert refusal(GOOD, validator=warm, revocations=blocking, now=NOW + 9) is Reason.REVOKED


def test_an_old_list_does_not_stay_in_memory_with_the_tokens(warm):
    first = CountingList()
    validate(GOOD, validator=warm, revocations=first)
    validate(GOOD, validator=warm, revocations=EMPTY)
    assert first not in warm._list
    assert first not in warm._verified.get(GOOD).missed


# --- scope ----------------------------------------------------------------------------------------


def test_all_scopes_that_are_asked_for_must_be_there(warm):
    for validator in (Validator(POLICY), warm):
        assert validate(GOOD, validator=validator, scope=frozenset({"orders.read", "orders.write"}))
        with pytest.raises(InsufficientScope) as lacking:
            validate(GOOD, validator=validator, scope=frozenset({"z", "orders.read", "orders", "Orders.read"}))
        assert lacking.value.missing == ("Orders.read", "orders", "z")


def test_a_bad_token_is_not_told_which_scopes_it_lacks():
    assert refusal(GOOD, revocations=revoked(GOOD), scope=frozenset({"x"})) is Reason.REVOKED
    with pytest.raises(ValidatorNotReady):
        validate(GOOD, list_age=math.inf, scope=frozenset({"x"}))


# --- memory ---------------------------------------------------------------------------------------


def test_what_is_remembered_is_judged_anew_each_time(warm):
    assert refusal(GOOD, validator=warm, now=NOW + LIFETIME) is Reason.EXPIRED
    assert refusal(GOOD, validator=warm, now=NOW - 6) is Reason.NOT_YET_VALID
    assert refusal(GOOD, validator=warm, audience="another") is Reason.WRONG_AUDIENCE
    assert refusal(GOOD, validator=warm, revocations=revoked(GOOD)) is Reason.REVOKED
    assert validate(GOOD, validator=warm) is validate(GOOD, validator=warm)


def test_a_token_is_remembered_at_its_second_sight(validator):
    for expected in (0, 1, 1):
        validate(GOOD, validator=validator)
        assert len(validator._verified) == expected


def test_tokens_that_are_refused_are_not_remembered(validator):
    unscoped = frozenset({"none has it"})
    for _ in range(3):
        refusal(GOOD, validator=validator, revocations=revoked(GOOD))
        with pytest.raises(ValidatorNotReady):
            validate(GOOD, validator=validator, revocations=None)
    assert len(validator._verified) == 0
    for _ in range(2):
        with pytest.raises(InsufficientScope):
            validate(GOOD, validator=validator, scope=unscoped)
    assert len(validator._verified) == 1


def test_a_remembered_token_costs_a_fraction_of_a_signature(warm):
    forgetful = Validator(POLICY, remembered=0)
    with_signature, remembered = (
        min(timeit.repeat(lambda each=each: validate(GOOD, validator=each), number=50, repeat=5))
        for each in (forgetful, warm)
    )
    assert 5 * remembered < with_signature


def test_several_threads_may_use_one_validator():
    shared = Validator(POLICY, remembered=8)
    tokens = [token(jti=f"number {number}") for number in range(20)]
    dead = revoked(tokens[0])

    def use(turn):
        for compact in tokens:
            validate(compact, validator=shared, revocations=EMPTY if turn % 2 else dead)

    with ThreadPoolExecutor(4) as pool:
        outcomes = [pool.submit(use, turn) for turn in range(40)]
    for turn, outcome in enumerate(outcomes):
        error = outcome.exception()
        assert (error is None) if turn % 2 else (error.reason is Reason.REVOKED)
    assert len(shared._verified) <= 8


def test_the_memory_can_be_turned_off():
    forgetful = Validator(POLICY, remembered=0)
    for _ in range(3):
        validate(GOOD, validator=forgetful)
    assert len(forgetful._verified) == 0


def test_headers_of_tokens_that_do_not_verify_are_not_kept(validator):
    validate(GOOD, validator=validator)
    for number in range(5):
        refusal(token(key=STRANGER, head={"kid": KEY.kid, "n": number}), validator=validator)
    assert len(validator._headers) == 1
    for number in range(MAX_HEADERS):
        validate(token(head={"n": number}), validator=validator)
        assert len(validator._headers) <= MAX_HEADERS


def test_a_header_that_was_kept_is_still_judged_for_its_issuer():
    other_key = PrivateKey.generate()
    untyped = replace(TRUSTED, issuer=OTHER, accept_untyped=True)
    both = Validator(replace(POLICY, issuers=(TRUSTED, untyped)))
    keys = KeySet.union(KeySet.of(ISSUER, [other_key.public]), KeySet.of(OTHER, [other_key.public]))
    assert validate(token(iss=OTHER, key=other_key, head={"typ": "JWT"}), validator=both, keys=keys)
    as_ours = token(key=other_key, head={"typ": "JWT"})
    assert refusal(as_ours, validator=both, keys=keys) is Reason.WRONG_TYPE
