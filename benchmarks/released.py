"""A released open-QA checkpoint at the size of Google's: how long, how much memory.

    python benchmarks/released.py make FOLDER --rows 13353718     a synthetic one, of random numbers
    python benchmarks/released.py convert FOLDER DST --index int8
    python benchmarks/released.py ask DST

Memory is what a process holds beyond mapped files (RssAnon), at its highest, looked at 50 times a
second, and what it held before."""

import argparse
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from realm_nb.hub.layouts import KINDS, VECTORS, parse_settings, part_shapes
from realm_nb.hub.released import convert
from realm_nb.text.documents import read_corpus
from realm_nb.text.tokenizer import tiny_tokenizer

CONFIG = {
    "model_type": "realm",
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "max_position_embeddings": 512,
}


def anonymous_mb() -> float:
    "Megabytes of this process beyond mapped files."
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) / 1024


class Watched:
    "Time and memory of what is done inside."

    def __enter__(self):
        self.before = self.most = anonymous_mb()
        self.done = threading.Event()
        self.thread = threading.Thread(target=self._watch)
        self.thread.start()
        self.began = time.perf_counter()
        self.cpu = time.process_time()
        return self

    def _watch(self):
        while not self.done.wait(0.02):
            self.most = max(self.most, anonymous_mb())

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self.began, time.process_time() - self.cpu
        self.done.set()
        self.thread.join()

    def __str__(self):
        return (
            f"{self.wall:.1f} s ({self.cpu:.1f} s of processor), {self.most:,.0f} MB beyond mapped "
            f"files at most, {self.before:,.0f} before"
        )


def make(folder: Path, rows: int):
    "A synthetic released folder: as many vectors and texts as `rows`."
    folder.mkdir(parents=True)
    documents = list(read_corpus("mini"))
    tokenizer = tiny_tokenizer(d.text for d in documents)
    config = {**CONFIG, "vocab_size": len(tokenizer), "num_block_records": rows}
    (folder / "config.json").write_text(json.dumps(config))
    pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    (folder / "vocab.txt").write_bytes("".join(f"{p}\r\n" for p in pieces).encode())
    g = np.random.default_rng(0)
    vectors = np.lib.format.open_memmap(folder / "raw.npy", "w+", np.float32, (rows, 128))
    for lo in range(0, rows, 2**18):
        part = g.standard_normal((min(2**18, rows - lo), 128), dtype=np.float32)
        part -= part.mean(1, keepdims=True)
        vectors[lo : lo + 2**18] = part / part.std(1, keepdims=True)  # as a LayerNorm leaves them
    torch.manual_seed(0)
    tensors = {}
    for prefix, _, part in KINDS["openqa"]:
        for shapes in part_shapes(parse_settings(config), part):
            for name, shape in shapes.items():
                norm = "orm" in name and name.endswith("weight")
                tensors[prefix + name] = 0.05 * torch.randn(shape) + norm
    tensors[VECTORS] = torch.from_numpy(vectors)
    torch.save(tensors, folder / "pytorch_model.bin")
    (folder / "raw.npy").unlink()
    words = " ".join(d.text for d in documents).split()
    at = g.integers(len(words) - 16, size=rows).tolist()
    texts = np.empty(rows, dtype=object)
    for i, first in enumerate(at):
        texts[i] = f"{i} {' '.join(words[first : first + 16])}".encode()
    np.save(folder / "block_records.npy", texts)


def ask(folder: Path):
    "Open a converted folder, and ask three questions."
    from realm_nb.qa.ask import Answerer

    with Watched() as w:
        answerer = Answerer(folder)
    print("opened:", w)
    for question in ("Who discovered radium?", "Where was Ada born?", "What is a comet?"):
        with Watched() as w:
            answers = answerer(question)
        print(f"{question} → {answers[0].text!r}:", w)


def main(argv):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["make", "convert", "ask"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("dst", type=Path, nargs="?")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--index", default="fp32")
    o = parser.parse_args(argv)
    if o.what == "make":
        make(o.folder, o.rows)
    elif o.what == "convert":
        with Watched() as w:
            about = convert(o.folder, o.dst, True, o.index)
        size = sum(p.stat().st_size for p in o.dst.rglob("*") if p.is_file()) / 1e9
        print(f"converted {about['index']}, {size:.2f} GB on disk:", w)
    else:
        ask(o.folder)


if __name__ == "__main__":
    main(sys.argv[1:])
