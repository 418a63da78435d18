"""Memory over time: an app under visitors who type anything, or a process that trains.

    python benchmarks/soak.py app runs/quick --minutes 60 --out app.jsonl [--visitors 4]
    python benchmarks/soak.py train PID --minutes 60 --out train.jsonl
    python benchmarks/soak.py plot app.jsonl train.jsonl

A line every 10 s: seconds since the start, MiB that the process holds (proportional, anonymous),
and, of an app, how many requests were done, refused with a line, and broken. A picture of each file
lies beside it, as PNG. The app's own log lies beside the file too."""

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections import Counter
from pathlib import Path

import httpx
import numpy as np

EVERY = 10  # seconds between two samples
NASTY = (
    "",
    " ",
    "?!…",
    "[MASK]" * 90,
    "[MASK] " * 5 + "came from nowhere",
    "x" * 600,
    "y" * 601,
    "z " * 500_000,
    "\0\x1b[31m\u202e[MASK]\ufffe",
    '<script>alert(1)</script> [MASK] " onload="alert(2)',
    "javascript:alert(1) [MASK]",
    "{{7*7}} ${1} [MASK] %s %n",
    "ÅÄÖ 漢字 🦆 [MASK] \u0301\u0301\u0301",
)
WRONG = (None, -1, 0, 21, 10**30, 0.5, "four", [], {}, True)


def held_by(pid: int) -> dict[str, float]:
    "MiB that the process holds: its share of what is shared, and what is its own."
    sizes = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, size = line.split()[:2]
        sizes[name] = int(size) / 1024
    return {"pss": round(sizes["Pss:"], 1), "anonymous": round(sizes["Anonymous:"], 1)}


def sample(pid: int, minutes: float, path: Path, facts=dict):
    "A line every few seconds, with what `facts()` tells besides, as long as the process runs."
    start = time.monotonic()
    with path.open("a") as out:
        while (now := time.monotonic() - start) < 60 * minutes:
            try:
                line = {"seconds": round(now, 1), **held_by(pid), **facts()}
            except (OSError, IndexError, KeyError):
                print(f"process {pid} has ended after {now / 60:.1f} minutes")
                return
            out.write(json.dumps(line) + "\n")
            out.flush()
            time.sleep(EVERY)


class Visitor:
    "One browser's tab: a session that sends the events of the page, or asks the endpoints."

    def __init__(self, address: str):
        self.http = httpx.Client(base_url=address, timeout=300)
        self.http.get("/").raise_for_status()
        config = self.http.get("/config").json()
        self.session = f"{random.getrandbits(64):x}"
        self.events = {d["api_name"]: d["id"] for d in config["dependencies"]}

    def send(self, name, *values) -> str:
        "What became of an event: done, refused or broken."
        body = {"data": list(values), "fn_index": self.events[name], "session_hash": self.session}
        answer = self.http.post("/gradio_api/queue/join", json=body)
        if answer.status_code != 200:
            return "refused" if answer.status_code < 500 else "broken"
        place = f"/gradio_api/queue/data?session_hash={self.session}"
        with self.http.stream("GET", place) as stream:
            for line in stream.iter_lines():
                message = json.loads(line[5:]) if line.startswith("data:") else {}
                if message.get("msg") == "process_completed":
                    return self._judge(message)
        return "broken"

    def _judge(self, message) -> str:
        if message["success"]:
            return "done"
        error = message["output"].get("error")
        return "refused" if error and "\n" not in error else "broken"


def acts(pairs: list, g: random.Random):
    "One thing that a visitor does: (event, what it is given)."
    text, hidden = g.choice(pairs)
    if g.random() < 0.25:
        text = g.choice(NASTY)
    if g.random() < 0.15:
        hidden = g.choice(NASTY)
    k = g.randint(1, 12) if g.random() < 0.8 else g.choice(WRONG)
    story = {
        "title": g.choice(NASTY[:5]) or "Story",
        "text": f"{hidden} is what they all say. " * 9,
    }
    added = [story] * g.choice([0, 1, 1, 3, 100]) if g.random() < 0.9 else [7]
    return g.choice(
        [
            ("fill", text, hidden, k, 1.0, True, True, g.choice(["token", "sequence"]), "", [], []),
            ("fill", text, hidden, k, 1.0, True, True, "token", "", added, [g.randint(-5, 500)]),
            ("look_up", text, k, g.choice(["", "base", "nonsense"])),
            ("ask", g.choice([text, f"Who was {hidden}?"]), k),
            ("compare", text, hidden, k),
            ("corpus_map", ""),
            ("moments",),
            ("curves",),
            ("show", text, hidden, k, 1.0, True, True, "sequence", "", [], [], ""),
            ("show", text, hidden, k, 1.0, True, True, "token", "", added, [], g.choice(NASTY)),
            ("drawn", g.choice(["map", "curves", "asked", "nothing"]), text, hidden, [k]),
            ("facts",),
        ]
    )


