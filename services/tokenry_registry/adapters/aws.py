"""Clients of AWS (boto3) with deadlines and attempts of our own choice."""

from __future__ import annotations

from typing import Any

_CONNECTIONS = 10  # botocore's own default


def make_client(
    service: str,
    *,
    connect_seconds: float,
    read_seconds: float,
    attempts: int,
    connections: int = _CONNECTIONS,
    endpoint_url: str | None = None,
    region: str | None = None,
    access_key: tuple[str, str] | None = None,
) -> Any:  # noqa: ANN401 -- boto3 makes its clients' classes when it runs
    """
    Return a client of *service*. The first one imports boto3, which takes a second.

    Args:
        service: Its name in boto3: `s3`, `kms`.
        connect_seconds: Deadline of a connection; botocore's own is 60.
        read_seconds: Deadline of each piece that is read; botocore's own is 60.
        attempts: How often a request is made at most, the first time included.
        connections: Kept open at once.
        endpoint_url: Another server than the one of AWS.
        region: Region; default: what boto3 finds in the environment.
        access_key: Id and secret; default: what boto3 finds (role of the machine, environment, files).
    """
    import boto3
    from botocore.config import Config

    return boto3.session.Session().client(  # type: ignore[call-overload]  # the stubs have one for each name
        service,
        endpoint_url=endpoint_url,
        region_name=region,
        aws_access_key_id=None if access_key is None else access_key[0],
        aws_secret_access_key=None if access_key is None else access_key[1],
        config=Config(
            connect_timeout=connect_seconds,
            read_timeout=read_seconds,
            retries={"total_max_attempts": attempts, "mode": "standard"},
            max_pool_connections=connections,
        ),
    )
