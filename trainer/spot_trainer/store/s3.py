"""Checkpoints in an S3 bucket, of any provider that honours conditional writes.

`create` is a PUT with `If-None-Match: *`. An object appears whole or not at all, so that
publishing is one request. Invariant: an answer that got lost is never taken for a
failure of somebody else: the caller compares the content (see `create_ours`). And
nothing here draws from Python's global generator, which belongs to the training script:
botocore's own retries do, for their jitter, and a run that retried would no longer be the
run that did not.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)

from spot_trainer.contract import Env, OutcomeReason
from spot_trainer.store import Buffer, Entry, NotFound, StoreRefused, StoreUnavailable

T = TypeVar("T")

PART_BYTES = 64 * 1024 * 1024
"""A larger object is sent in parts of this size; S3 allows 5 MiB to 5 GiB."""

RETRY_DELAYS_SECONDS = (0.1, 0.5)
"""Before the second and the third try of a request that may succeed then."""

_ABSENT = {"NoSuchKey", "404", "NotFound"}
_DENIED = {
    "AccessDenied",
    "403",
    "Forbidden",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AllAccessDisabled",
}
_UNSUPPORTED = {"NotImplemented", "501", "InvalidArgument"}


def make_client() -> Any:
    """A client from the standard AWS environment; failures show within seconds, not minutes."""
    endpoint = os.environ.get(Env.AWS_ENDPOINT_URL_S3)
    return boto3.client(
        "s3",
        # boto3 itself reads AWS_DEFAULT_REGION only; self-hosted stores do not care.
        region_name=os.environ.get(Env.AWS_REGION) or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        endpoint_url=endpoint or None,
        config=Config(
            connect_timeout=3,
            read_timeout=20,
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"addressing_style": "path"} if endpoint else None,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class S3Store:
    """A prefix of a bucket that must exist already."""

    def __init__(self, bucket: str, prefix: str, client: Any = None) -> None:
        self._bucket = bucket
        self._root = f"{prefix}/" if prefix else ""
        self._client = client or make_client()

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._root.rstrip('/')}".rstrip("/")

    def _list(self, prefix: str) -> list[Entry]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._root + prefix
        )
        return [
            Entry(item["Key"].removeprefix(self._root), item["Size"], item["LastModified"])
            for page in pages
            for item in page.get("Contents", ())
        ]

    def list(self, prefix: str) -> list[Entry]:
        return self._attempt(prefix, lambda: self._list(prefix))

    def read(self, key: str) -> bytes:
        def request() -> bytes:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._root + key)
            data: bytes = answer["Body"].read()
            return data

        return self._attempt(key, request)

    def create(self, key: str, data: bytes) -> bool:
        def request() -> bool:
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._root + key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                raise
            return True

        # Not tried again here: after a lost answer False would be the answer to our own success.
        with self._translated(key):
            return request()

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        size = sum(memoryview(part).nbytes for part in parts)
        if size > PART_BYTES:
            with self._translated(key):
                self._put_parts(self._root + key, parts)
            return
        body = b"".join(parts)
        self._attempt(
            key, lambda: self._client.put_object(Bucket=self._bucket, Key=self._root + key, Body=body)
        )

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            where = {"Bucket": self._bucket, "Key": self._root + key}
            self._attempt(key, functools.partial(self._client.delete_object, **where))

    def _put_parts(self, key: str, parts: Sequence[Buffer]) -> None:
        where = {"Bucket": self._bucket, "Key": key}
        upload = where | {"UploadId": self._client.create_multipart_upload(**where)["UploadId"]}
        try:
            tags = [
                {
                    "PartNumber": number,
                    "ETag": self._client.upload_part(**upload, PartNumber=number, Body=body)["ETag"],
                }
                for number, body in enumerate(_split(parts, PART_BYTES), start=1)
            ]
            self._client.complete_multipart_upload(**upload, MultipartUpload={"Parts": tags})
        except (ClientError, BotoCoreError):
            # Parts of an abandoned upload are invisible but cost money.
            with contextlib.suppress(ClientError, BotoCoreError):
                self._client.abort_multipart_upload(**upload)
            raise

    def _attempt(self, key: str, request: Callable[[], T]) -> T:
        """Answer of the request, tried again where that makes sense; raises StoreError."""
        for delay in RETRY_DELAYS_SECONDS:
            try:
                with self._translated(key):
                    return request()
            except StoreUnavailable:
                time.sleep(delay)
        with self._translated(key):
            return request()

    @contextlib.contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        where = f"s3://{self._bucket}/{self._root}{key}"
        try:
            yield
        except ClientError as error:
            raise self._refusal(error, where) from error
        except (NoCredentialsError, PartialCredentialsError, NoRegionError) as error:
            raise StoreRefused(
                OutcomeReason.STORE_ACCESS_DENIED,
                f"{where}: {error}; name a Secret in spec.checkpoint.s3.credentialsSecretRef",
            ) from error
        except (BotoCoreError, OSError) as error:
            raise StoreUnavailable(f"{where}: {error}") from error

    def _refusal(self, error: ClientError, where: str) -> Exception:
        code = _code(error)
        if code == "NoSuchBucket":
            return StoreRefused(
                OutcomeReason.NO_SUCH_BUCKET, f"the bucket {self._bucket!r} does not exist: create it"
            )
        if code in _ABSENT:
            return NotFound(f"{where} does not exist")
        if code in _DENIED:
            return StoreRefused(
                OutcomeReason.STORE_ACCESS_DENIED,
                f"{where}: {code}: the credentials must allow list, get, put and delete below this prefix",
            )
        if code in _UNSUPPORTED:
            return StoreRefused(
                OutcomeReason.STORE_UNSUPPORTED,
                f"{where}: {code}: the server must honour PUT with If-None-Match",
            )
        return StoreUnavailable(f"{where}: {error}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _split(parts: Sequence[Buffer], size: int) -> Iterator[bytes]:
    """The concatenation of parts in pieces of size, the last one shorter."""
    pieces: list[memoryview] = []
    held = 0
    for part in parts:
        view = memoryview(part).cast("B")
        while view:
            piece = view[: size - held]
            pieces.append(piece)
            held += len(piece)
            view = view[len(piece) :]
            if held == size:
                yield b"".join(pieces)
                pieces, held = [], 0
    if pieces:
        yield b"".join(pieces)
