"""The status server against what a cluster may send it, with tokens that a real API server judges."""

import contextlib
import itertools
import json
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from operator_scene import Operator, Scene, wait_for
from status_client import ENEMY, HONEST, Flood, Forger, StatusClient, time_reports

pytestmark = [
    pytest.mark.api,
    # Python's ssl leaves the socket open of a client that is refused before its handshake.
    pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning"),
]

HOUR = timedelta(hours=1)

PATIENCE_SECONDS = 4
"""A trainer gives up after 5 s; here client, flood, operator and API server share two cores."""


@dataclass
class Place:
    """A running operator, a job `digits` with a running pod, and that pod's token."""

    operator: Operator
    scene: Scene
    foreign: Scene
    client: StatusClient
    forger: Forger
    pod: str = ""
    token: str = ""

    def reporter(self, job: str) -> tuple[StatusClient, str]:
        """A client and a token of a new job's pod, which has reported nothing yet."""
        client, token = StatusClient(self.operator, self.scene, job), self.scene.token(self.running_pod(job))
        return client, token

    def running_pod(self, job: str) -> str:
        """A new job's pod, running."""
        self.scene.apply_job(job)
        words = ("get", "pods", "-n", self.scene.namespace, "-o", "name", "-l")
        label = f"spottraining.io/job-name={job}"
        (pod,) = wait_for(f"pod of {job}", lambda: self.scene.kubectl(*words, label).split())
        pod = str(pod).removeprefix("pod/")
        self.scene.run(pod)
        return pod

    def num_reviews(self) -> int:
        return self.operator.requests().get(("create", "tokenreviews"), 0)


@pytest.fixture(scope="module")
def place(api_server: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    names = ("status-protocol", "status-protocol-foreign")
    scenes = []
    for name in names:
        api_server.kubectl("create", "namespace", name)
        scenes.append(scene := Scene(api_server, name))
        wait_for(
            "service account", lambda scene=scene: "serviceaccount/default" in scene.names("serviceaccounts")
        )
    scene, foreign = scenes
    scene.add_node()
    log = tmp_path_factory.mktemp("status") / "operator.log"
    operator = Operator(str(api_server.kubeconfig), scene.namespace, log).start()
    place = Place(
        operator,
        scene,
        foreign,
        StatusClient(operator, scene),
        Forger(api_server.kubeconfig.parent / "pki"),
        "",
        "",
    )
    place.pod = place.running_pod("digits")
    place.token = scene.token(place.pod)
    wait_for("answer", lambda: place.client.post(place.token)[0] == 200)
    yield place
    operator.kill()
    print(text := log.read_text())
    scene.kubectl("delete", "node", scene.node, "--ignore-not-found")
    for name in names:
        api_server.kubectl("delete", "namespace", name, "--wait=false")
    assert "unexpectedly" not in text
    assert "Traceback" not in text


def make_pod(scene: Scene, name: str) -> str:
    """A pod that no job controls."""
    spec = {"containers": [{"name": "c", "image": "c"}], "automountServiceAccountToken": False}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": scene.namespace},
        "spec": spec,
    }
    scene.kubectl("create", "-f", "-", body=pod)
    return name


# ---------------------------------------------------------------------------- tokens


def test_token_of_the_jobs_pod_is_answered_with_directives(place: Place) -> None:
    code, answer = place.client.post(place.token, {"step": 1, "incarnation": 1})
    assert (code, json.loads(answer)) == (200, {"directives": {}})


def test_expired_token_is_refused_and_was_refused_for_that(place: Place) -> None:
    genuine = place.forger.again(place.token, expires_in=HOUR)
    expired = place.forger.again(place.token, expires_in=-HOUR)
    assert place.client.post(genuine)[0] == 200
    assert place.client.post(expired)[0] == 401


def test_token_that_another_key_signed_is_refused(place: Place) -> None:
    assert place.client.post(place.forger.again(place.token, expires_in=HOUR, genuine=False))[0] == 401


def test_token_for_another_audience_is_refused(place: Place) -> None:
    for audience in ("somebody.else", "https://kubernetes.default.svc"):
        assert place.client.post(place.scene.token(place.pod, audience))[0] == 401


def test_token_that_no_pod_is_bound_to_is_refused(place: Place) -> None:
    words = ("create", "token", "default", "-n", place.scene.namespace, "--audience=spottraining.io/status")
    assert place.client.post(place.scene.kubectl(*words).strip())[0] == 401


def test_token_of_another_jobs_pod_is_refused_for_this_job(place: Place) -> None:
    token = place.scene.token(place.running_pod("other"))
    own = StatusClient(place.operator, place.scene, "other")
    wait_for("answer for its own job", lambda: own.post(token)[0] == 200)
    assert place.client.post(token)[0] == 403
    assert place.client.post(place.token, path=own.path)[0] == 403
    assert place.client.post(place.token, path=own.path.replace("other", "absent"))[0] == 403


