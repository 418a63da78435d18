"""The index refresh, measured. Run it as a program:

python benchmarks/refresh.py faults        the fault table; every row is a test with real processes
python benchmarks/refresh.py slowdown      training beside a builder that has its own core, and
                                           without one
python benchmarks/refresh.py throughput    embedding against sentence-transformers with the same
                                           weights
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from realm_nb.core.config import argument, parse, setting
from realm_nb.core.errors import UserError, cli

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]

ROWS = {
    "test_builder_killed": "builder killed",
    "test_builder_dead_or_hung_is_restarted": "builder killed, builder hung, under a trainer",
    "test_damaged_version": "version file damaged",
    "test_clock_jumps": "clocks jump, files dated 1970",
    "test_snapshot_overtaken": "snapshots overtaken",
    "test_shards_on_several_hosts": "one of three builders killed",
    "test_a_bound_on_staleness_waits_and_says_so": "no builder, bound on staleness",
    "test_a_builder_that_always_fails_is_replaced_and_tried_again": "builder fails at every start",
    "test_a_budget_is_one_of_time": "builder cannot be started, for hours",
    "test_a_full_disk_does_not_end_training_when_the_trainer_must_build": "no builder, disk full",
    "test_health_names_a_refresh_that_stopped": "no builder, no bound",
    "test_a_builder_killed_and_stopped_at_random_moments": "builder killed or stopped, 14 times",
    "test_weights_that_are_not_finite_make_no_version": "NaN in a snapshot",
    "test_a_trainer_whose_vectors_are_not_finite_ends_with_a_line": "infinity in a version",
    "test_build_refuses_nonsense_in_one_line": "nonsense for realm build",
    "test_build_refuses_a_run_that_has_nothing_to_build": "nothing to build",
    "test_disk_full_for_the_builder": "disk full for the builder (tmpfs)",
    "test_trainer_killed_at_ten_random_points": "trainer killed at 10 random points",
    "test_two_trainers": "two trainers on one run folder",
    "test_disk_full_for_the_trainer": "disk full for a checkpoint (tmpfs)",
    "test_async_trainer_killed_leaves_no_orphan_and_goes_on": "asynchronous trainer killed",
    "test_a_version_in_use_outlives_pruning": "version in use as old ones are pruned",
    "test_a_trainer_holds_what_it_searches": "versions come faster than they are taken over",
}


@dataclass
class Options:
    "The index refresh, measured."

    what: Literal["faults", "slowdown", "throughput"] = argument("which measurement")
    only: str = setting("", "faults: some rows, as pytest -k")
    recipe: str = setting("smoke", "slowdown: of the runs")
    steps: int = setting(60, "slowdown: steps of pre-training")
    every: int = setting(10, "slowdown: steps between two snapshots")
    turns: int = setting(2, "runs of each kind; the fastest counts")
    corpus: str = setting("wiki-dump", "throughput: what is embedded")
    documents: int = setting(10, "throughput: documents of it")
    blocks: int = setting(256, "throughput: blocks at most")
    limit: int = setting(288, "throughput: word pieces of a block")


def faults(options):
    "Run the tests and print a row for each."
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        only = ["-k", options.only] if options.only else []
        command = [sys.executable, "-m", "pytest", "-q", "tests/test_refresh.py", *only]
        subprocess.run([*command, f"--junitxml={report}"], cwd=ROOT, stdout=sys.stderr)
        cases = list(ET.parse(report).iter("testcase"))
    print("| fault | outcome | longest hold-up of a step |\n|---|---|---|")
    bad, longest = 0, 0.0
    for case in cases:
        name, _, which = case.get("name").partition("[")
        said = {p.get("name"): float(p.get("value")) for p in case.iter("property")}
        outcome = outcome_of(case)
        held_up = f"{said['longest'] * 1000:.0f} ms" if "longest" in said else ""
        bad, longest = bad + (outcome == "FAILED"), max(longest, said.get("longest", 0))
        row = ROWS.get(name, name) + (f": {which.rstrip(']')}" if which else "")
        print(f"| {row} | {outcome} | {held_up} |")
    print(
        f"\n{len(cases)} rows, {bad} failed; longest hold-up {longest * 1000:.0f} ms. A row "
        "survives only with no step held up for a second or more, every version that can be seen "
        "whole, and every checkpoint readable."
    )
    return int(bad > 0)


def outcome_of(case) -> str:
    "What became of a test."
    if case.find("skipped") is not None:
        return "skipped: " + case.find("skipped").get("message", "")
    failed = case.find("failure") is not None or case.find("error") is not None
    return "FAILED" if failed else "survived"


def slowdown(options):
    "Seconds a step on one core, alone and beside a builder on another, in turns."
    if len(cores := sorted(os.sched_getaffinity(0))) < 2:
        raise UserError("two cores are needed: one for the trainer, one for the builder")
    os.sched_setaffinity(0, {cores[0]})
    found = {"never": [], "async": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(options.turns):
            for mode, medians in found.items():
                run = Path(folder) / f"{mode}{turn}"
                medians.append(median_step(options, run, mode, turn, cores[1]))
    ratio = min(found["async"]) / min(found["never"])
    print(
        f"\nasynchronous refresh on against off: {ratio:.3f} × the time of a step "
        f"(trainer on core {cores[0]}, builder on core {cores[1]})"
    )


def median_step(options, run, mode, seed, builder_core) -> float:
    "The median of a run's steps, in seconds."
    flags = f"--recipe {options.recipe} --stages corpus,mask,ict,pretrain --ict.steps 2".split()
    flags += ["--pretrain.steps", str(options.steps), "--pretrain.save_every", "0"]
    flags += ["--pretrain.refresh_every", str(options.every), "--pretrain.refresh", mode]
    flags += ["--seed", str(seed), "--run", str(run)]
    if mode == "async":
        flags += ["--pretrain.builder_cores", str(builder_core)]
    subprocess.run(
        [sys.executable, "-m", "realm_nb.train", *flags],
        check=True,
        stdout=sys.stderr,
        env={**os.environ, "REALM_NB_QUIET": "1"},
    )
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    steps = [m for m in lines if m["stage"] == "pretrain"][1:]
    seconds = [m["seconds"] + m["waited"] for m in steps]
    median, built = sorted(seconds)[len(seconds) // 2], ""
    if mode == "async":
        log = (run / "builders/1-of-1.log").read_text()
        built = f", {len(re.findall('published', log))} versions built meanwhile"
    print(f"{mode:5s} median {median * 1000:.0f} ms a step, total {sum(seconds):.1f} s{built}")
    return median


class Embedding:
    "One corpus, and what embeds it."

    def __init__(self, options, folder):
        from sentence_transformers import SentenceTransformer

        from realm_nb.core.device import pick_precision
        from realm_nb.retrieval import StoredLayers
        from realm_nb.store import build_store
        from realm_nb.text.documents import read_corpus
        from realm_nb.text.sources import fetch
        from realm_nb.text.tokenizer import load_tokenizer
        from realm_nb.towers import Embedder, load_bert, quiet_transformers

        quiet_transformers()
        base = fetch("minilm-l6")
        documents = read_corpus(options.corpus, options.documents)
        tokenizer, limit = load_tokenizer(base), options.limit
        self.store = build_store(documents, tokenizer, folder / "store", max_block_len=limit)
        self.blocks = range(min(options.blocks, len(self.store)))
        self.texts = [f"{self.store.title(b)} {self.store.text(b)}" for b in self.blocks]
        self.ours = Embedder(load_bert(base)[0].bert, 128, "mean").eval()
        self.ours.bert.set_attn_implementation("sdpa")
        self.theirs = SentenceTransformer(str(base), device="cpu")
        self.theirs.max_seq_length = 512  # so that nothing is cut: its own 256 would spare it work
        self.auto = pick_precision("auto")
        self.frozen = Embedder(self.ours.bert, 128, "mean", frozen=4).eval()
        self.frozen.load_state_dict(self.ours.state_dict())
        began = time.perf_counter()
        self.stored = StoredLayers.build(self.frozen, self.store, folder / "layers", self.auto)
        self.storing = time.perf_counter() - began

    def builder(self, dtype):
        "What a builder makes of the blocks: float32 [n, D]."
        return self._rows(self.ours, dtype, None)

    def refresh(self, dtype):
        "The same blocks, with four of six layers stored: float32 [n, D]."
        return self._rows(self.frozen, dtype, self.stored)

    def _rows(self, embedder, dtype, stored):
        from realm_nb.retrieval import embed_store

        return embed_store(embedder, self.store, self.blocks, dtype, stored, bar=False)

    def sentence_transformers(self, half=False):
        "What sentence-transformers makes of the texts."
        import torch

        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return self.theirs.encode(self.texts)


def throughput(options):
    """Blocks a second: the builder's loop, and sentence-transformers with its default settings.

    With one and the same texts, weights, depth, cores; and a refresh with stored frozen layers."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        work = Embedding(options, Path(folder))
        auto, n, store = work.auto, len(work.blocks), work.store
        lengths = [
            len(store.body(b)) + len(store.title_ids(store.document_of(b))) + 3 for b in work.blocks
        ]
        print(
            f"{n} blocks of {options.corpus}, {sum(lengths) / n:.0f} pieces on average, "
            f"{max(lengths)} at most; {len(work.theirs[0].auto_model.encoder.layer)} and "
            f"{len(work.ours.bert.encoder.layer)} layers; {torch.get_num_threads()} thread(s)\n\n"
            f"first 4 of 6 layers stored once, in {work.storing:.1f} s for {len(store)} blocks, "
            f"{work.stored.rows.nbytes / 1e6:.0f} MB\n"
        )
        name = str(auto).removeprefix("torch.")
        ways = {
            "sentence-transformers, default": work.sentence_transformers,
            "builder, float32": lambda: work.builder(torch.float32),
        }
        if auto == torch.bfloat16:  # elsewhere it takes minutes
            ways["sentence-transformers, bfloat16"] = lambda: work.sentence_transformers(True)
            ways["builder, bfloat16 (auto)"] = lambda: work.builder(auto)
        ways[f"builder's refresh with 4 frozen layers stored, {name} (auto)"] = lambda: (
            work.refresh(auto)
        )
        compare_times(ways, options.turns, n)
        exact = work.builder(torch.float32)
        for label, rows in ((name, work.builder(auto)), ("stored layers", work.refresh(auto))):
            print(
                f"\ncosine of the vectors by {label} and by float32: "
                f"{least_cosine(exact, rows):.5f} at least"
            )


