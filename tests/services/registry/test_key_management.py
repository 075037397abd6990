"""Keys that a key management service holds: the adapter for AWS under moto, and the one in memory of other tests."""

import hashlib

import jwt
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from moto import mock_aws

from tests.support.key_management import MemoryKeyManagement
from tests.support.processes import free_port
from tokenry.jose.encoding import dump_json
from tokenry.jose.jwk import BadSignature, PrivateKey
from tokenry.jose.jws import sign, split
from tokenry.jose.probe import check_key
from tokenry.jose.remote import RemoteKey, public_key_from_spki
from tokenry_registry.adapters import kms
from tokenry_registry.adapters.kms import AwsKeyManagement, make_client
from tokenry_registry.key_management import KeyManagementUnavailable

REGION, ACCESS = "eu-central-1", ("test", "test")


def moto_client():
    return make_client(region=REGION, access_key=ACCESS)


@pytest.fixture(params=["aws", "memory"])
def management(request):
    if request.param == "memory":
        yield MemoryKeyManagement()
        return
    with mock_aws():
        yield AwsKeyManagement(moto_client)


def key_of(management, key_id):
    return RemoteKey(public_key_from_spki(management.public_key(key_id)), lambda data: management.sign(key_id, data))


def test_a_key_is_made_and_what_it_signs_verifies_here_and_with_another_implementation(management):
    key = key_of(management, management.create(use="token"))
    check_key(key, key.public)
    token = sign({"typ": "at+jwt"}, dump_json({"sub": "orders"}), key)
    assert jwt.decode(token, jwt.PyJWK(key.public.to_jwk()), algorithms=["ES256"]) == {"sub": "orders"}
    with pytest.raises(BadSignature):
        PrivateKey.generate().public.verify(split(token).signing_input, split(token).signature, low_s=True)


def test_J08_every_signature_has_the_low_s_form_whatever_the_service_gave(management):
    key_id = management.create(use="token")
    key, given_high = key_of(management, key_id), 0
    for number in range(40):
        data = b"%d" % number
        signature = key.sign(data)
        assert len(signature) == 64
        key.public.verify(data, signature, low_s=True)
        _, s = utils.decode_dss_signature(management.sign(key_id, data))
        given_high += s > 0x7FFFFFFF800000007FFFFFFFFFFFFFFFDE737D56D38BCF4279DCE5617E3192A8
    assert given_high > 0  # or this test would show nothing; 40 low ones in a row: once in 10^12


def test_two_keys_are_two_and_their_signatures_are_told_apart(management):
    one, other = (management.create(use="token") for _ in range(2))
    mixed = RemoteKey(public_key_from_spki(management.public_key(one)), lambda data: management.sign(other, data))
    with pytest.raises(BadSignature):
        mixed.sign(b"data")


def test_a_key_that_is_not_there_is_told_by_its_code(management):
    for call in (management.public_key, management.discard, lambda key_id: management.sign(key_id, b"data")):
        with pytest.raises(KeyManagementUnavailable) as failed:
            call("arn:aws:kms:eu-central-1:1:key/00000000-0000-0000-0000-000000000000")
        assert failed.value.code == "NotFoundException"


def test_what_is_no_signature_is_refused():
    public = PrivateKey.generate().public
    for answer in (b"", b"\x30\x00", b"\x30\x06\x02\x01\x00\x02\x01\x00", bytes(64)):
        with pytest.raises(BadSignature):
            RemoteKey(public, lambda _data, answer=answer: answer).sign(b"data")


def test_a_discarded_key_waits_for_its_deletion():
    with mock_aws():
        management = AwsKeyManagement(moto_client)
        key_id = management.create(use="token")
        management.discard(key_id.rpartition("/")[2])  # moto takes no ARN here; KMS takes both
        assert moto_client().describe_key(KeyId=key_id)["KeyMetadata"]["KeyState"] == "PendingDeletion"


def test_keys_are_p256_for_signing_and_say_what_they_are_for():
    with mock_aws():
        key_id = AwsKeyManagement(moto_client).create(use="token")
        client = moto_client()
        made = client.describe_key(KeyId=key_id)["KeyMetadata"]
        assert (made["KeySpec"], made["KeyUsage"]) == ("ECC_NIST_P256", "SIGN_VERIFY")
        assert client.list_resource_tags(KeyId=key_id)["Tags"] == [{"TagKey": "tokenry-use", "TagValue": "token"}]


class Recorded:
    """A client as boto3's that signs as KMS does, also a digest, which moto does not know."""

    def __init__(self):
        self.key, self.asked = ec.generate_private_key(ec.SECP256R1()), []

    def sign(self, *, Message, MessageType, **named):  # noqa: N803 -- the names of KMS
        self.asked.append((MessageType, len(Message), named["SigningAlgorithm"]))
        if MessageType == "DIGEST":
            return {"Signature": self.key.sign(Message, ec.ECDSA(utils.Prehashed(hashes.SHA256())))}
        return {"Signature": self.key.sign(Message, ec.ECDSA(hashes.SHA256()))}


def test_what_is_too_long_for_the_service_is_sent_as_its_digest():
    client = Recorded()
    management = AwsKeyManagement(lambda: client)
    for length in (kms.MAX_RAW_BYTES, kms.MAX_RAW_BYTES + 1):
        data = hashlib.sha256(b"x").digest() * (length // 32) + b"y" * (length % 32)
        client.key.public_key().verify(management.sign("key", data), data, ec.ECDSA(hashes.SHA256()))
    assert client.asked == [("RAW", 4096, "ECDSA_SHA_256"), ("DIGEST", 32, "ECDSA_SHA_256")]


def test_deadlines_and_attempts_are_bounded():
    config = moto_client().meta.config
    assert (config.connect_timeout, config.read_timeout, config.retries["total_max_attempts"]) == (1.0, 2.0, 2)


def test_a_service_that_nobody_serves_is_unavailable():
    endpoint = f"http://127.0.0.1:{free_port()}"
    management = AwsKeyManagement(lambda: make_client(endpoint_url=endpoint, region=REGION, access_key=ACCESS))
    with pytest.raises(KeyManagementUnavailable, match="EndpointConnectionError"):
        management.sign("key", b"data")