def test_token_of_a_foreign_namespaces_pod_is_refused(place: Place) -> None:
    token = place.foreign.token(make_pod(place.foreign, "stranger"))
    assert place.client.post(token)[0] == 403
    elsewhere = place.client.path.replace(place.scene.namespace, place.foreign.namespace)
    assert place.client.post(place.token, path=elsewhere)[0] == 403


def test_token_of_a_pod_that_no_job_controls_is_refused(place: Place) -> None:
    pod = make_pod(place.scene, "loner")
    assert place.client.post(place.scene.token(pod))[0] == 403


def test_token_is_refused_from_the_moment_its_pod_has_ended(place: Place) -> None:
    """Though the API server's good word for it is not a minute old."""
    pod = place.running_pod("ending")
    client, token = StatusClient(place.operator, place.scene, "ending"), place.scene.token(pod)
    wait_for("answer", lambda: client.post(token)[0] == 200)
    place.scene.end(pod, 0, "complete")
    wait_for("refusal", lambda: client.post(token, {"step": 5})[0] == 403, 10)
    place.scene.kubectl("delete", "pod", pod, "-n", place.scene.namespace, "--grace-period=0", "--force")
    assert client.post(token)[0] == 403
    status = place.scene.status("ending")
    assert status["progress"].get("step") != 5


def test_token_of_a_deleted_pod_is_refused(place: Place) -> None:
    pod = place.running_pod("deleted")
    client, token = StatusClient(place.operator, place.scene, "deleted"), place.scene.token(pod)
    place.scene.kubectl("delete", "pod", pod, "-n", place.scene.namespace, "--grace-period=0", "--force")
    wait_for("refusal", lambda: client.post(token)[0] in (401, 403), 10)
    place.scene.kubectl("delete", "stj", "deleted", "-n", place.scene.namespace)


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer a.b.c", "Bearer " + "x" * 7000, "Bearer \x01"]
)
def test_header_that_is_no_token_is_refused_without_asking_anybody(place: Place, header: str) -> None:
    before = place.num_reviews()
    assert place.client.post("", headers={"Authorization": header})[0] in (400, 401)
    assert place.num_reviews() == before


# ---------------------------------------------------------------------------- bodies


BAD_BODIES = {
    "nothing": b"",
    "half": b'{"step": 1',
    "a list": b"[]",
    "a number": b"5",
    "not UTF-8": b'{"step": "\xff"}',
    "deep": b"[" * 60_000,
    "deep objects": b'{"a":' * 12_000,
    "a huge number": b'{"step": ' + b"9" * 60_000 + b"}",
    "not a number": b'{"step": NaN}',
    "negative": b'{"step": -1}',
    "a step of words": b'{"step": "many"}',
    "a status that is a list": b'{"trainerStatus": []}',
    "a percentage of 101": b'{"trainerStatus": {"progressPercentage": 101}}',
    "metrics of numbers": b'{"trainerStatus": {"metrics": [1, 2]}}',
    "a time of words": b'{"durableTime": "yesterday"}',
}


def test_body_that_is_no_report_is_refused_and_changes_nothing(place: Place) -> None:
    client, token = place.reporter("garbled")
    for what, body in BAD_BODIES.items():
        code, text = client.post(token, body)
        if code == 429:
            time.sleep(1.1)
            code, text = client.post(token, body)
        assert code == 400, f"{what}: {code} {text}"
        assert len(text) < 400
    time.sleep(1.1)
    bomb = b"\x1f\x8b\x08" + bytes(500)
    assert client.post(token, bomb, headers={"Content-Encoding": "gzip"})[0] == 400
    assert "progress" not in place.scene.status("garbled")


def test_text_of_a_pod_is_cleaned_before_anybody_sees_it(place: Place) -> None:
    client, token = place.reporter("loud")
    name = "c\u202e\n\x1b[2J" + "x" * 1000
    body = {"incarnation": 1, "step": 7, "durableStep": 7, "checkpointName": name}
    assert client.post(token, body)[0] == 200
    wait_for("checkpoint", lambda: place.scene.status("loud").get("checkpoint", {}).get("step") == 7)
    shown = place.scene.status("loud")["checkpoint"]["name"]
    assert len(shown) <= 128
    assert shown.isprintable()


def test_body_that_is_too_long_is_refused_before_it_has_come(place: Place) -> None:
    client, token = place.reporter("lengthy")
    wait_for("answer", lambda: client.post(token)[0] == 200)
    with client.open() as connection:
        connection.sendall(client.head(token, f"Content-Length: {10**9}"))
        assert connection.recv(64).startswith(b"HTTP/1.1 413")
    with client.open() as connection, contextlib.suppress(ConnectionError, ssl.SSLError):
        connection.sendall(client.head(token, "Transfer-Encoding: chunked"))
        for _ in range(200):
            connection.sendall(b"1000\r\n" + b" " * 4096 + b"\r\n")
        assert connection.recv(64).startswith(b"HTTP/1.1 413")


# ---------------------------------------------------------------------------- too much


