import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from tests.services.issuer.support import NOW, weak_argon2
from tests.support.foreign_tokens import foreign_key
from tokenry_registry.bootstrap import hash_secret
from tokenry_registry.realms import (
    ClaimsProfile,
    Client,
    ObjectKey,
    ObjectKind,
    Realm,
    Refusal,
    RefusedObject,
    TokenType,
    User,
    read_key,
    read_object,
)

REALM = ObjectKey(ObjectKind.REALM, "/services", "")
CLIENT = ObjectKey(ObjectKind.CLIENT, "/services", "orders")
USER = ObjectKey(ObjectKind.USER, "/services", "robot")

A_REALM = {"realm": "/services", "environment": "test"}
A_CLIENT = {
    "client_id": "orders",
    "secrets": [{"hash": hash_secret("s"), "created_at": NOW, "expires_at": NOW + 5}],
    "scopes": ["a", "b"],
    "default_scopes": ["a"],
    "audiences": ["https://x.example.org"],
    "grant_types": ["client_credentials", "password"],
    "token_lifetime": 60,
    "enabled": False,
}
A_USER = {
    "username": "robot",
    "password_hashes": [{"hash": weak_argon2("s"), "created_at": NOW}],
    "scopes": ["a"],
    "clients": ["orders"],
}


def read(key, members, *, environment="test", max_token_lifetime=3600):
    body = members if isinstance(members, bytes) else json.dumps(members).encode()
    return read_object(key, body, environment=environment, max_token_lifetime=max_token_lifetime)


def refusal(key, members, **options):
    with pytest.raises(RefusedObject) as refused:
        read(key, members, **options)
    return refused.value.cause


def test_a_realm_has_defaults_that_follow_the_standard():
    realm = read(REALM, A_REALM)
    assert realm == Realm(name="/services", environment="test")
    assert realm.token_lifetime == 3600
    assert realm.claims_profile is ClaimsProfile.RFC9068
    assert realm.token_type is TokenType.ACCESS_TOKEN
    assert realm.grant_types == {"client_credentials"}


def test_T08_the_password_grant_is_on_only_where_realm_and_client_ask_for_it():
    assert "password" not in read(REALM, A_REALM).grant_types
    assert "password" not in read(CLIENT, {"client_id": "orders"}).grant_types
    assert "password" in read(REALM, {**A_REALM, "grant_types": ["password"]}).grant_types


def test_a_realm_may_be_named_with_or_without_its_slash():
    assert read(REALM, {**A_REALM, "realm": "services"}).name == "/services"


def test_every_member_of_a_client_is_read():
    client = read(CLIENT, A_CLIENT)
    assert isinstance(client, Client)
    assert client.scopes == {"a", "b"}
    assert client.default_scopes == {"a"}
    assert client.audiences == {"https://x.example.org"}
    assert client.grant_types == {"client_credentials", "password"}
    assert client.token_lifetime == 60
    assert not client.enabled
    assert client.secrets[0].usable(NOW + 4.9)
    assert not client.secrets[0].usable(NOW + 5)


def test_every_member_of_a_user_is_read():
    user = read(USER, A_USER)
    assert isinstance(user, User)
    assert user.clients == {"orders"}
    assert user.passwords[0].usable(10.0**12)


def test_a_user_without_clients_may_be_used_by_any_and_one_with_none_by_nobody():
    assert read(USER, {"username": "robot"}).clients is None
    assert read(USER, {"username": "robot", "clients": []}).clients == frozenset()


def test_notes_for_people_are_allowed_everywhere():
    notes = {"description": "orders", "owner": "team", "version": 1}
    read(REALM, {**A_REALM, **notes})
    read(CLIENT, {**A_CLIENT, **notes})
    read(USER, {**A_USER, **notes})


