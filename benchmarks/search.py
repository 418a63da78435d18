"""Exact search against torch and FAISS on the same vectors.

python benchmarks/search.py [--seconds 3]"""

import argparse

import faiss
import numpy as np
import pairs
import torch

from realm_nb.retrieval import ExactIndex, FaissIndex

K, DIM = 5, 128
SIZES, BATCHES = (4_000, 24_000, 200_000, 1_000_000), (1, 8, 256)


def by_torch(vectors, queries):
    "One product and a top-k, from arrays to arrays: float32 and int64 [B, K]."
    scores, ids = torch.matmul(torch.from_numpy(queries), vectors.T).topk(K)
    return scores.numpy(), ids.numpy()


def compare(vectors, batch: int, seconds: float, flat) -> list:
    "A row of the table: `batch` queries over float32 [N, D]."
    queries = np.random.default_rng(1).standard_normal((batch, DIM), dtype=np.float32)
    exact, own = ExactIndex(vectors), [[i] for i in range(batch)]
    same = (exact.search(queries, K)[1] == by_torch(vectors, queries)[1]).mean()
    ways = {
        "ours": lambda: exact.search(queries, K),
        "excluding": lambda: exact.search(queries, K, own),
        "torch": lambda: by_torch(vectors, queries),
    }
    if flat is not None:
        ways["faiss"] = lambda: flat.search(queries, K)
    times = pairs.take_turns(ways, seconds, least=3)
    read = vectors.numel() * 4 / np.median(times["ours"]) / pairs.bandwidth()
    return [
        f"{len(vectors):,}, {batch}",
        pairs.spread(times["ours"], 1e3),
        pairs.spread(times["torch"], 1e3),
        pairs.ratio(times, "torch", "ours"),
        pairs.ratio(times, "faiss", "ours") if flat is not None else "",
        pairs.ratio(times, "ours", "excluding"),
        f"{read:.0%}",
        f"{same:.2%}",
    ]


def half(seconds: float) -> list[list]:
    "Rows: 200,000 vectors in three types, one query, and torch's own product in that type."
    vectors = torch.randn(200_000, DIM)
    query = np.random.default_rng(1).standard_normal((1, DIM), dtype=np.float32)
    index = {dtype: ExactIndex(vectors, dtype=dtype) for dtype in TYPES}
    ways = {str(dtype): lambda x=x: x.search(query, K) for dtype, x in index.items()}
    for dtype, x in index.items():
        asked = torch.from_numpy(query).to(dtype)
        ways[f"torch {dtype}"] = lambda q=asked, x=x: torch.matmul(q, x.embeddings.T).topk(K)
    times = pairs.take_turns(ways, seconds)
    first = str(torch.float32)
    return [[n, pairs.spread(t, 1e3), pairs.ratio(times, first, n)] for n, t in times.items()]


TYPES = torch.float32, torch.float16, torch.bfloat16


def main():
    "Print the section."
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--seconds", type=float, default=3.0, help="for each line")
    seconds = p.parse_args().seconds
    faiss.omp_set_num_threads(1)
    pairs.section(
        "Search",
        f"k = {K}, {DIM} numbers a vector, float32, milliseconds as min / median / max. torch: one "
        "`matmul` and `topk`, from NumPy arrays to NumPy arrays, as ours. × is the other's time "
        "divided by ours, turn by turn: median [min, max]. FAISS' Flat answers one and eight "
        "queries; its wheel is slow at 256, which says nothing about FAISS.\n",
    )
    head = ["N, batch", "ours, ms", "torch, ms", "× torch", "× FAISS Flat"]
    head += ["with / without exclusion", "of bandwidth", "same ids"]
    print(pairs.table(head, []), end="")
    for n in SIZES:
        vectors = torch.randn(n, DIM, generator=torch.Generator().manual_seed(0))
        flat = FaissIndex(vectors)
        for batch in BATCHES:
            row = compare(vectors, batch, seconds, flat if batch <= 8 else None)
            print(pairs.table_line(row), flush=True)
    print()
    print(
        "One query over 200,000 vectors by the type they are stored in. Ours widens to float32;\n"
    )
    print("torch's own product in half precision rounds the query and the scores as well.\n")
    print(pairs.table(["", "ms", "× float32 of ours"], half(2 * seconds)))


if __name__ == "__main__":
    main()
