"""The user's own rules on how a pod ended (failurePolicy.rules), in the words of the Job API.

A rule on exit codes speaks of what the program did by itself: a container that ended after it
was told to stop, or with its machine, has no exit code in this sense. Rules on pod
conditions match whatever ended the pod.
"""

from spot_operator.model import FailureRule, PodView


def first_match(rules: tuple[FailureRule, ...], pod: PodView, *, is_own_end: bool) -> tuple[int, str] | None:
    """Index of the first rule that matches, and what matched; None: none does."""
    for index, rule in enumerate(rules):
        if rule.conditions:
            matched = _matching_condition(rule, pod)
        else:
            matched = _matching_exit_code(rule, pod) if is_own_end else None
        if matched is not None:
            return index, matched
    return None


def _matching_condition(rule: FailureRule, pod: PodView) -> str | None:
    for pattern in rule.conditions:
        found = pod.condition(pattern.type)
        if found is not None and found.status == pattern.status:
            return f"pod condition {pattern.type}={pattern.status}"
    return None


def _matching_exit_code(rule: FailureRule, pod: PodView) -> str | None:
    name = rule.container or pod.trainer_container
    code = pod.exit_codes.get(name)
    if not code or (code in rule.exit_codes) is rule.matches_others:
        return None
    return f"container {name} failed with exit code {code}"
