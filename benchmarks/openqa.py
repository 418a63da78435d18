"""Questions a second of fine-tuning from the token store, against tokenising 5,000 blocks again for each question.

    python benchmarks/openqa.py --towers runs/quick                  # over wiki-vital and the dump, with that run's towers
    python benchmarks/openqa.py --corpus mini --base DIR --search 200

Both sides give what the original's fine-tuning needs of 5,000 retrieved blocks, their scores and which of them hold the answer, and then take the retriever's step.
The slow side gets its blocks as text: it tokenises them (the fast tokenizer, in one batch) and looks for the answer's pieces in each, as the released code does.
Seconds of processor time of this process, so that other work on the machine does not count."""

import argparse

import numpy as np
import torch

from realm_nb.core.device import rng
from realm_nb.core.files import write_json
from realm_nb.core.folder import Run
from realm_nb.qa.finetune import OpenQA, openqa_step
from realm_nb.qa.reader import QaConfig, draw_blocks, read_pairs, reader_loss
from realm_nb.qa.table1 import (
    Lab,
    Table1Config,
    cpu_seconds,
    load_stage,
    load_training,
    start_reader,
)
from realm_nb.towers import (
    Embedder,
    Encoder,
    Towers,
    embed_all,
    load_bert,
    query_sequence,
    quiet_transformers,
)


def pieces_hold(pieces: list[int], answer: list[int]) -> bool:
    "Whether `answer` stands in `pieces`, one piece after the other."
    return any(pieces[i : i + len(answer)] == answer for i in range(len(pieces) - len(answer) + 1))


def tokenised_again(lab: Lab, question: dict, ids) -> np.ndarray:
    "Which of the blocks `ids` hold an answer, found by tokenising them."
    answers = lab.tokenizer(question["answers"], add_special_tokens=False)["input_ids"]
    blocks = lab.tokenizer(
        [lab.texts[b] for b in ids],
        [lab.store.title(b) for b in ids],
        truncation=True,
        max_length=lab.config.block_limit + 32,
    )["input_ids"]
    return np.array([any(pieces_hold(b, a) for a in answers) for b in blocks])


def seconds_each(work, questions) -> float:
    "Processor seconds that `work(q)` takes for each of `questions`."
    began = cpu_seconds()
    for q in questions:
        work(q)
    return (cpu_seconds() - began) / len(questions)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (
        ("towers", ""),
        ("base", "minilm-l6"),
        ("start", "base"),
        ("corpus", "wiki-vital+wiki-dump"),
        ("train", "nq-dev"),
        ("run", "runs/bench-openqa"),
        ("out", ""),
    ):
        parser.add_argument(f"--{name}", default=value)
    parser.add_argument("--search", type=int, default=5000)
    parser.add_argument(
        "--questions",
        type=int,
        default=64,
        help="timed on the fast side; an eighth of them on the slow one",
    )
    args = parser.parse_args()
    quiet_transformers()
    torch.set_num_threads(1)
    c = QaConfig(search=args.search)
    lab = Lab(
        Table1Config(
            towers=args.towers,
            base=args.base,
            start=args.start,
            corpus=args.corpus,
            train=args.train,
            tests=args.train,
            qa=c,
        ),
        Run(args.run, quiet=True),
    )
    training = load_training(lab)
    some = [int(i) for i in training.usable[: args.questions]]
    if args.towers:
        towers, scale = load_stage(args.towers, "ict", "pretrain")
    else:
        from transformers import BertForMaskedLM

        bert = load_bert(str(lab.base), 2, 0.0)[0]
        towers, scale = (
            Towers(Embedder(bert.bert, 128, "mean"), Encoder(BertForMaskedLM(bert.config))),
            1.0,
        )
    model, dim = OpenQA(towers), towers.embedder.dense.out_features
    vectors = torch.from_numpy(
        rng(0, "vectors").standard_normal((len(lab.store), dim), dtype=np.float32)
    )  # what they say does not change the time
    optimizer = torch.optim.AdamW(model.towers.own.parameters(), lr=1e-4)

    def tune(batch):
        loss, _ = openqa_step(
            model,
            lab.store,
            lab.edges,
            lab.special,
            vectors,
            [training.questions[i] for i in batch],
            [training.holders[i] for i in batch],
            c,
            scale,
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def again(i):
        with torch.no_grad():
            q = embed_all(
                model.towers.own,
                [query_sequence(training.questions[i]["x"], lab.special, c.question)],
            )
        tokenised_again(
            lab,
            training.questions[i],
            torch.topk(q @ vectors.T, min(c.search, len(vectors)), dim=1).indices[0].tolist(),
        )
        tune([i])

    reader = start_reader(lab)

    def read(i):
        scores, mask, correct, rows = read_pairs(
            reader,
            lab.store,
            lab.edges,
            lab.special,
            [training.questions[i]],
            [draw_blocks(training.ids[i], training.holders[i], c.wrong, rng(0, "bench", i))],
            c,
        )
        reader_loss(scores, mask, correct, rows, 1).backward()

    lab.texts
    tune(some[:2])
    batches = [some[lo : lo + 16] for lo in range(0, len(some), 16)]
    fast = sum(seconds_each(tune, [b]) for b in batches) / len(some)
    slow, reading = (
        seconds_each(again, some[: max(2, len(some) // 8)]),
        seconds_each(read, some[: max(2, len(some) // 8)]),
    )
    found = {
        "blocks": len(lab.store),
        "searched": min(c.search, len(vectors)),
        "retriever, from the store, s/question": fast,
        "retriever, tokenised again, s/question": slow,
        "ratio": slow / fast,
        "reader step, s/question": reading,
        "both, from the store": fast + reading,
        "ratio with the reader on both sides": (slow + reading) / (fast + reading),
    }
    for k, v in found.items():
        print(f"{k:45} {v:,.4g}")
    if args.out:
        write_json(args.out, found)


if __name__ == "__main__":
    main()
