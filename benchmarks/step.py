"""One training step against transformers 4.57.6's REALM classes, with equal work.

python benchmarks/step.py [--turns 3] [--shapes mini,base]

Each side is a process of its own, with its own transformers; they take turns."""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pairs
import torch


@dataclass
class Shape:
    "A step: B sentences of `sentence` tokens with K blocks of `block` tokens each."

    batch: int
    candidates: int
    sentence: int
    block: int
    bert: tuple  # heads, hidden, intermediate, layers
    vocabulary: int = 30_522
    masks: int = 4
    max_tokens: int = 4096

    @property
    def joint(self) -> int:
        "Tokens of a sentence and the body of a block: [CLS] x [SEP] body [SEP]."
        return self.sentence + self.block - 3  # the block had [CLS], a title of one, [SEP]

    def settings(self) -> dict:
        "BERT's settings."
        heads, hidden, intermediate, layers = self.bert
        return {
            "vocab_size": self.vocabulary,
            "num_attention_heads": heads,
            "hidden_size": hidden,
            "intermediate_size": intermediate,
            "num_hidden_layers": layers,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }


SHAPES = {
    "mini": Shape(8, 5, 48, 72, (12, 384, 1536, 6)),
    "base": Shape(2, 4, 32, 64, (12, 768, 3072, 12)),
    "dispatch": Shape(4, 7, 8, 16, (1, 12, 12, 12), 300, 1, 512),
}


class Prescribed:
    "An index that answers with blocks of its own choice, none twice, so that work is equal."

    def search(self, queries, k, exclude=None):
        "Scores float32 and ids int64 [B, k], as any index."
        ids = np.arange(len(queries) * k).reshape(len(queries), k)
        return np.zeros(ids.shape, np.float32), ids


def our_corpus(shape: Shape, folder: Path):
    "A store of blocks of exactly `shape.block` tokens, and its examples."
    from realm_nb.masking import Example
    from realm_nb.store import build_store
    from realm_nb.text.documents import Document
    from realm_nb.text.tokenizer import tiny_tokenizer

    g, most = np.random.default_rng(0), shape.block - 4  # [CLS], title, two [SEP]
    words = [a + b for a in "bdfgklmnprstvz" for b in ("ade", "ile", "ore", "une")]
    texts = [" ".join(g.choice(words, most - 1)) + "." for _ in range(shape.batch * 8)]
    tokenizer = tiny_tokenizer([*texts, *words], 300)
    documents = [Document("bade", text) for text in texts]
    store = build_store(documents, tokenizer, folder / "store", max_block_len=shape.block)
    assert {len(store.body(b)) for b in range(len(store))} == {most}, "other blocks"
    x = g.integers(100, 250, (shape.batch, shape.sentence - 2)).astype(np.uint16)
    at = np.arange(shape.masks) * 5 + 3
    x[:, at] = store.special.mask
    examples = [Example(row, at, row[at + 1], i, (i,)) for i, row in enumerate(x)]
    return store, examples


def our_step(shape: Shape, folder: Path, dtype=torch.float32):
    "A step of ours, forward and backward: loss []."
    from realm_nb.pretrain import Realm, realm_step
    from realm_nb.towers import ModelConfig, random_towers

    store, examples = our_corpus(shape, folder)
    torch.manual_seed(0)
    bert, model = shape.settings(), ModelConfig(dropout=0.0)
    towers = random_towers(bert, bert, model, has_head=True)
    realm = Realm(towers, store, shape.sentence, dtype, shape.max_tokens)

    def step():
        towers.zero_grad()
        loss, _ = realm_step(realm, examples, Prescribed(), shape.candidates + 1)
        loss.backward()

    return step


def their_step(shape: Shape, dtype=torch.float32):
    "The same with RealmScorer and RealmKnowledgeAugEncoder, 4.57.6."
    from transformers.models.deprecated.realm import configuration_realm, modeling_realm

    torch.manual_seed(0)
    settings = {**shape.settings(), "num_candidates": shape.candidates, "retriever_proj_size": 128}
    config = configuration_realm.RealmConfig(**settings)
    scorer = modeling_realm.RealmScorer(config).train()
    encoder = modeling_realm.RealmKnowledgeAugEncoder(config).train()
    draw = lambda *size: torch.randint(100, shape.vocabulary, size)
    pairs_of = shape.batch, shape.candidates
    x, z, joint = (
        draw(shape.batch, shape.sentence),
        draw(*pairs_of, shape.block),
        draw(*pairs_of, shape.joint),
    )
    at = torch.arange(shape.masks) * 5 + 4
    labels = torch.full((shape.batch, shape.joint), -100)
    labels[:, at] = draw(shape.batch, shape.masks)
    ones = torch.ones_like

    def step():
        scorer.zero_grad()
        encoder.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype != torch.float32):
            scores = scorer(
                x,
                attention_mask=ones(x),
                candidate_input_ids=z,
                candidate_attention_mask=ones(z),
            )
            out = encoder(
                joint,
                attention_mask=ones(joint),
                relevance_score=scores.relevance_score,
                labels=labels,
                mlm_mask=labels != -100,
            )
        out.loss.backward()

    return step


def flops(step) -> float:
    "Floating-point operations of the products of one step, forward and backward."
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return float(counter.get_total_flops())


