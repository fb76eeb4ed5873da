"""Rules about the pod template: what the operator itself must decide or add there.

Host networking, privileges and the like are the business of the cluster's own policies.
"""

import re
from typing import Final

from spot_operator.api import spec as api
from spot_operator.api.rule import Rule

MOUNT_PATH: Final = "/checkpoints"
RESERVED_ENV: Final = ("SPOT_", "PET_", "KUBEFLOW_TRAINER_")
RESERVED_VOLUMES: Final = ("spot-checkpoints", "spot-status")


# However it is spelt (//checkpoints, ./checkpoints), and wherever ".." may lead. A regular expression
# costs the API server more than its budget for CEL: there only the usual spelling is refused.
_COVERS_MOUNT: Final = f"^/*([.]/+)*{MOUNT_PATH[1:]}(/|$)|(^|/)[.][.](/|$)"


def trainer_of(spec: api.Spec) -> api.Container | None:
    """The container whose end is the pod's end, if the template has it."""
    containers = spec.template.spec.containers
    if spec.trainer_container is None:
        return next(iter(containers), None)
    return next((c for c in containers if c.name == spec.trainer_container), None)


def _mounts_checkpoints(container: api.Container) -> bool:
    return any(re.search(_COVERS_MOUNT, mount.mount_path) is not None for mount in container.volume_mounts)


def _sets_reserved_env(spec: api.Spec) -> bool:
    trainer = trainer_of(spec)
    return trainer is not None and any(env.name.startswith(RESERVED_ENV) for env in trainer.env)


_POD: Final = "self.template.spec"
_MOUNTED: Final = f"the operator mounts the checkpoint volume at {MOUNT_PATH}; mount yours elsewhere"
_MOUNTS_ELSEWHERE: Final = (
    "self.all(c, !has(c.volumeMounts) || "
    f"c.volumeMounts.all(m, m.mountPath != '{MOUNT_PATH}' && !m.mountPath.startsWith('{MOUNT_PATH}/')))"
)


def _sets_none_of_ours(container: str) -> str:
    ours = " && ".join(f"!e.name.startsWith('{prefix}')" for prefix in RESERVED_ENV)
    return f"!has({container}.env) || {container}.env.all(e, {ours})"


TEMPLATE_RULES: Final[tuple[Rule[api.Spec], ...]] = (
    Rule(
        field="template.spec.containers",
        cel="self.size() > 0",
        on_value=True,
        message="the template needs at least one container",
        holds=lambda s: len(s.template.spec.containers) > 0,
        reason="FieldValueRequired",
    ),
    Rule(
        field="trainerContainer",
        cel=f"!has(self.trainerContainer) || {_POD}.containers.exists(c, c.name == self.trainerContainer)",
        message="no container of the template has this name; name one of template.spec.containers",
        holds=lambda s: s.trainer_container is None or trainer_of(s) is not None,
    ),
    Rule(
        field="template.spec.restartPolicy",
        cel="self == 'Never'",
        on_value=True,
        message="restartPolicy must be Never or unset, since the operator restarts the run itself",
        holds=lambda s: s.template.spec.restart_policy in (None, "Never"),
    ),
    Rule(
        field="template.spec.nodeName",
        cel="false",
        on_value=True,
        message="nodeName bypasses the choice between spot and on-demand; use nodeSelector or affinity",
        holds=lambda s: s.template.spec.node_name is None,
        reason="FieldValueForbidden",
    ),
    Rule(
        field="template.spec.terminationGracePeriodSeconds",
        cel="self >= 1",
        on_value=True,
        message="terminationGracePeriodSeconds must be at least 1, since the last checkpoint is made in it",
        holds=lambda s: (
            s.template.spec.termination_grace_period_seconds is None
            or s.template.spec.termination_grace_period_seconds >= 1
        ),
    ),
    Rule(
        field="template.spec.containers",
        cel=_MOUNTS_ELSEWHERE,
        on_value=True,
        message=_MOUNTED,
        holds=lambda s: not any(map(_mounts_checkpoints, s.template.spec.containers)),
        reason="FieldValueForbidden",
    ),
    Rule(
        field="template.spec.initContainers",
        cel=_MOUNTS_ELSEWHERE,
        on_value=True,
        message=_MOUNTED,
        holds=lambda s: not any(map(_mounts_checkpoints, s.template.spec.init_containers)),
        reason="FieldValueForbidden",
    ),
    Rule(
        field="template.spec.volumes",
        cel=f"self.all(v, !(v.name in {list(RESERVED_VOLUMES)}))",
        on_value=True,
        message="the operator adds volumes named spot-checkpoints and spot-status; rename yours",
        holds=lambda s: not any(v.name in RESERVED_VOLUMES for v in s.template.spec.volumes),
        reason="FieldValueForbidden",
    ),
    Rule(
        field="template.spec.containers",
        cel=(
            "has(self.trainerContainer) "
            f"? {_POD}.containers.all(c, c.name != self.trainerContainer || {_sets_none_of_ours('c')}) "
            f": {_POD}.containers.size() == 0 || {_sets_none_of_ours(f'{_POD}.containers[0]')}"
        ),
        message="the operator sets SPOT_*, PET_* and KUBEFLOW_TRAINER_* variables in the trainer container; "
        "rename yours",
        holds=lambda s: not _sets_reserved_env(s),
        reason="FieldValueForbidden",
    ),
)
