"""Runs that are killed at random moments, and end like one that never was. Run it as a program:

python benchmarks/kills.py WORK [--runs 25] [--seed 0]

The smoke recipe is trained once to its end, in the folder WORK. Then each run is killed up to
three times, at moments drawn over the whole length, and started again until it ends. A run that
ended before it could be killed counts for nothing and is replaced by another. Its weights,
its metrics and its held-out figures must be those of the first, to the bit. Prints a Markdown
table."""

import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import realm_nb.train as train
from realm_nb.core.config import argument, parse, setting
from realm_nb.core.errors import UserError, cli

RECIPE = ["--recipe", "smoke", "--precision", "fp32"]


def start(run: Path) -> int:
    "Train in a forked process, which need not import anything; its number."
    pid = os.fork()
    if pid:
        return pid
    log = os.open(run.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    status = 99
    try:
        status = train.main([*RECIPE, "--run", str(run)])
        sys.stdout.flush()
    finally:
        os._exit(status)


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def steps(run: Path) -> int:
    "How many steps of training the run has noted."
    path = run / "metrics.jsonl"
    return len(path.read_text(errors="replace").splitlines()) if path.exists() else 0


def left_by(run: Path) -> dict:
    "All that must be the same: weights, figures of every step, held-out measures."
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    timed = ("seconds", "stale_seconds", "waited")
    with np.load(run / "heldout.npz", allow_pickle=False) as held:
        measures = {name: held[name].tobytes() for name in held}
    return {
        "metrics": [{k: v for k, v in m.items() if k not in timed} for m in lines],
        "held out": measures,
        "weights": {
            str(p.relative_to(run)): p.read_bytes()
            for p in sorted(run.glob("checkpoints/*/step_12/*.safetensors"))
        },
    }


def killed(run: Path, g: random.Random, length: float) -> list[int]:
    "Start a run up to three times and kill it; how many steps it had noted each time."
    moments = []
    for _ in range(g.randint(1, 3)):
        pid = start(run)
        end = time.monotonic() + g.uniform(0, length)
        while (
            time.monotonic() < end
            and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
        if wait(pid) >= 0:
            break
        moments.append(steps(run))
    return moments


@dataclass
class Options:
    "Runs that are killed at random moments, and end like one that never was."

    work: str = argument("folder of the runs")
    runs: int = setting(25, "runs that are killed", low=1)
    seed: int = setting(0, "of the moments")


@cli
def main(argv):
    options = parse(argv, Options(), prog="python benchmarks/kills.py")
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    whole, g = work / "whole", random.Random(options.seed)
    if wait(start(whole)):
        raise UserError(f"the first run failed; see {whole.with_suffix('.log')}")
    began = time.perf_counter()
    wait(start(work / "timed"))  # with a warm cache
    length, expected, bad = time.perf_counter() - began, left_by(whole), 0
    print("| run | killed after (steps noted) | the same to the bit |\n|---|---|---|")
    done, drawn = 0, 0
    while done < options.runs:
        drawn += 1
        run = work / f"killed-{drawn}"
        moments = killed(run, g, length)
        if not moments:  # it had ended before
            continue
        done += 1
        status = wait(start(run))
        same = status == 0 and left_by(run) == expected
        bad += not same
        print(f"| {done} | {', '.join(map(str, moments))} | {'yes' if same else 'NO'} |")
        sys.stdout.flush()
    print(f"\n{options.runs - bad} of {options.runs} the same to the bit")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
