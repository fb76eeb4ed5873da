#!/usr/bin/env python3
"""Reduce Kubernetes' OpenAPI to the structural schema of a pod template.

The CRD embeds the whole pod template so that the API server refuses a typo in it. A CRD schema
must be structural (no references, no defaults for keys that are not list keys) and ours must
stay small enough for `kubectl apply`, so descriptions go too. The result is committed; run this
again for a newer Kubernetes:

    dir=$(go mod download -json k8s.io/kubernetes@v1.37.2 | jq -r .Dir)
    hack/pod_template_schema.py $dir/api/openapi-spec/v3/api__v1_openapi.json \\
        > operator/spot_operator/api/pod_template.schema.json
"""

import json
import sys
from pathlib import Path
from typing import Any

Schema = dict[str, Any]

CORE = "io.k8s.api.core.v1."
INT_OR_STRING = {
    "io.k8s.apimachinery.pkg.api.resource.Quantity",
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString",
}
KEPT = ("type", "format", "x-kubernetes-map-type")
NO_LIMIT = 0
# CEL's cost is estimated from the greatest size a list may have, so that the lists which our
# rules walk need a bound; each is far beyond what a real pod has.
LIST_LIMITS = {
    "containers": 32,
    "initContainers": 32,
    "env": 1024,
    "volumeMounts": 256,
    "volumes": 256,
}
STRING_LIMITS: dict[tuple[str, ...], int] = {
    ("containers", "name"): 63,
    ("env", "name"): 1024,
    ("volumeMounts", "mountPath"): 4096,
    ("volumes", "name"): 63,
}


def reduce(schema: Schema, definitions: dict[str, Schema], *, path: tuple[str, ...] = ()) -> Schema:
    """The structural form of one schema node, references inlined."""
    if "allOf" in schema:
        (schema,) = schema["allOf"]
    if ref := schema.get("$ref"):
        name = ref.rsplit("/", 1)[1]
        if name in INT_OR_STRING:
            return {"x-kubernetes-int-or-string": True}
        return reduce(definitions[name], definitions, path=path)
    out = {key: schema[key] for key in KEPT if key in schema}
    if "properties" in schema:
        out["properties"] = {
            key: reduce(value, definitions, path=(*path, key)) for key, value in schema["properties"].items()
        }
    if "required" in schema:
        out["required"] = sorted(schema["required"])
    if isinstance(extra := schema.get("additionalProperties"), dict):
        out["additionalProperties"] = reduce(extra, definitions, path=path)
    if "items" in schema:
        out["items"] = reduce(schema["items"], definitions, path=path)
        out |= list_type(schema, out["items"])
        if limit := LIST_LIMITS.get(path[-1], NO_LIMIT):
            out["maxItems"] = limit
    if limit := STRING_LIMITS.get(path[-2:], NO_LIMIT):
        out["maxLength"] = limit
    return out


def list_type(schema: Schema, items: Schema) -> Schema:
    """How server-side apply merges a list; `map` only where every key is required.

    The API server refuses a map list whose key is neither required nor defaulted, and we have no
    defaults: such lists (ports by protocol, imagePullSecrets) are replaced as a whole.
    """
    kind = schema.get("x-kubernetes-list-type", "atomic")
    keys = schema.get("x-kubernetes-list-map-keys", [])
    if kind == "map" and set(keys) <= set(items.get("required", [])):
        return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}
    return {"x-kubernetes-list-type": "atomic" if kind == "map" else kind}


def pod_template(definitions: dict[str, Schema]) -> Schema:
    text_map: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
    metadata = {"type": "object", "properties": {"annotations": text_map, "labels": text_map}}
    spec = reduce(definitions[f"{CORE}PodSpec"], definitions)
    return {"type": "object", "properties": {"metadata": metadata, "spec": spec}, "required": ["spec"]}


def main() -> None:
    definitions = json.loads(Path(sys.argv[1]).read_text())["components"]["schemas"]
    json.dump(pod_template(definitions), sys.stdout, separators=(",", ":"), sort_keys=True)
    print()


if __name__ == "__main__":
    main()