def test_a_client_may_register_keys_and_say_what_its_assertions_name():
    client = read(CLIENT, {**A_CLIENT, "jwks": foreign_key("k").jwks, "assertion_audience": "token_endpoint"})
    assert client.keys is not None
    assert client.keys.find(client.client_id, "k") is not None
    assert client.assertion_audience == "token_endpoint"
    assert read(CLIENT, A_CLIENT).keys is None


@pytest.mark.parametrize(
    "change",
    [
        {"client_idd": "x"}, {"scopes": "a b"}, {"scopes": ["a b"]}, {"scopes": ["a", "a"]}, {"scopes": [1]},
        {"scopes": [""]}, {"scopes": ['a"b']}, {"scopes": None}, {"enabled": "false"}, {"enabled": 0},
        {"enabled": None}, {"token_lifetime": "60"}, {"token_lifetime": 60.0}, {"token_lifetime": True},
        {"token_lifetime": 0}, {"token_lifetime": -1}, {"token_lifetime": 9}, {"default_scopes": ["c"]},
        {"grant_types": ["implicit"]}, {"grant_types": "password"}, {"secrets": {}}, {"secrets": ["x"]},
        {"secrets": [{}]}, {"secrets": [{"hash": "x", "created_at": 1}]},
        {"secrets": [{"hash": hash_secret("s")}]},
        {"secrets": [{"hash": hash_secret("s"), "created_at": "now"}]},
        {"secrets": [{"hash": hash_secret("s"), "created_at": 1, "expires": 2}]},
        {"secrets": [{"hash": hash_secret("s"), "created_at": 1, "expires_at": None}]},
        {"secrets": [{"hash": hash_secret(str(n)), "created_at": 1} for n in range(9)]},
        {"audiences": "x"}, {"audiences": ["\n"]}, {"version": 2}, {"version": "1"}, {"jwks": "x"},
        {"jwks": {"keys": []}}, {"assertion_audience": "anybody"}, {"jwks_uri": "http://x.example/jwks"},
        {"description": 1}, {"owner": "x" * 1025},
    ],
    ids=str,
)  # fmt: skip
def test_a_member_that_is_misspelt_or_of_another_type_refuses_the_client(change):
    assert refusal(CLIENT, {**A_CLIENT, **change}) is Refusal.MALFORMED


@pytest.mark.parametrize(
    "change",
    [
        {"environment": None}, {"claims_profile": "oidc"}, {"typ": "jwt"}, {"grant_types": ["x"]},
        {"audience": ""}, {"token_lifetime": 1.5}, {"lifetime": 60}, {"realm": ""}, {"default_scopes": "a"},
    ],
    ids=str,
)  # fmt: skip
def test_a_member_that_is_misspelt_or_of_another_type_refuses_the_realm(change):
    assert refusal(REALM, {**A_REALM, **change}) is Refusal.MALFORMED


def test_F56_an_object_of_another_environment_is_refused():
    assert refusal(REALM, {**A_REALM, "environment": "live"}) is Refusal.WRONG_ENVIRONMENT
    assert refusal(CLIENT, {**A_CLIENT, "environment": "live"}) is Refusal.WRONG_ENVIRONMENT
    assert refusal(USER, {**A_USER, "environment": "live"}) is Refusal.WRONG_ENVIRONMENT
    assert refusal(REALM, {"realm": "/services"}) is Refusal.MALFORMED
    read(CLIENT, {**A_CLIENT, "environment": "test"})


def test_an_object_that_names_another_than_its_key_is_refused():
    assert refusal(CLIENT, {**A_CLIENT, "client_id": "Orders"}) is Refusal.WRONG_NAME
    assert refusal(USER, {**A_USER, "username": "robot "}) is Refusal.WRONG_NAME
    assert refusal(REALM, {**A_REALM, "realm": "/other"}) is Refusal.WRONG_NAME


