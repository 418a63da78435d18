"""Questions a second of fine-tuning from the token store, against tokenising 5,000 blocks again for
each question.

    python benchmarks/openqa.py --towers runs/quick         # over wiki-vital and the dump
    python benchmarks/openqa.py --corpus mini --base DIR --retriever_blocks 200

Both sides give what the original's fine-tuning needs of 5,000 retrieved blocks, their scores and
which of them hold the answer, and then take the retriever's step. The slow side gets its blocks as
text: it tokenises them (the fast tokenizer, in one batch) and looks for the answer's word pieces in
each, as the released code does. Seconds of processor time of this process, so that other work on
the machine does not count."""

import sys
import time
from dataclasses import dataclass

import numpy as np
import torch

from realm_nb.core.config import parse, setting
from realm_nb.core.device import rng
from realm_nb.core.errors import cli
from realm_nb.core.files import write_json
from realm_nb.core.folder import Run
from realm_nb.qa.finetune import (
    FinetuneConfig,
    OpenQA,
    load_training,
    openqa_step,
    start_reader,
)
from realm_nb.qa.reader import draw_blocks, read_pairs, reader_loss
from realm_nb.qa.retrievers import Bm25
from realm_nb.qa.table1 import base_retriever, stage_towers
from realm_nb.store import CorpusConfig
from realm_nb.towers import (
    Embedder,
    Encoder,
    ModelConfig,
    Towers,
    load_bert,
    quiet_transformers,
)
from realm_nb.workspace import Config, Workspace


@dataclass
class Options:
    "Questions a second of fine-tuning from the token store, and from text."

    towers: str = setting("", "the run whose towers are tuned; without it, random ones")
    base: str = setting("minilm-l6", "weights and tokenizer")
    start: str = setting("base", "what the reader starts from")
    corpus: str = setting("wiki-vital+wiki-dump", "what is searched")
    train: str = setting("nq-dev", "questions")
    run: str = setting("runs/bench-openqa", "a folder for vectors")
    out: str = setting("", "a JSON file for the figures")
    retriever_blocks: int = setting(5000, "blocks in the retriever's loss", flag="--search", low=1)
    questions: int = setting(64, "timed on the fast side; an eighth of them on the slow one", low=8)


def pieces_hold(pieces: list[int], answer: list[int]) -> bool:
    "Whether `answer` stands in `pieces`, one piece after the other."
    return any(pieces[i : i + len(answer)] == answer for i in range(len(pieces) - len(answer) + 1))


def tokenised_again(workspace: Workspace, question: dict, ids) -> np.ndarray:
    "Which of the blocks `ids` hold an answer, found by tokenising them."
    store, tokenizer = workspace.store, workspace.tokenizer
    answers = tokenizer(question["answers"], add_special_tokens=False)["input_ids"]
    blocks = tokenizer(
        [store.text(b) for b in ids],
        [store.title(b) for b in ids],
        truncation=True,
        max_length=store.max_block_len + 32,
    )["input_ids"]
    return np.array([any(pieces_hold(b, a) for a in answers) for b in blocks])


def seconds_each(work, questions) -> float:
    "Processor seconds that `work(q)` takes for each of `questions`."
    began = time.process_time()
    for q in questions:
        work(q)
    return (time.process_time() - began) / len(questions)


def open_towers(options: Options, workspace: Workspace) -> Towers:
    "The run's towers, or random ones."
    if options.towers:
        return stage_towers(Workspace.open(options.towers), "ict", "pretrain")
    from transformers import BertForMaskedLM

    bert = load_bert(str(workspace.base), 2, 0.0)[0]
    reader = Encoder(BertForMaskedLM(bert.config))
    return Towers(Embedder(bert.bert, 128, "mean"), reader, ModelConfig(pooling="mean"))


@cli
def main(argv):
    options = parse(argv, Options(), prog="benchmarks/openqa.py")
    quiet_transformers()
    torch.set_num_threads(1)
    c = FinetuneConfig(questions=options.train, left_out="", start=options.start)
    c.retriever_blocks = options.retriever_blocks
    config = Config(device="cpu", corpus=CorpusConfig(options.corpus, 96), finetune=c)
    config.model.base = options.base
    workspace = Workspace(config, Run(options.run, quiet=True))
    training = load_training(workspace, [Bm25(workspace.store), base_retriever(workspace)])
    some, towers = training.usable[: options.questions].tolist(), open_towers(options, workspace)
    dim = towers.embedder.dense.out_features
    # What the vectors say does not change the time.
    vectors = rng(0, "vectors").standard_normal((len(workspace.store), dim), dtype=np.float32)
    model = OpenQA(towers, workspace.store, vectors, c)
    optimizer = torch.optim.AdamW(model.towers.own.parameters(), lr=1e-4)
    reader = start_reader(workspace)

    def tune(batch):
        asked = training.take(batch)
        loss, _ = openqa_step(model, asked.questions, asked.positives)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def again(i):
        _, (ids,) = model.retriever.search([training.questions[i]], c.retriever_blocks)
        tokenised_again(workspace, training.questions[i], ids.tolist())
        tune([i])

    def read(i):
        g = rng(0, "bench", i)
        blocks = draw_blocks(ids[i], training.positives[i], c.num_negatives, g)
        read = read_pairs(reader, workspace.store, [training.questions[i]], [blocks])
        reader_loss(*read, 1).backward()

    ids = training.ids
    tune(some[:2])
    batches = [some[lo : lo + 16] for lo in range(0, len(some), 16)]
    fast = sum(seconds_each(tune, [b]) for b in batches) / len(some)
    few = some[: max(2, len(some) // 8)]
    slow, reading = seconds_each(again, few), seconds_each(read, few)
    found = {
        "blocks": len(workspace.store),
        "searched": min(c.retriever_blocks, len(vectors)),
        "retriever, from the store, s/question": fast,
        "retriever, tokenised again, s/question": slow,
        "ratio": slow / fast,
        "reader step, s/question": reading,
        "both, from the store": fast + reading,
        "ratio with the reader on both sides": (slow + reading) / (fast + reading),
    }
    for k, v in found.items():
        print(f"{k:45} {v:,.4g}")
    if options.out:
        write_json(options.out, found)


if __name__ == "__main__":
    sys.exit(main())