def compare(name: str, dtype, turns: int) -> list[list]:
    "Rows of the table: theirs and ours at one shape and precision."
    precision = str(dtype).removeprefix("torch.")
    folder = pairs.side_folder("transformers", pairs.THEIRS)
    theirs = pairs.Worker("--side", f"theirs,{name},{precision}", path=folder)
    ours = pairs.Worker("--side", f"ours,{name},{precision}")
    times = pairs.take_turns({"theirs": theirs, "ours": ours}, 0, turns)
    peak, rows = pairs.gemm_peak(dtype), []
    for side, worker in (("theirs", theirs), ("ours", ours)):
        worker.stop()
        share = worker.told / np.median(times[side]) / peak
        operations = f"{worker.told / 1e9:,.0f}"
        spent = pairs.spread(times[side])
        won = pairs.ratio(times, "theirs", side) if side == "ours" else "1"
        rows.append([f"{name}, {precision}: {side}", spent, won, operations, f"{share:.0%}"])
    return rows


def dispatch() -> list:
    "[operations an example, processor ms an example] of a step so narrow that nothing else costs."
    from torch.utils._python_dispatch import TorchDispatchMode

    class Count(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.n += 1
            return func(*args, **(kwargs or {}))

    shape = SHAPES["dispatch"]
    with tempfile.TemporaryDirectory() as folder:
        step = our_step(shape, Path(folder))
        step()
        with Count() as count:
            step()
        spent = [pairs.seconds_of(step) / shape.batch for _ in range(5)]
    return [f"{count.n / shape.batch:,.0f}", pairs.spread(spent, 1e3)]


def preparation() -> list[list]:
    "Rows: processor ms an example of masking, of sequences, of search, on the small corpus."
    from realm_nb.masking import Masker
    from realm_nb.retrieval import ExactIndex, document_sequences
    from realm_nb.spans import tag_store
    from realm_nb.store import build_store
    from realm_nb.text.documents import read_jsonl
    from realm_nb.text.taggers import RuleTagger
    from realm_nb.text.tokenizer import tiny_tokenizer
    from realm_nb.towers import pair_sequence, query_sequence

    documents = list(read_jsonl(Path(__file__).parents[1] / "data/mini/documents.jsonl"))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = tiny_tokenizer([d.text for d in documents])
        store = build_store(documents, tokenizer, Path(folder) / "store", max_block_len=72)
        masker = Masker(store, tag_store(store, RuleTagger(), 48), max_query_len=48)
        index = ExactIndex(torch.randn(len(store), 128))
        queries, some, special = torch.randn(32, 128).numpy(), masker.sentences[:32], store.special
        examples = masker.batch(some)
        _, ids = index.search(queries, 7, [e.exclude for e in examples])

        def sequences():
            for e, blocks in zip(examples, ids):
                query_sequence(e.x, special, 48)
                document_sequences(store, blocks)
                [pair_sequence(e.x, store.body(b), special, 120) for b in blocks]

        ways = {
            "masking, 32 at once": lambda: masker.batch(some),
            "masking, one by one": lambda: [masker(int(s), 0) for s in some],
            "sequences of 7 candidates": sequences,
            "search": lambda: index.search(queries, 7, [e.exclude for e in examples]),
        }
        times = pairs.take_turns(ways, 2)
    return [[name, pairs.spread(spent, 1e3 / len(some))] for name, spent in times.items()]


def side(told: str):
    "Work as one side: `ours,mini,float32`."
    who, name, precision = told.split(",")
    shape, dtype = SHAPES[name], getattr(torch, precision)
    with tempfile.TemporaryDirectory() as folder:
        ours = who == "ours"
        step = our_step(shape, Path(folder), dtype) if ours else their_step(shape, dtype)
        pairs.serve(step, flops(step))


def main():
    "Print the section."
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--turns", type=int, default=3)
    p.add_argument("--shapes", default="mini,base")
    p.add_argument("--side", help="for the processes that this one starts")
    options = p.parse_args()
    if options.side:
        return side(options.side)
    pairs.section(
        "A training step against transformers 4.57.6",
        "RealmScorer and RealmKnowledgeAugEncoder, forward and backward of retrieval scores and "
        "the marginal loss, against `realm_step` and backward: the same numbers of sentences, "
        "blocks, tokens and masks, no block twice, no dropout. Ours also reads ∅. mini: 8 × 5, "
        "sentence 48, block 72, MiniLM's shape; base: 2 × 4, 32 and 64, BERT-base's. Processor "
        "seconds as min / median / max; × turn by turn: median [min, max]; the share of peak "
        "counts each side's own operations, so theirs has the logits of every position in it. The "
        "first call puts theirs into a folder of the cache: `pip install --no-deps --target "
        f"DIR {' '.join(pairs.THEIRS)}`.\n",
    )
    if not pairs.has_bfloat16():
        print("bfloat16: no bfloat16 units here.\n")
    print(pairs.table(["", "s", "×", "GFLOP", "of GEMM peak"], []), end="")
    for name in options.shapes.split(","):
        for dtype in (torch.float32, torch.bfloat16)[: 1 + pairs.has_bfloat16()]:
            for row in compare(name, dtype, options.turns):
                print(pairs.table_line(row), flush=True)
    print()
    print(
        "### What a GPU would wait for\n\nDispatch: 12 layers of 12 numbers, 4 × (7 + ∅). Lengths "
    )
    print("are an eighth of 64 and 128, and so is the size of a group (512 tokens), so that the")
    print("operations are as many, and little is left but issuing them.\n")
    print(pairs.table(["operations an example", "processor ms an example"], [dispatch()]))
    print(pairs.table(["preparation", "ms an example"], preparation()))


if __name__ == "__main__":
    main()
