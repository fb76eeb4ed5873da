"""The local cluster behaves like a real one, and leaves nothing behind.

One cluster serves all tests of this file; each test uses machines of its own
where it takes them away. Needs root on Linux.
"""

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from localcluster import Cluster, ClusterConfig, LocalClusterError, NodeSpec, take_down

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and cgroups need root"),
]
NAME = "selftest"
IMAGE = "localhost/python-base:trixie"
NODES = (NodeSpec("one"), NodeSpec("two"))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    config = ClusterConfig(
        name=NAME, nodes=NODES, images=("python-base", "torch-base"), unreachable_toleration_seconds=5
    )
    with Cluster.up(config) as running:
        yield running


def pod(name: str, node: str, script: str, *, grace: int = 30, **metadata: Any) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}, **metadata},
        "spec": {
            "nodeName": node,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": grace,
            "tolerations": [{"key": "spottraining.io/spot", "operator": "Exists"}],
            "containers": [
                {
                    "name": "main",
                    "image": IMAGE,
                    "imagePullPolicy": "Never",
                    "command": ["python3", "-u", "-c", script],
                }
            ],
        },
    }


def apply(cluster: Cluster, *objects: dict[str, Any]) -> None:
    listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
    cluster.kubectl("apply", "--filename", "-", stdin=json.dumps(listed))


def phase(cluster: Cluster, name: str) -> str:
    return cluster.kubectl("get", "pod", name, "--output", "jsonpath={.status.phase}")


def wait_for_phase(cluster: Cluster, name: str, wanted: str) -> None:
    cluster.wait_for(lambda: phase(cluster, name) == wanted, what=f"pod {name} {wanted}")


def ready_status(cluster: Cluster, node: str) -> str:
    path = 'jsonpath={.status.conditions[?(@.type=="Ready")].status}'
    return cluster.kubectl("get", "node", node, "--output", path)


SLEEP = "import time; time.sleep(3600)"
WAIT_FOR_SIGTERM = """
import signal, time
def stop(number, frame):
    print("got SIGTERM")
    time.sleep(2)
    print("saved")
    raise SystemExit(0)
signal.signal(signal.SIGTERM, stop)
print("started")
time.sleep(3600)
"""


def test_nodes_carry_the_labels_and_taints_of_spot_machines(cluster: Cluster) -> None:
    node = cluster.api.get("/api/v1/nodes/one")
    assert node["metadata"]["labels"]["karpenter.sh/capacity-type"] == "spot"
    assert node["metadata"]["finalizers"] == ["karpenter.sh/termination"]
    assert {"key": "spottraining.io/spot", "value": "true", "effect": "NoSchedule"} in node["spec"]["taints"]


def test_a_service_is_reached_by_name_on_another_node_and_on_the_same(cluster: Cluster) -> None:
    serve = "import http.server as h; h.test(h.SimpleHTTPRequestHandler, port=8000)"
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8000}]},
    }
    ask = """
import time, urllib.request
for attempt in range(60):
    try:
        print(urllib.request.urlopen("http://web.default.svc/", timeout=2).status)
        break
    except OSError as error:
        print(error)
        time.sleep(0.5)
else:
    raise SystemExit("never reached")
"""
    apply(cluster, pod("web", "one", serve), service)
    wait_for_phase(cluster, "web", "Running")
    apply(cluster, pod("ask-far", "two", ask), pod("ask-near", "one", ask))
    for name in ("ask-far", "ask-near"):
        wait_for_phase(cluster, name, "Succeeded")
        assert "200" in cluster.kubectl("logs", name)
    cluster.kubectl("delete", "pod/web", "service/web", "--wait=false")


def test_a_service_is_reached_from_the_host(cluster: Cluster) -> None:
    port = cluster.forward("10.96.0.1", 443)
    with pytest.raises(urllib.error.URLError, match="CERTIFICATE_VERIFY_FAILED"):
        urllib.request.urlopen(f"https://127.0.0.1:{port}/version", timeout=5)


def test_a_pod_gets_sigterm_within_the_notice_and_then_the_node_goes(cluster: Cluster) -> None:
    cluster.add_node("spare-a")
    apply(cluster, pod("graceful", "spare-a", WAIT_FOR_SIGTERM))
    wait_for_phase(cluster, "graceful", "Running")
    cluster.wait_for(lambda: "started" in cluster.kubectl("logs", "graceful"), what="the pod's start")
    record = cluster.reclaim("spare-a", notice_seconds=20)
    names = [step.name for step in record.steps]
    assert names == [
        "event SpotInterrupted",
        "event TerminatingOnInterruption",
        "node deletion requested",
        "tainted",
        "evicted",
        "drained",
        "powered off",
        "node object removed",
    ]
    assert 2 <= record.seconds("drained") < 15
    assert "spare-a" not in cluster.kubectl("get", "nodes")
    events = cluster.kubectl("get", "events", "--field-selector", "involvedObject.kind=Node")
    assert "SpotInterrupted" in events


