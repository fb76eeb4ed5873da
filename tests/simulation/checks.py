"""What must hold at every moment of every run, and at its end.

The truth comes from the model (`World.truth`, live processes, the objects), the claim from the
job's status. Invariant: a check never reads what the operator keeps in memory.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

from simulation import status_checks
from simulation.api import Object
from simulation.trainer import End
from simulation.world import EPOCH, Running, World
from spot_operator.names import LABEL_CAPACITY_TYPE, LABEL_JOB_NAME, CapacityType
from spot_operator.views import controller_of, incarnation_of, time_of

ALLOWED = {
    "reclaim": {"Interruption", "NodeLost"},
    "reclaim on-demand": {"NodeLost", "VolunteerEviction", "VoluntaryEviction", "Interruption"},
    "off": {"Interruption", "NodeLost"},
    "partition": {"NodeLost", "Interruption", "Fenced"},
    "stop taint": {"Interruption", "VoluntaryEviction", "NodeLost"},
    "eviction": {"VoluntaryEviction", "Interruption"},
    "deleted by somebody": {"VoluntaryEviction", "Requested", "Interruption"},
    "reboot": {"NodeLost", "Interruption"},
    "preemption": {"SchedulerPreemption"},
    "pressure": {"NodePressure"},
    "refused": {"Infrastructure"},
    "crash": {"Failure"},
    "stops itself": {"Requested", "Failure"},
    "out of memory": {"OutOfMemory"},
    "suspend": {"Requested"},
    "capacity": {"CapacityChange"},
}
"""What a pod's end may be called, by what was done to it. Several deeds allow what each of them allows."""

CHARGED = {"Failure", "OutOfMemory"}
IN_FLIGHT_SECONDS = 2.0
"""A call that was on its way when the world changed may still arrive."""
MAX_CALLS_PER_MINUTE = 600
MAX_DELETES_PER_POD = 8
MAX_ENDED_PODS = 2
"""The newest one and the last failed one."""
BACKOFF_SECONDS = (0, 0, 10, 20, 40, 80, 160, 300)
"""Before the next launch, by the number of crashes in a row without durable progress."""
SUSPENSION_SECONDS = 10.0
"""A create that was under way may still arrive."""
SETTLE_SECONDS = 95.0
UPGRADE_SECONDS = 300.0
LATE_SECONDS = 5.0
LIMITS = {"BackoffLimitExceeded", "NoProgress", "OutOfMemory"}
RULES = {"afterInterruptions", "beforeDeadlineSeconds", "afterPendingSeconds"}
LEFT_SPOT = {"AfterInterruptions", "DeadlineNear", "DeadlineInfeasible", "AfterPending"}


class Violation(Exception):
    """Something that must never be; the text says what."""