def compare_times(ways, turns, n):
    "Run each of `ways` in turns; a table of blocks a second, the fastest turn counts."
    wall = dict.fromkeys(ways, float("inf"))
    cpu = dict(wall)
    for _ in range(turns):
        for name, run in ways.items():
            began, busy = time.perf_counter(), time.process_time()
            run()
            wall[name] = min(wall[name], time.perf_counter() - began)
            cpu[name] = min(cpu[name], time.process_time() - busy)
    print("| | blocks/s | × default | × default by processor time |\n|---|---|---|---|")
    first = next(iter(ways))
    for name in ways:
        times = f"{wall[first] / wall[name]:.2f} | {cpu[first] / cpu[name]:.2f}"
        print(f"| {name} | {n / wall[name]:.1f} | {times} |")


def least_cosine(a, b) -> float:
    "The smallest cosine of a row of `a` [n, D] and the same row of `b`."
    import numpy as np

    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(1) / norms).min())


@cli
def main(argv):
    options = parse(argv, Options(), prog="python benchmarks/refresh.py")
    if options.what not in (work := {f.__name__: f for f in (faults, slowdown, throughput)}):
        raise UserError(f"what is to be measured? {', '.join(work)}")
    return work[options.what](options)


if __name__ == "__main__":
    sys.exit(main())
