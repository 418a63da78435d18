"""Sentences a second, on one core: each tagger, and masking alone by policy.

python benchmarks/masking.py --corpus wiki-dump --taggers rule,spacy,bert-tiny --documents 40"""

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from realm_nb.core.config import parse, setting
from realm_nb.core.errors import cli
from realm_nb.masking import POLICIES, Copies, Masker
from realm_nb.spans import tag_store
from realm_nb.store import build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.sources import Unreachable
from realm_nb.text.tagger_training import TaggerConfig, train_tagger
from realm_nb.text.taggers import RuleTagger, make_tagger
from realm_nb.text.tokenizer import tiny_tokenizer


@dataclass
class Options:
    "Sentences a second, on one core: each tagger, and masking alone by policy."

    corpus: str = setting("mini", "a registered corpus, or a file")
    documents: int = setting(40, "read so many documents; 0 reads all", low=0)
    taggers: str = setting("rule,spacy,bert-tiny", "taggers, separated by commas")
    batch: int = setting(512, "sentences masked at a time", low=1)


def rate(work, n: int, seconds: float = 1.0) -> float:
    "Best `n` per second of `work()`, called until `seconds` have passed, twice at least."
    best, times = 0.0, 0
    end = time.perf_counter() + seconds
    while times < 2 or time.perf_counter() < end:
        began = time.perf_counter()
        work()
        best = max(best, n / (time.perf_counter() - began))
        times += 1
    return best


def tagger_of(name: str, folder: Path):
    "A tagger by name; `bert-tiny` hardly trained, which takes the time of one that is."
    if name != "bert-tiny":
        return make_tagger(name)
    sentences = [(["Marie", "left", "."], ["B-PER", "O", "O"])]
    train_tagger(sentences, folder / name, TaggerConfig(base=name, epochs=1), dev=[])
    return make_tagger(folder / name)


def time_tagging(store, names: str, folder: Path):
    "Print how fast each tagger reads the first sentences of the store."
    texts = [store.sentence_text(s) for s in range(min(store.n_sentences, 300))]
    for name in names.split(","):
        try:
            tagger = tagger_of(name, folder)
        except Unreachable as e:
            print(f"| {name} | cannot be fetched: {e} |")
            continue
        speed = rate(lambda tagger=tagger: tagger.tag(texts), len(texts), seconds=0)
        print(f"| tag, {name} | {speed:,.0f} |", flush=True)


def time_masking(store, batch: int):
    "Print how fast each policy masks, with spans as they come and with the same budget."
    table, copies = tag_store(store, RuleTagger()), Copies(store)
    for policy in POLICIES:
        for budget in (False,) if policy == "salient" else (False, True):
            masker = Masker(store, table, policy, same_budget=budget, copies=copies)
            ids = np.resize(masker.sentences, batch)
            speed = rate(lambda m=masker, ids=ids: m.batch(ids, np.arange(batch)), batch)
            print(f"| mask, {policy}{', same budget' * budget} | {speed:,.0f} |", flush=True)


@cli
def main(argv):
    options = parse(argv, Options(), prog="python benchmarks/masking.py")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        documents = list(read_corpus(options.corpus, options.documents or None))
        tokenizer = tiny_tokenizer(d.text for d in documents)
        store = build_store(documents, tokenizer, Path(folder) / "store")
        length = len(store.token_ids) / store.n_sentences
        print(f"{options.corpus}: {store.n_sentences:,} sentences,", end=" ")
        print(f"{length:.0f} pieces each; one core\n")
        print("| what | sentences/s |\n|---|---|")
        time_tagging(store, options.taggers, Path(folder))
        time_masking(store, options.batch)


if __name__ == "__main__":
    sys.exit(main())
