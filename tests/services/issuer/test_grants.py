from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tokenry.oauth.errors import OAuthError
from tokenry.oauth.token_endpoint import TokenRequest
from tokenry_issuer.grants import choose_realm, decide
from tokenry_registry.realms import Client, Realm, User

ISSUER = "https://issuer.example.org"
BOTH = frozenset({"client_credentials", "password"})
REALM = Realm(name="/services", environment="test", grant_types=BOTH, default_scopes=frozenset({"uid", "a"}))
CLIENT = Client(
    client_id="orders", scopes=frozenset({"a", "b"}), grant_types=BOTH, audiences=frozenset({"https://x", "y"})
)
USER = User(username="robot", scopes=frozenset({"a", "c"}))


def request(grant_type="client_credentials", **members):
    return TokenRequest(**{"grant_type": grant_type, "scope": None, "realm": None, **members})


def granted(req=None, *, realm=REALM, client=CLIENT, user=None):
    return decide(req or request(), realm=realm, client=client, user=user, issuer=ISSUER)


def refusal(*arguments, **options):
    with pytest.raises(OAuthError) as refused:
        granted(*arguments, **options)
    return refused.value


def changed(value, **changes):
    from dataclasses import replace

    return replace(value, **changes)


def test_the_subject_of_client_credentials_is_the_client_and_of_password_the_user():
    assert granted().subject == "orders"
    assert granted(request("password"), user=USER).subject == "robot"
    assert granted(request("password"), user=USER).client_id == "orders"


def test_T05_a_grant_type_that_is_off_in_the_realm_is_unsupported():
    off = changed(REALM, grant_types=frozenset({"client_credentials"}))
    assert refusal(request("password"), realm=off, user=USER).code == "unsupported_grant_type"
    assert refusal(request("refresh_token")).code == "unsupported_grant_type"


def test_T06_a_grant_that_the_client_was_not_given_is_unauthorized():
    limited = changed(CLIENT, grant_types=frozenset({"client_credentials"}))
    assert refusal(request("password"), client=limited, user=USER).code == "unauthorized_client"


def test_T17_a_scope_of_somebody_else_is_refused_and_named():
    error = refusal(request(scope=frozenset({"a", "z", "y"})))
    assert error.code == "invalid_scope"
    assert "y z" in error.description
    assert " a" not in error.description


def test_T17_the_password_grant_gives_only_what_client_and_user_both_have():
    assert granted(request("password", scope=frozenset({"a"})), user=USER).scope == {"a"}
    assert refusal(request("password", scope=frozenset({"b"})), user=USER).code == "invalid_scope"
    assert refusal(request("password", scope=frozenset({"c"})), user=USER).code == "invalid_scope"


def test_scopes_are_compared_whole_and_case_sensitively():
    assert refusal(request(scope=frozenset({"A"}))).code == "invalid_scope"
    assert refusal(request(scope=frozenset({"aa"}))).code == "invalid_scope"


def test_without_scope_the_clients_default_counts_else_what_it_has_of_the_realms():
    assert granted().scope == {"a"}
    assert granted(client=changed(CLIENT, default_scopes=frozenset({"b"}))).scope == {"b"}
    assert granted(client=changed(CLIENT, default_scopes=frozenset())).scope == frozenset()


def test_a_default_scope_that_the_user_lacks_is_refused_and_not_dropped():
    client = changed(CLIENT, default_scopes=frozenset({"a", "b"}))
    error = refusal(request("password"), client=client, user=USER)
    assert error.code == "invalid_scope"
    assert "b" in error.description


def test_T20_without_resource_the_audience_is_the_realms_or_the_issuer_never_the_client():
    assert granted().audience == (ISSUER,)
    assert granted(realm=changed(REALM, audience="https://api")).audience == ("https://api",)


def test_T21_no_scope_has_an_audience_of_its_own_so_none_can_ask_for_two():
    for realm in (REALM, changed(REALM, audience="https://api")):
        scopes = sorted(CLIENT.scopes)
        asked = [frozenset(chosen) for size in range(1, len(scopes) + 1) for chosen in combinations(scopes, size)]
        assert len(asked) > 1
        audiences = {granted(request(scope=scope), realm=realm).audience for scope in asked}
        assert audiences == {(realm.audience or ISSUER,)}


def test_T19_with_resource_the_audience_is_what_was_asked_for_in_every_grant():
    assert granted(request(targets=("https://x",))).audience == ("https://x",)
    assert granted(request(targets=("y", "https://x"))).audience == ("y", "https://x")
    assert granted(request("password", targets=("y",)), user=USER).audience == ("y",)


