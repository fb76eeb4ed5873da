"""Settings come from the environment, whole or not at all."""

import dataclasses

import pytest

from spot_operator.model import PolicySettings
from spot_operator.settings import InvalidSetting, LeaseSettings, Settings, describe_settings, read_settings


def test_empty_environment_is_usable() -> None:
    assert read_settings({}) == Settings()


def test_values_of_all_groups_are_read() -> None:
    settings = read_settings(
        {
            "NAMESPACE": "operators",
            "POD_NAME": "operator-0",
            "SPOT_OPERATOR_WATCH_NAMESPACES": "team-a, team-b",
            "SPOT_OPERATOR_STATUS_SERVICE": "status",
            "SPOT_OPERATOR_LEASE_DURATION_SECONDS": "30",
            "SPOT_OPERATOR_POLICY_PROTECT_FROM_VOLUNTARY_DISRUPTION": "false",
            "SPOT_OPERATOR_METRICS_PORT": "",
        }
    )
    assert settings.watch_namespaces == ("team-a", "team-b")
    assert settings.lease.duration_seconds == 30
    assert not settings.policy.protect_from_voluntary_disruption
    assert settings.metrics_port == 8080
    assert settings.status_url("team-a", "digits") == (
        "https://status.operators.svc:8443/v1alpha1/namespaces/team-a/spottrainingjobs/digits/status"
    )


def test_without_a_service_there_is_no_status_url() -> None:
    assert read_settings({}).status_url("team-a", "digits") == ""


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("SPOT_OPERATOR_WORKERS", "many", "a number (int)"),
        ("SPOT_OPERATOR_WORKERS", "0", "a number greater than 0"),
        ("SPOT_OPERATOR_LOG_LEVEL", "loud", "one of DEBUG, INFO, WARNING, ERROR"),
        ("SPOT_OPERATOR_WATCH_NAMESPACES", "Team_A", "namespaces and commas"),
        ("SPOT_OPERATOR_POLICY_PROTECT_FROM_VOLUNTARY_DISRUPTION", "yes", "true or false"),
        ("SPOT_OPERATOR_LEASE_RENEW_DEADLINE_SECONDS", "20", "less than LEASE_DURATION_SECONDS (15)"),
        ("SPOT_OPERATOR_WROKERS", "8", "no such setting"),
    ],
)
def test_error_names_variable_value_and_remedy(variable: str, value: str, expected: str) -> None:
    with pytest.raises(InvalidSetting) as caught:
        read_settings({variable: value})
    message = str(caught.value)
    assert variable in message
    assert repr(value) in message
    assert expected in message


def test_every_field_is_described_with_its_variable() -> None:
    text = describe_settings()
    for cls, prefix in ((Settings, ""), (LeaseSettings, "LEASE_"), (PolicySettings, "POLICY_")):
        for field in dataclasses.fields(cls):
            if field.name not in ("lease", "policy"):
                assert f"SPOT_OPERATOR_{prefix}{field.name.upper()} " in text
