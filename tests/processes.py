"""What test_distributed.py runs in two processes under torchrun: `processes.py OUT`.

Each compares its share of the work with the whole, and writes what it found."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch
from test_ict import tiny_embedder

from realm_nb.core.distributed import (
    averaging,
    broadcast_from_rank0,
    gather,
    gather_to_rank0,
    kept_back,
    mean_metrics,
    mean_over_processes,
    rank,
    shard_range,
    start,
    stop,
    world_size,
)
from realm_nb.ict import ict_loss, ict_scores
from realm_nb.marginal import MARGINALS, realm_loss
from realm_nb.retrieval import MISSING, ExactIndex, FaissIndex, ShardedIndex, log_p_z
from realm_nb.text.tokenizer import SpecialTokens
from realm_nb.towers import pair_sequence, query_sequence


def difference(whole, loss_of, modules) -> float:
    "Largest difference in loss or gradient between `whole` and the mean of all processes' losses."
    parameters = [p for module in modules for p in module.parameters()]
    whole.backward()
    want = [p.grad.clone() for p in parameters if p.grad is not None]
    for p in parameters:
        p.grad = None
    averaged = averaging(modules, loss_of)
    parts = averaged()
    parts.backward()
    gap = max(
        (p.grad - b).abs().max().item()
        for p, b in zip([p for p in parameters if p.grad is not None], want, strict=True)
    )
    return max(gap, abs(mean_over_processes(parts.item()) - whole.item()))


def ict(separate: bool) -> float:
    special, g = SpecialTokens(0, 1, 2, 3), np.random.default_rng(0)
    queries = [query_sequence(g.integers(4, 50, g.integers(3, 12)), special) for _ in range(8)]
    documents = [
        pair_sequence(g.integers(4, 50, 2), g.integers(4, 50, g.integers(5, 30)), special, 64)
        for _ in range(8)
    ]
    one, two = tiny_embedder(50), tiny_embedder(50, 1) if separate else None
    mine = shard_range(8, rank(), world_size())

    def loss_of():
        part = ict_scores(
            one,
            [queries[i] for i in mine],
            [documents[i] for i in mine],
            query_embedder=two,
            gather=gather,
        )
        assert part.shape == (4, 8)
        return ict_loss(part, first=mine.start)[0]

    whole = ict_loss(ict_scores(one, queries, documents, query_embedder=two))[0]
    return difference(whole, loss_of, [one, two] if separate else [one])


def realm(form: str) -> float:
    g = torch.Generator().manual_seed(0)
    x, z, y = (
        torch.randn(5, 6, generator=g),
        torch.randn(5, 4, 6, generator=g),
        -torch.rand(5, 4, 3, generator=g),
    )
    w, there = torch.nn.Linear(6, 6, bias=False), torch.ones(5, 4, dtype=torch.bool)
    real = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0]], dtype=torch.bool)
    mine = slice(0, 2) if rank() == 0 else slice(2, 5)

    def loss(s, masks=None):
        return realm_loss(log_p_z(w(x[s]), z[s], there[s]), y[s], real[s], form, masks)

    masks = mean_over_processes(real[mine].sum().item())
    return difference(loss(slice(None)), lambda: loss(mine, masks), [w])


def in_parts() -> float:
    "Two backward passes of half a batch each, of which the last one alone exchanges gradients."
    g = torch.Generator().manual_seed(0)
    w, x = torch.nn.Linear(6, 1, bias=False), torch.randn(8, 6, generator=g)
    w(x).pow(2).sum().backward()
    want = w.weight.grad / 2  # the mean of two processes' sums
    w.weight.grad = None
    mine = x[rank() :: 2]
    averaged = averaging([w], lambda part: w(mine[2 * part : 2 * part + 2]).pow(2).sum())
    with kept_back(averaged):
        averaged(0).backward()
    averaged(1).backward()
    return (w.weight.grad - want).abs().max().item()


def uneven_gather() -> bool:
    rows = torch.full((1 + 2 * rank(), 3), float(rank() + 1), requires_grad=True)
    everyone = gather(rows)
    (everyone * torch.arange(12.0).reshape(4, 3) * (rank() + 1)).sum().backward()
    want = 3 * torch.arange(12.0).reshape(4, 3)[slice(0, 1) if rank() == 0 else slice(1, 4)]
    return everyone.tolist() == [[1.0] * 3] + [[2.0] * 3] * 3 and torch.equal(rows.grad, want)


def processes() -> dict:
    "Shares of figures, rows and gradients that some processes lack."
    sizes = {"here": 3, "nowhere": 2, "w": 4}
    parts = torch.nn.ParameterDict({name: torch.ones(n) for name, n in sizes.items()})
    here, nowhere, w = parts.values()

    def loss_of():
        return (w * (rank() + 1)).sum() + (here * 6).sum() if rank() else w.sum()

    averaged = averaging([parts], loss_of)
    averaged().backward()
    rows = gather_to_rank0(np.full((2 + rank(), 3), rank(), np.float32))
    figures = mean_metrics({"both": rank(), "mine": 5.0} if rank() else {"both": rank()})
    return {
        "a gradient that one lacks": here.grad.tolist() == [3.0] * 3
        and w.grad.tolist() == [1.5] * 4,
        "a gradient that nobody has": nowhere.grad is None,
        "collected": rows is None if rank() else rows.tolist() == [[0.0] * 3] * 2 + [[1.0] * 3] * 3,
        "figures": figures == {"both": 0.5, "mine": 5.0},
        "agreed": broadcast_from_rank0(41 + rank()) == 41,
    }


def search() -> dict:
    g = np.random.default_rng(0)
    z = g.integers(-50, 50, (701, 16)).astype(np.float32)
    x = np.random.default_rng(rank()).integers(-50, 50, (4 + 3 * rank(), 16)).astype(np.float32)
    mine = shard_range(701, rank(), world_size())
    local, whole = z[mine.start : mine.stop], ExactIndex(z)
    best = whole.search(x, 4)[1]
    out = {}
    for name, exclude in (
        ("plain", None),
        ("excluded", [row[: i % 5] for i, row in enumerate(best)]),
    ):
        want = whole.search(x, 9, exclude)
        for kind, index in (("exact", ExactIndex(local, chunk=100)), ("flat", FaissIndex(local))):
            got = ShardedIndex(index, mine.start).search(x, 9, exclude)
            out[f"{kind} {name}"] = bool((got[0] == want[0]).all() and (got[1] == want[1]).all())
    dry = ShardedIndex(FaissIndex(local, "IVF16,Flat"), mine.start).search(x, 400, best)
    out["approximate"] = all(
        not set(row[row != MISSING]) & set(no)
        and len(set(row[row != MISSING])) == (row != MISSING).sum()
        for row, no in zip(dry[1], best)
    ) and bool((dry[1] == MISSING).any())
    few = ShardedIndex(
        ExactIndex(z[:2] if rank() == 0 else z[2:3]), 0 if rank() == 0 else 2
    ).search(x, 5)
    out["fewer than k"] = all(sorted(row) == [MISSING, MISSING, 0, 1, 2] for row in few[1].tolist())
    out["no query here"] = (
        ShardedIndex(ExactIndex(local), mine.start)
        .search(x[: 4 * rank()], 3, best[: 4 * rank()])[1]
        .tolist()
        == whole.search(x[: 4 * rank()], 3, best[: 4 * rank()])[1].tolist()
        if rank()
        else ShardedIndex(ExactIndex(local), mine.start).search(x[:0], 3, best[:0])[1].shape
        == (0, 3)
    )
    return out


def gloo_threads() -> int:
    """How many threads of the group there are (Linux; elsewhere nobody can tell).

    One that still holds a tensor when Python ends aborts the process."""
    count = 0
    for task in Path("/proc/self/task").glob("*/comm"):
        with contextlib.suppress(OSError):
            count += "gloo" in task.read_text()  # a thread may end while we look
    return count


if __name__ == "__main__":
    start()
    found = {
        "world": world_size(),
        "ict": ict(False),
        "ict, two towers": ict(True),
        **{f"realm, {f}": realm(f) for f in MARGINALS},
        "in parts": in_parts(),
        "uneven gather": uneven_gather(),
        **processes(),
        **search(),
    }
    name, before = f"{rank()}.json", gloo_threads()
    stop()
    found["threads ended"] = gloo_threads() == 0 and (before > 0 or sys.platform != "linux")
    (Path(sys.argv[1]) / name).write_text(json.dumps(found))
