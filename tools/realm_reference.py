"""What transformers 4.57.6, the last that had REALM's classes, computes on small random weights.

Writes tests/realm_reference.json: settings, inputs and outputs. The weights are not in it: both
sides draw them from a seed, name by name. That version and what it needs are put in a folder of
their own with pip, and run in a process of their own; nothing is installed beside this library.

    python tools/realm_reference.py [FOLDER]"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "tests" / "realm_reference.json"
PINS = ("transformers==4.57.6", "huggingface-hub==0.36.0", "tokenizers==0.22.1")

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
TEXT = (
    "ada lovelace wrote the first program for babbage engine in london marie curie "
    "found radium and polonium at paris she was born warsaw 1867 1911 1843 who what "
    "when where river of a ##s ##ed ##ing . , ? ' - long old new house king queen "
    "city war sea moon sun day "
)
WORDS = re.findall(r"\S+", TEXT)
VOCABULARY = [*SPECIALS, *dict.fromkeys(WORDS), *"abcdefghijklmnop", *"abc"]
VOCABULARY = list(dict.fromkeys(VOCABULARY))

SMALL = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 40}
CASES = {
    "embedder": {
        "hidden_size": 24,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 40,
        "retriever_proj_size": 10,
    },
    "embedder-odd": {
        "hidden_size": 35,
        "num_attention_heads": 5,
        "num_hidden_layers": 1,
        "intermediate_size": 13,
        "retriever_proj_size": 3,
        "hidden_act": "relu",
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 3,
    },
    "scorer": {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 32,
        "retriever_proj_size": 8,
        "num_candidates": 3,
        "hidden_act": "gelu",
    },
    "scorer-shared": {
        "hidden_size": 18,
        "num_attention_heads": 3,
        "num_hidden_layers": 2,
        "intermediate_size": 20,
        "retriever_proj_size": 6,
        "num_candidates": 2,
    },
    "encoder": {
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "num_candidates": 3,
    },
    "encoder-untied": {
        "hidden_size": 20,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 28,
        "num_candidates": 2,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
    },
    "reader": {
        "hidden_size": 20,
        "num_attention_heads": 5,
        "num_hidden_layers": 2,
        "intermediate_size": 36,
        "span_hidden_size": 7,
        "max_span_width": 4,
        "reader_beam_size": 3,
    },
    "reader-wide": {
        "hidden_size": 12,
        "num_attention_heads": 1,
        "num_hidden_layers": 3,
        "intermediate_size": 16,
        "span_hidden_size": 9,
        "max_span_width": 10,
        "reader_beam_size": 5,
        "reader_layer_norm_eps": 1e-2,
    },
    "openqa": {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "retriever_proj_size": 8,
        "span_hidden_size": 6,
        "max_span_width": 5,
        "reader_beam_size": 4,
        "reader_seq_len": 24,
        "num_block_records": 14,
        "searcher_beam_size": 9,
    },
}
QUESTIONS = {  # and an answer to each
    "who wrote the first program for the engine?": "ada lovelace",
    "where was marie curie born in 1867, and what was the old city of the king?": "warsaw",
    "what zzz found radium": "curie",
    "when?": "1843",
}


def records() -> list[str]:
    "Blocks for open questions; some are longer than the reader reads, one is empty."
    g = np.random.default_rng(5)
    plain = [word for word in WORDS if not word.startswith("##")]
    lengths = [6, 9, 40, 12, 0, 18, 7, 30, 11, 5, 26, 8, 15, 10]
    rows = [" ".join(g.choice(plain, n)) for n in lengths]
    rows[1] = "ada lovelace wrote the first program in london, 1843."
    rows[6] = "Marie Curie, born in Warsaw, found radium at Paris."
    return rows


def weights(shapes: dict[str, list[int]], seed: int) -> dict[str, np.ndarray]:
    "A float32 array for each name, from the seed alone."
    g = np.random.default_rng(seed)
    out = {}
    for name in sorted(shapes):
        row = 0.25 * g.standard_normal(shapes[name])
        norm = "LayerNorm.weight" in name or "layer_normalization.weight" in name
        out[name] = (row + norm).astype(np.float32)
    return out


def token_ids(shape, seed: int) -> dict[str, np.ndarray]:
    "Padded inputs of a BERT: ids, mask and segments int64 of that shape."
    g = np.random.default_rng(seed)
    ids = g.integers(len(SPECIALS), len(VOCABULARY), shape)
    lengths = g.integers(shape[-1] // 2, shape[-1] + 1, shape[:-1])
    mask = np.arange(shape[-1]) < lengths[..., None]
    second = g.integers(2, shape[-1] // 2, shape[:-1])
    segments = mask & (np.arange(shape[-1]) >= second[..., None])
    return {
        "input_ids": np.where(mask, ids, 0),
        "attention_mask": mask.astype(np.int64),
        "token_type_ids": segments.astype(np.int64),
    }


def inputs(name: str, c: dict) -> dict:
    "What the model of a case is given, by name."
    kind = name.split("-")[0]
    if kind == "embedder":
        return token_ids((4, 11), 1)
    if kind == "scorer":
        documents = token_ids((2, c["num_candidates"], 13), 2)
        return token_ids((2, 9), 3) | {f"candidate_{k}": v for k, v in documents.items()}
    if kind == "encoder":
        g = np.random.default_rng(4)
        more = token_ids((2, c["num_candidates"], 10), 4)
        labels = np.where(g.random((2, 10)) < 0.4, g.integers(5, 60, (2, 10)), -100)
        more |= {"labels": labels, "mlm_mask": (labels != -100).astype(np.int64)}
        return more | {"relevance_score": g.standard_normal((2, c["num_candidates"])).round(3)}
    if kind == "reader":
        g = np.random.default_rng(6)
        m = c["reader_beam_size"] + 2
        found = token_ids((m, 14), 7)
        block = found["token_type_ids"].astype(bool)
        found = {k: v[: c["reader_beam_size"]] for k, v in found.items()}
        starts = np.where(g.random((m, 3)) < 0.5, g.integers(2, 12, (m, 3)), -1)
        ends = np.where(starts < 0, -1, starts + g.integers(0, 3, (m, 3)))
        found |= {"block_mask": block}
        found |= {"relevance_score": g.standard_normal(m).round(3)}
        found |= {"start_positions": starts, "end_positions": ends}
        return found | {"has_answers": (starts >= 0).any(1)}
    return {}


def run_openqa(model, folder, kind):
    "What the open-QA model makes of each question."
    from transformers import RealmTokenizerFast
    from transformers.models.deprecated.realm.retrieval_realm import RealmRetriever

    vocab = Path(folder) / "vocab.txt"
    vocab.write_text("".join(f"{w}\n" for w in VOCABULARY), encoding="utf-8")
    tokenizer = RealmTokenizerFast(vocab_file=str(vocab))
    blocks = np.array([r.encode() for r in records()], dtype=object)
    model.retriever = RealmRetriever(blocks, tokenizer)
    out = []
    for question, answer in QUESTIONS.items():
        ids = tokenizer([question], return_tensors="pt")
        answers = tokenizer([answer], add_special_tokens=False).input_ids
        found = model(**ids, answer_ids=answers, return_dict=True)
        x = model.embedder(**ids, return_dict=True).projected_score
        best = (model.block_emb @ x[0]).topk(model.config.reader_beam_size)
        r = found.reader_output
        out.append(
            {
                "question": question,
                "blocks": best.indices.tolist(),
                "relevance": best.values.tolist(),
                "block": int(r.block_idx),
                "start": int(r.start_pos),
                "end": int(r.end_pos),
                "answer_ids": found.predicted_answer_ids.tolist(),
                "answer": tokenizer.decode(found.predicted_answer_ids),
                "loss": [float(r.loss), float(r.retriever_loss), float(r.reader_loss)],
            }
        )
    return out


def reference(name: str, c: dict, seed: int, folder) -> dict:
    "Shapes of the weights of a case, and what the old classes compute."
    import torch
    import transformers

    kind = name.split("-")[0]
    config = transformers.RealmConfig(**c, **SMALL)
    classes = {
        "embedder": transformers.RealmEmbedder,
        "scorer": transformers.RealmScorer,
        "encoder": transformers.RealmKnowledgeAugEncoder,
        "reader": transformers.RealmReader,
        "openqa": transformers.RealmForOpenQA,
    }
    own = {"query_embedder": transformers.RealmEmbedder(config)} if name == "scorer" else {}
    model = classes[kind](config, **own).eval()
    tensors = dict(model.named_parameters())
    if kind == "openqa":
        tensors["block_emb"] = model.block_emb
    shapes = {k: list(t.shape) for k, t in tensors.items()}
    with torch.no_grad():
        for k, w in weights(shapes, seed).items():
            tensors[k].copy_(torch.from_numpy(w))
    model.tie_weights()
    out = {"config": {"model_type": "realm", **c, **SMALL}, "shapes": shapes, "seed": seed}
    given = inputs(name, c)
    feed = {k: torch.from_numpy(np.asarray(v)) for k, v in given.items()}
    feed = {k: v.float() if v.dtype == torch.float64 else v for k, v in feed.items()}
    with torch.no_grad():
        if kind == "openqa":
            return out | {"answers": run_openqa(model, folder, kind)}
        found = dict(model(**feed, return_dict=True).items())
        if kind == "encoder":
            feed.pop("mlm_mask")
            found["loss_unmasked"] = model(**feed, return_dict=True).loss
        if kind == "reader":
            hidden = model.realm(*(feed[k] for k in list(feed)[:3]))[0]
            block = feed["block_mask"][: c["reader_beam_size"]]
            scores = model.qa_outputs(hidden, block)[0]
            found |= {"scores": scores.masked_fill(scores < -1e30, -1e30)}
            feed["start_positions"] = feed["end_positions"] = feed["end_positions"] * 0 - 1
            found |= {"loss_without": model(**feed, return_dict=True).loss}
    out["outputs"] = {k: v.tolist() for k, v in found.items() if v is not None}
    return out


def inside():
    "In the process of the old version: everything, to OUT."
    import transformers

    assert transformers.__version__ == PINS[0].split("==")[1], transformers.__version__
    with tempfile.TemporaryDirectory() as folder:
        cases = {
            name: reference(name, c, 10 + i, folder) for i, (name, c) in enumerate(CASES.items())
        }
    rounded = json.loads(json.dumps(cases), parse_float=lambda x: float(f"{float(x):.8g}"))
    text = ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in rounded.items())
    OUT.write_text("{\n" + text + "\n}\n", encoding="utf-8")
    print(f"{OUT.relative_to(ROOT)}: {len(cases)} cases, {OUT.stat().st_size:,} bytes")


def main(argv):
    folder = Path(argv[0]) if argv else Path(tempfile.gettempdir()) / "realm_reference"
    if not (folder / "transformers").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder)]
        subprocess.run([*pip, *PINS], check=True)
    env = {**os.environ, "PYTHONPATH": str(folder), "TRUST_REMOTE_CODE": "False"}
    return subprocess.run([sys.executable, __file__, "--inside"], env=env).returncode


if __name__ == "__main__":
    sys.exit(inside() if sys.argv[1:] == ["--inside"] else main(sys.argv[1:]))
