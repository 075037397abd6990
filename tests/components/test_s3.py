"""The S3 that other tests rely on does what they assume of S3."""

from typing import TYPE_CHECKING

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client


def test_an_object_is_read_back(s3_client: "S3Client", s3_bucket: str) -> None:
    s3_client.put_object(Bucket=s3_bucket, Key="a/b.json", Body=b"{}")
    assert s3_client.get_object(Bucket=s3_bucket, Key="a/b.json")["Body"].read() == b"{}"


def test_a_conditional_read_of_what_is_known_is_answered_with_304(s3_client: "S3Client", s3_bucket: str) -> None:
    etag = s3_client.put_object(Bucket=s3_bucket, Key="k", Body=b"1")["ETag"]
    with pytest.raises(ClientError) as caught:
        s3_client.get_object(Bucket=s3_bucket, Key="k", IfNoneMatch=etag)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 304


def test_each_test_has_a_bucket_of_its_own(s3_client: "S3Client", s3_bucket: str) -> None:
    assert s3_client.list_objects_v2(Bucket=s3_bucket)["KeyCount"] == 0