def test_a_protected_pod_is_not_evicted_and_dies_with_the_machine(cluster: Cluster) -> None:
    cluster.add_node("spare-b")
    protected = {"karpenter.sh/do-not-disrupt": "true"}
    apply(cluster, pod("protected", "spare-b", WAIT_FOR_SIGTERM, annotations=protected))
    wait_for_phase(cluster, "protected", "Running")
    record = cluster.reclaim("spare-b", notice_seconds=4)
    names = [step.name for step in record.steps]
    assert "evicted" not in names
    assert names[-3:] == ["notice over", "powered off", "node object removed"]
    assert record.seconds("notice over") >= 3.9
    # How long its power takes to be cut depends on what else the tests' machine does; were the pod asked to
    # stop, it would be 30 s.
    assert record.seconds("powered off") < 25


def test_cordon_and_evict_removes_the_node_too(cluster: Cluster) -> None:
    cluster.add_node("spare-c")
    apply(cluster, pod("evicted", "spare-c", WAIT_FOR_SIGTERM))
    wait_for_phase(cluster, "evicted", "Running")
    record = cluster.reclaim("spare-c", style="cordon-evict", notice_seconds=20)
    assert [step.name for step in record.steps][:2] == ["cordoned", "evicted"]
    assert "spare-c" not in cluster.kubectl("get", "nodes")


def test_a_killed_node_becomes_unknown_and_can_come_back_as_a_new_one(cluster: Cluster) -> None:
    cluster.add_node("spare-d")
    uid = cluster.api.get("/api/v1/nodes/spare-d")["metadata"]["uid"]
    apply(cluster, pod("doomed", "spare-d", SLEEP))
    wait_for_phase(cluster, "doomed", "Running")
    cluster.kill_node("spare-d")
    cluster.wait_for(lambda: ready_status(cluster, "spare-d") == "Unknown", what="Ready=Unknown")
    cluster.add_node("spare-d")
    assert cluster.api.get("/api/v1/nodes/spare-d")["metadata"]["uid"] != uid
    assert ready_status(cluster, "spare-d") == "True"
    apply(cluster, pod("reborn", "spare-d", "print('alive')"))
    wait_for_phase(cluster, "reborn", "Succeeded")
    cluster.remove_node("spare-d")
    assert "spare-d" not in cluster.kubectl("get", "nodes")


def test_killing_an_unknown_node_says_so(cluster: Cluster) -> None:
    with pytest.raises(LocalClusterError, match="no running node 'nobody'"):
        cluster.kill_node("nobody")


def s3_client(cluster: Cluster) -> Any:
    access = cluster.s3.access
    return boto3.client(
        "s3",
        endpoint_url=access.endpoint,
        aws_access_key_id=access.access_key,
        aws_secret_access_key=access.secret_key,
        region_name=access.region,
    )


def test_s3_refuses_to_overwrite_under_a_condition(cluster: Cluster) -> None:
    client = s3_client(cluster)
    cluster.s3.create_bucket("conditions")
    client.put_object(Bucket="conditions", Key="claim", Body=b"first", IfNoneMatch="*")
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket="conditions", Key="claim", Body=b"second", IfNoneMatch="*")
    assert client.get_object(Bucket="conditions", Key="claim")["Body"].read() == b"first"


def test_s3_data_survives_a_kill_of_the_server(cluster: Cluster) -> None:
    client = s3_client(cluster)
    cluster.s3.create_bucket("survivors")
    client.put_object(Bucket="survivors", Key="data", Body=b"x" * 100_000)
    cluster.s3.stop()
    assert not cluster.s3.is_running()
    cluster.s3.start()
    assert len(client.get_object(Bucket="survivors", Key="data")["Body"].read()) == 100_000


def test_s3_is_reached_from_a_pod_by_service_name(cluster: Cluster) -> None:
    cluster.s3.publish(cluster.api, "default")
    script = """
import time, urllib.error, urllib.request
for attempt in range(60):
    try:
        urllib.request.urlopen("http://s3.default.svc:8333/", timeout=2)
    except urllib.error.HTTPError as error:
        print("answered", error.code)
        break
    except OSError:
        time.sleep(0.5)
"""
    apply(cluster, pod("s3-client", "one", script))
    wait_for_phase(cluster, "s3-client", "Succeeded")
    assert "answered 403" in cluster.kubectl("logs", "s3-client")


def test_a_shared_volume_is_one_directory_on_all_nodes(cluster: Cluster) -> None:
    directory = cluster.shared_volume("default", "shared", owner_uid=1000)
    objects = []
    for name, node, script in (
        ("writer", "one", "open('/data/file', 'w').write('hello')"),
        (
            "reader",
            "two",
            "import time\nwhile True:\n time.sleep(.2)\n print(open('/data/file').read())\n break",
        ),
    ):
        made = pod(name, node, script)
        made["spec"]["securityContext"] = {"runAsUser": 1000, "runAsNonRoot": True}
        made["spec"]["volumes"] = [{"name": "data", "persistentVolumeClaim": {"claimName": "shared"}}]
        made["spec"]["containers"][0]["volumeMounts"] = [{"name": "data", "mountPath": "/data"}]
        objects.append(made)
    for made in objects:
        apply(cluster, made)
        wait_for_phase(cluster, made["metadata"]["name"], "Succeeded")
    assert (directory / "file").read_text() == "hello"
    assert "hello" in cluster.kubectl("logs", "reader")


