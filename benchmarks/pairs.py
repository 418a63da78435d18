"""What the benchmarks share: turns taken in one process tree, side folders, Markdown.

Times are processor seconds of one thread: what others do on the same core is left out, though not
what they do to its caches. So ratios count, between ways that took turns."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from realm_nb.core.device import pick_precision
from realm_nb.core.files import cache_home

torch.set_num_threads(1)
THEIRS = ("transformers==4.57.6", "huggingface-hub==0.36.0", "tokenizers==0.22.1")
SENTENCE = ("sentence-transformers", "openvino", "openvino-telemetry", "scipy", "scikit-learn")
SENTENCE += ("joblib", "threadpoolctl", "cloudpickle", "loky", "narwhals")


def seconds_of(work) -> float:
    "Processor seconds of one call of `work()`."
    began = time.process_time()
    work()
    return time.process_time() - began


def take_turns(ways: dict, seconds: float, least: int = 5) -> dict[str, np.ndarray]:
    """Processor seconds float [n] of each of `ways`, names and what to call.

    They take turns in an order that is drawn anew each time, for `seconds` and `least` times. What
    a way returns counts as its time if it is a number: that of another process."""
    names, times = list(ways), {name: [] for name in ways}
    for way in ways.values():
        way()
    g, end = random.Random(0), time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[names[0]]) < least:
        for name in g.sample(names, len(names)):
            began = time.process_time()
            told = ways[name]()
            spent = time.process_time() - began
            times[name].append(told if isinstance(told, float) else spent)
    return {name: np.array(spent) for name, spent in times.items()}


def spread(values, scale: float = 1.0) -> str:
    "`min / median / max` of numbers, with three digits."
    values = np.asarray(values) * scale
    return " / ".join(f"{v:,.3g}" for v in (values.min(), np.median(values), values.max()))


def ratio(times: dict, other: str, ours: str) -> str:
    "How many times `ours` is as fast as `other`, turn by turn: the median [min, max]."
    each = times[other] / times[ours]
    return f"**{np.median(each):.2f}** [{each.min():.2f}, {each.max():.2f}]"


def table(head: list[str], rows: list[list]) -> str:
    "A Markdown table."
    return "\n".join(map(table_line, [head, ["---"] * len(head), *rows])) + "\n"


def table_line(cells) -> str:
    "A line of a Markdown table."
    return "| " + " | ".join(map(str, cells)) + " |"


def section(title: str, text: str = ""):
    "Print a heading with the command that made what follows, and the machine."
    command = " ".join(["python", *sys.argv])
    units = "bfloat16 units" if has_bfloat16() else "no bfloat16 units"
    machine = f"{os.cpu_count()} cores with {units}, one thread, torch {torch.__version__}"
    print(f"## {title}\n\n`{command}` ({machine})\n\n{text}", flush=True)


def has_bfloat16() -> bool:
    "Whether this processor multiplies bfloat16 faster than float32."
    return pick_precision("auto") == torch.bfloat16


def gemm_peak(dtype=torch.float32, n: int = 1024) -> float:
    "FLOP/s of one product of two [n, n], the best of seven."
    a = torch.randn(n, n).to(dtype)
    return 2 * n**3 / min(seconds_of(lambda: a @ a) for _ in range(7))


def bandwidth() -> float:
    "Bytes/s that one thread reads: the best of seven sums over 256 MB."
    x = torch.ones(2**26)
    return 4 * x.numel() / min(seconds_of(x.sum) for _ in range(7))


def side_folder(name: str, packages) -> Path:
    "A folder in the cache that holds `packages` without what they need, installed where missing."
    folder = cache_home() / f"bench-{name}"
    if not (folder / "complete").exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade"]
        subprocess.run([*command, "--target", str(folder), *packages], check=True)
        (folder / "complete").touch()
    return folder


class Worker:
    "This program in a process of its own, which works when it is told to."

    def __init__(self, *arguments: str, path: Path | None = None):
        root = Path(__file__).resolve().parents[1]
        paths = os.pathsep.join(map(str, filter(None, (path, root))))
        self.process = subprocess.Popen(
            [sys.executable, sys.argv[0], *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        self.told = self.read()

    def read(self) -> float:
        "The number on its next line."
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"error: {self.process.args} ended")
        return float(line)

    def __call__(self) -> float:
        "One turn: its processor seconds."
        print(file=self.process.stdin, flush=True)
        return self.read()

    def stop(self):
        "Let it end."
        self.process.stdin.close()
        self.process.wait()


def serve(work, told: float):
    "A worker's side: say the number `told`, then do `work()` once for each line that comes."
    print(told, flush=True)
    for _ in sys.stdin:
        print(seconds_of(work), flush=True)