def test_pod_that_reports_too_often_is_told_so_and_told_when(place: Place) -> None:
    client, token = place.reporter("eager")
    wait_for("answer", lambda: client.post(token)[0] == 200)
    codes = [client.post(token, {"step": 1})[0] for _ in range(30)]
    print(codes)
    assert codes[:5] == [200] * 5
    assert 429 in codes
    with client.open(HONEST) as connection:
        connection.sendall(client.head(token, "Content-Length: 2") + b"{}")
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 429")
    assert b"Retry-After: 1\r\n" in answer
    time.sleep(2.2)
    assert client.post(token)[0] == 200


def test_slow_clients_are_cut_off_and_delay_nobody(place: Place) -> None:
    slow_pod, token = place.reporter("slow")
    client, honest = place.reporter("brisk")
    address = ("127.0.0.1", client.port)
    silent = [socket.create_connection(address, 5, source_address=(ENEMY, 0)) for _ in range(8)]
    slow: list[tuple[ssl.SSLSocket, bytes]] = []
    for n in range(20):
        head = slow_pod.head(token, "Content-Length: 60000")
        connection = slow_pod.open(ENEMY)
        # Half of them never come to the end of the head, the others to that of the body.
        connection.sendall(head if n % 2 else head[:-2])
        slow.append((connection, b" " if n % 2 else b"x: y\r\n"))
    began = time.monotonic()
    timed = []
    while slow and time.monotonic() - began < 30:
        for entry in list(slow):
            try:
                entry[0].sendall(entry[1])
            except OSError:
                slow.remove(entry)
                entry[0].close()
        timed += time_reports(client, honest, seconds=0.5, every=1.2)
    took = time.monotonic() - began
    worst = max(seconds for _, seconds in timed)
    print(f"all were cut off after {took:.1f} s; worst of {len(timed)} honest reports {worst * 1000:.0f} ms")
    assert not slow
    assert took < 20
    assert [code for code, _ in timed] == [200] * len(timed)
    assert worst < PATIENCE_SECONDS
    for plain in silent:
        plain.settimeout(5)
        with contextlib.suppress(ConnectionError):
            assert plain.recv(1) == b""
        plain.close()


def forged(forger: Forger, token: str) -> Iterator[str]:
    """Tokens that claim the live pod, each another one; the costliest to refuse."""
    for n in itertools.count(1):
        yield forger.again(token, expires_in=HOUR + timedelta(seconds=n), genuine=False)


@pytest.mark.parametrize("kind", ["garbage", "forged", "replayed"])
def test_flood_of_reports_delays_neither_honest_clients_nor_jobs(place: Place, kind: str) -> None:
    job, victim = f"during-{kind}", f"victim-{kind}"
    client, token = place.reporter(f"honest-{kind}")
    target, stolen = place.reporter(victim)
    tokens: Iterator[str] = {
        "garbage": (f"nonsense-{n}" for n in itertools.count()),
        "forged": forged(place.forger, stolen),
        "replayed": itertools.repeat(stolen),
    }[kind]
    quiet = time_reports(client, token, seconds=3, every=1.1)
    before = place.num_reviews()
    with Flood(target, tokens) as flood:
        time.sleep(1)
        timed = time_reports(client, token, seconds=4, every=1.1)
        place.scene.apply_job(job)
        applied = time.monotonic()
        wait_for(f"pod of {job}", lambda: any(f"/{job}-" in name for name in place.scene.names("pods")), 10)
        born = time.monotonic()
        timed += time_reports(client, token, seconds=4, every=1.1)
    reviews = place.num_reviews() - before
    worst_quiet, worst = (max(seconds for _, seconds in each) for each in (quiet, timed))
    codes = [code for code, _ in timed]
    print(
        f"{kind}: {sum(flood.answers.values())} requests in {flood.seconds:.0f} s, answers "
        f"{dict(flood.answers)}; {reviews} TokenReviews; honest {codes}, worst {worst * 1000:.0f} ms "
        f"(before: {worst_quiet * 1000:.0f} ms); a new job's pod was there {born - applied:.2f} s after apply"
    )
    assert sum(flood.answers.values()) > 50
    assert codes == [200] * len(timed)
    # A pod may report once a second, and no more than that, with a token that is good.
    assert flood.answers[200] <= (flood.seconds + 11 if kind == "replayed" else 0)
    assert reviews < 25
    assert worst < PATIENCE_SECONDS
    assert born - applied < 8


def test_server_answers_as_before_after_all_of_this(place: Place) -> None:
    client, token = place.reporter("late")
    wait_for("answer", lambda: client.post(token)[0] == 200)
    timed = time_reports(client, token, seconds=5, every=1.1)
    print(f"{[round(seconds * 1000, 1) for _, seconds in timed]} ms; {place.operator.rss_mb():.0f} MB")
    assert [code for code, _ in timed] == [200] * len(timed)
    assert place.operator.rss_mb() < 180
    lines = place.operator.get("/metrics").splitlines()
    print(
        "\n".join(line for line in lines if "status_connections_total{" in line or "reports_total{" in line)
    )
