"""
D1 to D32: hostile tokens, most of them correctly signed, presented in every way that the platform takes tokens.

All are refused alike: the same bytes whatever is wrong, on each way.
"""

import pytest

from tests.support.access_tokens import ABSENT, Forge
from tests.support.attacked import CHANNELS, AttackedPlatform, Presenter
from tests.support.hostile_tokens import AUDIENCES, HOSTILE, hostile_tokens
from tests.support.http import Answer, call
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import PrivateKey
from tokenry.testing.server import LoopbackServer

pytestmark = pytest.mark.processes
ATTACKS_THE_PLATFORM = True

_EXPS = [name for name in HOSTILE if name.startswith("exp ") and name != "exp missing"]
_UNUSED_BITS = [f"unused bits {number}" for number in range(1, 16)]

# What of the list of hostile tokens stands for which numbered attack.
NUMBERED: dict[str, list[str]] = {
    "D1": ["alg none", "alg nOnE", "alg none with a good signature"],
    "D2": ["alg HS256 with our public key"],
    "D3": ["key in the header", "key in the header, our kid"],
    "D5": ["kid a path", "kid a query", "kid with a NUL"],
    "D6": ["zeros for a signature"],
    "D7": ["the signature in DER"],
    "D8": ["four parts", "two parts", "five parts", "one part"],
    "D9": ["JSON serialisation"],
    "D10": ["padding", "padding of the payload"],
    "D11": ["the other alphabet"],
    "D12": _UNUSED_BITS,
    "D13": ["crit of a claim", "crit with its extension", "crit empty"],
    "D14": ["alg twice", "kid twice"],
    "D15": ["header with a byte order mark", "header in UTF-16"],
    "D16": ["kid missing", "kid null", "kid a number"],
    "D17": ["typ dpop+jwt", "typ secevent+jwt", "typ logout+jwt"],
    "D18": ["one byte too large", "kid of 10 kB"],
    "D20": ["expired this very second", "expired for years", "exp missing", "exp null"],
    "D21": _EXPS,
    "D22": ["iat missing", "iat True", "iat NaN"],
    "D23": ["issued in 600 s", "valid in 600 s"],
    "D24": ["a second too long", "for a thousand years"],
    "D25": ["sub missing", "sub 5", "sub ''", "sub ['stock']"],
    "D26": ["scope 5", "scope ['a', 5]", "scope [['a']]"],
    "D27": ["sub twice"],
    "D28": ["payload b'[]'", "payload b'\"x\"'", "payload b'1'", "payload b''"],
    "D29": ["iss missing", "iss 'https://issuer.test.example'", "iss ''"],
    "D31": ["sub with a lone surrogate"],
    "D32": ["thousands of arrays deep"],
}
# Not for a platform whose time goes on, and not for HTTP.
LEFT_OUT = {
    "issued in 6 s": "good a second later",
    "21 MB": "the HTTP server stops it; see D18 in test_transport.py",
    **dict.fromkeys(
        (name for name in AUDIENCES if name.startswith("for ")),
        "token info answers for whoever asks; D30 gives an audience",
    ),
}
_BEYOND = [name for name in HOSTILE if name not in LEFT_OUT and not any(name in many for many in NUMBERED.values())]


@pytest.fixture(scope="module")
def forge(platform: AttackedPlatform) -> Forge:
    return platform.forge()


@pytest.fixture(scope="module")
def hostile(forge: Forge) -> dict[str, str]:
    # Some names hold the time, so the tokens are known by the names of the list that was made at import.
    return {name: token for name, (token, _) in zip(HOSTILE, hostile_tokens(forge).values(), strict=True)}


@pytest.fixture(scope="module")
def refusals() -> dict[str, tuple[bytes, str | None]]:
    """The first refusal of each way: every other has to be the same."""
    return {}


def assert_refused(answers: dict[str, Answer], refusals: dict[str, tuple[bytes, str | None]]) -> None:
    assert set(answers) >= {"form", "introspection"}
    for channel, answer in answers.items():
        assert answer.status == (200 if channel == "introspection" else 401), (channel, answer)
        said = (answer.body, answer.headers.get("www-authenticate"))
        assert refusals.setdefault(channel, said) == said, channel
    assert answers["introspection"].body == b'{"active":false}'
    if "header" in answers:
        assert answers["header"].json == {"error": "invalid_token", "error_description": "Access Token not valid"}
        assert answers["header"].headers["www-authenticate"].startswith('Bearer error="invalid_token"')
        assert answers["header"].headers["tokenry-list"]


def malformed(answer: Answer) -> bool:
    return answer.status == 400 and answer.json["error"] == "invalid_request"


def is_unicode(token: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in token)


def test_a_good_token_of_the_forge_is_accepted_everywhere(forge: Forge, presenter: Presenter) -> None:
    """The oracle of all that follows: what is refused there is refused for what was changed."""
    answers = presenter.everywhere(forge.token())
    assert set(answers) == set(CHANNELS)
    assert {channel: answer.status for channel, answer in answers.items()} == dict.fromkeys(CHANNELS, 200)
    assert answers["introspection"].json["active"] is True


@pytest.mark.parametrize(("number", "name"), [(number, name) for number, names in NUMBERED.items() for name in names])
def test_a_numbered_hostile_token_is_refused(
    number: str, name: str, hostile: dict[str, str], presenter: Presenter, refusals
) -> None:
    assert_refused(presenter.everywhere(hostile[name]), refusals)


