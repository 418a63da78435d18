"""Encoding blocks against sentence-transformers and OpenVINO, with the same weights and tokens.

python benchmarks/encode.py [--blocks 32] [--turns 5]"""

import argparse
import sys
import tempfile
from pathlib import Path

import pairs
import torch

LENGTH = 96


def our_side(base, folder: Path, blocks: int):
    "(ours by precision, the texts of the same blocks)."
    from realm_nb.retrieval import embed_store
    from realm_nb.store import build_store
    from realm_nb.text.documents import read_jsonl
    from realm_nb.text.tokenizer import load_tokenizer
    from realm_nb.towers import Embedder, load_bert

    documents = list(read_jsonl(Path(__file__).parents[1] / "data/mini/documents.jsonl"))
    store = build_store(documents, load_tokenizer(base), folder / "store", max_block_len=LENGTH)
    embedder = Embedder(load_bert(base)[0].bert, 128, "mean").eval()
    some = range(min(blocks, len(store)))
    texts = [f"{store.title(b)} {store.text(b)}" for b in some]
    return lambda dtype: lambda: embed_store(embedder, store, some, dtype, bar=False), texts


def openvino_model(model, tokenizer, texts, precision: str):
    "What encodes `texts` with OpenVINO on one thread: the body of `model`, 16 at a time by length."
    import openvino

    example = dict(tokenizer(texts[:2], padding=True, return_tensors="pt"))

    class Body(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, input_ids, attention_mask):
            "Hidden states float [B, L, H]."
            return self.model(input_ids=input_ids, attention_mask=attention_mask)[0]

    inputs = {name: example[name] for name in ("input_ids", "attention_mask")}
    converted = openvino.convert_model(Body().eval(), example_input=inputs)
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": precision}
    compiled = openvino.Core().compile_model(converted, "CPU", settings)
    order = sorted(texts, key=len)

    def encode():
        for lo in range(0, len(order), 16):
            batch = tokenizer(
                order[lo : lo + 16], padding=True, truncation=True, return_tensors="np"
            )
            compiled({name: batch[name] for name in inputs})

    return encode


def main():
    "Print the section."
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--blocks", type=int, default=32)
    p.add_argument("--turns", type=int, default=5)
    options = p.parse_args()
    sys.path.append(str(pairs.side_folder("sentence", pairs.SENTENCE)))
    from sentence_transformers import SentenceTransformer

    from realm_nb.text.sources import fetch
    from realm_nb.towers import quiet_transformers

    quiet_transformers()
    base = str(fetch("minilm-l6"))
    theirs = SentenceTransformer(base, device="cpu")
    notes = []
    with tempfile.TemporaryDirectory() as folder:
        ours, texts = our_side(base, Path(folder), options.blocks)
        encode = lambda: theirs.encode(texts, show_progress_bar=False)

        def rounded():
            with torch.autocast("cpu", torch.bfloat16):
                encode()

        ways = {"sentence-transformers, float32": encode, "ours, float32": ours(torch.float32)}
        precisions = ["f32"]
        if pairs.has_bfloat16():
            ways |= {"sentence-transformers, bfloat16": rounded}
            ways |= {"ours, bfloat16": ours(torch.bfloat16)}
            precisions.append("bf16")
        else:
            notes.append("bfloat16: no bfloat16 units here.")
        for precision in precisions:
            try:
                model = theirs[0].auto_model
                made = openvino_model(model, theirs.tokenizer, texts, precision)
                ways[f"OpenVINO, {precision}"] = made
            except Exception as e:  # whatever it is, the table says it
                notes.append(
                    f"OpenVINO, {precision}: not exported ({str(e).splitlines()[0][:200]})."
                )
        times = pairs.take_turns(ways, 0, options.turns)
    pairs.section(
        "Encoding blocks",
        f"{len(texts)} blocks of the small corpus, at most {LENGTH} pieces, all-MiniLM-L6-v2 with "
        "its six layers. Theirs tokenise as they encode; ours reads tokens from the store. The "
        "first call puts theirs into a folder of the cache: `pip install --no-deps --target DIR "
        f"{' '.join(pairs.SENTENCE)}`. {' '.join(notes)}\n",
    )
    first = next(iter(ways))
    rows = [
        [name, pairs.spread(len(texts) / spent), pairs.ratio(times, first, name)]
        for name, spent in times.items()
    ]
    print(pairs.table(["", "blocks/s", "× sentence-transformers float32"], rows))


if __name__ == "__main__":
    main()
