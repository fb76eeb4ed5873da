"""The CustomResourceDefinition, generated from the types.

    python -m spot_operator.api.crd            print it
    python -m spot_operator.api.crd --write    write it to crds/ and, as a template, to the chart

Invariant: structural, without a single `default`, and small enough for `kubectl apply` to keep
its last-applied copy. The schema of status follows `model.JobStatus`, which is what the operator
writes; it names no required field and no enum there, so that a newer operator's status is never
refused by an older CRD.
"""

import ast
import dataclasses
import inspect
import json
import sys
import types
import typing
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from enum import Enum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import yaml

from spot_operator import model
from spot_operator.api.rule import Rule
from spot_operator.api.rules import NAME_RULES, RULES
from spot_operator.api.spec import POD_TEMPLATE_MARK, Spec
from spot_operator.names import GROUP, KIND, PLURAL, VERSION
from spot_operator.wire import camel

Schema = dict[str, Any]

HEADER: Final = (
    "# Generated from operator/spot_operator/api by `make generate`; edit the types, not this file.\n"
)
CRD_FILE: Final = Path("crds/spottrainingjobs.spottraining.io.yaml")
CHART_FILE: Final = Path("charts/spot-training-operator/templates/crd.yaml")
INT32_MAX: Final = 2**31 - 1
KEPT: Final = (
    "type", "enum", "format", "pattern", "minimum", "maximum",
    "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
)  # fmt: skip

# Deadline is text, not a date: kubectl prints dates as ages, and one in the future as <invalid>.
COLUMNS: Final = (
    ("Phase", "string", ".status.phase", 0),
    ("Capacity", "string", ".status.capacity.type", 0),
    ("Progress", "integer", ".status.progress.percentage", 0),
    ("Step", "integer", ".status.progress.step", 0),
    ("Durable", "integer", ".status.progress.durableStep", 0),
    ("Interruptions", "integer", ".status.restarts.interruptions", 0),
    ("Failures", "integer", ".status.restarts.failures", 1),
    ("Incarnation", "integer", ".status.incarnation", 1),
    ("Deadline", "string", ".status.deadline", 0),
    ("Spent", "string", ".status.cost.spent", 1),
    ("Projected", "string", ".status.cost.projected", 1),
    ("Age", "date", ".metadata.creationTimestamp", 0),
    ("Message", "string", ".status.message", 1),
)


@cache
def pod_template() -> Schema:
    text = resources.files(__package__).joinpath("pod_template.schema.json").read_text()
    schema: Schema = json.loads(text)
    return schema


def pod_template_part(path: str) -> Schema:
    schema = pod_template()
    for key in path.split(".") if path else ():
        schema = schema["properties"][key]
    return schema


def spec_schema() -> Schema:
    generated = Spec.model_json_schema(by_alias=True)
    return _structural(generated, generated["$defs"], name=Spec.__name__)


def _structural(node: Schema, definitions: dict[str, Schema], *, name: str = "") -> Schema:
    """One node of pydantic's JSON schema without references, unions with null, titles, defaults."""
    described = {"description": " ".join(node["description"].split())} if "description" in node else {}
    if POD_TEMPLATE_MARK in node:
        return described | pod_template_part(node[POD_TEMPLATE_MARK])
    if node.get("x-kubernetes-int-or-string"):
        return described | {"x-kubernetes-int-or-string": True}
    if ref := node.get("$ref"):
        name = ref.rsplit("/", 1)[1]
        return _structural(definitions[name], definitions, name=name) | described
    if "anyOf" in node:
        (some,) = (option for option in node["anyOf"] if option != {"type": "null"})
        return _structural(some, definitions) | described
    out: Schema = described | {key: node[key] for key in KEPT if key in node}
    if node.get("type") == "integer":
        out["format"] = "int32" if node["maximum"] <= INT32_MAX else "int64"
    if "properties" in node:
        # A model's docstring speaks to developers; the field that holds it has its own words.
        out.pop("description", None)
        out["properties"] = {
            key: _structural(value, definitions) for key, value in node["properties"].items()
        }
        out |= {"required": node["required"]} if node.get("required") else {}
    elif isinstance(extra := node.get("additionalProperties"), dict):
        out["additionalProperties"] = _structural(extra, definitions)
    if "items" in node:
        out |= {"items": _structural(node["items"], definitions), "x-kubernetes-list-type": "atomic"}
    for rule in _rules_of(name):
        out = _with_rule(out, rule, rule.field.split(".") if rule.on_value else [])
    return out


