"""The puzzles of the lessons: what is right, and which mistakes are typical. It gives the answers
away, so solve them first."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

TABLE = "<table>{}</table>"
ROW = "<tr><td>{}</td>{}</tr>"
WRONG = '<td style="background:#fed7d7;color:#9b2c2c"><b>{}</b></td>'


def as_tensor(value) -> torch.Tensor | None:
    "What a puzzle returned as float64, or None if it is no numbers."
    try:
        return torch.as_tensor(np.asarray(value.detach() if hasattr(value, "detach") else value))
    except (TypeError, ValueError):
        return None


def same(given, wanted, atol: float) -> bool:
    "Whether two tensors have one shape and equal numbers, NaN equal to NaN."
    if given is None or given.shape != wanted.shape or given.dtype.is_complex:
        return False
    return torch.allclose(given.double(), wanted.double(), atol=atol, equal_nan=True)


@dataclass
class Puzzle:
    """`right` is a solution, `cases` are its arguments, `mistakes` are (message, wrong solution).

    A message may speak of `given` and `wanted`, the results of the first case that differs. `run`
    turns a function and arguments into what is compared; `form` is said if it is no number."""

    right: Any
    cases: list
    mistakes: list
    run: Any = lambda f, *case: f(*case)
    atol: float = 1e-4
    form: str = ""

    def results(self, f) -> list:
        "What `f` makes of each case, as tensors; it may spoil its arguments."
        copies = [[a.clone() if isinstance(a, torch.Tensor) else a for a in c] for c in self.cases]
        return [as_tensor(self.run(f, *case)) for case in copies]

    def mistake(self, f) -> str:
        "What is wrong with `f`, or nothing."
        given, wanted = self.results(f), self.results(self.right)
        if all(same(g, w, self.atol) for g, w in zip(given, wanted)):
            return ""
        first = next(i for i, (g, w) in enumerate(zip(given, wanted)) if not same(g, w, self.atol))
        mine, its = given[first], wanted[first]
        for message, wrong in self.mistakes:
            if all(same(g, w, self.atol) for g, w in zip(given, self.results(wrong))):
                return message if isinstance(message, str) else message(mine, its)
        if mine is None or (self.form and mine.shape != its.shape):
            return self.form or f"a result of shape {list(its.shape)} is wanted"
        if mine.shape != its.shape:
            return f"the shape is {list(mine.shape)}, it must be {list(its.shape)}"
        return f"{rounded(mine)} is not {rounded(its)}"

    def check(self, f):
        "Say whether `f` is right, or what is wrong."
        mistake = self.mistake(f)
        print("✗ " + mistake if mistake else "✓ right")

    def show(self, f):
        "A table for a notebook: what `f` gives beside what is right; differences in red."
        from IPython.display import HTML

        rows = []
        for given, wanted in zip(self.results(f), self.results(self.right)):
            flat = wanted.flatten().tolist()
            fits = given is not None and given.shape == wanted.shape
            yours = given.flatten().tolist() if fits else ["?"] * len(flat)
            cells = [
                ("<td>{}</td>" if fits and np.isclose(a, b, atol=self.atol) else WRONG).format(
                    short(a)
                )
                for a, b in zip(yours, flat)
            ]
            rows.append(ROW.format("yours", "".join(cells)))
            rows.append(ROW.format("right", "".join(f"<td>{short(b)}</td>" for b in flat)))
        return HTML(TABLE.format("".join(rows)))


def short(number) -> str:
    return number if isinstance(number, str) else f"{number:.3g}"


def rounded(tensor):
    return [round(v, 3) for v in tensor.double().flatten().tolist()]


# masking
PIECES = torch.tensor([[0, 3], [4, 9], [10, 12], [12, 15], [15, 16], [17, 20]])


def half_inside(given, wanted) -> str:
    at = int((given != wanted).nonzero()[0])
    return (
        f"you hid {int(given.sum())} pieces, the span has {int(wanted.sum())}: "
        f"the one at {at} is only half inside"
    )


inside = Puzzle(
    lambda spans, begin, end: (spans[:, 0] >= begin) & (spans[:, 1] <= end),
    [(PIECES, 5, 15), (PIECES, 4, 15), (PIECES, 11, 16), (PIECES, 0, 14)],
    [
        (half_inside, lambda s, a, b: (s[:, 1] > a) & (s[:, 0] < b)),
        (half_inside, lambda s, a, b: (s[:, 0] >= a) & (s[:, 0] < b)),
        (
            "you lost the last piece: `end` is the first character after the span",
            lambda s, a, b: (s[:, 0] >= a) & (s[:, 1] < b),
        ),
    ],
)


# store
def greedy(counts, title_len, limit, special=3):
    offsets, used = [0], title_len + special
    for i, n in enumerate(counts):
        if i > offsets[-1] and used + n > limit:
            offsets.append(i)
            used = title_len + special
        used += n
    return [*offsets, len(counts)]


def empty_block(counts, title_len, limit):
    offsets, used = [0], title_len + 3
    for i, n in enumerate(counts):
        if used + n > limit:
            offsets.append(i)
            used = title_len + 3
        used += n
    return [*offsets, len(counts)]


pack = Puzzle(
    greedy,
    [([10, 10, 10, 40, 5], 2, 30), ([27, 5, 25], 0, 30), ([14, 13, 3], 3, 30), ([40, 5], 2, 30)],
    [
        (
            "a block is longer than its limit: have you counted [CLS] and both [SEP]?",
            lambda c, t, m: greedy(c, t, m, 0),
        ),
        ("a block is longer than its limit: have you counted the title?",
         lambda c, t, m: greedy(c, 0, m)),
        ("the last block has no end: the list ends with the number of sentences",
         lambda c, t, m: greedy(c, t, m)[:-1]),
        ("a block is empty: a sentence too long for any block still gets one to itself",
         empty_block),
    ],
)  # fmt: skip


# inverse cloze task
ict = Puzzle(
    lambda scores: cross_entropy(scores, torch.arange(len(scores))),
    [(torch.tensor([[3.0, 1.0, 0.0], [0.5, 2.0, 1.0], [2.0, 0.0, 1.0]]),)],
    [
        (
            "right for row 0 only: the target of row i is column i",
            lambda s: cross_entropy(s, torch.zeros(len(s), dtype=torch.long)),
        ),
        (
            "you only raise the right score: the wrong blocks belong into a softmax",
            lambda s: -s.diagonal().mean(),
        ),
        (
            "each block chose among the sentences; each sentence must choose among the blocks",
            lambda s: cross_entropy(s.T, torch.arange(len(s))),
        ),
        (
            "a sum grows with the batch: take the mean",
            lambda s: cross_entropy(s, torch.arange(len(s)), reduction="sum"),
        ),
        (
            "a loss is to fall: the sign is wrong",
            lambda s: -cross_entropy(s, torch.arange(len(s))),
        ),
    ],
)


# retrieval
def others(scores, k, exclude, low=-torch.inf):
    scores = scores.clone()
    for row, banned in zip(scores, exclude):
        row[list(banned)] = low
    top = scores.topk(k)
    return top.indices.masked_fill(top.values == -torch.inf, -1)


def own_block(given, wanted) -> str:
    row = int((given != wanted).any(1).nonzero()[0])
    return f"query {row} came back with its own block"


SCORES = torch.tensor([[-1.0, -3.0, -2.0, -4.0], [9.0, 1.0, 5.0, 3.0]])
top_k = Puzzle(
    others,
    [(SCORES, 2, [[1], [0]]), (SCORES, 2, [[0, 1, 2], []])],
    [
        (own_block, lambda s, k, e: s.topk(k).indices),
        (
            "an excluded block with the score 0 still beats negative scores: give it −∞",
            lambda s, k, e: others(s, k, e, 0.0),
        ),
        (
            "there are too few others, and an excluded block came back with −∞: put −1 there",
            lambda s, k, e: others(s, k, e, -1e9),
        ),
    ],
)

X, Z = torch.tensor([[1.0, 2.0], [0.5, -1.0]]), torch.tensor(
    [[[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]], [[2.0, 1.0], [0.0, 1.0], [1.0, -1.0]]]
)  # fmt: skip
VALID = torch.tensor([[True, True, True], [True, True, False]])


def f_xz(x, z):
    return (x[:, None] * z).sum(-1)


p_z = Puzzle(
    lambda x, z, v: f_xz(x, z).masked_fill(~v, -torch.inf).softmax(1),
    [(X, Z, VALID)],
    [
        (
            lambda g, w: f"a missing candidate has {g[1, 2]:.2f}: mask before the softmax",
            lambda x, z, v: f_xz(x, z).softmax(1),
        ),
        (
            lambda g, w: f"row 1 adds up to {g[1].sum():.2f}: mask before the softmax, not after",
            lambda x, z, v: f_xz(x, z).softmax(1) * v,
        ),
        (
            "a missing candidate got the score 0, which is a score like any other: give it −∞",
            lambda x, z, v: (f_xz(x, z) * v).softmax(1),
        ),
        (
            "each candidate adds up to 1 over the sentences; each sentence must, over dim 1",
            lambda x, z, v: f_xz(x, z).masked_fill(~v, -torch.inf).softmax(0),
        ),
    ],
)

# marginal
LOG_P_Z = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.7, 0.3]]).log()
LOG_P_Y_Z = torch.tensor(
    [[[0.9, 0.1], [0.1, 0.8]], [[0.3, 0.5], [0.6, 0.5]], [[0.2, 0.4], [0.5, 0.9]]]
).log()
REAL = torch.tensor([[True, True], [True, False], [True, True]])


def tokens(log_p_z, log_p_y_z, real):
    "log p(y_j|x) [B, M], 0 in the padding."
    return (log_p_z[..., None] + log_p_y_z).logsumexp(1).masked_fill(~real, 0)


def sequences(log_p_z, log_p_y_z, real):
    return (log_p_z + log_p_y_z.masked_fill(~real[:, None], 0).sum(2)).logsumexp(1)


def average(log_p_z, log_p_y_z, real):
    return (log_p_z.exp()[..., None] * log_p_y_z).sum(1).masked_fill(~real, 0)


token_form = Puzzle(
    tokens,
    [(LOG_P_Z, LOG_P_Y_Z, REAL)],
    [
        (
            lambda g, w: (
                "you averaged log p; the marginal is the log of an average "
                f"(Jensen: yours is {w[0, 0] - g[0, 0]:.2f} lower)"
            ),
            average,
        ),
        (
            "the padding of row 1 says something: it must be 0",
            lambda p, y, r: (p[..., None] + y).logsumexp(1),
        ),
        (
            "this is p(y|x); its logarithm is wanted",
            lambda p, y, r: (p[..., None] + y).logsumexp(1).exp().masked_fill(~r, 0),
        ),
        (
            "all masks together: in the token form each mask has a sum over documents for itself",
            sequences,
        ),
    ],
)
sequence_form = Puzzle(
    sequences,
    [(LOG_P_Z, LOG_P_Y_Z, REAL)],
    [
        (
            "equal for one mask, not for two: multiply over masks before you sum over documents",
            lambda p, y, r: tokens(p, y, r).sum(1),
        ),
        (
            "the padding of row 1 is counted as a mask",
            lambda p, y, r: (p + y.sum(2)).logsumexp(1),
        ),
        (
            "you averaged log p; the marginal is the log of an average",
            lambda p, y, r: average(p, y, r).sum(1),
        ),
    ],
)


def posterior(log_p_z, log_p_y):
    return (log_p_z + log_p_y).softmax(1)


LOG_P_Y = LOG_P_Y_Z.masked_fill(~REAL[:, None], 0).sum(2)
reward = Puzzle(
    lambda p, y: posterior(p, y) - p.exp(),
    [(LOG_P_Z, LOG_P_Y), (LOG_P_Z, LOG_P_Y - 200)],
    [
        (
            lambda g, w: f"Σ r = {g[0].sum():.1f}, it must be 0: subtract the prior",
            posterior,
        ),
        (
            "the sign is wrong: the best document must go up",
            lambda p, y: p.exp() - posterior(p, y),
        ),
        (
            "0/0: exp(−200) is 0 in float32, so stay in logarithms",
            lambda p, y: (y.exp() / (p + y).exp().sum(1, True) - 1) * p.exp(),
        ),
        (
            "this is RU, a document against ∅; r(z) compares it with the average of all",
            lambda p, y: y - y[:, :1],
        ),
    ],
)
ru = Puzzle(
    lambda y: y - y[:, :1],
    [(torch.tensor([[0.05, 0.9, 0.04], [0.2, 0.1, 0.3]]).log(),)],
    [
        ("∅ is column 0, not the last", lambda y: y - y[:, -1:]),
        ("RU is in nats: a difference of logarithms, not a ratio", lambda y: (y - y[:, :1]).exp()),
        ("a document that helps has RU above 0: the sign is wrong", lambda y: y[:, :1] - y),
        ("compare with ∅, not with the average", lambda y: y - y.mean(1, keepdim=True)),
    ],
)


# pretrain
def with_gradient(f, x, z, index_scores, log_p_y_z):
    "The loss, then what reaches x and the Encoder."
    x, log_p_y_z = x.clone().requires_grad_(), log_p_y_z.clone().requires_grad_()
    loss = f(x, z, index_scores, log_p_y_z)
    if not isinstance(loss, torch.Tensor) or loss.ndim:
        return loss
    if loss.requires_grad:
        loss.backward()
    grads = [torch.zeros_like(v) if v.grad is None else v.grad for v in (x, log_p_y_z)]
    return torch.cat([loss.detach()[None], *(g.flatten() for g in grads)])


def step_loss(f, log_p_y_z):
    return -(f.log_softmax(1) + log_p_y_z).logsumexp(1).mean()


STALE = f_xz(X, Z) + torch.tensor([[0.3, -0.2, 0.1], [-0.4, 0.2, 0.0]])
realm_step = Puzzle(
    lambda x, z, stale, y: step_loss(f_xz(x, z), y),
    [(X, Z, STALE, torch.tensor([[0.1, 0.8, 0.3], [0.2, 0.5, 0.4]]).log())],
    [
        (
            "no gradient reaches the Embedder: you took the index's scores",
            lambda x, z, stale, y: step_loss(stale, y),
        ),
        (
            "no gradient reaches the Embedder: something is detached",
            lambda x, z, stale, y: step_loss(f_xz(x.detach(), z), y),
        ),
        (
            "no gradient reaches the Encoder: something is detached",
            lambda x, z, stale, y: step_loss(f_xz(x, z), y.detach()),
        ),
        (
            "you averaged log p; the marginal is the log of an average",
            lambda x, z, stale, y: -(f_xz(x, z).softmax(1) * y).sum(1).mean(),
        ),
        (
            "f(x,z) is a score: it needs a softmax over the candidates",
            lambda x, z, stale, y: -(f_xz(x, z) + y).logsumexp(1).mean(),
        ),
        (
            "the loss is −log p(y|x): the sign is wrong",
            lambda x, z, stale, y: -step_loss(f_xz(x, z), y),
        ),
    ],
    run=with_gradient,
    form="a tensor with one number, the loss, is wanted",
)

# refresh
due = Puzzle(
    lambda step, every: step % every == 0,
    [(4,), (5,)],
    [
        (
            "step 0 trains without an index",
            lambda step, every: step > 0 and step % every == 0,
        ),
        ("step 0 trains without an index", lambda step, every: (step + 1) % every == 0),
        (
            "you rebuild at every step but the right ones: 0 counts as False",
            lambda step, every: bool(step % every),
        ),
        ("the index is made once and never again", lambda step, every: step == 0),
    ],
    run=lambda f, every: [f(step, every) for step in range(3 * every + 1)],
)

# evaluate
draw = np.random.default_rng(0)
BEFORE = draw.random(400) < 0.5
AFTER = BEFORE ^ (draw.random(400) < np.where(BEFORE, 0.01, 0.06))


def paired(before, after, g, low=0.025, high=0.975):
    rows = g.integers(len(before), size=(2000, len(before)))
    return np.quantile((after[rows] * 1.0 - before[rows]).mean(1), [low, high])


def unpaired(before, after, g):
    a, b = g.integers(len(before), size=(2, 2000, len(before)))
    return np.quantile(after[a].mean(1) - before[b].mean(1), [0.025, 0.975])


bootstrap = Puzzle(
    paired,
    [(BEFORE, AFTER)],
    [
        (
            lambda g, w: (
                f"{(g[1] - g[0]) / (w[1] - w[0]):.1f} times too wide: "
                "resample the same rows of both"
            ),
            unpaired,
        ),
        (
            "the sign is wrong: after − before",
            lambda before, after, g: paired(after, before, g),
        ),
        (
            "this is the range of all draws; 95 % lie between the quantiles 0.025 and 0.975",
            lambda before, after, g: paired(before, after, g, 0.0, 1.0),
        ),
        (
            "this is 90 %: cut 2.5 % off at each end",
            lambda before, after, g: paired(before, after, g, 0.05, 0.95),
        ),
    ],
    run=lambda f, before, after: f(before, after, np.random.default_rng(1)),
    atol=1.5e-3,
)
