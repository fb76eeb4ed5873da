"""`kubectl spottraining simulate`: from a manifest to a table, and what it says when it cannot."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from manifests import BASE, merge

from spot_plugin import app

PRICED = merge(
    BASE,
    {
        "metadata": {"namespace": "team-a"},
        "spec": {
            "capacity": {"spot": {"pricePerNodeHour": "1.00"}, "onDemand": {"pricePerNodeHour": "3.00"}},
            "deadline": {"secondsAfterCreation": 43200, "expectedDurationSeconds": 36000},
            "fallback": {"policy": "Rules"},
        },
    },
)
RECORDED = """\
seconds,available
0,1
3600,0
7200,1
12000,0
18000,1
40000,0
48000,1
60000,0
66000,1
90000,1
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(PRICED))
    (tmp_path / "zone.csv").write_text(RECORDED)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        app.run(words)
    out, err = capsys.readouterr()
    code = ended.value.code
    return (code if isinstance(code, int) else 0), out, err


def simulate(capsys: pytest.CaptureFixture[str], folder: Path, *words: str) -> tuple[int, str, str]:
    return call(capsys, "simulate", "-f", str(folder / "job.yaml"), "--runs", "20", *words)


def test_policies_stand_side_by_side(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    code, out, err = simulate(
        capsys,
        folder,
        "--market",
        str(folder / "zone.csv"),
        "--overhead-spread",
        "0",
        "--checkpoint-stall",
        "0",
    )
    assert (code, err) == (0, "")
    assert out == GOLDEN


GOLDEN = """\
team-a/digits: 10h of work, deadline after 12h
  market       recorded: zone (74% available); 20 runs
  start        6m on spot, 6m on on-demand
  checkpoints  every 5m, durable after 30s; a last one on 50% of the interruptions
  price        1.00 on spot, 3.00 on on-demand per node-hour

   POLICY        ON TIME  FINISH P50     P90  COST MEAN    P90  SAVED  INTERRUPTED   LOST  ON SPOT
*  Rules              0%      12.1 h  12.1 h      23.47  29.41    23%          1.0  0.0 h      35%
   Auto             100%      11.5 h  11.7 h      15.47  16.69    49%          1.6  0.0 h      76%
   SpotOnly           0%      14.3 h  15.4 h      10.32  10.39    66%          1.9  0.0 h     100%
   OnDemandOnly     100%      10.1 h  10.1 h      30.30  30.30     0%          0.0  0.0 h       0%
* what the manifest says

Auto would be on time in 100% of the runs instead of 0%, and cost 34% less (15.47 instead of 23.47).
20 runs say no more than that Rules is on time in 0% to 16.1% of all cases; --runs 1000 says more.
note: Rules goes to on-demand 2m before it must, and a start takes up to 7m: set beforeDeadlineSeconds to 420
"""


def test_the_same_seed_gives_the_same_numbers(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    first, again, other = (
        json.loads(simulate(capsys, folder, "--json", "--seed", seed)[1]) for seed in ("4", "4", "5")
    )
    assert first["policies"] == again["policies"]
    assert first["policies"] != other["policies"]
    assert [each["policy"] for each in first["policies"]] == ["Rules", "Auto", "SpotOnly", "OnDemandOnly"]
    assert {"onTime", "onTimeLow", "finishP90Seconds", "costMean", "saved", "lostHoursMean"} <= set(
        first["policies"][0]
    )
    assert first["market"]["synthetic"]["availability"] == 0.6


def test_a_plot_is_written(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    path = folder / "plot.png"
    code, out, _ = simulate(capsys, folder, "--plot", str(path))
    assert code == 0
    assert out.endswith(f"plot: {path}\n")
    assert path.read_bytes().startswith(b"\x89PNG")
    code, _, err = simulate(capsys, folder, "--plot", str(folder / "absent" / "plot.png"))
    assert (code, "there is no folder" in err) == (2, True)
    code, _, err = simulate(capsys, folder, "--plot", str(folder))
    assert (code, "the plot cannot be written" in err) == (2, True)


def test_without_matplotlib_only_the_plot_is_missing(folder: Path) -> None:
    program = (
        "import sys; sys.modules['matplotlib'] = None\nfrom spot_plugin import app; app.run(sys.argv[1:])"
    )
    words = ["simulate", "-f", str(folder / "job.yaml"), "--runs", "2"]

    def run(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *words, *more], capture_output=True, text=True, check=False
        )

    assert run().returncode == 0
    refused = run("--plot", str(folder / "plot.png"))
    assert refused.returncode == 2
    assert "a plot needs matplotlib, which is not installed" in refused.stderr
    assert 'pip install "spot-training-operator[plugin]"' in refused.stderr


def test_the_plugin_loads_neither_kopf_nor_torch_nor_numpy(folder: Path) -> None:
    program = (
        "import sys\nfrom spot_plugin import app\n"
        "try:\n    app.run(sys.argv[1:])\nexcept SystemExit:\n    pass\n"
        "print([m for m in ('kopf', 'aiohttp', 'torch', 'numpy', 'matplotlib', 'boto3') if m in sys.modules])"
    )
    words = ["simulate", "-f", str(folder / "job.yaml"), "--runs", "2", "--json"]
    found = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True
    )
    assert found.stdout.splitlines()[-1] == "[]"


def test_runs_shared_out_among_processes_give_the_same(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    words = ("simulate", "-f", str(folder / "job.yaml"), "--runs", "400", "--json", "--policy", "Auto")
    one, two = (json.loads(call(capsys, *words, "--processes", n)[1]) for n in ("1", "2"))
    assert one["policies"] == two["policies"]


@pytest.mark.parametrize(
    ("patch", "words", "complaint"),
    [
        ({"spec": {"checkpoint": None}}, (), "job.yaml: spec.checkpoint: required, but not set"),
        ({"spec": {"capacity": {"preset": "Moon"}}}, (), "job.yaml: spec.capacity.preset"),
        ({"spec": {"checkpoint": {"keepLast": 1}}}, (), "keepLast must be at least 2"),
        ({"spec": None}, (), "job.yaml: spec: required, but not set"),
        ({"kind": "Job"}, (), "job.yaml has no SpotTrainingJob"),
        ({}, ("--name", "other"), "job.yaml has no SpotTrainingJob named other"),
        ({"metadata": {"name": None}}, (), "metadata.name: required"),
        ({"spec": {"deadline": {"expectedDurationSeconds": None}}}, (), "add --work 48h"),
        (
            {"spec": {"deadline": {"secondsAfterCreation": None, "finishBy": "2020-01-01T00:00:00Z"}}},
            (),
            "spec.deadline.finishBy (2020-01-01T00:00:00+00:00) is over",
        ),
        ({}, ("--work", "soon"), "--work: 'soon' is no duration; write it like 48h"),
        ({}, ("--work", "0"), "--work must be more than 0"),
        ({}, ("--market", "absent.csv"), "absent.csv: no such market file"),
        ({}, ("--market", "synthetic", "--market", "zone.csv"), "either synthetic or recorded files"),
        ({}, ("--median-up-time", "0s"), "median up-time is 0 s"),
        ({}, ("--checkpoint-time", "10m"), "raise spec.checkpoint.interval.seconds"),
        ({}, ("--runs", "0"), "--runs"),
        ({}, ("--availability", "1.5"), "--availability"),
        ({}, ("--policy", "Best"), "--policy"),
        ({}, ("--frob",), "No such option"),
    ],
)
def test_errors_say_what_is_wrong_and_where(
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    patch: dict[str, Any],
    words: tuple[str, ...],
    complaint: str,
) -> None:
    (folder / "job.yaml").write_text(yaml.safe_dump(merge(PRICED, patch)))
    code, out, err = simulate(capsys, folder, *words)
    assert (code, out) == (2, "")
    assert complaint in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("zone.csv", "0,1\n5,perhaps\n", "line 2: available is 'perhaps'; expected 0 or 1"),
        ("zone.json", "[]", "expected an object"),
        ("zone.json", "{", "cannot be read"),
        ("zone.json.gz", "\x1f\x8b", "cannot be read"),
        ("zone.json", '{"format": "x"}', "expected 'spot-availability-trace/1'"),
    ],
)
def test_a_broken_market_file_is_named_with_its_line(
    capsys: pytest.CaptureFixture[str], folder: Path, name: str, text: str, complaint: str
) -> None:
    (folder / name).write_bytes(text.encode("latin-1"))
    code, _, err = simulate(capsys, folder, "--market", str(folder / name))
    assert code == 2
    assert f"{folder / name}: " in err
    assert complaint in err


