"""The roles' policies under an S3 that enforces them: each can do its work, and nothing of the others'."""

import asyncio
import json
from functools import partial
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support.processes import Processes
from tests.support.s3 import S3Server
from tokenry.jose.probe import check_key
from tokenry.jose.remote import RemoteKey, public_key_from_spki
from tokenry.jose.sealing import EnvelopeKey
from tokenry.testing.clock import FakeClock
from tokenry_admin.adapters.application_bucket import ApplicationBucket
from tokenry_admin.audit import AuditLog
from tokenry_admin.clients import Editor, client_key
from tokenry_admin.documents import Documents
from tokenry_admin.issuers import BoundWaited
from tokenry_admin.key_actions import KeyActions
from tokenry_admin.key_custody import SealedCustody
from tokenry_admin.key_rotation import RotationPolicy
from tokenry_admin.key_store import KeyStore
from tokenry_admin.ports import FilesUnavailable
from tokenry_admin.secret_rotation import DEFAULT_OVERLAP, SecretRotation
from tokenry_registry.adapters.kms import AwsKeyManagement, make_client
from tokenry_registry.adapters.s3 import S3Store
from tokenry_registry.key_management import KeyManagementUnavailable
from tokenry_registry.ports import ObjectUnreadable, WriteRefused
from tokenry_registry.signing_keys import KeyUse
from tokenry_revocation.adapters.rules_s3 import RulesBucket

pytestmark = pytest.mark.processes

IAM = Path(__file__).parents[2] / "deploy/iam"
BUCKET, PREFIX = "credentials", "v1"
APPLICATIONS = "applications"
KEY, CLIENT, RULE = "keys/k.json", "realms/services/clients/orders.json", "revocation-rules/orders.json"
ROLES = ("issuer", "revocation", "revocation-publishing", "rotator", "client-administrator", "administrator")
APPLICATION_ROLES = ("application-files", "application")
KMS_ROLES = ("issuer-kms", "rotator-kms")
ACCOUNT = "123456789012"  # moto's


def policy(role):
    return json.loads(
        (IAM / f"{role}.json")
        .read_text()
        .replace("BUCKET", BUCKET)
        .replace("PREFIX", PREFIX)
        .replace("ACCOUNT", ACCOUNT)
        .replace("APPLICATIONS", APPLICATIONS)
        .replace("APPLICATION", "orders")
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("iam")
    processes = Processes(folder)
    server = S3Server(folder)
    server.start()
    yield server
    server.stop()
    processes.end()


@pytest.fixture(scope="module")
def roles(server):
    """A client for each role, on a server that checks signatures and policies."""
    import boto3

    root = server.client()
    root.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": server.region})
    for key in (KEY, CLIENT, RULE):
        root.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=b"{}")
    root.put_object(Bucket=BUCKET, Key=f"other/{KEY}", Body=b"{}")
    root.create_bucket(Bucket=APPLICATIONS, CreateBucketConfiguration={"LocationConstraint": server.region})
    for application in ("orders", "stock"):
        root.put_object(Bucket=APPLICATIONS, Key=f"{application}/client.json", Body=b"{}")
    iam = boto3.client(
        "iam",
        endpoint_url=server.endpoint_url,
        region_name=server.region,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
    )
    clients = {}
    for role in (*ROLES, *APPLICATION_ROLES, *KMS_ROLES):
        iam.create_user(UserName=role)
        # The server judges actions of KMS as if they were on everything, so it is only asked about those.
        document = json.dumps(policy(role)).replace(f"arn:aws:kms:*:{ACCOUNT}:key/*", "*")
        iam.put_user_policy(UserName=role, PolicyName=role, PolicyDocument=document)
        made = iam.create_access_key(UserName=role)["AccessKey"]
        access_key = made["AccessKeyId"], made["SecretAccessKey"]
        if role in KMS_ROLES:
            make = partial(make_client, endpoint_url=server.endpoint_url, region=server.region, access_key=access_key)
            clients[role] = AwsKeyManagement(make)
        else:
            clients[role] = server.client(access_key_id=access_key[0], secret_access_key=access_key[1])
    server.check_credentials()
    return clients


def is_refused(call):
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"] in {"AccessDenied", "403"}
    return False


def read(client, key):
    return client.get_object(Bucket=BUCKET, Key=key)["Body"].read()


async def issuer_reads(client, key):
    store = S3Store(BUCKET, prefix=f"{PREFIX}/", client=lambda: client)
    try:
        listed = await store.list(key.partition("/")[0] + "/")
        return sorted(listed), (await store.get(key)).body
    finally:
        await store.close()


@pytest.mark.parametrize("key", [KEY, CLIENT])
def test_the_issuer_reads_keys_and_credentials_with_its_own_adapter(roles, key):
    assert asyncio.run(issuer_reads(roles["issuer"], key)) == ([key], b"{}")