def visit(address: str, pairs: list, seed: int, counts: Counter, until: float, log: Path):
    "Visit until the time has come; a new tab after some twenty events."
    g, visitor, left = random.Random(seed), None, 0
    while time.monotonic() < until:
        try:
            if not left:
                visitor, left = Visitor(address), g.randint(1, 40)
                counts["tabs"] += 1
            left -= 1
            event = acts(pairs, g)
            verdict = visitor.send(*event)
            counts[verdict] += 1
            time.sleep(g.expovariate(10))
        except (httpx.HTTPError, KeyError, ValueError):
            verdict, event, left = "broken", traceback.format_exc(), 0
            counts["broken"] += 1
            time.sleep(1)
        if verdict == "broken":
            with log.open("a") as out:
                out.write(f"{event!r:.2000}\n")


def soak_app(args):
    "Start the app, let the visitors in, sample."
    from realm_nb.show.explorer import Explorer, held_out

    pairs = held_out(Explorer(args.what[0]), 200)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    log = args.out.with_suffix(".log")
    command = [sys.executable, "-m", "realm_nb", "app", "--run", args.what[0], "--port", str(port)]
    with log.open("w") as out:
        server = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    counts: Counter = Counter()
    try:
        while "open http" not in log.read_text():
            if server.poll() is not None:
                sys.exit(log.read_text())
            time.sleep(1)
        until = time.monotonic() + 60 * args.minutes
        broken = args.out.with_suffix(".broken")
        for seed in range(args.visitors):
            address = f"http://127.0.0.1:{port}"
            task = (address, pairs, seed, counts, until, broken)
            threading.Thread(target=visit, args=task, daemon=True).start()
        sample(server.pid, args.minutes, args.out, lambda: dict(counts))
    finally:
        server.terminate()
        server.wait(60)
    print(f"{sum(counts.values())} requests: {dict(counts)}")
    print(f"stack traces in {log}: {log.read_text().count('Traceback')}")
    tell(args.out)


def read(path: Path) -> dict[str, np.ndarray]:
    "The columns of a file of samples."
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {name: np.array([line.get(name, 0) for line in lines]) for name in lines[-1]}


def tell(path: Path):
    "MiB at a few moments, and the slope behind the first ten minutes."
    found = read(path)
    minutes = found["seconds"] / 60
    for kind in ("pss", "anonymous"):
        at = [(m, found[kind][minutes >= m - 0.2][:1]) for m in (1, 5, 30, 60)]
        said = ", ".join(f"{v[0]:.0f} MiB at {m} min" for m, v in at if len(v))
        late = minutes >= min(10, minutes[-1] / 2)
        slope = np.polyfit(minutes[late] / 60, found[kind][late], 1)[0]
        print(f"{path.name} {kind}: {said}; {slope:+.1f} MiB an hour after the first ten minutes")


def plot(path: Path):
    "The file's picture, beside it."
    from matplotlib.figure import Figure

    found = read(path)
    figure = Figure(figsize=(7, 3), layout="constrained")
    ax = figure.add_subplot()
    for kind in ("pss", "anonymous"):
        ax.plot(found["seconds"], found[kind], label=kind)
    ax.set(xlabel="seconds", ylabel="MiB", ylim=(0, None), title=path.stem)
    ax.legend(frameon=False)
    figure.savefig(path.with_suffix(".png"), dpi=110)
    print(path.with_suffix(".png"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["app", "train", "plot"])
    parser.add_argument("what", nargs="+", help="a run, a process's number, or files of samples")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--visitors", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("soak.jsonl"))
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.mode == "plot":
        for path in map(Path, args.what):
            tell(path)
            plot(path)
    elif args.mode == "train":
        sample(int(args.what[0]), args.minutes, args.out)
        tell(args.out)
    else:
        soak_app(args)


if __name__ == "__main__":
    main()
