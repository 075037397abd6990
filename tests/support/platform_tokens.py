"""
Tokens in the forms that platforms publish: claims, header and algorithm as their documentation shows them.

Only the times, ids and keys are ours; the shapes are those of
Kubernetes projected service account tokens, GitHub Actions, and AWS STS GetWebIdentityToken.
"""

from __future__ import annotations

from typing import Any

from tests.support.foreign_tokens import ForeignKey, foreign_key

KUBERNETES = "https://kubernetes.default.svc.cluster.local"
GITHUB = "https://token.actions.githubusercontent.com"
AWS = "https://1a2b3c4d-5e6f-7a8b-9c0d-1e2f3a4b5c6d.tokens.sts.global.api.aws"

KUBERNETES_KEY = foreign_key("hMTvnkhCYiL0x2eB4Qbp", "RS256")
GITHUB_KEY = foreign_key("78167F727DEC5D801DD1C8784C704A1C880EC0E1", "RS256")
AWS_KEY = foreign_key("EC384_0", "ES384")
ES256_KEY = foreign_key("spire-1", "ES256")


def kubernetes(*, audience: str, now: int, lifetime: int = 3607, **changes: Any) -> dict[str, Any]:
    """Claims of a projected service account token (one of Kubernetes 1.32: with `jti` and the node)."""
    return {
        "aud": [audience],
        "exp": now + lifetime,
        "iat": now,
        "iss": KUBERNETES,
        "jti": "6ee0e0a4-a3c4-4c9f-b5e1-4f3f7c2a9e51",
        "kubernetes.io": {
            "namespace": "payments",
            "node": {"name": "node-1", "uid": "58456cb0-dd00-45ed-b797-5578fdceaced"},
            "pod": {"name": "api-7d4b9c-x2x9l", "uid": "778a530c-b3f4-47c0-9cd5-ab018fb64f33"},
            "serviceaccount": {"name": "api", "uid": "a087d5a0-e1dd-43ec-93ac-f13d89cd13af"},
        },
        "nbf": now,
        "sub": "system:serviceaccount:payments:api",
        **changes,
    }


def github(*, audience: str, now: int, **changes: Any) -> dict[str, Any]:
    """Claims of a GitHub Actions token for a deployment job."""
    return {
        "jti": "example-id-5b1c6c1e",
        "sub": "repo:octo-org/octo-repo:environment:prod",
        "environment": "prod",
        "aud": audience,
        "ref": "refs/heads/main",
        "sha": "example-sha",
        "repository": "octo-org/octo-repo",
        "repository_owner": "octo-org",
        "actor_id": "12",
        "repository_visibility": "private",
        "repository_id": "74",
        "repository_owner_id": "65",
        "run_id": "example-run-id",
        "run_number": "10",
        "run_attempt": "2",
        "runner_environment": "github-hosted",
        "actor": "octocat",
        "workflow": "example-workflow",
        "head_ref": "",
        "base_ref": "",
        "event_name": "workflow_dispatch",
        "ref_type": "branch",
        "job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main",
        "iss": GITHUB,
        "nbf": now - 600,
        "exp": now + 300,
        "iat": now,
        **changes,
    }


def aws(*, audience: str, now: int, lifetime: int = 300, **changes: Any) -> dict[str, Any]:
    """Claims of a token of AWS STS GetWebIdentityToken."""
    return {
        "aud": audience,
        "sub": "arn:aws:iam::123456789012:role/DataProcessingRole",
        "https://sts.amazonaws.com/": {
            "aws_account": "123456789012",
            "source_region": "us-east-1",
            "org_id": "o-abc1234567",
            "ou_path": ["o-a1b2c3d4e5/r-ab12/ou-ab12-11111111/ou-ab12-22222222/"],
            "principal_tags": {"environment": "production", "team": "data-engineering"},
            "lambda_source_function_arn": "arn:aws:lambda:us-east-1:123456789012:function:process",
            "request_tags": {"job-id": "job-2024-001"},
        },
        "iss": AWS,
        "exp": now + lifetime,
        "iat": now,
        "jti": "xyz123-4567-89ab-cdef-0123456789ab",
        **changes,
    }


def signed(key: ForeignKey, claims: dict[str, Any], **header: Any) -> str:
    """Return *claims* with the header of their platform: Kubernetes writes no `typ`."""
    if claims.get("iss") == KUBERNETES:
        header = {"typ": None, **header}
    return key.sign(claims, **header)
