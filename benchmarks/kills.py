"""Runs that are killed at random moments, and end like one that never was.

`python benchmarks/kills.py WORK [--runs 25] [--seed 0]` trains the smoke recipe once to its end.
Then each run is killed up to three times, at moments drawn over the whole length, and started
again until it ends. Its weights, its metrics and its held-out figures must be those of the first,
to the bit. Prints a Markdown table."""

import argparse
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np

import realm_nb.train as train

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


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("work", type=Path)
    parser.add_argument("--runs", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(argv)
    options.work.mkdir(parents=True, exist_ok=True)
    whole, g = options.work / "whole", random.Random(options.seed)
    if wait(start(whole)):
        raise SystemExit(f"the first run failed: see {whole.with_suffix('.log')}")
    began = time.perf_counter()
    wait(start(options.work / "timed"))  # with a warm cache
    length, expected, bad = time.perf_counter() - began, left_by(whole), 0
    print("| run | killed after (steps noted) | the same to the bit |\n|---|---|---|")
    for i in range(1, options.runs + 1):
        run, moments = options.work / f"killed-{i}", []
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
        status = wait(start(run))
        same = status == 0 and left_by(run) == expected
        bad += not same
        print(f"| {i} | {', '.join(map(str, moments)) or '–'} | {'yes' if same else 'NO'} |")
        sys.stdout.flush()
    print(f"\n{options.runs - bad} of {options.runs} the same to the bit")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
