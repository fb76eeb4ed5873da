"""AWS Signature Version 4 for the few requests that the tool itself makes; an SDK is not needed for that."""

import hashlib
import hmac
import urllib.request
from datetime import UTC, datetime
from typing import Protocol


class Access(Protocol):
    """Where to, and as whom."""

    @property
    def endpoint(self) -> str: ...
    @property
    def access_key(self) -> str: ...
    @property
    def secret_key(self) -> str: ...
    @property
    def region(self) -> str: ...


def signed_request(
    method: str,
    path: str,
    access: "Access",
    body: bytes = b"",
    *,
    query: str = "",
    at: datetime | None = None,
) -> urllib.request.Request:
    """A request, signed for the endpoint; of a query, names in order and all of it quoted."""
    now = at or datetime.now(UTC)
    stamp, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    host = access.endpoint.removeprefix("http://")
    content = hashlib.sha256(body).hexdigest()
    headers = {"host": host, "x-amz-content-sha256": content, "x-amz-date": stamp}
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{path}\n{query}\n{lines}\n{names}\n{content}"
    scope = f"{day}/{access.region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashed}"
    key = f"AWS4{access.secret_key}".encode()
    for part in (day, access.region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={access.access_key}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}"
    )
    url = f"{access.endpoint}{path}" + (f"?{query}" if query else "")
    return urllib.request.Request(url, body or None, headers, method=method)
