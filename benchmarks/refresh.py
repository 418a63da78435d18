"""The index refresh, measured. Run it as a program:

python benchmarks/refresh.py faults                    the fault table; every row is a test with real processes
python benchmarks/refresh.py slowdown [--steps 60]     training beside a builder that has its own core, and without one
python benchmarks/refresh.py throughput [--blocks 512] embedding against sentence-transformers with the same weights
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
ROOT = Path(__file__).resolve().parents[1]

from realm_nb.core.errors import UserError, cli

ROWS = {
    "test_builder_killed": "builder killed",
    "test_builder_dead_or_hung_is_restarted": "builder killed, builder hung (stopped), under a trainer",
    "test_damaged_version": "version file damaged",
    "test_clock_jumps": "clocks jump, files dated 1970",
    "test_snapshot_overtaken": "snapshots overtaken",
    "test_shards_on_several_hosts": "one of three builders killed",
    "test_a_bound_on_staleness_waits_and_says_so": "no builder, bound on staleness",
    "test_disk_full_for_the_builder": "disk full for the builder (tmpfs)",
    "test_trainer_killed_at_ten_random_points": "trainer killed at 10 random points",
    "test_two_trainers": "two trainers on one run folder",
    "test_disk_full_for_the_trainer": "disk full for a checkpoint (tmpfs)",
    "test_async_trainer_killed_leaves_no_orphan_and_goes_on": "asynchronous trainer killed",
    "test_a_claimed_version_outlives_pruning": "version claimed as it is pruned",
}


def faults(args):
    "Run the tests and print a row for each."
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "-q",
                "tests/test_refresh.py",
                f"--junitxml={report}",
                *(["-k", args.only] if args.only else []),
            ],
            cwd=ROOT,
            stdout=sys.stderr,
        )
        cases = list(ET.parse(report).iter("testcase"))
    print("| fault | outcome | longest hold-up of a step |\n|---|---|---|")
    bad, longest = 0, 0.0
    for case in cases:
        name, _, which = case.get("name").partition("[")
        said = {p.get("name"): float(p.get("value")) for p in case.iter("property")}
        outcome = (
            "skipped: " + case.find("skipped").get("message", "")
            if case.find("skipped") is not None
            else "FAILED"
            if case.find("failure") is not None or case.find("error") is not None
            else "survived"
        )
        bad, longest = bad + (outcome == "FAILED"), max(longest, said.get("longest", 0))
        print(
            f"| {ROWS.get(name, name)}{': ' + which.rstrip(']') if which else ''} | {outcome} | {said['longest'] * 1000:.0f} ms |"
            if "longest" in said
            else f"| {ROWS.get(name, name)}{': ' + which.rstrip(']') if which else ''} | {outcome} | |"
        )
    print(
        f"\n{len(cases)} rows, {bad} failed; longest hold-up {longest * 1000:.0f} ms. A row survives only with no step held up for a second or more, every version that can be seen whole, and every checkpoint readable."
    )
    return int(bad > 0)


def slowdown(args):
    "Seconds a step of the smoke recipe on one core, alone and beside a builder on another, in turns."
    if len(cores := sorted(os.sched_getaffinity(0))) < 2:
        raise UserError("two cores are needed: one for the trainer, one for the builder")
    flags = [
        "--recipe",
        args.recipe,
        "--stages",
        "corpus,mask,ict,pretrain",
        "--ict.steps",
        2,
        "--pretrain.steps",
        args.steps,
        "--pretrain.save_every",
        0,
        "--pretrain.refresh_every",
        args.every,
    ]
    os.sched_setaffinity(0, {cores[0]})
    found = {"never": [], "async": []}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.turns):
            for mode in found:
                run = Path(folder) / f"{mode}{turn}"
                extra = ["--refresh", mode, "--seed", turn] + (
                    ["--pretrain.builder_cores", cores[1]] if mode == "async" else []
                )
                subprocess.run(
                    [
                        sys.executable,
                        "-m",
                        "realm_nb.train",
                        "--run",
                        run,
                        *map(str, flags + extra),
                    ],
                    check=True,
                    stdout=sys.stderr,
                    env={**os.environ, "REALM_NB_QUIET": "1"},
                )
                lines = [
                    m
                    for line in (run / "metrics.jsonl").read_text().splitlines()
                    if (m := json.loads(line))["stage"] == "pretrain"
                ]
                steps = [m["seconds"] + (m["waited"] if mode == "async" else 0) for m in lines[1:]]
                found[mode].append(sorted(steps)[len(steps) // 2])
                built = (
                    len(re.findall("published", (run / "builders/1-of-1.log").read_text()))
                    if mode == "async"
                    else 0
                )
                print(
                    f"{mode:5s} median {found[mode][-1] * 1000:.0f} ms a step, total {sum(steps):.1f} s"
                    + (f", {built} versions built meanwhile" if built else ""),
                    flush=True,
                )
    ratio = min(found["async"]) / min(found["never"])
    print(
        f"\nasynchronous refresh on against off: {ratio:.3f} × the time of a step (trainer on core {cores[0]}, builder on core {cores[1]})"
    )


def throughput(args):
    "Blocks a second: our builder's loop, and sentence-transformers with its default settings; same texts, same weights, same depth, same cores; and a refresh that has the frozen layers stored."
    import numpy as np
    import torch
    from sentence_transformers import SentenceTransformer

    from realm_nb.builder.builder import embed_rows
    from realm_nb.core.device import pick_precision
    from realm_nb.retrieval import StoredLayers
    from realm_nb.store import build_store
    from realm_nb.text.documents import read_corpus
    from realm_nb.text.sources import fetch
    from realm_nb.text.tokenizer import load_tokenizer
    from realm_nb.towers import Embedder, load_bert, quiet_transformers
    from realm_nb.text.tokenizer import SpecialTokens

    quiet_transformers()
    base = fetch("minilm-l6")
    tokenizer = load_tokenizer(base)
    with tempfile.TemporaryDirectory() as folder:
        store = build_store(
            read_corpus(args.corpus, args.documents),
            tokenizer,
            Path(folder) / "store",
            max_block_len=args.limit,
        )
        blocks = range(min(args.blocks, len(store)))
        texts = [f"{store.title(b)} {store.text(b)}" for b in blocks]
        lengths = np.array(
            [len(store.body(b)) + len(store.title_ids(store.document_of(b))) + 3 for b in blocks]
        )
        ours = Embedder(load_bert(base)[0].bert, 128, "mean").eval()
        ours.bert.set_attn_implementation("sdpa")
        theirs = SentenceTransformer(str(base), device="cpu")
        theirs.max_seq_length = 512  # so that nothing is cut: its own 256 would spare it work
        print(
            f"{len(blocks)} blocks of {args.corpus}, {lengths.mean():.0f} pieces on average, {lengths.max()} at most; {len(theirs[0].auto_model.encoder.layer)} and {len(ours.bert.encoder.layer)} layers; {torch.get_num_threads()} thread(s)\n"
        )
        auto = pick_precision("auto")

        def mine(dtype):
            return lambda: np.concatenate(
                list(embed_rows(ours, store, SpecialTokens.of(tokenizer), 512, blocks, dtype))
            )

        work = {
            "sentence-transformers, default": lambda: theirs.encode(texts),
            "builder, float32": mine(torch.float32),
        }

        def half():
            with torch.autocast("cpu", torch.bfloat16):
                return theirs.encode(texts)

        if auto == torch.bfloat16:
            work |= {
                "sentence-transformers, bfloat16": half,
                "builder, bfloat16 (auto)": mine(auto),
            }  # elsewhere it takes minutes
        kept = Embedder(ours.bert, 128, "mean", frozen=4).eval()
        kept.load_state_dict(ours.state_dict())
        began = time.perf_counter()
        stored = StoredLayers.build(
            kept, store, SpecialTokens.of(tokenizer), 512, Path(folder) / "layers", auto
        )
        print(
            f"first 4 of 6 layers stored once, in {time.perf_counter() - began:.1f} s for {len(store)} blocks, {stored.rows.nbytes / 1e6:.0f} MB\n"
        )
        refreshed = lambda dtype: np.concatenate(
            list(
                embed_rows(
                    kept, store, SpecialTokens.of(tokenizer), 512, blocks, dtype, stored=stored
                )
            )
        )
        work[f"builder's refresh with 4 frozen layers stored, {str(auto).split('.')[1]} (auto)"] = (
            lambda: refreshed(auto)
        )
        times = {name: [] for name in work}
        for turn in range(args.turns):
            for name, f in work.items():
                began = time.process_time(), time.perf_counter()
                f()
                times[name].append((time.perf_counter() - began[1], time.process_time() - began[0]))
        print("| | blocks/s | × default | × default by processor time |\n|---|---|---|---|")
        wall = {n: min(t[0] for t in v) for n, v in times.items()}
        cpu = {n: min(t[1] for t in v) for n, v in times.items()}
        first = next(iter(wall))
        for name in wall:
            print(
                f"| {name} | {len(blocks) / wall[name]:.1f} | {wall[first] / wall[name]:.2f} | {cpu[first] / cpu[name]:.2f} |"
            )
        with torch.no_grad():
            pooled = lambda rows: rows / np.linalg.norm(rows, axis=1, keepdims=True)
        a = pooled(mine(torch.float32)())
        for name, rows in (
            (str(auto).split(".")[1], mine(auto)()),
            ("stored layers", refreshed(auto)),
        ):
            print(
                f"\ncosine of the vectors by {name} and by float32: {(a * pooled(rows)).sum(1).min():.5f} at least"
            )


@cli
def main(argv):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["faults", "slowdown", "throughput"])
    parser.add_argument("--only", help="faults: some rows, as pytest -k")
    parser.add_argument("--recipe", default="smoke")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--corpus", default="wiki-dump")
    parser.add_argument("--documents", type=int, default=10)
    parser.add_argument("--blocks", type=int, default=256)
    parser.add_argument("--limit", type=int, default=288)
    args = parser.parse_args(argv)
    return {"faults": faults, "slowdown": slowdown, "throughput": throughput}[args.what](args)


if __name__ == "__main__":
    sys.exit(main())