def test_every_other_hostile_token_is_refused_too(hostile: dict[str, str], presenter: Presenter, refusals) -> None:
    for name in _BEYOND:
        answers = presenter.everywhere(hostile[name])
        if name == "empty":  # no token at all
            assert all(malformed(answers[channel]) for channel in ("query", "form", "introspection"))
            continue
        if not is_unicode(hostile[name]):  # what is no UTF-8 is no parameter (RFC 6749 appendix B)
            unread = [answers.pop(channel) for channel in ("query", "form", "introspection")]
            assert all(malformed(answer) for answer in unread), name
            assert all(answer.status == 401 for answer in answers.values()), name
            continue
        try:
            assert_refused(answers, refusals)
        except AssertionError as error:
            raise AssertionError(name) from error


def test_D4_a_key_by_address_is_never_fetched(forge: Forge, presenter: Presenter, refusals) -> None:
    asked: list[object] = []
    canary = LoopbackServer(asked.append)
    stranger = PrivateKey.generate()
    try:
        for name in ("jku", "x5u"):
            for kid in (forge.key.kid, stranger.kid):
                head = {"kid": kid, name: f"{canary.url}/jwks.json"}
                assert_refused(presenter.everywhere(forge.token(key=stranger, head=head)), refusals)
    finally:
        canary.close()
    assert asked == []


def test_D18_a_token_of_seven_kilobytes_is_judged_by_what_it_says(forge: Forge, presenter: Presenter, refusals) -> None:
    size = 7 * 1024
    padding = size - len(forge.token(padding=""))
    good = forge.token(padding="x" * (padding * 3 // 4))
    assert 6 * 1024 < len(good) <= size
    assert {channel: answer.status for channel, answer in presenter.everywhere(good).items()}["header"] == 200
    assert_refused(presenter.everywhere(good[:-8] + "AAAAAAAA"), refusals)


def test_the_platforms_other_keys_sign_no_access_tokens(
    platform: AttackedPlatform, forge: Forge, presenter: Presenter, refusals
) -> None:
    """A key of the issuer's own that signs lists, or introspection answers, is not in the set that validators trust."""
    ours = {key.kid for key in platform.signing_keys("token")}
    for key in platform.signing_keys():
        if key.kid not in ours:
            assert_refused(presenter.everywhere(forge.token(key=key)), refusals)
            assert_refused(presenter.everywhere(forge.token(key=key, head={"kid": forge.key.kid})), refusals)


@pytest.mark.parametrize(
    "issuer",
    [lambda iss: iss.replace("127.0.0.1", "localhost"), str.upper, lambda iss: f"{iss}/", lambda iss: [iss]],
    ids=["of another environment", "in other letter case", "with a trailing slash", "in a list"],
)
def test_D29_the_issuer_is_compared_byte_for_byte(issuer, forge: Forge, presenter: Presenter, refusals) -> None:
    assert_refused(presenter.everywhere(forge.token(iss=issuer(forge.issuer))), refusals)


@pytest.mark.parametrize("aud", ["https://other.example", ["a", "b"], [], ABSENT], ids=str)
def test_D30_a_token_for_somebody_else_is_refused_by_whoever_has_an_audience(
    aud, forge: Forge, platform: AttackedPlatform, presenter: Presenter
) -> None:
    token = forge.token(aud=aud)
    assert presenter.present(token, "middleware").status == 401
    for target in ("/oauth2/tokeninfo", "/auth?authenticated=1&"):
        url = platform.url("tokeninfo", f"{target}{'' if '?' in target else '?'}audience={forge.issuer}")
        assert call("GET", url, bearer=token).status == 401, target
    answer = call(
        "POST",
        platform.url("tokeninfo", "/oauth2/introspect"),
        form={"token": token, "audience": forge.issuer},
        bearer=platform.admin_bearer(),
    )
    assert (answer.status, answer.body) == (200, b'{"active":false}')


def test_D26_scope_is_read_as_a_string_as_an_array_and_absent(forge: Forge, presenter: Presenter) -> None:
    for scope, said in (("a b", ["a", "b"]), (["a", "b"], ["a", "b"]), (ABSENT, [])):
        answer = presenter.present(forge.token(scope=scope), "header")
        assert (answer.status, sorted(answer.json["scope"])) == (200, said)


def test_a_thousand_random_changes_of_a_good_token_pass_nowhere(forge: Forge, presenter: Presenter, refusals) -> None:
    """Every position of the parts with every sixth character; all positions and characters: see the validator's."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    good = forge.token()
    for position in range(len(good)):
        if good[position] == ".":
            continue
        other = alphabet[(alphabet.index(good[position]) + 1 + position % 62) % 64]
        answer = presenter.present(f"{good[:position]}{other}{good[position + 1 :]}", "header")
        assert answer.status == 401, position


def test_claims_of_every_json_type_in_every_place_are_refused_or_harmless(forge: Forge, presenter: Presenter) -> None:
    values = [None, True, 0, -1, 10**30, 1.5, "", "x", "\ud800", [], [1], ["x"], {}, {"a": {}}, "a\x00b", "é" * 50]
    for name in [*forge.claims(), "nbf", "cnf", "act", "root_iat", "root_jti", "unheard-of"]:
        for value in values:
            claims = forge.claims(**{name: value})
            answer = presenter.present(forge.signed(dump_header(forge), dump_claims(claims)), "header")
            assert answer.status in {200, 401}, (name, value, answer)


def dump_header(forge: Forge) -> bytes:
    return dump_json(forge.header())


def dump_claims(claims: dict[str, object]) -> bytes:
    import json

    return json.dumps(claims).encode()  # with lone surrogates as escapes, which our own writer refuses
