"""The options that several commands share, and how their words become values."""

from typing import Annotated, Any

import typer

from spot_plugin.errors import PluginError
from spot_plugin.kubectl import Kubectl
from spot_plugin.words import parse_duration

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace; as kubectl's.")]
Context = Annotated[str, typer.Option("--context", help="Context of the kubeconfig; as kubectl's.")]
Kubeconfig = Annotated[str, typer.Option("--kubeconfig", help="Path of the kubeconfig; as kubectl's.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of a SpotTrainingJob.")]
Wait = Annotated[bool, typer.Option("--wait", help="Return when it has come to pass.")]
Timeout = Annotated[str, typer.Option("--timeout", help="How long --wait waits.", metavar="DURATION")]


def kubectl_of(context: typer.Context, *, namespace: str, kube_context: str, kubeconfig: str) -> Kubectl:
    """Flags may stand before the command or after it; after it they win."""
    before: dict[str, Any] = context.obj or {}
    return Kubectl(
        namespace=namespace or before.get("namespace", ""),
        context=kube_context or before.get("context", ""),
        kubeconfig=kubeconfig or before.get("kubeconfig", ""),
    )


def seconds_of(text: str, option: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as error:
        raise PluginError(f"{option}: {error}") from error
