"""Checkpoints in an S3 bucket, of any provider that honours conditional writes.

`create` is a PUT with `If-None-Match: *`. An object appears whole or not at all, so that
publishing is one request. Invariant: an answer that got lost is never taken for a
failure of somebody else: the caller compares the content (see `create_ours`). And
nothing here draws from Python's global generator, which belongs to the training script:
botocore's own retries do, for their jitter, and a run that retried would no longer be the
run that did not.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import json
import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from spot_trainer.store import Buffer, Entry, NotFound, StoreRefused, StoreUnavailable, Unfinished

T = TypeVar("T")

PART_BYTES = 64 * 1024 * 1024
"""A larger object is sent in parts of this size; S3 allows 5 MiB to 5 GiB."""

PARALLEL_PARTS = 4
"""Parts of one object that travel at once; one connection carries about 100 MB/s in clouds."""

READ_TIMEOUT_SECONDS = 20
"""Of silence, not of the whole request."""

RETRY_DELAYS_SECONDS = (0.1, 0.5)
"""Before the second and the third try of a request that may succeed then."""

CHECKSUM_VARIABLE = "SPOT_S3_CHECKSUM"
EXTRA_ARGS_VARIABLE = "SPOT_S3_EXTRA_ARGS"

_OPERATIONS = (
    "abort_multipart_upload",
    "complete_multipart_upload",
    "create_multipart_upload",
    "delete_object",
    "get_object",
    "head_object",
    "list_multipart_uploads",
    "list_objects_v2",
    "put_object",
    "upload_part",
)
"""Everything that is asked of a server."""

_OURS = {
    "Body",
    "Bucket",
    "ChecksumAlgorithm",
    "ChecksumCRC32",
    "ContinuationToken",
    "IfNoneMatch",
    "Key",
    "KeyMarker",
    "MultipartUpload",
    "PartNumber",
    "Prefix",
    "Range",
    "UploadId",
    "UploadIdMarker",
}
"""What the protocol itself says in a request; nobody else may."""

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
_NOT_IMPLEMENTED = {"NotImplemented", "501", "InvalidArgument"}
_MISTAKEN = {"NotImplemented", "501", "InvalidArgument", "InvalidRequest"}
_ELSEWHERE = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}


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
            read_timeout=READ_TIMEOUT_SECONDS,
            retries={"total_max_attempts": 1, "mode": "standard"},
            s3={"payload_signing_enabled": False} | ({"addressing_style": "path"} if endpoint else {}),
            # It would refuse a memoryview as a body, which everything below it takes.
            parameter_validation=False,
            max_pool_connections=16,
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        ),
    )


class S3Store:
    """A prefix of a bucket that must exist already."""

    read_bytes = 16 * 1024 * 1024
    parallel_reads = 8
    caveats: Sequence[str] = ()

    def __init__(self, bucket: str, prefix: str, client: Any = None) -> None:
        """Options come from the environment; raises ValueError if one makes no sense.

        `SPOT_S3_CHECKSUM`: CRC32 (the default) or off. `SPOT_S3_EXTRA_ARGS`: a JSON object of
        boto3's own parameters, such as {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "..."};
        each is given to every request that knows it.
        """
        self._bucket = bucket
        self._checksum_algorithm = _checksum_algorithm(os.environ.get(CHECKSUM_VARIABLE, "CRC32"))
        self._root = f"{prefix}/" if prefix else ""
        self._client = client or make_client()
        self._extra_arguments = _extra_arguments(self._client, os.environ.get(EXTRA_ARGS_VARIABLE, ""))

    @property
    def uri(self) -> str:
        return f"s3://{self._bucket}/{self._root.rstrip('/')}".rstrip("/")

    def _list(self, prefix: str) -> list[Entry]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self._bucket, Prefix=self._root + prefix, **self._extra_arguments["list_objects_v2"]
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
            answer = self._call("get_object", **self._at(key))
            data: bytes = answer["Body"].read()
            return data

        return self._attempt(key, request)

    def read_into(self, key: str, offset: int, buffers: Sequence[memoryview]) -> int:
        last = offset + sum(map(len, buffers)) - 1

        def request() -> int:
            try:
                answer = self._call("get_object", **self._at(key), Range=f"bytes={offset}-{last}")
            except ClientError as error:
                if _code(error) in ("InvalidRange", "416"):
                    return 0
                raise
            with contextlib.closing(answer["Body"]) as body:
                return sum(_read_full(body, buffer) for buffer in buffers)

        return self._attempt(key, request)

    def create(self, key: str, data: bytes) -> bool:
        def request() -> bool:
            try:
                self._call("put_object", **self._at(key), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _code(error) in ("PreconditionFailed", "412"):
                    return False
                if _code(error) in _NOT_IMPLEMENTED:
                    raise StoreRefused(
                        OutcomeReason.STORE_UNSUPPORTED,
                        f"s3://{self._bucket}/{self._root}{key}: {_code(error)}: the server must honour PUT "
                        "with If-None-Match",
                    ) from error
                raise
            return True

        # Not tried again here: after a lost answer False would be the answer to our own success.
        with self._translated(key):
            return request()

    def put(self, key: str, parts: Sequence[Buffer]) -> None:
        views = [memoryview(part).cast("B") for part in parts]
        if sum(map(len, views)) > PART_BYTES:
            self._put_parts(key, views)
            return
        body = views[0] if len(views) == 1 else b"".join(views)
        check = self._checksum(body)
        self._attempt(key, lambda: self._call("put_object", **self._at(key), Body=body, **check))

    def delete(self, keys: Iterable[str]) -> None:
        for key in keys:
            self._attempt(key, functools.partial(self._call, "delete_object", **self._at(key)))

    def unfinished(self, prefix: str) -> Sequence[Unfinished]:
        def request() -> Sequence[Unfinished]:
            pages = self._client.get_paginator("list_multipart_uploads").paginate(
                Bucket=self._bucket,
                Prefix=self._root + prefix,
                **self._extra_arguments["list_multipart_uploads"],
            )
            return [
                Unfinished(item["Key"].removeprefix(self._root), item["UploadId"], item["Initiated"])
                for page in pages
                for item in page.get("Uploads", ())
            ]

        return self._attempt(prefix, request)

    def discard(self, what: Unfinished) -> None:
        def request() -> None:
            try:
                self._call("abort_multipart_upload", **self._at(what.key), UploadId=what.handle)
            except ClientError as error:
                if _code(error) != "NoSuchUpload":
                    raise

        self._attempt(what.key, request)

    def _put_parts(self, key: str, views: Sequence[memoryview]) -> None:
        where = self._at(key)
        kind = {"ChecksumAlgorithm": self._checksum_algorithm} if self._checksum_algorithm else {}
        created = self._attempt(key, lambda: self._call("create_multipart_upload", **where, **kind))
        upload = where | {"UploadId": created["UploadId"]}

        def send(numbered: tuple[int, Buffer]) -> dict[str, Any]:
            number, body = numbered
            check = self._checksum(body)
            answer = self._attempt(
                key,
                lambda: self._call("upload_part", **upload, PartNumber=number, Body=body, **check),
            )
            return {"PartNumber": number, "ETag": answer["ETag"], **check}

        try:
            with ThreadPoolExecutor(PARALLEL_PARTS, thread_name_prefix="spot-s3") as pool:
                tags = tuple(pool.map(send, enumerate(_split(views, PART_BYTES), start=1)))
            self._complete(key, upload, tags)
        except BaseException:
            # Parts of an abandoned upload are invisible but cost money.
            with contextlib.suppress(ClientError, BotoCoreError):
                self._call("abort_multipart_upload", **upload)
            raise

    def _complete(self, key: str, upload: dict[str, Any], tags: Sequence[dict[str, Any]]) -> None:
        def request() -> None:
            try:
                self._call("complete_multipart_upload", **upload, MultipartUpload={"Parts": tags})
            except ClientError as error:
                if _code(error) != "NoSuchUpload":
                    raise
                # The answer to a first try was lost; the object has a name that only we use.
                self._call("head_object", **self._at(key))

        self._attempt(key, request)

    def _at(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._root + key}

    def _call(self, operation: str, **arguments: Any) -> Any:
        return getattr(self._client, operation)(**self._extra_arguments[operation], **arguments)

    def _checksum(self, body: Buffer) -> dict[str, str]:
        """The checksum that the server compares with what arrives."""
        if self._checksum_algorithm is None:
            return {}
        return {"ChecksumCRC32": base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()}

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
        if code in _ELSEWHERE:
            return StoreRefused(
                OutcomeReason.STORE_ACCESS_DENIED,
                f"{where}: {code}: the bucket is in another region; set spec.checkpoint.s3.region",
            )
        if code in _MISTAKEN or (code.startswith("KMS.") and "Throttling" not in code):
            message = str(error.response.get("Error", {}).get("Message", ""))
            return StoreRefused(
                OutcomeReason.STORE_UNSUPPORTED,
                f"{where}: the server refuses {error.operation_name}: {code}: {message}",
            )
        return StoreUnavailable(f"{where}: {error}")


def _checksum_algorithm(value: str) -> str | None:
    known = {"crc32": "CRC32", "off": None}
    if value.lower() not in known:
        raise ValueError(f"{CHECKSUM_VARIABLE}={value!r}: use CRC32 or off")
    return known[value.lower()]


def _extra_arguments(client: Any, text: str) -> dict[str, dict[str, Any]]:
    """What each operation is given besides our own arguments; raises ValueError."""
    if not text:
        return {operation: {} for operation in _OPERATIONS}
    try:
        given = json.loads(text)
    except ValueError as error:
        # Not the text itself: it may hold a customer's key.
        raise ValueError(f"{EXTRA_ARGS_VARIABLE} is not JSON: {type(error).__name__}") from None
    if not isinstance(given, dict):
        raise ValueError(f"{EXTRA_ARGS_VARIABLE} must be a JSON object of boto3's parameters")
    names = {
        operation: set(
            client.meta.service_model.operation_model(
                client.meta.method_to_api_mapping[operation]
            ).input_shape.members
        )
        - _OURS
        for operation in _OPERATIONS
    }
    if unknown := sorted(set(given) - set().union(*names.values())):
        raise ValueError(
            f"{EXTRA_ARGS_VARIABLE} names {', '.join(unknown)}, which no request that is made knows; use "
            "boto3's names, such as ServerSideEncryption, SSEKMSKeyId, StorageClass, RequestPayer"
        )
    return {
        operation: {name: value for name, value in given.items() if name in known}
        for operation, known in names.items()
    }


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _split(views: Sequence[memoryview], size: int) -> Iterator[Buffer]:
    """The concatenation of the views in pieces of size, the last one shorter; joined only where they meet."""
    pieces: list[memoryview] = []
    held = 0
    for view in views:
        while view:
            piece = view[: size - held]
            pieces.append(piece)
            held += len(piece)
            view = view[len(piece) :]
            if held == size:
                yield pieces[0] if len(pieces) == 1 else b"".join(pieces)
                pieces, held = [], 0
    if pieces:
        yield pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _read_full(body: Any, buffer: memoryview) -> int:
    total = 0
    while total < len(buffer):
        num_bytes = body.readinto(buffer[total:])
        if not num_bytes:
            break
        total += num_bytes
    return total