@pytest.mark.parametrize(
    ("role", "key"),
    [
        ("issuer", f"{PREFIX}/{RULE}"),
        ("issuer", f"other/{KEY}"),
        ("revocation", f"{PREFIX}/{KEY}"),
        ("revocation", f"{PREFIX}/{CLIENT}"),
        ("administrator", f"other/{KEY}"),
    ],
)
def test_nobody_reads_what_is_not_theirs(roles, role, key):
    assert is_refused(lambda: read(roles[role], key))


def test_the_issuers_own_adapter_calls_that_forbidden(roles):
    async def attempt():
        store = S3Store(BUCKET, client=lambda: roles["issuer"])
        try:
            await store.get(f"other/{KEY}")
        finally:
            await store.close()

    with pytest.raises(ObjectUnreadable, match="forbidden"):
        asyncio.run(attempt())


@pytest.mark.parametrize("role", ["issuer", "revocation"])
@pytest.mark.parametrize("key", [KEY, CLIENT, RULE, "realms/services/clients/new.json"])
def test_a_service_never_writes_or_deletes(roles, role, key):
    client, place = roles[role], {"Bucket": BUCKET, "Key": f"{PREFIX}/{key}"}
    assert is_refused(lambda: client.put_object(**place, Body=b"{}"))
    assert is_refused(lambda: client.delete_object(**place))


def test_the_revocation_service_reads_its_rules_with_its_own_adapter(roles):
    rules = RulesBucket(BUCKET, f"{PREFIX}/", client=roles["revocation"])
    (name,) = rules.list()
    assert rules.get(name) == b"{}"


def test_the_administrator_writes_everything_and_deletes_no_key(roles):
    client = roles["administrator"]
    for key in ("keys/new.json", CLIENT, RULE):
        client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=b"{}")
    client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{RULE}")
    assert is_refused(lambda: client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{KEY}"))


def test_whoever_publishes_lists_reads_sealed_keys_and_writes_one_object(roles):
    client = roles["revocation-publishing"]
    assert read(client, f"{PREFIX}/{KEY}") == b"{}"
    client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/revocation-list.jwt", Body=b"list")
    for key in (KEY, CLIENT, RULE):
        assert is_refused(lambda key=key: client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=b"{}"))


def rotation(client, envelope):
    """Keys kept with *client*'s rights, by the code that the command and the service run."""
    policy_of_keys = RotationPolicy(period=90 * 86_400, overlap=14 * 86_400, lifetime=3600, announce=660)
    store = S3Store(BUCKET, prefix=f"{PREFIX}/", client=lambda: client)
    keys = KeyStore(store, {KeyUse.TOKEN: SealedCustody(envelope)})
    return store, KeyActions(keys, {KeyUse.TOKEN: policy_of_keys}, clock=FakeClock(start=1_800_000_000.0))


async def rotates(client):
    store, actions = rotation(client, EnvelopeKey.generate())
    try:
        made = await actions.publish(KeyUse.TOKEN)
        return [*made, *await actions.rotate(KeyUse.TOKEN)]
    finally:
        await store.close()


def test_the_rotator_rotates_keys_and_does_nothing_else(roles):
    assert len(asyncio.run(rotates(roles["rotator"]))) >= 4
    client = roles["rotator"]
    for key in (CLIENT, RULE, "realms/services/realm.json"):
        assert is_refused(lambda key=key: read(client, f"{PREFIX}/{key}"))
        assert is_refused(lambda key=key: client.put_object(Bucket=BUCKET, Key=f"{PREFIX}/{key}", Body=b"{}"))
    assert is_refused(lambda: client.delete_object(Bucket=BUCKET, Key=f"{PREFIX}/{KEY}"))


def test_who_may_only_read_keys_rotates_none(roles):
    with pytest.raises(WriteRefused, match="forbidden"):
        asyncio.run(rotates(roles["issuer"]))


def test_the_rotator_makes_keys_in_kms_and_the_issuer_signs_with_them_and_does_nothing_else(roles):
    rotator, issuer = roles["rotator-kms"], roles["issuer-kms"]
    key_id = rotator.create(use="token")
    signing = RemoteKey(public_key_from_spki(rotator.public_key(key_id)), lambda data: issuer.sign(key_id, data))
    check_key(signing, signing.public)
    for call in (lambda: issuer.create(use="token"), lambda: issuer.discard(key_id)):
        with pytest.raises(KeyManagementUnavailable, match=r"403|AccessDenied"):
            call()


# --- administration ---------------------------------------------------------------------------------------