def test_torchrun_works_in_the_torch_image(cluster: Cluster) -> None:
    """Debian's torch lacks libuv, which every rendezvous of torchrun asks for by default."""
    program = (
        "import os, torch, torch.distributed as d; d.init_process_group('gloo');"
        " x = torch.ones(1); d.all_reduce(x); os.write(1, b'sum %d;' % int(x))"
    )
    made = pod("torchrun", "one", "")
    made["spec"]["containers"][0] |= {
        "image": "localhost/torch-base:trixie",
        "command": ["sh", "-ec", f'echo "{program}" > /tmp/t.py; $0 /tmp/t.py; $0 --standalone /tmp/t.py'],
        "args": ["torchrun"],
        "env": [{"name": "PET_NPROC_PER_NODE", "value": "2"}],
    }
    apply(cluster, made)
    wait_for_phase(cluster, "torchrun", "Succeeded")
    assert cluster.kubectl("logs", "torchrun").count("sum 2;") == 4


def test_a_machine_keeps_its_files_below_a_directory_that_it_covers(tmp_path: Path) -> None:
    """A cache under /tmp: /tmp is covered first, and /var/lib must still be what was prepared."""
    inside, outside = tmp_path / "covered", tmp_path / "covering"
    (inside / "lib").mkdir(parents=True)
    (inside / "lib" / "prepared").touch()
    outside.mkdir()
    program = (
        "import os, sys; from localcluster.sandbox import SandboxSpec, make_private_view;"
        " make_private_view(SandboxSpec('n', [], private={sys.argv[1]: sys.argv[2], '/mnt': sys.argv[3]}));"
        " print(os.listdir('/mnt'))"
    )
    private = [str(inside), str(outside), str(inside / "lib")]
    done = subprocess.run(
        ["unshare", "--mount", sys.executable, "-c", program, *private],
        capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == "['prepared']"


def test_a_program_runs_on_a_node(cluster: Cluster) -> None:
    command = cluster.exec_command("one", "ctr", "--namespace", "k8s.io", "images", "ls", "--quiet")
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert IMAGE in done.stdout.splitlines()


def test_a_second_cluster_of_the_same_name_is_refused(cluster: Cluster) -> None:
    with pytest.raises(LocalClusterError, match="running already"):
        Cluster.up(ClusterConfig.control_plane_only(NAME))


def traces_of(name: str) -> list[str]:
    """Everything a cluster could leave on the machine: processes, mounts, cgroups, interfaces, files."""
    found = [str(path) for path in Path("/run/spot-localcluster").glob(name)]
    found += [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/spot-localcluster-{name}")]
    found += [line for line in Path("/proc/mounts").read_text().splitlines() if "localcluster" in line]
    interfaces = subprocess.run(["ip", "-br", "link"], capture_output=True, text=True, check=True).stdout
    found += re.findall(r"^(?:node\d+|br0)\b.*$", interfaces, re.MULTILINE)
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if f"spot-localcluster/{name}" in command or f"clusters/{name}/" in command:
            found.append(command)
    return found


START = """
import sys
import time
from localcluster import Cluster, ClusterConfig, NodeSpec
cluster = Cluster.up(ClusterConfig(name="leftover", nodes=(NodeSpec("one"),)))
print("up", cluster.node_pid("control-plane"), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ending", ["down", "owner killed", "supervisor killed"])
def test_nothing_is_left_however_a_cluster_ends(ending: str) -> None:
    hack = Path(__file__).resolve().parents[2] / "hack"
    with subprocess.Popen(
        [sys.executable, "-c", START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(hack)},
    ) as owner:
        assert owner.stdout is not None
        words = owner.stdout.readline().split()
        assert words[:1] == ["up"]
        assert traces_of("leftover")
        match ending:
            case "down":
                take_down("leftover")
            case "owner killed":
                owner.kill()
            case "supervisor killed":
                init = Path(f"/proc/{words[1]}/stat").read_text().rpartition(")")[2].split()[1]
                supervisor = Path(f"/proc/{init}/stat").read_text().rpartition(")")[2].split()[1]
                os.kill(int(supervisor), 9)
        owner.kill()
    if ending == "supervisor killed":
        wait_until_gone(lambda: [trace for trace in traces_of("leftover") if " " in trace])
        take_down("leftover")  # the files and cgroups of a crashed run
    wait_until_gone(lambda: traces_of("leftover"))


def wait_until_gone(traces: Any) -> None:
    deadline = time.monotonic() + 15
    while (left := traces()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == []
