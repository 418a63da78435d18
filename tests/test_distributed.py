"""Two processes give one process's loss, gradient and search results.

And they train what one would have trained."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def environment(smoke_environment):
    return {
        **smoke_environment,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory, environment) -> list[dict]:
    "What each of two processes found; CPU and gloo."
    out = tmp_path_factory.mktemp("processes")
    run = subprocess.run(
        [*TORCHRUN, str(ROOT / "tests/processes.py"), str(out)],
        capture_output=True,
        text=True,
        timeout=240,
        env=environment,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    found = [json.loads((out / f"{r}.json").read_text()) for r in range(2)]
    assert all(f["world"] == 2 for f in found)
    return found


@pytest.mark.parametrize(
    "what", ["ict", "ict, two towers", "realm, token", "realm, sequence", "in parts"]
)
def test_loss_and_gradient_are_those_of_one_process(found, what):
    assert all(f[what] < 1e-5 for f in found), [f[what] for f in found]


@pytest.mark.parametrize(
    "what",
    [
        "exact plain",
        "exact excluded",
        "flat plain",
        "flat excluded",
        "approximate",
        "fewer than k",
        "no query here",
    ],
)
def test_search_in_shares_is_search_in_one(found, what):
    assert all(f[what] for f in found)


def test_gradients_travel_home_from_uneven_shares(found):
    assert all(f["uneven gather"] for f in found)


@pytest.mark.parametrize(
    "what",
    [
        "a gradient that one lacks",
        "a gradient that nobody has",
        "collected",
        "figures",
        "agreed",
        "threads ended",
    ],
)
def test_what_processes_add_up(found, what):
    assert all(f[what] for f in found)


# ---- the command

UNEVEN = [
    "--precision",
    "fp32",
    "--warmup.batch",
    "15",
    "--ict.batch",
    "31",
    "--pretrain.batch",
    "7",
]


def command(run, *flags, many=True):
    return [
        *(TORCHRUN if many else [sys.executable]),
        "-m",
        *(["--"] if many else []),
        "realm_nb.train",
        "--recipe",
        "smoke",
        "--run",
        str(run),
        *flags,
    ]


def train(environment, run, *flags, many=True, ok=True):
    done = subprocess.run(
        command(run, *flags, many=many),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert not ok or done.returncode == 0, done.stderr[-3000:]
    return done


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def weights(run, step):
    return load_file(run / f"checkpoints/pretrain/step_{step}/towers.safetensors")


def test_two_processes_train_what_one_trains(environment, tmp_path):
    "Batches of 15, 31 and 7, so that the shares are not equal."
    for name, many in (("one", False), ("two", True)):
        train(environment, tmp_path / name, *UNEVEN, many=many)
    one, two = lines(tmp_path / "one"), lines(tmp_path / "two")
    assert [(m["stage"], m["step"]) for m in one] == [(m["stage"], m["step"]) for m in two]
    for a, b in zip(one, two):
        assert a["loss"] == pytest.approx(b["loss"], abs=2e-4) and a["grad"] == pytest.approx(
            b["grad"], rel=2e-3
        ), (a, b)
    a, b = weights(tmp_path / "one", 12), weights(tmp_path / "two", 12)
    assert a.keys() == b.keys() and max((a[k] - b[k]).abs().max().item() for k in a) < 1e-3
    results = [
        json.loads((tmp_path / n / "stages/evaluate.json").read_text())["rows"]
        for n in ("one", "two")
    ]
    for x, y in zip(*results, strict=True):
        assert x["name"] == y["name"] and x["after"][0] == pytest.approx(y["after"][0], abs=0.02)
    assert (tmp_path / "two/report.md").exists() and "already finished" in train(
        environment, tmp_path / "two", *UNEVEN
    ).stderr
    (
        tmp_path / "two/stages/pretrain.json"
    ).unlink()  # as if killed between the last step and the last version
    shutil.rmtree(tmp_path / "two/index/v12")
    train(environment, tmp_path / "two", *UNEVEN)
    assert (tmp_path / "two/index/v12/manifest.json").exists() and (
        tmp_path / "two/stages/pretrain.json"
    ).exists()


def test_one_of_two_is_killed_and_the_run_goes_on_to_the_bit(environment, tmp_path):
    "With dropout, which each process draws for itself."
    flags = ["--model.dropout", "0.1", "--stages", "corpus,mask,warmup,ict,pretrain"]
    train(environment, tmp_path / "whole", *flags)
    process = subprocess.Popen(
        command(tmp_path / "killed", *flags),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        if (tmp_path / "killed/metrics.jsonl").exists() and '"stage": "pretrain", "step": 7,' in (
            tmp_path / "killed/metrics.jsonl"
        ).read_text():
            break
        time.sleep(0.005)
    workers = [p for p in psutil.Process(process.pid).children() if p.environ().get("RANK") == "1"]
    workers[0].kill()
    assert process.wait(60) != 0, "torchrun ends the other and says so"
    assert not (tmp_path / "killed/stages/pretrain.json").exists()
    assert "going on from step 5" in train(environment, tmp_path / "killed", *flags).stderr

    def plain(run):
        return [(m["stage"], m["step"], m["loss"]) for m in lines(run)]

    assert plain(tmp_path / "killed") == plain(tmp_path / "whole")
    a, b = weights(tmp_path / "killed", 12), weights(tmp_path / "whole", 12)
    assert all((a[k] == b[k]).all() for k in a)


def test_two_processes_take_the_versions_of_one_builder(environment, tmp_path):
    run = tmp_path / "async"
    train(
        environment,
        run,
        "--refresh",
        "async",
        "--stages",
        "corpus,mask,ict,pretrain",
        "--pretrain.refresh_every",
        "5",
        "--pretrain.steps",
        "60",
        "--max-staleness",
        "20",
        "--pretrain.save_every",
        "60",
    )
    assert json.loads((run / "checkpoints/pretrain/step_60/meta.json").read_text())["index"] > 0
    assert max(m["stale"] for m in lines(run) if m["stage"] == "pretrain") <= 21
    assert not list((run / "index").glob("*.tmp"))


def test_a_batch_that_does_not_go_round_is_refused(environment, tmp_path):
    done = train(environment, tmp_path / "run", "--pretrain.batch", "1", ok=False)
    assert done.returncode != 0
    assert (
        "error: --pretrain.batch 1 is less than one for each of the 2 processes; "
        "raise it, or start fewer"
    ) in done.stderr
    assert not (tmp_path / "run").exists()