def test_a_folder_holds_several_markets(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    markets = folder / "markets"
    markets.mkdir()
    code, _, err = simulate(capsys, folder, "--market", str(markets))
    assert (code, "no market files" in err) == (2, True)
    for name in ("b.csv", "a.csv"):
        (markets / name).write_text(RECORDED)
    found = json.loads(simulate(capsys, folder, "--market", str(markets), "--json")[1])
    assert [each["name"] for each in found["market"]["recorded"]] == ["a", "b"]


def test_the_examples_can_be_simulated(capsys: pytest.CaptureFixture[str]) -> None:
    examples = Path(__file__).parents[2] / "examples"
    for manifest in ("digits/job.yaml", "digits/job-volume.yaml"):
        words = ("--work", "2h", "--deadline", "4h", "--runs", "5")
        market = ("--market", str(examples / "markets" / "zone.csv"))
        code, out, err = call(capsys, "simulate", "-f", str(examples / manifest), *words, *market)
        assert (code, err) == (0, "")
        assert "recorded: zone (74% available); 5 runs" in out


def test_assumed_prices_are_named(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    bare = merge(PRICED, {"spec": {"capacity": {"spot": None, "onDemand": None}}})
    (folder / "job.yaml").write_text(yaml.safe_dump(bare))
    _, out, _ = simulate(capsys, folder)
    assert "note: no prices: on-demand is taken to cost 3 times as much as spot (1.00); say so with" in out
    _, out, _ = simulate(capsys, folder, "--on-demand-price", "6")
    assert "note: no spot price: a third of on-demand is assumed (2.00)" in out
    found = json.loads(simulate(capsys, folder, "--spot-price", "1", "--on-demand-price", "2", "--json")[1])
    assert not [note for note in found["notes"] if "price" in note]


MEASURED = {"nodeHoursPerInterruption": 12.0, "zones": [{"interruptions": 2, "nodeSeconds": 82800.0}]}
UNHARMED = {"nodeHoursPerInterruption": 12.0, "zones": [{"interruptions": 0, "nodeSeconds": 36000.0}]}


@pytest.mark.parametrize(
    ("rate", "words", "median"),
    [
        (MEASURED, (), 12 * 3600 / 3.5966),
        (MEASURED, ("--spread", "0"), 12 * 3600),
        (MEASURED, ("--median-up-time", "30m"), 1800),
        ({"nodeHoursPerInterruption": 0.001, "zones": [{"interruptions": 2}]}, (), 60),
        (UNHARMED, (), 2160),
        (None, (), 2160),
        ("rubbish", (), 2160),
        ({"nodeHoursPerInterruption": "x", "zones": [{"interruptions": 2}]}, (), 2160),
    ],
)
def test_a_job_that_has_lost_spot_nodes_says_how_long_they_stay(
    capsys: pytest.CaptureFixture[str], folder: Path, rate: object, words: tuple[str, ...], median: float
) -> None:
    """`kubectl get stj digits -o yaml | kubectl spottraining simulate -f -`."""
    seen = merge(PRICED, {"status": {"interruptionRate": rate}} if rate is not None else {})
    (folder / "job.yaml").write_text(yaml.safe_dump(seen))
    found = json.loads(simulate(capsys, folder, "--json", "--runs", "2", *words)[1])
    assert found["market"]["synthetic"]["medianUpSeconds"] == pytest.approx(median, rel=1e-3)
    said = [note for note in found["notes"] if "one interruption in 12h of a node" in note]
    assert len(said) == (rate is MEASURED and "--median-up-time" not in words)


def test_a_deadline_far_away_is_not_waited_for(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    far = {"secondsAfterCreation": None, "finishBy": "9990-01-01T00:00:00Z"}
    (folder / "job.yaml").write_text(yaml.safe_dump(merge(PRICED, {"spec": {"deadline": far}})))
    found = json.loads(simulate(capsys, folder, "--json", "--availability", "0.9")[1])
    assert all(each["numUnfinished"] == 0 for each in found["policies"])
    # Nothing to wait for: Auto is SpotOnly.
    assert (
        len({each["costMean"] for each in found["policies"] if each["policy"] in ("Auto", "SpotOnly")}) == 1
    )


def test_auto_in_the_manifest_is_the_chosen_policy(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    automatic = merge(PRICED, {"spec": {"fallback": {"policy": "Auto", "returnToSpot": "Auto"}}})
    (folder / "job.yaml").write_text(yaml.safe_dump(automatic))
    found = json.loads(simulate(capsys, folder, "--json")[1])
    assert (found["chosen"], found["policies"][0]["policy"]) == ("Auto", "Auto")


def test_the_job_is_found_among_other_documents(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "digits"}}
    second = merge(PRICED, {"metadata": {"name": "second"}})
    (folder / "job.yaml").write_text(yaml.safe_dump_all([claim, PRICED, {"kind": "List", "items": [second]}]))
    code, _, err = simulate(capsys, folder)
    assert (code, "choose one with --name" in err) == (2, True)
    found = json.loads(simulate(capsys, folder, "--name", "second", "--json")[1])
    assert found["job"] == {"namespace": "team-a", "name": "second"}
