"""The roles' policies under an S3 that enforces them: each can do its work, and nothing of the others'."""

import asyncio
import json
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support.processes import Processes
from tests.support.s3 import S3Server
from tokenry_registry.adapters.s3 import S3Store
from tokenry_registry.ports import ObjectUnreadable
from tokenry_revocation.adapters.rules_s3 import RulesBucket

pytestmark = pytest.mark.processes

IAM = Path(__file__).parents[2] / "deploy/iam"
BUCKET, PREFIX = "credentials", "v1"
KEY, CLIENT, RULE = "keys/k.json", "realms/services/clients/orders.json", "revocation-rules/orders.json"
ROLES = ("issuer", "revocation", "revocation-publishing", "administrator")


def policy(role):
    return json.loads((IAM / f"{role}.json").read_text().replace("BUCKET", BUCKET).replace("PREFIX", PREFIX))


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
    iam = boto3.client(
        "iam",
        endpoint_url=server.endpoint_url,
        region_name=server.region,
        aws_access_key_id=server.access_key_id,
        aws_secret_access_key=server.secret_access_key,
    )
    clients = {}
    for role in ROLES:
        iam.create_user(UserName=role)
        iam.put_user_policy(UserName=role, PolicyName=role, PolicyDocument=json.dumps(policy(role)))
        made = iam.create_access_key(UserName=role)["AccessKey"]
        clients[role] = server.client(access_key_id=made["AccessKeyId"], secret_access_key=made["SecretAccessKey"])
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
