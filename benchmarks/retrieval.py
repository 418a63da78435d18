"""Recall, latency, memory and bytes a block of each search back end, over a real index and a
synthetic one of any size.

    # embed the blocks of a token store, then measure
    python benchmarks/retrieval.py real WORK --store DIR --base DIR
    # clustered random vectors in float16, made in chunks
    python benchmarks/retrieval.py synthetic WORK --n 13000000
    # the results so far as markdown
    python benchmarks/retrieval.py table WORK

Each back end is built, saved, opened memory-mapped and measured in a process of its own, one after
the other; a result that is there is not measured again. The bound is what a back end must read (its
codes, or the probed share of them) divided by the memory bandwidth measured in the same process."""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import faiss
import numpy as np
import torch

from realm_nb.core.device import rng
from realm_nb.core.files import write_json
from realm_nb.retrieval import MISSING, ExactIndex, FaissIndex, embed_store, load_index, save_index

REAL = [
    "exact float32",
    "exact float16",
    "exact bfloat16",
    "Flat",
    "SQfp16",
    "IVF64,Flat nprobe=8",
    "HNSW32 efSearch=64",
    "PQ16",
]
SYNTHETIC = [
    "exact float16",
    "SQfp16",
    "IVF256,SQfp16 nprobe=8",
    "PQ16",
]  # a graph of 13 M nodes takes hours to build on a core: HNSW is measured on a slice
SLICE = ["HNSW32 efSearch=64"]


def make_real(folder: Path, store, base, queries=256):
    """Embeddings of a real store by `base`'s Embedder, and of some of its sentences; each
    sentence's own block is excluded."""
    from realm_nb.store import TokenStore
    from realm_nb.towers import ModelConfig, Towers, embed_all, query_sequence, towers_from_base

    store = TokenStore.open(store)
    torch.manual_seed(0)
    model = ModelConfig(layers=3, embedder_layers=2, pooling="mean", dropout=0.0)
    embedder = (
        Towers.load(base)
        if (Path(base) / "towers.json").exists()
        else towers_from_base(base, model)
    ).embedder.eval()
    np.save(folder / "embeddings.npy", embed_store(embedder, store))
    sentences = rng(0, "queries").permutation(store.n_sentences)[:queries]
    with torch.no_grad():
        np.save(
            folder / "queries.npy",
            embed_all(
                embedder, [query_sequence(store.sentence(s), store.special) for s in sentences]
            ).numpy(),
        )
    np.save(folder / "own.npy", store.block_of(sentences))


def make_synthetic(folder: Path, n: int, queries=64, chunk=250_000, centres=20_000):
    """n clustered vectors of 128 in float16, a chunk at a time; queries are noisy copies of some,
    which are excluded."""
    g = np.random.default_rng(0)
    middle = g.standard_normal((centres, 128), dtype=np.float32)
    out = np.lib.format.open_memmap(folder / "embeddings.npy", "w+", np.float16, (n, 128))
    for lo in range(0, n, chunk):
        m = min(chunk, n - lo)
        x = g.standard_normal((m, 128), dtype=np.float32)
        x *= 0.7
        x += middle[g.integers(centres, size=m)]
        out[lo : lo + m] = x
    own = np.sort(g.choice(n, queries, replace=False))
    np.save(
        folder / "queries.npy",
        out[own].astype(np.float32) + 0.5 * g.standard_normal((queries, 128), dtype=np.float32),
    )
    np.save(folder / "own.npy", own)
    out.flush()


def bandwidth() -> float:
    "Bytes a second that this process reads from memory: the best of five sums over 256 MB."
    x, times = torch.ones(2**26), []
    for _ in range(5):
        t = time.perf_counter()
        x.sum()
        times.append(time.perf_counter() - t)
    return x.numel() * 4 / min(times)


def multiply_rate() -> float:
    "Multiply-adds a second of a product of 64 queries with cached blocks."
    q, e, times = torch.randn(64, 128), torch.randn(4096, 128), []
    for _ in range(8):
        t = time.perf_counter()
        q @ e.T
        times.append(time.perf_counter() - t)
    return 64 * 128 * 4096 / min(times)


def build(name: str, embeddings, folder: Path):
    "Build and save; seconds."
    t = time.perf_counter()
    kind, _, options = name.partition(" ")
    if kind == "exact":
        save_index(ExactIndex(embeddings, dtype=getattr(torch, options)), folder)
    else:
        index = FaissIndex(embeddings, kind)
        folder.mkdir()
        faiss.write_index(index.index, str(folder / "index.faiss"))
    return time.perf_counter() - t


def open_index(name: str, folder: Path):
    "The index that `build` left in `folder`, memory-mapped, with its search settings."
    kind, _, options = name.partition(" ")
    if kind == "exact":
        return load_index(folder)
    index = FaissIndex.__new__(FaissIndex)
    index.index = faiss.read_index(str(folder / "index.faiss"), faiss.IO_FLAG_MMAP_IFC)
    index.set(options)
    return index


def recall(ids: np.ndarray, exact: np.ndarray) -> float:
    "Share of the `exact` ids [B, k] that are among `ids` [B, k], missing ones left out."
    found = (exact[:, :, None] == ids[:, None, :]).any(2)
    return float(found[exact != MISSING].mean())


