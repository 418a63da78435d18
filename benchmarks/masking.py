"""Sentences a second, on one core: each tagger, and masking alone by policy. Run it as a program:

python benchmarks/masking.py [--corpus wiki-dump] [--taggers rule,spacy,bert-tiny] [--documents 40]"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from realm_nb.core.errors import cli
from realm_nb.masking import POLICIES, Copies, Masker
from realm_nb.spans import tag_store
from realm_nb.store import build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.sources import Unreachable
from realm_nb.text.tagger_training import train_tagger
from realm_nb.text.taggers import BertTagger, RuleTagger, make_tagger
from realm_nb.text.tokenizer import tiny_tokenizer


def rate(work, n: int, seconds: float = 1.0) -> float:
    "Best `n` per second of `work()`, called until `seconds` have passed, twice at least."
    best, end, times = 0.0, time.perf_counter() + seconds, 0
    while times < 2 or time.perf_counter() < end:
        t = time.perf_counter()
        work()
        best, times = max(best, n / (time.perf_counter() - t)), times + 1
    return best


def tagger_of(name: str, folder: Path):
    "A tagger by name; `bert-tiny` is that model with an untrained head, which takes the time of a trained one."
    if name != "bert-tiny":
        return make_tagger(name)
    train_tagger(
        [(["Marie", "left", "."], ["B-PER", "O", "O"])], folder / "bert", "bert-tiny", epochs=1
    )
    return BertTagger(folder / "bert")


@cli
def main(argv):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--corpus", default="mini")
    parser.add_argument("--documents", type=int, default=40)
    parser.add_argument("--taggers", default="rule,spacy,bert-tiny")
    parser.add_argument("--batch", type=int, default=512)
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        folder, documents = Path(folder), list(read_corpus(args.corpus, args.documents))
        store = build_store(
            documents, tokenizer := tiny_tokenizer(d.text for d in documents), folder / "store"
        )
        texts = [store.sentence_text(s) for s in range(min(store.n_sentences, 300))]
        print(
            f"{args.corpus}: {store.n_sentences:,} sentences, {len(store._pieces) / store.n_sentences:.0f} pieces each; one core\n"
        )
        print("| what | sentences/s |\n|---|---|")
        for name in args.taggers.split(","):
            try:
                tagger = tagger_of(name, folder)
            except Unreachable as e:
                print(f"| {name} | cannot be fetched: {e} |")
                continue
            print(
                f"| tag, {name} | {rate(lambda: tagger.tag(texts), len(texts), 0):,.0f} |",
                flush=True,
            )
        table, copies = tag_store(store, RuleTagger()), Copies(store)
        for policy in POLICIES:
            for budget in (False, True)[: 1 if policy == "salient" else 2]:
                masker = Masker(
                    store, table, tokenizer.mask_token_id, policy, same_budget=budget, copies=copies
                )
                ids = np.resize(masker.sentences, args.batch)
                print(
                    f"| mask, {policy}{', same budget' * budget} | {rate(lambda: masker.batch(ids, np.arange(args.batch)), args.batch):,.0f} |",
                    flush=True,
                )


if __name__ == "__main__":
    sys.exit(main())