class Checks:
    def __init__(self, world: World) -> None:
        self._world = world
        self._created: dict[str, str] = {}
        """Pod name -> UID: a name is created once in the life of a job."""
        self._durable: dict[str, int] = defaultdict(int)
        self._incarnation: dict[str, int] = defaultdict(int)
        self._final: dict[str, str] = {}
        self._counts: dict[str, Counter[str]] = defaultdict(Counter)
        self._calls: Counter[int] = Counter()
        self._deletes: Counter[str] = Counter()
        self._reporter: dict[str, int] = defaultdict(int)
        self._suspended_since: dict[str, float] = {}
        self._resumed: dict[str, float] = {}
        self._left_spot: set[str] = set()
        self._claims: set[str] = set()
        self._warned: dict[str, float] = {}
        """When a job first said that its deadline is at risk."""
        self.num_status_writes = 0
        self.violation: Violation | None = None
        world.api.listeners.append(self._hear)
        self._gangs: dict[str, set[int]] = {}
        """Incarnations without a verdict, as of the newest status."""
        self._excused: dict[str, set[int]] = defaultdict(set)
        """Incarnations that were under way when the job ended: the end needs no further verdict.

        And those whose pod came and went while no operator was able to write anything of it.
        """
        self._unwritten: dict[str, dict[str, int]] = defaultdict(dict)
        """By job, the pods that were created since its status was written, and their incarnations."""
        world.on_start = self._started
        world.on_end = self._ended

    def fail(self, text: str) -> None:
        if self.violation is None:
            self._world.say(f"VIOLATION {text}")
            self.violation = Violation(text)

    # ------------------------------------------------------------------ at every moment

    def called(self, method: str, path: str, status: int) -> None:
        if method == "DELETE" and "/pods/debug-" in path and status < 300:
            self.fail(f"{path.rpartition('/')[2]} is nobody's but its owner's, and was deleted")
        if method == "DELETE" and "/pods/" in path:
            self._deletes[path] += 1
            if self._deletes[path] > MAX_DELETES_PER_POD:
                self.fail(f"{path.rpartition('/')[2]} is deleted again and again")
        minute = int(self._world.seconds() // 60)
        self._calls[minute] += 1
        if self._calls[minute] > MAX_CALLS_PER_MINUTE:
            self.fail(f"more than {MAX_CALLS_PER_MINUTE} API calls in a minute: a hot loop")
        if method == "PUT" and path.endswith("/status") and status == 200:
            self.num_status_writes += 1
            self._unwritten.pop(path.split("/")[-2], None)

    def _hear(self, kind: str, plural: str, changed: Object) -> None:
        if plural == "pods" and kind == "ADDED":
            self._pod_created(changed)
        if plural == "pods" and kind == "DELETED":
            job = changed["metadata"]["labels"][LABEL_JOB_NAME]
            incarnation = self._unwritten[job].pop(changed["metadata"]["name"], None)
            if incarnation is not None:
                self._excused[job].add(incarnation)
        if plural == "spottrainingjobs" and kind == "MODIFIED":
            self._job_changed(changed)

    def _pod_created(self, pod: Object) -> None:
        metadata = pod["metadata"]
        name, job = metadata["name"], metadata["labels"][LABEL_JOB_NAME]
        if name in self._created:
            self.fail(f"pod {name} was created twice")
        self._created[name] = metadata["uid"]
        self._unwritten[job][name] = incarnation_of(pod)
        found = self._world.job(job)
        if found is None or (controller_of(pod) or {}).get("uid") != found["metadata"]["uid"]:
            return
        self._check_place(pod, found)
        gang = found.get("status", {}).get("gang") or {}
        if name not in {each["name"] for each in gang.get("pods", [])}:
            self.fail(f"pod {name} was created before status says so")
        self._check_backoff(job, found)
        since = self._suspended_since.get(job)
        if since is not None:
            self._world.truth[metadata["uid"]].add("suspend")  # the operator had not heard of it yet
        if since is not None and self._world.seconds() > since + SUSPENSION_SECONDS:
            self.fail(f"pod {name} was created although the job is suspended")
        if job in self._left_spot and metadata["labels"][LABEL_CAPACITY_TYPE] == CapacityType.SPOT:
            self.fail(f"pod {name} goes back to spot, which {job} had left for good")
        if job in self._final:
            self.fail(f"pod {name} was created after the job was {self._final[job]}")

    def _check_place(self, pod: Object, job: Object) -> None:
        name, deleted = pod["metadata"]["name"], time_of(job["metadata"].get("deletionTimestamp"))
        if deleted is not None and (self._world.now() - deleted).total_seconds() > IN_FLIGHT_SECONDS:
            self.fail(f"pod {name} was created although its job is being deleted")
        affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution", ()):
            keys = {expression["key"] for expression in term["preference"]["matchExpressions"]}
            if job["model"]["volume"] and any(key.endswith("/zone") for key in keys):
                self.fail(f"pod {name} avoids the zone that its volume is in")

    def _check_backoff(self, name: str, job: Object) -> None:
        restarts = (job.get("status") or {}).get("recentRestarts") or []
        crashes = []
        for each in reversed(restarts):
            newest = restarts[-1]
            if (each["cause"], each.get("durableStep")) != (newest["cause"], newest.get("durableStep")):
                break
            crashes.append(each)
        if not crashes or crashes[0]["cause"] not in CHARGED:
            return
        wait = BACKOFF_SECONDS[min(len(crashes), len(BACKOFF_SECONDS) - 1)]
        ended = time_of(crashes[0]["time"])
        assert ended is not None
        resumed = self._resumed.get(name)
        if resumed is not None and resumed > (ended - EPOCH).total_seconds():
            return  # who resumes a job wants it to run
        if (self._world.now() - ended).total_seconds() < wait - 5:  # of clocks that differ
            self.fail(f"{name} was launched again at once after {len(crashes)} crashes in a row")

    def _started(self, each: Running) -> None:
        if not each.process.is_plain:
            return
        others = [o for o in self._world.running.values() if o.job == each.job and o is not each]
        if others:
            self.fail(f"plain pods {others[0].pod_name} and {each.pod_name} run at the same time")

    def _ended(self, each: Running, end: End) -> None:
        """Who is asked to stop saves before its successor takes over, as long as it can be heard."""
        if end.exit_code != 76 or each.told_at is None or each.machine.was_lost:
            return
        incarnation = each.process.incarnation
        others = [o for o in self._world.running.values() if o.job == each.job]
        if any(o.process.handover_seconds and o.process.incarnation == incarnation + 1 for o in others):
            self.fail(f"pod {each.pod_name} was still saving when its successor claimed")

    def _job_changed(self, job: Object) -> None:
        name, status = job["metadata"]["name"], job.get("status") or {}
        if status and (wrong := status_checks.complaint(job, self._world)):
            self.fail(wrong)
        if name in self._claims and status and not status.get("claims"):
            self.fail(f"that {name} claims its store was forgotten")
        if status.get("claims"):
            self._claims.add(name)
        if any(c["type"] == "DeadlineAtRisk" and c["status"] == "True" for c in status.get("conditions", ())):
            self._warned.setdefault(name, self._world.seconds())
        durable = (status.get("progress") or {}).get("durableStep") or 0
        if durable < self._durable[name]:
            self.fail(f"durable progress of {name} went from {self._durable[name]} to {durable}")
        self._durable[name] = durable
        if durable > self._world.stores[name].newest_step:
            self.fail(f"{name} is said to be durable at step {durable}, which no store has")
        if not job["spec"].get("suspend"):
            if self._suspended_since.pop(name, None) is not None:
                self._resumed[name] = self._world.seconds()
        elif name not in self._suspended_since:
            self._suspended_since[name] = self._world.seconds()
        fallback = job["spec"].get("fallback") or {}
        is_auto = fallback.get("policy", "Auto" if "deadline" in job["spec"] else "Rules") == "Auto"
        may_return = is_auto and fallback.get("returnToSpot") != "Never" and not set(fallback) & RULES
        if (status.get("capacity") or {}).get("reason") in LEFT_SPOT and not may_return:
            self._left_spot.add(name)
        reporter = (status.get("progress") or {}).get("incarnation") or 0
        if reporter < self._reporter[name]:
            self.fail(f"progress of {name} is that of incarnation {reporter} after {self._reporter[name]}")
        self._reporter[name] = reporter
        incarnation = status.get("incarnation", 0)
        if incarnation < self._incarnation[name]:
            self.fail(f"the incarnation of {name} went back to {incarnation}")
        self._incarnation[name] = incarnation
        ended = [c["type"] for c in status.get("conditions", []) if c["status"] == "True"]
        terminal = next((each for each in ended if each in ("Complete", "Failed")), None)
        if name in self._final and terminal != self._final[name]:
            self.fail(f"{name} was {self._final[name]} and is {terminal}")
        if terminal is not None and name not in self._final:
            self._excused[name] |= self._gangs.get(name, set())
        if terminal is not None:
            self._final[name] = terminal
        gangs = [status.get(key) or {} for key in ("gang", "predecessor")]
        self._gangs[name] = {each["incarnation"] for each in gangs if each}
        restarts = status.get("restarts") or {}
        total = sum(value for value in restarts.values() if isinstance(value, int))
        recent = status.get("recentRestarts") or []
        if total != len(recent) and len(recent) < 50:
            self.fail(f"{name} counts {total} restarts and remembers {len(recent)}")
        twice = [n for n, count in Counter(each["incarnation"] for each in recent).items() if count > 1]
        if twice:
            self.fail(f"{name}: incarnation {twice[0]} was counted twice")

    # ------------------------------------------------------------------ at the end

    def _check_deadline(self, job: Object) -> None:
        """A deadline that is missed was said to be at risk before it was over, if anybody could say so."""
        name, status = job["metadata"]["name"], job["status"]
        deadline, completed = time_of(status.get("deadline")), time_of(status.get("completionTime"))
        if deadline is None or completed is None or (completed - deadline).total_seconds() <= LATE_SECONDS:
            return
        if self._warned.get(name, float("inf")) > (deadline - EPOCH).total_seconds() - 1:
            self.fail(f"{name} ended after its deadline, and nothing had said that it would")

    def at_end(self, *, crashes: Counter[str], could_speak: bool) -> None:
        if could_speak:
            for job in self._world.api.all("spottrainingjobs"):
                if (job.get("status") or {}).get("conditions"):
                    self._check_deadline(job)
        for job in self._world.api.all("spottrainingjobs"):
            if job["metadata"].get("deletionTimestamp"):
                continue
            self._check_job(job, crashes[job["metadata"]["name"]])
        jobs = {job["metadata"]["uid"]: job for job in self._world.api.all("spottrainingjobs")}
        for pod in self._world.api.all("pods"):
            name, metadata = pod["metadata"]["name"], pod["metadata"]
            machine = self._world.machine_of(pod)
            if metadata.get("deletionTimestamp") and (machine is None or not machine.is_heard):
                continue
            if controller_of(pod) is None:
                continue
            owner = (controller_of(pod) or {}).get("uid", "")
            if owner not in jobs:
                self.fail(f"pod {name} has outlived its job")
            elif pod["status"]["phase"] not in ("Succeeded", "Failed"):
                self.fail(f"pod {name} still runs at the end")

    def _check_job(self, job: Object, num_crashes: int) -> None:
        name, status = job["metadata"]["name"], job.get("status") or {}
        final = self._final.get(name)
        if final is None:
            message = status.get("message", "")
            self.fail(f"{name} did not end: {status.get('phase')}, {message}")
            return
        restarts = status.get("recentRestarts") or []
        if final == "Failed":
            reason = next(c["reason"] for c in status["conditions"] if c["type"] == "Failed")
            limit = 2 if reason == "OutOfMemory" else job["model"]["backoffLimit"]
            if reason not in LIMITS or num_crashes <= limit:
                self.fail(f"{name} failed ({reason}) after {num_crashes} crashes")
        else:
            store = self._world.stores[name]
            if not job["model"]["plain"] and store.newest_step < job["model"]["steps"]:
                self.fail(f"{name} is Complete at step {store.newest_step} of {job['model']['steps']}")
            if job["model"]["plain"] and store.reached < job["model"]["steps"]:
                self.fail(f"{name} is Complete at step {store.reached} of {job['model']['steps']}")
            durable = (status.get("progress") or {}).get("durableStep") or 0
            if not job["model"]["plain"] and durable != job["model"]["steps"]:
                self.fail(f"{name} is Complete and said to be durable at step {durable}")
        for restart in restarts:
            self._check_cause(name, restart)
        charged = sum(bool(each.get("charged")) for each in restarts)
        if charged > job["model"]["backoffLimit"] + 1 and job["model"]["window"] == 3600:
            self.fail(f"{name} was charged {charged} failures and went on")
        pods = (p for p in self._world.api.all("pods") if "deletionTimestamp" not in p["metadata"])
        kept = [p for p in pods if p["metadata"]["labels"][LABEL_JOB_NAME] == name and controller_of(p)]
        if len(kept) > MAX_ENDED_PODS:
            names = ", ".join(f"{p['metadata']['name']} {p['status']['phase']}" for p in kept)
            self.fail(f"{len(kept)} pods of {name} are kept: {names}")
        ended = {each["incarnation"] for each in restarts}
        launched = {incarnation_of(pod) for pod in self._pods_ever(name)}
        missing = launched - ended - self._excused[name] - {status.get("incarnation")}
        if missing and len(restarts) < 50:
            self.fail(f"{name}: the end of incarnations {sorted(missing)} was not counted")

    def _pods_ever(self, job: str) -> list[Object]:
        """Those whose program has run: who came and went in between needs no verdict."""
        ran = (name for name, uid in self._created.items() if uid in self._world.started)
        return [{"metadata": {"name": name}} for name in ran if name.rsplit("-", 3)[0] == job]

    def _was_followed_by_a_loss(self, pod_uid: str) -> bool:
        """Its machine went unannounced, so soon that it may have been dying when the program failed."""
        ended, machine = self._world.ended_at.get(pod_uid, (0.0, None))
        if machine is None:
            return False
        # What is announced of a machine that is lost already does not say that it was well.
        announced = machine.announced_at or 0.0
        return any(
            ended - 5 <= lost <= ended + SETTLE_SECONDS and not ended + 10 < announced < lost
            for lost in machine.lost_at
        )

    def _was_followed_by_a_taint(self, pod_uid: str) -> bool:
        """Who polls its machine for notices stops before the taint is there, or before the node goes."""
        ended, machine = self._world.ended_at.get(pod_uid, (0.0, None))
        if machine is None:
            return False
        gone = self._world.gone_at.get(machine.uid, 0.0)
        is_gone_soon = ended <= gone <= ended + UPGRADE_SECONDS + 10
        return is_gone_soon or any(-1 <= at - ended <= 7 for at in machine.tainted_at)

    def _could_not_be_read(self, name: str, pod_uid: str) -> bool:
        """From its end until nothing more could follow, its node could not be looked at.

        What it says afterwards tells nothing of that time; that it goes does, while the job is looked at.
        """
        ended, machine = self._world.ended_at.get(pod_uid, (0.0, None))
        job = self._world.job(name) or {}
        completion = time_of((job.get("status") or {}).get("completionTime"))
        until = ended + UPGRADE_SECONDS
        if completion is not None:
            completed = (completion - EPOCH).total_seconds()
            gone = self._world.gone_at.get(machine.uid) if machine is not None else None
            until = ended if gone is None or gone > completed else min(until, completed)
        # Every 10 s a report makes the operator look again.
        reads_fail = self._world.unreadable
        return any(begin <= ended + 2 and end >= max(ended, until - 15) for begin, end in reads_fail)

    def _check_cause(self, name: str, restart: dict[str, Any]) -> None:
        deeds = self._world.truth.get(restart["podUID"], set())
        allowed = set().union(*(ALLOWED[deed] for deed in deeds)) if deeds else set()
        if deeds & {"crash", "stops itself"} and self._was_followed_by_a_loss(restart["podUID"]):
            allowed |= {"Interruption", "NodeLost"}
        if "stops itself" in deeds and self._was_followed_by_a_taint(restart["podUID"]):
            allowed.add("Interruption")
        cause = restart["cause"]
        if self._could_not_be_read(name, restart["podUID"]):
            allowed.add("VoluntaryEviction")
        if "disappeared" in restart["evidence"] and "preemption" in deeds:
            allowed |= {"VoluntaryEviction", "Interruption"}  # nobody looked while there was something to see
        if restart["podUID"] == "" or cause == "CapacityChange":
            return
        if restart["podUID"] not in self._world.started or not restart.get("nodeName"):
            # It came and went while nobody could look: where it was bound to, nothing says any more.
            allowed.add("VoluntaryEviction")
        if cause not in allowed:
            self.fail(
                f"{name}: incarnation {restart['incarnation']} ended by {sorted(deeds) or 'nothing'} and is "
                f"called {cause} ({restart['evidence']})"
            )
        if restart.get("charged") and not deeds & {"crash", "out of memory", "stops itself"}:
            self.fail(f"{name}: incarnation {restart['incarnation']} was charged for {sorted(deeds)}")