async def administers(roles, name):
    """A client's whole life by the code that the command and the service run, with their roles' rights."""
    clock, slept = FakeClock(start=1_800_000_000.0), []

    async def sleep(seconds):
        slept.append(seconds)

    store = S3Store(BUCKET, prefix=f"{PREFIX}/", client=lambda: roles["client-administrator"])
    files = ApplicationBucket(APPLICATIONS, client=lambda: roles["application-files"])
    documents = Documents(store, environment="test", max_token_lifetime=3600)
    audit = AuditLog(lambda _event, _fields: None)
    editor = Editor(documents, audit=audit, actor={})
    rotation = SecretRotation(
        documents, files=[files], settled=BoundWaited(clock=clock, sleep=sleep), clock=clock, audit=audit, actor={}
    )
    key = client_key("fresh", name)
    try:
        await editor.create(key, {"scopes": ["orders.read"]})
        for _ in range(2):
            await rotation.rotate(key)
            clock.advance(DEFAULT_OVERLAP + 1)
            assert await rotation.sweep() == [key]
        await editor.switch(key, enabled=False)
        assert [each.name for each in await documents.keys(realm="fresh", kinds={key.kind})] == [name]
        await editor.delete(await documents.get(key))
        return slept
    finally:
        await store.close()
        await files.close()


def test_who_administers_clients_creates_rotates_disables_and_deletes_with_these_rights(roles):
    realm = json.dumps({"realm": "/fresh", "environment": "test"}).encode()
    roles["administrator"].put_object(Bucket=BUCKET, Key=f"{PREFIX}/realms/fresh/realm.json", Body=realm)
    assert len(asyncio.run(administers(roles, "orders"))) == 2
    stored = json.loads(roles["application"].get_object(Bucket=APPLICATIONS, Key="orders/client.json")["Body"].read())
    assert stored["client_id"] == "orders"


@pytest.mark.parametrize("key", [KEY, RULE, "realms/services/realm.json", "realms/services/trust/github.json"])
def test_who_administers_clients_changes_no_realm_no_trust_rule_no_key_and_no_revocation_rule(roles, key):
    client, place = roles["client-administrator"], {"Bucket": BUCKET, "Key": f"{PREFIX}/{key}"}
    assert is_refused(lambda: client.put_object(**place, Body=b"{}"))
    assert is_refused(lambda: client.delete_object(**place))
    if key in {KEY, RULE}:
        assert is_refused(lambda: read(client, place["Key"]))


def test_nobody_but_the_application_reads_its_credentials(roles):
    own, other = {"Bucket": APPLICATIONS, "Key": "orders/client.json"}, {
        "Bucket": APPLICATIONS, "Key": "stock/client.json",
    }  # fmt: skip
    assert roles["application"].get_object(**own)
    assert is_refused(lambda: roles["application"].get_object(**other))
    assert is_refused(lambda: roles["application"].put_object(**own, Body=b"{}"))
    for role in ("application-files", *ROLES):
        assert is_refused(lambda role=role: roles[role].get_object(**own))
    for name in ("orders/other.json", "client.json"):
        place = {"Bucket": APPLICATIONS, "Key": name}
        assert is_refused(lambda place=place: roles["application-files"].put_object(**place, Body=b"{}"))
    assert is_refused(lambda: roles["application-files"].delete_object(**own))


def test_a_rotation_without_the_right_to_write_files_ends_before_it_begins(roles):
    async def attempt():
        files = ApplicationBucket(APPLICATIONS, client=lambda: roles["client-administrator"])
        try:
            await files.probe("orders")
        finally:
            await files.close()

    with pytest.raises(FilesUnavailable, match="AccessDenied"):
        asyncio.run(attempt())


@pytest.mark.parametrize("role", APPLICATION_ROLES)
def test_no_policy_for_applications_has_an_action_for_all(role):
    for statement in policy(role)["Statement"]:
        assert "*" not in json.dumps(statement["Action"])
        assert f"arn:aws:s3:::{APPLICATIONS}/" in json.dumps(statement["Resource"])


@pytest.mark.parametrize("role", KMS_ROLES)
def test_keys_in_kms_are_reached_by_their_mark_alone(role):
    for statement in policy(role)["Statement"]:
        assert "*" not in json.dumps(statement["Action"])
        mark = json.dumps(statement["Condition"]["StringEquals"])
        assert '"aws:ResourceTag/tokenry-use": "token"' in mark or '"aws:RequestTag/tokenry-use": "token"' in mark
        assert statement["Resource"] != "*" or statement["Action"] == ["kms:CreateKey", "kms:TagResource"]


@pytest.mark.parametrize("role", ROLES)
def test_no_policy_has_a_wildcard_beyond_its_prefix(role):
    for statement in policy(role)["Statement"]:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        places = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert not [action for action in actions if "*" in action]
        if actions == ["s3:ListBucket"]:
            prefixes = statement["Condition"]["StringLike"]["s3:prefix"]
            assert all(prefix.startswith(f"{PREFIX}/") for prefix in prefixes)
        else:
            assert all(place.startswith(f"arn:aws:s3:::{BUCKET}/{PREFIX}/") for place in places)
