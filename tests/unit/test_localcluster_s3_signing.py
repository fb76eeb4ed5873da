"""The signature is the one that AWS's own SDK computes."""

from datetime import UTC, datetime

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from localcluster.s3 import make_access
from localcluster.s3_signing import signed_request


@pytest.mark.parametrize(
    ("method", "path", "query", "body"),
    [("PUT", "/bucket/key", "", b"body"), ("GET", "/bucket", "list-type=2&prefix=a%2Fb%2F", b"")],
)
def test_the_signature_equals_botocores(method: str, path: str, query: str, body: bytes) -> None:
    access = make_access("KEY", "SECRET", 4711)
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    ours = signed_request(method, path, access, body, query=query, at=at)
    theirs = AWSRequest(method, ours.full_url, data=body)
    theirs.context["timestamp"] = "20260102T030405Z"
    theirs.headers["X-Amz-Date"] = "20260102T030405Z"
    theirs.headers["X-Amz-Content-SHA256"] = ours.get_header("X-amz-content-sha256")
    signer = S3SigV4Auth(Credentials("KEY", "SECRET"), "s3", "us-east-1")
    signature = signer.signature(signer.string_to_sign(theirs, signer.canonical_request(theirs)), theirs)
    assert ours.get_header("Authorization") is not None
    assert str(ours.get_header("Authorization")).endswith(f"Signature={signature}")