def test_a_lifetime_above_the_platforms_bound_is_refused():
    assert refusal(REALM, {**A_REALM, "token_lifetime": 3601}) is Refusal.LIFETIME_TOO_LONG
    assert refusal(CLIENT, {**A_CLIENT, "token_lifetime": 3601}) is Refusal.LIFETIME_TOO_LONG
    # also the default, where the bound is below it
    assert refusal(REALM, A_REALM, max_token_lifetime=1800) is Refusal.LIFETIME_TOO_LONG


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'"x"', b"null", b"\xff\xfe{}", b'{"client_id":"orders","client_id":"orders"}',
        b"\xef\xbb\xbf{}", b'{"client_id":"orders","token_lifetime":NaN}', b"[" * 5000,
        b'{"client_id":"orders","token_lifetime":' + b"9" * 400 + b"}",
        json.dumps(A_CLIENT).encode()[:-5],
    ],
    ids=lambda body: repr(body[:20]),
)  # fmt: skip
def test_D83_what_is_not_strict_json_is_refused(body):
    assert refusal(CLIENT, body) is Refusal.MALFORMED


def test_no_refusal_repeats_what_the_object_said():
    with pytest.raises(RefusedObject) as refused:
        read(CLIENT, {**A_CLIENT, "secrets": [{"hash": "hunter2", "created_at": 1}]})
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("key", "meaning"),
    [
        ("realms/services/realm.json", REALM),
        ("realms/services/clients/orders.json", CLIENT),
        ("realms/services/users/robot.json", USER),
        ("realms/services/clients/a b:ü+%41.json", ObjectKey(ObjectKind.CLIENT, "/services", "a b:ü+%41")),
        ("realms/services/clients/x.json.json", ObjectKey(ObjectKind.CLIENT, "/services", "x.json")),
    ],
)
def test_a_key_has_its_meaning(key, meaning):
    assert read_key(key) == meaning


@pytest.mark.parametrize(
    "key",
    [
        "", "realms", "realms/services", "realms/services/clients/orders", "realms/services/groups/x.json",
        "realms/services/clients/a/b.json", "keys/x.json", "realms//realm.json", "realms/../realm.json",
        "realms/services/clients/.json", "realms/services/clients/.hidden.json", "realms/.x/realm.json",
        "realms/services/clients/a\nb.json", "realms/services/clients/" + "x" * 241 + ".json",
        "realms/" + "x" * 64 + "/realm.json", "realms/a b/realm.json", "realms/services/clients/\ud800.json",
        "realms/services/realm.json/x", "realms/services/README",
    ],
    ids=lambda key: repr(key[:40]),
)  # fmt: skip
def test_a_key_without_a_place_in_the_layout_is_refused(key):
    with pytest.raises(RefusedObject):
        read_key(key)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


@given(st.sampled_from([(REALM, A_REALM), (CLIENT, A_CLIENT), (USER, A_USER)]), st.data())
@examples(max_examples=300)
def test_any_json_in_any_member_is_read_or_refused(example, data):
    key, members = example
    name = data.draw(st.sampled_from([*members, "unknown"]))
    body = json.dumps({**members, name: data.draw(JSON)}).encode()
    try:
        value = read_object(key, body, environment="test", max_token_lifetime=3600)
    except RefusedObject:
        return
    assert isinstance(value, Realm | Client | User)


@given(
    st.sampled_from([(REALM, A_REALM), (CLIENT, A_CLIENT)]), st.integers(0, 10_000), st.binary(min_size=1, max_size=3)
)
@examples(max_examples=300)
def test_any_damage_to_the_bytes_is_read_or_refused(example, position, damage):
    key, members = example
    body = bytearray(json.dumps(members).encode())
    body[position % len(body) : position % len(body) + 1] = damage
    with contextlib.suppress(RefusedObject):
        read_object(key, bytes(body), environment="test", max_token_lifetime=3600)


@given(st.text(max_size=60))
@examples(max_examples=200)
def test_any_text_is_a_key_or_refused(text):
    for key in (text, f"realms/{text}/realm.json", f"realms/services/clients/{text}.json"):
        with contextlib.suppress(RefusedObject):
            read_key(key)
