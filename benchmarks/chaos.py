"""Asynchronous refresh among faults. Run it as a program:

python benchmarks/chaos.py                 every run; a Markdown table
python benchmarks/chaos.py --only killed   those whose name has the word in it

Each row is a whole run of the smoke recipe with real processes, of which something bad happens to
the builder again and again. Mounting a small disk, taking a host name of its own, and stepping the
clock take rights or libfaketime; where they are missing, the row says so."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from realm_nb.builder.builder import read_heartbeat
from realm_nb.core.config import parse, setting
from realm_nb.core.errors import Damaged, UserError, cli
from realm_nb.refresh import IndexStore, numbered

ROOT = Path(__file__).resolve().parents[1]


class Skipped(Exception):
    "What this machine does not let us do."


@dataclass
class Options:
    "Asynchronous refresh among faults."

    only: str = setting("", "runs with this word in their name")
    steps: int = setting(240, "steps of pre-training", low=1)
    every: int = setting(12, "steps between two snapshots", low=1)
    seed: int = setting(0, "of what happens when")
    turns: int = setting(1, "of each run, with another seed", low=1)


@dataclass
class Scene:
    "One run: its folder, its trainer, and what happens to it."

    options: Options
    run: Path
    random: random.Random
    env: dict = field(default_factory=lambda: {**os.environ, "REALM_NB_QUIET": "1"})
    flags: tuple = ()
    trainer: subprocess.Popen | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def start(self, stages: str = "corpus,mask,ict,pretrain"):
        "Start the trainer, or go on with its run."
        c = self.options
        flags = f"--recipe smoke --stages {stages} --warmup.steps 0 --ict.steps 2"
        argv = [*flags.split(), "--refresh", "async", "--pretrain.builder", "cpu"]
        argv += ["--pretrain.steps", c.steps, "--pretrain.refresh_every", c.every]
        argv += ["--pretrain.save_every", 20, "--run", self.run, *self.flags]
        command = [sys.executable, "-m", "realm_nb", "train", *argv]
        with open(self.run.with_suffix(".log"), "ab") as log:
            self.trainer = subprocess.Popen(
                list(map(str, command)), env=self.env, stdout=log, stderr=log, cwd=ROOT
            )

    def builder(self) -> int:
        "The builder's process, if it lives: its trainer's child; 0 if there is none."
        return next(iter(self.builders()), 0)

    def builders(self) -> list[int]:
        "The processes that the trainer has started."
        try:
            tasks = Path(f"/proc/{self.trainer.pid}/task").glob("*/children")
            text = " ".join(path.read_text() for path in tasks)
        except OSError:
            return []
        return [int(pid) for pid in text.split()]

    def steps(self) -> list[dict]:
        "The metrics of pre-training so far."
        lines = []
        with contextlib.suppress(OSError):
            for line in (self.run / "metrics.jsonl").read_text().splitlines():
                with contextlib.suppress(ValueError):
                    lines.append(json.loads(line))
        return [m for m in lines if m["stage"] == "pretrain"]

    def sleep(self, least: float, most: float) -> bool:
        "Some seconds between the two; whether the run goes on."
        return not self.over.wait(self.random.uniform(least, most))


def signal_to(pid: int, what: int):
    "Send a signal to a process that may be gone."
    if pid:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, what)


# ---- what happens


def nothing(scene: Scene):
    "Nothing."


def killed(scene: Scene):
    "SIGKILL every 4 to 25 seconds."
    while scene.sleep(4, 25):
        signal_to(scene.builder(), signal.SIGKILL)


def killed_at_work(scene: Scene):
    "SIGKILL while it embeds, writes or publishes, one time in three."
    seen = None
    while scene.sleep(0.005, 0.01):
        said = read_heartbeat(scene.run / "builders" / "1-of-1.json")
        busy = said.get("phase") in ("embedding", "writing", "checking", "publishing")
        if busy and said.get("step") != seen:
            seen = said.get("step")
            if scene.random.random() < 1 / 3:
                signal_to(scene.builder(), signal.SIGKILL)


def never_lives(scene: Scene):
    "SIGKILL within a second of every start."
    while scene.sleep(0.1, 0.5):
        signal_to(scene.builder(), signal.SIGKILL)


def broken_for_a_while(scene: Scene):
    "SIGKILL at every start, until two thirds of the steps are done."
    while scene.sleep(0.1, 0.5) and len(scene.steps()) < scene.options.steps * 0.6:
        signal_to(scene.builder(), signal.SIGKILL)


def stopped(scene: Scene):
    "SIGSTOP for 2 to 8 seconds, again and again."
    while scene.sleep(2, 10):
        pid = scene.builder()
        signal_to(pid, signal.SIGSTOP)
        scene.sleep(2, 8)
        signal_to(pid, signal.SIGCONT)


def stopped_for_good(scene: Scene):
    "SIGSTOP, and nobody lets it go on; its successors likewise, half a minute later."
    while scene.sleep(15, 30):
        signal_to(scene.builder(), signal.SIGSTOP)


def starved(scene: Scene):
    "Nice 19, on one core with a loop that never rests."
    core = max(os.sched_getaffinity(0))
    loop = subprocess.Popen(["taskset", "-c", str(core), sys.executable, "-c", "while 1: 0"])
    try:
        while scene.sleep(0.2, 0.3):
            for pid in scene.builders():
                with contextlib.suppress(OSError):
                    os.setpriority(os.PRIO_PROCESS, pid, 19)
                    os.sched_setaffinity(pid, {core})
    finally:
        loop.kill()
        loop.wait()


def files_bounded(scene: Scene):
    "No file of more than 40 kB can be written by the builder (RLIMIT_FSIZE), in the first half."
    bounded = set()
    while scene.sleep(0.02, 0.05):
        late = len(scene.steps()) > scene.options.steps / 2
        for pid in scene.builders():
            if late or pid not in bounded:
                most = resource.RLIM_INFINITY if late else 40_000
                with contextlib.suppress(OSError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
                    bounded.add(pid)


def vandal(scene: Scene):
    "A byte of a version, a part or a snapshot is changed, many times a second."
    while scene.sleep(0.02, 0.1):
        with contextlib.suppress(OSError, ValueError, IndexError):
            folders = [*scene.run.glob("index/parts/*/*"), *scene.run.glob("snapshots/s*")]
            store = IndexStore(scene.run / "index")
            folders += [store.path(max(store.versions()))] * (scene.random.random() < 0.1)
            folder = scene.random.choice(folders)
            path = scene.random.choice([p for p in folder.iterdir() if p.is_file()])
            with open(path, "r+b") as f:
                at = scene.random.randrange(path.stat().st_size)
                f.seek(at)
                byte = f.read(1)
                f.seek(at)
                f.write(bytes([byte[0] ^ (1 << scene.random.randrange(8))]))


def trainer_killed(scene: Scene):
    "SIGKILL to the trainer, twice; the same command goes on."
    for share in (0.3, 0.6):
        while len(scene.steps()) < scene.options.steps * share:
            if not scene.sleep(0.1, 0.2):
                return
        scene.trainer.kill()
        scene.trainer.wait()
        scene.start()


@contextlib.contextmanager
def small_disk(scene: Scene):
    "The index on a tmpfs in which one version has room; in the second half, more."
    scene.start(stages="corpus")  # the folder must be a run's before there is an index in it
    scene.trainer.wait()
    index = scene.run / "index"
    index.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=300k", "none", str(index)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise Skipped("no tmpfs can be mounted here")

    def enlarge():
        while len(scene.steps()) < scene.options.steps / 2 and scene.sleep(0.1, 0.2):
            pass
        subprocess.run(["mount", "-o", "remount,size=64m", str(index)], check=True)

    thread = threading.Thread(target=enlarge)
    thread.start()
    try:
        yield
    finally:
        scene.over.set()
        thread.join()
        shutil.copytree(index, scene.run / "index-kept")
        subprocess.run(["umount", "-l", str(index)], check=True)


@contextlib.contextmanager
def clock_set_back(scene: Scene):
    "The clock of trainer and builder is stepped by up to a year, back and forth (libfaketime)."
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    if not found:
        raise Skipped("libfaketime is not installed")
    clock = scene.run.with_suffix(".clock")
    clock.write_text("+0")
    scene.env |= {"LD_PRELOAD": str(found[0]), "FAKETIME_TIMESTAMP_FILE": str(clock)}
    scene.env |= {"FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}

    def step():
        while scene.sleep(0.3, 1.5):
            new = clock.with_suffix(".new")
            new.write_text(f"{scene.random.randint(-365, 365):+d}d")
            new.replace(clock)

    thread = threading.Thread(target=step)
    thread.start()
    try:
        yield
    finally:
        scene.over.set()
        thread.join()


@contextlib.contextmanager
def two_hosts(scene: Scene):
    """Two builders with names of hosts and caches of their own, shards 1/2 and 2/2; the second is
    killed half-way and comes back."""
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True).returncode:
        raise Skipped("no host name of its own can be had here")
    scene.flags = (*scene.flags, "--pretrain.builder", "none")
    stop, processes = threading.Event(), {}

    def run(shard, *command):
        home = scene.run.with_name(f"{scene.run.name}-home-{shard}")
        env = {**scene.env, "REALM_NB_HOME": str(home)}
        with open(scene.run.with_suffix(f".builder{shard}.log"), "ab") as log:
            command = [sys.executable, "-m", "realm_nb", *map(str, command)]
            name = f'hostname host{shard}; exec "$@"'
            command = ["unshare", "--uts", "sh", "-c", name, "sh", *command]
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=ROOT)

    def begin(shard):
        flags = ("--shard", f"{shard}/2", "--device", "cpu")
        processes[shard] = run(shard, "build", "--run", scene.run, *flags)

    for shard in (1, 2):
        there = scene.run.with_name(f"{scene.run.name}-prepared-{shard}")
        flags = ("--recipe", "smoke", "--stages", "corpus", "--run", there)
        if run(shard, "train", *flags).wait():
            raise RuntimeError("the corpus could not be prepared")

    def play():
        while not (scene.run / "config.json").exists() and not stop.wait(0.1):
            pass
        begin(1)
        begin(2)
        while len(scene.steps()) < scene.options.steps / 3 and not stop.wait(0.1):
            pass
        processes[2].kill()
        processes[2].wait()
        if not stop.wait(5):
            begin(2)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for process in processes.values():
            process.kill()
            process.wait()


# ---- the runs


@dataclass
class Case:
    "What happens in a run, what surrounds it, and the trainer's further flags."

    fault: Callable = nothing
    around: Callable | None = None
    flags: tuple = ()
    pause: float = 0.0


PATIENT = ("--pretrain.builder_patience", 6)
BOUND = ("--max-staleness", 36, "--pretrain.max_wait", 5)
CASES = {
    "nothing": Case(),
    "killed now and then": Case(killed),
    "killed now and then, bound": Case(killed, flags=BOUND),
    "killed at work": Case(killed_at_work),
    "killed at every start": Case(never_lives),
    "killed at every start, bound": Case(never_lives, flags=BOUND),
    "killed at every start for a while": Case(broken_for_a_while),
    "stopped for seconds": Case(stopped),
    "stopped for good": Case(stopped_for_good, flags=PATIENT),
    "starved": Case(starved),
    "starved, bound": Case(starved, flags=BOUND),
    "disk full (tmpfs), then not": Case(around=small_disk),
    "files bounded (RLIMIT_FSIZE), then not": Case(files_bounded),
    "bytes changed": Case(vandal),
    "clock set back and forth": Case(around=clock_set_back),
    "trainer killed twice": Case(trainer_killed),
    "two hosts, one killed": Case(around=two_hosts),
}


def played(options, folder: Path, name: str, turn: int) -> str:
    "Play one run; its row of the table."
    case = CASES[name]
    slug = "".join(c if c.isalnum() else "-" for c in name)
    generator = random.Random(f"{options.seed} {turn} {name}")
    scene = Scene(options, folder / f"{slug}-{turn}", generator, flags=case.flags)
    began, around = time.monotonic(), case.around or contextlib.nullcontext
    try:
        with around(scene):
            scene.start()
            thread = threading.Thread(target=case.fault, args=[scene])
            thread.start()
            while (status := scene.trainer.wait()) == -signal.SIGKILL and thread.is_alive():
                time.sleep(1)  # it is killed and started again
            scene.over.set()
            thread.join()
    except Skipped as e:
        return f"| {name} | skipped: {e} | | | | | | |"
    return row(scene, name, status, time.monotonic() - began)


def row(scene: Scene, name: str, status: int, seconds: float) -> str:
    "What came of a run, as a row of the table."
    steps = scene.steps()
    told = scene.run / "stages" / "pretrain.json"
    health = json.loads(told.read_text())["refresh"] if told.exists() else {}
    kept = scene.run / "index-kept"
    whole = IndexStore(kept if kept.exists() else scene.run / "index")
    note = ""
    for version in numbered(whole.folder, "v")[-1:]:
        try:
            whole.load(version)  # the last one must be readable
        except Damaged as e:
            if "bytes" not in name:
                raise
            note = f"; of what was changed after the end it says: {str(e).partition(' is ')[2]}"
    searched = {m["step"] - 1 - m["stale"] for m in steps}
    log = (scene.run / "log.txt").read_text()
    failures = log.count("refresh: the builder ") - log.count("refresh: the builder is")
    expected = 3 if health.get("degraded") else 0
    outcome = "ended well" if status == expected and len(steps) == scene.options.steps else "FAILED"
    if health.get("degraded"):
        outcome += f", and says: {health['why']}"
    outcome += note
    if outcome.startswith("FAILED"):
        tail = scene.run.with_suffix(".log").read_text().splitlines()[-1:]
        outcome += f" (status {status}, {tail})"
    longest = max((m["stale"] for m in steps), default=0)
    held = max((m["waited"] for m in steps[1:]), default=0)
    return (
        f"| {name} | {len(steps)} | {len(searched)} | {health.get('built_here', '?')} | {longest} "
        f"| {failures} | {held:.1f} s | {outcome} ({seconds:.0f} s) |"
    )


@cli
def main(argv):
    options = parse(argv, Options(), prog="python benchmarks/chaos.py")
    names = [name for name in CASES if options.only in name]
    if not names:
        raise UserError(f"no run has {options.only!r} in its name: {', '.join(CASES)}")
    print(
        "| what happens | steps | versions searched | built by the trainer | longest staleness "
        "| failures of the builder | longest hold-up | outcome |"
    )
    print("|---|---|---|---|---|---|---|---|", flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            for name in names:
                line = played(options, Path(folder), name, turn)
                failed += "FAILED" in line
                print(line, flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