def measure(name: str, data: Path, n: int) -> dict:
    "All figures of one back end over the first n embeddings in `data`."
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 1)))
    faiss.omp_set_num_threads(torch.get_num_threads())
    embeddings, queries, own = (
        np.load(data / "embeddings.npy", mmap_mode="c")[:n],
        np.load(data / "queries.npy"),
        np.load(data / "own.npy")[:, None],
    )
    kind, _, options = name.partition(" ")
    folder = data / "index"
    seconds = build(name, embeddings, folder)
    size = sum(p.stat().st_size for p in folder.iterdir())
    index = open_index(name, folder)
    index.search(queries[:1], 8, own[:1])  # the first reads the file
    ones, batch = [], []
    for i in range(5):
        t = time.perf_counter()
        index.search(queries[i : i + 1], 8, own[i : i + 1])
        ones.append(time.perf_counter() - t)
    for i in range(0, len(queries), 64):
        t = time.perf_counter()
        _, ids = index.search(queries[i : i + 64], 8, own[i : i + 64])
        batch.append((time.perf_counter() - t, ids))
    ids = np.concatenate([i for _, i in batch])
    assert not (ids == own).any(), "an excluded block came back"
    exact = data / f"exact-{n}.npy"
    if not exact.exists():
        np.save(
            exact, ids if kind == "exact" else ExactIndex(embeddings).search(queries, 8, own)[1]
        )
    share = (
        1.0
        if not kind.startswith("IVF")
        else int(options.split("=")[1]) / int(kind[3:].split(",")[0])
    )
    speed, rate = bandwidth(), multiply_rate()
    shutil.rmtree(folder)
    return {
        "name": name,
        "blocks": n,
        "build_s": seconds,
        "bytes": size / n,
        "recall@8": recall(ids, np.load(exact)),
        "one_ms": 1e3 * float(np.median(ones)),
        "batch64_ms": 1e3 * min(t for t, _ in batch),
        "bound_ms": None if kind.startswith("HNSW") else 1e3 * size * share / speed,
        "bandwidth_GBs": speed / 1e9,
        "product64_ms": 1e3 * 64 * 128 * n / rate if kind in ("exact", "Flat") else None,
        "peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def table(results) -> str:
    "Results as markdown."
    lines = [
        "| back end | blocks | recall@8 | bytes a block | 1 query, ms | bound, ms "
        "| 64 queries, ms | their product alone, ms | build, s | peak, GB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    cell = lambda v: "" if v is None else f"{v:,.3g}" if v < 100 else f"{v:,.0f}"
    return "\n".join(
        lines
        + [
            f"| {r['name']} | {r['blocks']:,} | {r['recall@8']:.3f} | "
            + " | ".join(
                cell(r[k])
                for k in (
                    "bytes",
                    "one_ms",
                    "bound_ms",
                    "batch64_ms",
                    "product64_ms",
                    "build_s",
                    "peak_GB",
                )
            )
            + " |"
            for r in results
        ]
    )


def main(argv=None):
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("what", choices=("real", "synthetic", "table", "one"))
    p.add_argument("work", type=Path)
    p.add_argument("--store")
    p.add_argument("--base", help="weights, or a checkpoint of a run")
    p.add_argument("--n", type=int, default=13_000_000)
    p.add_argument("--name")
    p.add_argument("--slice", type=int, default=50_000)
    a = p.parse_args(argv)
    if a.what == "one":
        print(json.dumps(measure(a.name, a.work, a.n)))
        return
    if a.what == "table":
        for path in sorted(a.work.glob("*/results.json")):
            print(
                f"\n{path.parent.name}, bandwidth "
                f"{max(r['bandwidth_GBs'] for r in json.loads(path.read_text())):.1f} GB/s\n\n"
                + table(json.loads(path.read_text()))
            )
        return
    data = a.work / (a.what if a.what == "real" else f"synthetic-{a.n}")
    if not (data / "own.npy").exists():
        data.mkdir(parents=True, exist_ok=True)
        t = time.perf_counter()
        make_real(data, a.store, a.base) if a.what == "real" else make_synthetic(data, a.n)
        print(f"made in {time.perf_counter() - t:.0f} s", flush=True)
    results = (
        json.loads((data / "results.json").read_text()) if (data / "results.json").exists() else []
    )
    n = np.load(data / "embeddings.npy", mmap_mode="r").shape[0]
    for name, blocks in [(x, n) for x in (REAL if a.what == "real" else SYNTHETIC)] + [
        (x, min(n, a.slice)) for x in (SLICE if a.what == "synthetic" else [])
    ]:
        if any((r["name"], r["blocks"]) == (name, blocks) for r in results):
            continue
        out = subprocess.run(
            [sys.executable, __file__, "one", str(data), "--name", name, "--n", str(blocks)],
            capture_output=True,
            text=True,
        )
        if out.returncode:
            print(f"{name}: {out.stderr[-500:]}", flush=True)
            continue
        results.append(json.loads(out.stdout.splitlines()[-1]))
        write_json(data / "results.json", results)
        print(table(results[-1:]).splitlines()[-1], flush=True)


if __name__ == "__main__":
    main()
