"""Whether a job's pods use volumes that may be bound to one node or one zone."""

from spot_operator.model import JobSpec, S3Location


def uses_claims(spec: JobSpec) -> bool:
    """A claim may be ReadWriteOnce, and its volume may live in one zone; both forbid some moves."""
    volumes = (spec.template.get("spec") or {}).get("volumes") or ()
    return not isinstance(spec.checkpoint.location, S3Location) or any(
        "persistentVolumeClaim" in volume or "ephemeral" in volume for volume in volumes
    )
