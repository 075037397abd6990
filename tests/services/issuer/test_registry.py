import pytest

from tests.services.issuer.support import NOW, weak_argon2, weak_bcrypt
from tokenry_issuer.passwords import Decoy
from tokenry_issuer.registry import assemble, check_removals
from tokenry_registry.bootstrap import hash_secret
from tokenry_registry.realms import Client, ObjectKey, ObjectKind, Realm, Refusal, RefusedObject, StoredSecret, User
from tokenry_registry.secret_hashes import HashKind, parse_hash


def realm_key(name="/services"):
    return ObjectKey(ObjectKind.REALM, name, "")


def client_key(name, realm="/services"):
    return ObjectKey(ObjectKind.CLIENT, realm, name)


def user_key(name, realm="/services"):
    return ObjectKey(ObjectKind.USER, realm, name)


def a_realm(name="/services"):
    return Realm(name=name, environment="test")


def keys(count, realm="/services"):
    return {realm_key(realm), *(client_key(f"c{number}", realm) for number in range(count))}


def refused(before, after, *, share=0.2):
    with pytest.raises(RefusedObject) as error:
        check_removals(before, set(before) - set(after), share=share)
    assert error.value.cause is Refusal.MASS_REMOVAL
    return True


def test_a_registry_has_every_name_in_its_realm():
    registry, taken = assemble(
        {
            realm_key(): a_realm(),
            client_key("orders"): Client(client_id="orders"),
            user_key("robot"): User(username="robot"),
        }
    )
    assert taken == ()
    assert set(registry.realms["/services"].clients) == {"orders"}
    assert set(registry.realms["/services"].users) == {"robot"}
    assert registry.size == 3


def test_names_of_a_realm_without_an_object_are_not_in_force():
    registry, _ = assemble({client_key("orders"): Client(client_id="orders")})
    assert registry.realms == {}


@pytest.mark.parametrize("client_first", [True, False])
def test_T26_a_user_cannot_have_the_name_of_a_client(client_first):
    both = {client_key("x"): Client(client_id="x"), user_key("x"): User(username="x")}
    ordered = dict(both if client_first else reversed(list(both.items())))
    registry, taken = assemble({realm_key(): a_realm(), **ordered})
    assert taken == (user_key("x"),)
    assert set(registry.realms["/services"].clients) == {"x"}
    assert registry.realms["/services"].users == {}


def test_the_same_name_in_two_realms_is_two_names():
    _, taken = assemble(
        {
            realm_key("/a"): a_realm("/a"),
            realm_key("/b"): a_realm("/b"),
            client_key("x", "/a"): Client(client_id="x"),
            user_key("x", "/b"): User(username="x"),
        }
    )
    assert taken == ()


def secrets(*texts):
    return tuple(StoredSecret(hash=parse_hash(text), created_at=NOW) for text in texts)


def test_the_decoy_of_a_realm_is_as_costly_as_its_costliest_client():
    registry, _ = assemble(
        {
            realm_key(): a_realm(),
            client_key("fast"): Client(client_id="fast", secrets=secrets(hash_secret("x"))),
            client_key("old"): Client(client_id="old", secrets=secrets(weak_bcrypt("x"), weak_bcrypt("y"))),
            user_key("u"): User(username="u", passwords=secrets(weak_argon2("x"))),
        }
    )
    credentials = registry.realms["/services"]
    assert credentials.client_decoy.hash.kind is HashKind.BCRYPT
    assert credentials.client_decoy.count == 2
    assert credentials.user_decoy.hash.kind is HashKind.ARGON2ID
    assert credentials.user_decoy.count == 1


def test_a_realm_of_fast_secrets_has_a_fast_decoy():
    registry, _ = assemble({realm_key(): a_realm()})
    assert registry.realms["/services"].client_decoy == Decoy()
    assert not Decoy().hash.slow


def test_F06_single_deletions_go_through_whatever_the_size():
    for count in (1, 2, 4, 50, 1000):
        everything = keys(count)
        check_removals(everything, {client_key("c0")}, share=0.2)


def test_ten_deletions_go_through_in_a_small_registry():
    everything = keys(20)
    check_removals(everything, {client_key(f"c{n}") for n in range(10)}, share=0.0)


def test_F05_an_empty_listing_is_never_a_deletion():
    assert refused(keys(1), set())
    assert refused(keys(1), set(), share=1.0)
    assert refused(keys(50_000), set())


def test_more_than_the_share_is_refused_and_exactly_the_share_is_not():
    everything = keys(99)  # 100 objects with the realm itself
    check_removals(everything, {client_key(f"c{n}") for n in range(20)}, share=0.2)
    assert refused(everything, everything - {client_key(f"c{n}") for n in range(21)}, share=0.2)


def test_a_realm_that_would_be_emptied_is_refused_even_if_it_is_a_small_part():
    everything = keys(200) | keys(4, "/small")
    assert refused(everything, everything - keys(4, "/small"))
    assert refused(everything, everything - {realm_key("/small")})
    assert refused(everything, everything - (keys(4, "/small") - {realm_key("/small")}))


def test_a_realm_of_three_names_may_be_removed():
    everything = keys(20) | keys(3, "/small")
    check_removals(everything, keys(3, "/small"), share=0.2)


def test_a_planned_clear_out_is_possible_with_the_share_at_one():
    check_removals(keys(1000), keys(1000) - {realm_key()}, share=1.0)


def test_a_refresh_that_removes_nothing_is_never_refused():
    check_removals(set(), set(), share=0.0)
    check_removals(keys(10), set(), share=0.0)