def _rules_of(name: str) -> Iterator[Rule[Any]]:
    return (rule for shape, rules in RULES.items() if shape.__name__ == name for rule in rules)


def _with_rule(schema: Schema, rule: Rule[Any], path: list[str]) -> Schema:
    """A copy with the rule at that path; the parts of the pod template are shared."""
    if not path:
        rules = schema.get("x-kubernetes-validations", [])
        return schema | {"x-kubernetes-validations": [*rules, rule.as_schema()]}
    fields = schema["properties"]
    return schema | {"properties": fields | {path[0]: _with_rule(fields[path[0]], rule, path[1:])}}


def status_schema() -> Schema:
    return _of_dataclass(model.JobStatus)


_SCALARS: Final[dict[Any, Schema]] = {
    str: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer", "format": "int64"},
    float: {"type": "number"},
    datetime: {"type": "string", "format": "date-time"},
    Decimal: {"type": "string"},
}


def _of_hint(hint: Any) -> Schema:
    arguments = [a for a in typing.get_args(hint) if a is not type(None)]
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return _of_hint(arguments[0])
    if typing.get_origin(hint) is tuple:
        items = _of_hint(arguments[0])
        if arguments[0] is model.Condition:
            keyed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
            return {"type": "array", "items": items | {"required": ["type"]}} | keyed
        return {"type": "array", "items": items, "x-kubernetes-list-type": "atomic"}
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return _of_dataclass(hint)
    if isinstance(hint, type) and issubclass(hint, Enum):
        return {"type": "string"}
    return dict(_SCALARS[hint])


def _of_dataclass(cls: type) -> Schema:
    hints = typing.get_type_hints(cls)
    documented = _field_docstrings(cls)
    properties = {}
    for field in dataclasses.fields(cls):
        schema = (
            {"type": "string"}
            if cls is model.Condition and field.name == "status"
            else _of_hint(hints[field.name])
        )
        if text := documented.get(field.name):
            schema = {"description": text} | schema
        properties[camel(field.name)] = schema
    return {"type": "object", "properties": properties}


def _field_docstrings(cls: type) -> dict[str, str]:
    """The docstrings under the fields of a dataclass; Python itself keeps none of them."""
    (definition,) = ast.parse(inspect.getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for field, after in zip(definition.body, definition.body[1:], strict=False):
        match field, after:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(text))),
            ):
                found[name] = " ".join(text.split())
    return found


def custom_resource_definition() -> Schema:
    root: Schema = {
        "description": "A training run that survives the loss of its spot nodes and finishes on time.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": {"description": "What is wanted."} | spec_schema(),
            "status": {"description": "What the operator saw and did."} | status_schema(),
        },
        "x-kubernetes-validations": list(NAME_RULES),
    }
    columns = [
        {"name": name, "type": kind, "jsonPath": path} | ({"priority": priority} if priority else {})
        for name, kind, path, priority in COLUMNS
    ]
    version = {
        "name": VERSION,
        "served": True,
        "storage": True,
        "subresources": {"status": {}},
        "additionalPrinterColumns": columns,
        "schema": {"openAPIV3Schema": root},
    }
    names = {
        "kind": KIND,
        "listKind": f"{KIND}List",
        "plural": PLURAL,
        "singular": KIND.lower(),
        "shortNames": ["stj"],
        "categories": ["all"],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {"group": GROUP, "names": names, "scope": "Namespaced", "versions": [version]},
    }


class _Dumper(yaml.SafeDumper):
    """Plain YAML: equal parts are written out, since anchors would confuse readers of a CRD."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def crd_yaml() -> str:
    body = yaml.dump(custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=110)
    return HEADER + body


def chart_template() -> str:
    """The same definition as a template of the chart: installed on request, kept by default."""
    name = f"metadata:\n  name: {PLURAL}.{GROUP}\n"
    keep = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    body = crd_yaml()
    assert body.count(name) == 1
    assert "{{" not in body
    return "{{- if .Values.crds.install }}\n" + body.replace(name, name + keep) + "{{- end }}\n"


def main(arguments: list[str]) -> None:
    if "--write" in arguments:
        CRD_FILE.write_text(crd_yaml())
        CHART_FILE.write_text(chart_template())
    else:
        sys.stdout.write(crd_yaml())


if __name__ == "__main__":
    main(sys.argv[1:])
