"""The command line: thin wrappers of the Python API, with the same words."""

import argparse
import os
import signal
import subprocess
import sys
from collections.abc import Callable

from localcluster.bringup import prepare
from localcluster.cluster import Cluster, build_images, take_down
from localcluster.commands import LocalClusterError
from localcluster.paths import cluster_paths
from localcluster.progress import Progress
from localcluster.spec import (
    DEFAULT_NODES,
    IMAGE_NAMES,
    CapacityType,
    ClusterConfig,
    NodeSpec,
    ReclaimStyle,
    Taint,
)

_Command = Callable[[argparse.Namespace], int | None]


def main(arguments: list[str] | None = None) -> int:
    try:
        options = _parser().parse_args(arguments)
        run_command: _Command = options.run
        return run_command(options) or 0
    except LocalClusterError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except ConnectionRefusedError:
        print("error: the process that held the cluster is gone; run `down` to clear away", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _up(options: argparse.Namespace) -> None:
    nodes = () if options.control_plane_only else options.nodes
    config = ClusterConfig(
        name=options.name,
        nodes=nodes,
        images=() if options.control_plane_only else options.images,
        s3=options.s3 and not options.control_plane_only,
        node_monitor_grace_seconds=options.node_monitor_grace,
        unreachable_toleration_seconds=options.unreachable_toleration,
    )
    progress = Progress()
    cluster = Cluster.up(config, owned=options.foreground, progress=progress)
    progress.say(f"ready: export KUBECONFIG={cluster.kubeconfig}")
    if options.foreground:
        with cluster:
            progress.say("running until Ctrl-C")
            _wait_for_interrupt()


def _prepare(options: argparse.Namespace) -> None:
    config = ClusterConfig(name=options.name, images=options.images)
    progress = Progress()
    prepare(config, cluster_paths(config.name, config.cache_root).cache_root, progress)
    progress.say("everything that a cluster needs is in the cache")


def _wait_for_interrupt() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        signal.pause()
    except KeyboardInterrupt:
        return


def _down(options: argparse.Namespace) -> None:
    take_down(options.name)


def _status(options: argparse.Namespace) -> None:
    cluster = Cluster(options.name)
    print(f"cluster     {cluster.name}")
    print(f"kubeconfig  {cluster.kubeconfig}")
    print(f"kubectl     {cluster.kubectl_path}")
    print(f"helm        {cluster.helm_path}")
    print(f"logs        {cluster.paths.logs}")
    if cluster.has_s3():
        state = "running" if cluster.s3.is_running() else "stopped"
        print(f"s3          {cluster.s3.access.endpoint} ({state})")
    print(f"machines    {', '.join(cluster.node_names()) or 'none'}")
    print(cluster.kubectl("get", "nodes", "--output=wide"), end="")


def _kubeconfig(options: argparse.Namespace) -> None:
    print(Cluster(options.name).kubeconfig)


def _kubectl(options: argparse.Namespace) -> int:
    cluster = Cluster(options.name)
    program = cluster.kubectl_path if options.tool == "kubectl" else cluster.helm_path
    return subprocess.run(
        [program, "--kubeconfig", cluster.kubeconfig, *_words(options)], check=False
    ).returncode


def _node_add(options: argparse.Namespace) -> None:
    labels = dict(pair.partition("=")[::2] for pair in options.label)
    taints = tuple(options.taint) if options.taint else None
    node = NodeSpec(
        options.node,
        options.capacity_type,
        options.zone,
        labels=labels,
        taints=taints,
        graceful_shutdown=options.graceful_shutdown,
    )
    Cluster(options.name).add_node(node, keep_object=options.keep_object)


def _node_reclaim(options: argparse.Namespace) -> None:
    record = Cluster(options.name).reclaim(options.node, style=options.style, notice_seconds=options.notice)
    print("\n".join(record.lines()))


def _node_kill(options: argparse.Namespace) -> None:
    Cluster(options.name).kill_node(options.node, delete_node_after_seconds=options.delete_node_after)


def _node_remove(options: argparse.Namespace) -> None:
    Cluster(options.name).remove_node(options.node)


def _image_build(options: argparse.Namespace) -> None:
    for layout in build_images(tuple(options.image), Progress()):
        print(layout)


def _image_load(options: argparse.Namespace) -> None:
    layouts = build_images(tuple(options.image), Progress())
    Cluster(options.name).load_image(*layouts)


def _s3(options: argparse.Namespace) -> None:
    server = Cluster(options.name).s3
    match options.action:
        case "endpoint":
            print(server.access.endpoint)
        case "env":
            for key, value in server.access.environment().items():
                print(f"export {key}={value}")
        case "stop":
            server.stop()
        case "start":
            server.start()
        case "create-bucket":
            for bucket in options.bucket:
                server.create_bucket(bucket)


def _exec(options: argparse.Namespace) -> int:
    command = Cluster(options.name).exec_command(options.node, *_words(options))
    return subprocess.run(command, check=False).returncode


def _words(options: argparse.Namespace) -> list[str]:
    words: list[str] = options.words
    return words[1:] if words[:1] == ["--"] else words


def _nodes(text: str) -> tuple[NodeSpec, ...]:
    return tuple(NodeSpec.parse(part) for part in text.split(",") if part)


def _images(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="localcluster",
        description="A real Kubernetes cluster with spot machines on this machine, without Docker.",
    )
    parser.add_argument("--name", default=os.environ.get("SPOT_CLUSTER", "default"),
                        help="which cluster; several can run at once (or $SPOT_CLUSTER)")  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run_command: _Command, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(run=run_command)
        # Also after the command; SUPPRESS keeps what was given before it.
        made.add_argument("--name", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return made

    _add_up(command("up", _up, "start a cluster; builds and downloads what is missing first"))
    prepared = command("prepare", _prepare, "build and download what a cluster needs, and start nothing")
    prepared.add_argument("--images", type=_images, default=IMAGE_NAMES, metavar="IMAGE,...",
                          help=f"default: {', '.join(IMAGE_NAMES)}")  # fmt: skip
    command("down", _down, "end the cluster, and remove what a crashed one left")
    command("status", _status, "show the cluster's machines, addresses and log directory")
    command("kubeconfig", _kubeconfig, "print the path of the kubeconfig for this machine")
    for tool in ("kubectl", "helm"):
        passed = command(tool, _kubectl, f"run {tool} against the cluster")
        passed.set_defaults(tool=tool)
        passed.add_argument("words", nargs=argparse.REMAINDER)
    _add_node(command("node", lambda _: 2, "add machines and take them away"))
    _add_image(command("image", lambda _: 2, "build images and bring them to the machines"))
    s3 = command("s3", _s3, "the cluster's S3 server")
    s3.add_argument("action", choices=("endpoint", "env", "create-bucket", "stop", "start"),
                    help="stop is a kill -9; the data survives")  # fmt: skip
    s3.add_argument("bucket", nargs="*", help="names for create-bucket, at least 3 characters")
    executed = command("exec", _exec, "run a program on a machine, e.g. exec spot-a -- ctr version")
    executed.add_argument("node", help="a node's name, or control-plane")
    executed.add_argument("words", nargs=argparse.REMAINDER)
    return parser


def _add_up(up: argparse.ArgumentParser) -> None:
    default = ",".join(f"{node.name}:{node.capacity_type}" for node in DEFAULT_NODES)
    up.add_argument("--nodes", type=_nodes, default=DEFAULT_NODES, metavar="NAME:TYPE,...",
                    help=f"TYPE is spot or on-demand (default: {default})")  # fmt: skip
    up.add_argument("--images", type=_images, default=(), metavar="IMAGE,...",
                    help=f"build and preload: {', '.join(IMAGE_NAMES)} (default: none)")  # fmt: skip
    up.add_argument("--control-plane-only", action="store_true",
                    help="API server and controllers, no nodes, no S3: ready in seconds")  # fmt: skip
    up.add_argument("--no-s3", dest="s3", action="store_false", help="without the S3 server")
    up.add_argument("--foreground", action="store_true",
                    help="stay, and end the cluster with this process")  # fmt: skip
    up.add_argument("--node-monitor-grace", type=int, default=16, metavar="SECONDS",
                    help="silence after which a node is Ready=Unknown (default: 16)")  # fmt: skip
    up.add_argument("--unreachable-toleration", type=int, default=300, metavar="SECONDS",
                    help="default toleration of unreachable nodes (default: 300)")  # fmt: skip


def _add_node(node: argparse.ArgumentParser) -> None:
    actions = node.add_subparsers(required=True, metavar="ACTION")

    def action(name: str, run_command: _Command, text: str) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=text, description=text)
        made.set_defaults(run=run_command)
        made.add_argument("node", metavar="NODE")
        made.add_argument("--name", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return made

    add = action("add", _node_add, "switch a machine on and wait until it is Ready")
    add.add_argument("--capacity-type", type=CapacityType, choices=list(CapacityType),
                     default=CapacityType.SPOT)  # fmt: skip
    add.add_argument("--zone", default="zone-a")
    add.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    add.add_argument("--taint", action="append", type=Taint.parse, metavar="KEY[=VALUE]:EFFECT",
                     help="instead of the capacity type's default")  # fmt: skip
    add.add_argument("--graceful-shutdown", action="store_true",
                     help="its kubelet ends the pods on shutdown, as on GKE; for --style gke")  # fmt: skip
    add.add_argument("--keep-object", action="store_true",
                     help="the machine of that name comes back: the Node stays the same")  # fmt: skip
    reclaim = action("reclaim", _node_reclaim, "take a machine away with notice, as a provider does")
    reclaim.add_argument("--style", type=ReclaimStyle, choices=list(ReclaimStyle),
                         default=ReclaimStyle.KARPENTER)  # fmt: skip
    reclaim.add_argument("--notice", type=float, default=120, metavar="SECONDS")
    kill = action("kill", _node_kill, "cut the power without notice")
    kill.add_argument("--delete-node-after", type=float, metavar="SECONDS",
                      help="also remove the Node object, as a cloud controller would")  # fmt: skip
    action("remove", _node_remove, "switch a machine off and remove its Node object")


def _add_image(image: argparse.ArgumentParser) -> None:
    actions = image.add_subparsers(required=True, metavar="ACTION")
    for name, run_command, text in (
        ("build", _image_build, "build images; prints the directories that hold them"),
        ("load", _image_load, "build images and bring them to all machines of the cluster"),
    ):
        made = actions.add_parser(name, help=text, description=text)
        made.set_defaults(run=run_command)
        made.add_argument("image", nargs="+", choices=IMAGE_NAMES)
        made.add_argument("--name", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
