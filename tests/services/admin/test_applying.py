"""Plans that make the registry what a file says: what they are, their order, and what interruptions leave."""

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.services.admin.support import ENVIRONMENT, world
from tests.support.registry_store import Interrupted
from tokenry_admin.applying import MEMBERS, Action, carry_out, plan, read_realms
from tokenry_admin.clients import client_key, user_key
from tokenry_admin.documents import NotValid, object_key
from tokenry_registry.realms import ObjectKind

REALM = object_key(ObjectKind.REALM, "services")


async def planned(made, wanted, *, prune=False):
    there, faults = await read_realms(made.documents, {key.realm for key in wanted})
    assert not faults
    return plan(wanted, there, prune=prune, environment=ENVIRONMENT)


def names(steps):
    return [(str(step.action), step.key.name) for step in steps if step.action is not Action.NOTHING]


async def test_realms_come_first_and_deletions_last():
    made = world()
    wanted = {
        client_key("fresh", "b"): {"scopes": ["x"]},
        client_key("services", "new"): {},
        object_key(ObjectKind.REALM, "fresh"): {"token_lifetime": 60},
    }
    steps = await planned(made, wanted, prune=True)
    assert names(steps) == [
        ("create", ""), ("create", "b"), ("create", "new"), ("delete", "orders"), ("delete", "robot"),
    ]  # fmt: skip
    assert await carry_out(steps, made.editor) == 5
    assert made.members("realms/fresh/realm.json")["environment"] == ENVIRONMENT


async def test_a_realm_is_never_deleted_and_other_realms_are_not_looked_at():
    made = world()
    steps = await planned(made, {client_key("services", "orders"): {"scopes": ["orders.read"]}}, prune=True)
    assert names(steps) == [("delete", "robot")]


@pytest.mark.parametrize("members", [{"secrets": []}, {"environment": "x"}, {"version": 1}, {"scope": []}])
async def test_what_is_not_a_files_to_say_is_refused(members):
    with pytest.raises(NotValid):
        await planned(world(), {client_key("services", "orders"): members})


SCOPES = st.lists(st.sampled_from("abcd"), unique=True, max_size=4)
CLIENTS = st.dictionaries(
    st.sampled_from([f"c{number}" for number in range(6)] + ["orders"]),
    st.fixed_dictionaries({"scopes": SCOPES}, optional={"enabled": st.booleans(), "owner": st.just("team")}),
    max_size=7,
)


@given(first=CLIENTS, second=CLIENTS, prune=st.booleans(), at=st.integers(0, 12), after=st.booleans())
@settings(max_examples=60, deadline=None)
async def test_whatever_was_there_and_wherever_it_stopped_applying_again_makes_it_so(first, second, prune, at, after):
    made = world()
    secrets = made.members("realms/services/clients/orders.json")["secrets"]

    def wanted(entries):
        return {client_key("services", name): members for name, members in entries.items()}

    await carry_out(await planned(made, wanted(first)), made.editor)
    count = 0

    def fail(operation, _key):
        nonlocal count
        count += operation in {"put", "delete"}
        if operation in {"put", "delete"} and count > at:
            raise Interrupted

    setattr(made.store, "after" if after else "before", fail)
    with suppress(Interrupted):
        await carry_out(await planned(made, wanted(second), prune=prune), made.editor)
    made.store.before = made.store.after = lambda _operation, _key: None
    await carry_out(await planned(made, wanted(second), prune=prune), made.editor)
    assert names(await planned(made, wanted(second), prune=prune)) == []
    for name, members in second.items():
        stored = made.members(f"realms/services/clients/{name}.json")
        assert stored["scopes"] == sorted(members["scopes"])
        assert stored.get("enabled") == members.get("enabled")
    there = {key.name for key in await made.documents.keys(realm="services", kinds={ObjectKind.CLIENT})}
    if prune and second:
        assert there == set(second)
    if "orders" in there:
        assert made.members("realms/services/clients/orders.json")["secrets"] == secrets


async def test_after_a_failure_nothing_new_is_begun_and_the_first_fault_is_told():
    made = world()
    wanted = {client_key("services", f"c{number:03}"): {} for number in range(100)}
    puts = []

    def fail(operation, key):
        if operation == "put":
            puts.append(key)
            raise Interrupted

    made.store.before = fail
    with pytest.raises(Interrupted):
        await carry_out(await planned(made, wanted), made.editor)
    assert len(puts) <= 8


async def test_every_write_is_in_the_audit_log_with_what_it_changed():
    made = world()
    wanted = {client_key("services", "orders"): {"scopes": ["a"]}, user_key("services", "robot"): {"scopes": ["b"]}}
    await carry_out(await planned(made, wanted), made.editor)
    assert sorted(made.audited()) == ["changed", "changed"]
    changed = {fields["name"]: fields["changed"] for _, fields in made.lines}
    assert changed["orders"] == {"scopes": {"before": ["orders.read"], "after": ["a"]}}


def test_what_a_file_may_say_is_what_the_readers_know():
    """A member that issuers learn to read has to be sayable, and one that they do not read is none."""
    import inspect
    import re

    from tokenry_registry import realms

    source = inspect.getsource(realms)
    for kind in (ObjectKind.CLIENT, ObjectKind.USER, ObjectKind.REALM):
        body = source.split(f"def _read_{kind}(")[1].split("\ndef ")[0]
        read = set(re.findall(r'fields\.\w+\(\s*"(\w+)"', body))
        assert read <= MEMBERS[kind] | {"environment"}, kind