def test_T18_a_target_that_the_client_was_not_given_is_refused():
    assert refusal(request(targets=("https://x", "https://z"))).code == "invalid_target"
    assert refusal(request(targets=("https://x/",))).code == "invalid_target"


def test_what_one_gets_without_asking_one_may_ask_for():
    assert granted(request(targets=(ISSUER,))).audience == (ISSUER,)
    assert refusal(request(targets=(ISSUER,)), realm=changed(REALM, audience="https://api")).code == "invalid_target"


def test_the_lifetime_is_the_realms_or_the_clients_if_shorter():
    assert granted().lifetime == 3600
    assert granted(client=changed(CLIENT, token_lifetime=60)).lifetime == 60
    assert granted(client=changed(CLIENT, token_lifetime=7200)).lifetime == 3600


def test_a_password_grant_without_a_user_is_our_own_mistake():
    with pytest.raises(ValueError, match="user"):
        granted(request("password"))
    with pytest.raises(ValueError, match="user"):
        granted(user=USER)


# --- realm --------------------------------------------------------------------------------------------------

REALMS = ("/services", "/employees", "/my-services", "/customers")


@pytest.mark.parametrize(
    ("host", "realm"),
    [
        ("services.example.org", "/services"),
        ("services.example.org:8443", "/services"),
        ("token-services.example.org", "/services"),
        ("a-b-services.example.org", "/services"),
        ("token-my-services.example.org", "/my-services"),
        ("my-services.example.org", "/my-services"),
        ("auth.EMPLOYEES.example.org", "/employees"),
        ("services.employees.example.org", "/employees"),
        ("services.customers.org", "/customers"),
        ("employees.customers.org", "/employees"),
    ],
)
def test_the_realm_is_told_from_a_label_or_the_end_of_one_and_the_longest_wins(host, realm):
    assert choose_realm(None, host=host, realms=REALMS) == realm


@pytest.mark.parametrize(
    "host",
    ["example.org", "services-token.example.org", "xservices.example.org", "127.0.0.1", "[::1]:8080", "", None,
     "serv-ices.org", "..", "-", "services2", "\ud800"],
)  # fmt: skip
def test_a_host_that_names_no_realm_is_a_missing_realm(host):
    with pytest.raises(OAuthError) as refused:
        choose_realm(None, host=host, realms=REALMS)
    assert refused.value.code == "missing_realm"


def test_a_host_longer_than_any_name_is_not_taken_apart():
    with pytest.raises(OAuthError):
        choose_realm(None, host="a-" * 4000 + "services", realms=REALMS)


def test_the_only_realm_needs_no_name_and_the_parameter_beats_the_host():
    assert choose_realm(None, host="example.org", realms=["/services"]) == "/services"
    assert choose_realm("/employees", host="services.example.org", realms=REALMS) == "/employees"


@pytest.mark.parametrize("parameter", ["/none", "/Services", "services", "/services/"])
def test_an_unknown_realm_is_not_found_even_if_there_is_only_one(parameter):
    for realms in (REALMS, ["/services"]):
        with pytest.raises(OAuthError) as refused:
            choose_realm(parameter, host="services.example.org", realms=realms)
        assert refused.value.code == "realm_not_found"


def test_without_any_realm_it_is_missing():
    with pytest.raises(OAuthError) as refused:
        choose_realm(None, host="services.example.org", realms=[])
    assert refused.value.code == "missing_realm"


@given(st.text(max_size=80))
@examples(max_examples=200)
def test_any_host_gives_a_known_realm_or_a_missing_one(host):
    try:
        assert choose_realm(None, host=host, realms=REALMS) in REALMS
    except OAuthError as refused:
        assert refused.code == "missing_realm"


@given(
    st.frozensets(st.sampled_from("abcdef")), st.frozensets(st.sampled_from("abcdef")),
    st.frozensets(st.sampled_from("abcdef")) | st.none(),
)  # fmt: skip
@examples(max_examples=200)
def test_no_grant_is_ever_wider_than_client_and_user(client_scopes, user_scopes, asked):
    client = changed(CLIENT, scopes=client_scopes)
    user = changed(USER, scopes=user_scopes)
    try:
        scope = granted(request("password", scope=asked), client=client, user=user).scope
    except OAuthError as refused:
        assert refused.code == "invalid_scope"
    else:
        assert scope <= client_scopes & user_scopes
        assert asked is None or scope == asked
