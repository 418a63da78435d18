"The released checkpoints: the same numbers as the classes that made them, and nothing of them run."

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from realm_nb.hub.layouts import read_records, write_records
from realm_nb.hub.released import Answers, Released, convert, main, released_masked_loss

ROOT = Path(__file__).resolve().parents[1]
CASES = json.loads((ROOT / "tests/realm_reference.json").read_text(encoding="utf-8"))
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def tool(name):
    "A script of tools/ as a module."
    spec = importlib.util.spec_from_file_location(f"tools_{name}", ROOT / "tools" / f"{name}.py")
    spec.loader.exec_module(module := importlib.util.module_from_spec(spec))
    return module


reference = tool("realm_reference")


def tensors_of(name) -> dict[str, torch.Tensor]:
    "The random weights of a case, as its seed gives them."
    made = reference.weights(CASES[name]["shapes"], CASES[name]["seed"])
    return {k: torch.from_numpy(v) for k, v in made.items()}


def old_extras(tensors) -> dict:
    "What older versions wrote as well: a buffer, and weights under their second names."
    out = {}
    for name, t in tensors.items():
        if name.endswith("position_embeddings.weight"):
            out[name.replace("position_embeddings.weight", "position_ids")] = torch.arange(len(t))[
                None
            ]
        if name.endswith("cls.predictions.bias"):
            out[name.replace("predictions.bias", "predictions.decoder.bias")] = t
        if name == "realm.embeddings.word_embeddings.weight":
            tied = name.replace("realm.embeddings.word_embeddings", "cls.predictions.decoder")
            if tied not in tensors:
                out[tied] = t
    return out


def shards(tensors, folder, name, save):
    "Three files and an index."
    names = sorted(tensors)
    where = {}
    for i in range(3):
        file = name.replace(".", f"-0000{i + 1}-of-00003.", 1)
        save({k: tensors[k].clone() for k in names[i::3]}, folder / file)
        where |= dict.fromkeys(names[i::3], file)
    (folder / f"{name}.index.json").write_text(json.dumps({"weight_map": where}))


LAYOUTS = {
    "safetensors": lambda t, f: save_file(t, f / "model.safetensors"),
    "bin": lambda t, f: torch.save(t, f / "pytorch_model.bin"),
    "old bin": lambda t, f: torch.save(t | old_extras(t), f / "pytorch_model.bin"),
    "before 2020": lambda t, f: torch.save(
        t, f / "pytorch_model.bin", _use_new_zipfile_serialization=False
    ),
    "sharded bin": lambda t, f: shards(t, f, "pytorch_model.bin", torch.save),
    "sharded safetensors": lambda t, f: shards(t, f, "model.safetensors", save_file),
}


def released_folder(name, folder, layout="bin", crlf=True):
    "A folder as it was released, with the weights of a case."
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CASES[name]["config"]))
    LAYOUTS[layout](tensors_of(name), folder)
    end = "\r\n" if crlf else "\n"
    text = "".join(word + end for word in reference.VOCABULARY)
    (folder / "vocab.txt").write_bytes(text.encode())
    if name == "openqa":
        rows = [r.encode() for r in reference.records()]
        np.save(folder / "block_records.npy", np.array(rows, dtype=object))
    return folder


def opened(name, folder, layout="bin") -> Released:
    released_folder(name, folder / "theirs", layout)
    convert(folder / "theirs", folder / "ours", trust_pickle=True)
    return Released(folder / "ours")


def given(name) -> dict[str, torch.Tensor]:
    found = reference.inputs(name, CASES[name]["config"])
    out = {k: torch.from_numpy(np.asarray(v)) for k, v in found.items()}
    return {k: t.float() if t.dtype == torch.float64 else t for k, t in out.items()}


def same(found, name, key):
    torch.testing.assert_close(found, torch.tensor(CASES[name]["outputs"][key]), **CLOSE)


# ---- parity


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["embedder", "embedder-odd"])
@torch.no_grad()
def test_an_embedder_embeds_as_theirs(name, layout, tmp_path):
    released = opened(name, tmp_path, layout)
    x = given(name)
    ids = x["input_ids"], x["attention_mask"], x["token_type_ids"]
    same(released.embedder.embed_ids(*ids), name, "projected_score")


@torch.no_grad()
def test_the_towers_embed_as_the_embedder_does(tmp_path):
    from realm_nb.towers import Sequence, embed_all

    released = opened("embedder", tmp_path)
    x = given("embedder")
    sequences = []
    for ids, mask, segments in zip(x["input_ids"], x["attention_mask"], x["token_type_ids"]):
        n = int(mask.sum())
        sequences.append(Sequence(ids[:n].numpy(), n - int(segments.sum())))
    found = embed_all(released.towers().eval().embedder, sequences)
    same(found, "embedder", "projected_score")


@pytest.mark.parametrize("name", ["scorer", "scorer-shared"])
@torch.no_grad()
def test_a_scorer_scores_as_theirs(name, tmp_path):
    released = opened(name, tmp_path, "old bin")
    x = given(name)
    query = x["input_ids"], x["attention_mask"], x["token_type_ids"]
    documents = [x[f"candidate_{k}"].flatten(0, 1) for k in list(x)[:3]]
    q = released.query_embedder.embed_ids(*query)
    z = released.embedder.embed_ids(*documents).unflatten(0, (len(q), -1))
    same(q, name, "query_score")
    same(z, name, "candidate_score")
    same(torch.einsum("bd,bkd->bk", q, z), name, "relevance_score")


@pytest.mark.parametrize("layout", ["safetensors", "old bin", "sharded bin"])
@pytest.mark.parametrize("name", ["encoder", "encoder-untied"])
@torch.no_grad()
def test_an_encoder_predicts_as_theirs(name, layout, tmp_path):
    released = opened(name, tmp_path, layout)
    x = given(name)
    ids, mask, segments = (x[k].flatten(0, 1) for k in list(x)[:3])
    logits = released.encoder(ids, attention_mask=mask, token_type_ids=segments).logits
    same(logits, name, "logits")
    f, labels = x["relevance_score"], x["labels"]
    same(released_masked_loss(logits, f, labels, x["mlm_mask"]), name, "loss")
    same(released_masked_loss(logits, f, labels), name, "loss_unmasked")


@pytest.mark.parametrize("name", ["reader", "reader-wide"])
@torch.no_grad()
def test_a_reader_reads_as_theirs(name, tmp_path):
    released = opened(name, tmp_path)
    x = given(name)
    wanted = CASES[name]["outputs"]
    beam = len(x["input_ids"])
    ids = x["input_ids"], x["attention_mask"], x["token_type_ids"], x["block_mask"][:beam]
    scores = released.reader(*ids)
    same(scores.masked_fill(scores < -1e30, -1e30), name, "scores")
    answers = Answers(x["start_positions"], x["end_positions"], x["has_answers"])
    found = released.reader.read(ids, x["relevance_score"], answers)
    for key in ("loss", "retriever_loss", "reader_loss"):
        same(getattr(found, key), name, key)
    assert [found.start] == wanted["start_pos"] and [found.end] == wanted["end_pos"]
    assert found.block == wanted["block_idx"] and found.candidate == wanted["candidate"]
    nowhere = answers._replace(starts=answers.starts * 0 - 1, ends=answers.ends * 0 - 1)
    same(released.reader.read(ids, x["relevance_score"], nowhere).loss, name, "loss_without")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@torch.no_grad()
def test_open_questions_are_answered_as_theirs(precision, tmp_path):
    from realm_nb.qa.ask import Answerer

    released_folder("openqa", tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", True, precision)
    answerer = Answerer(tmp_path / "ours")
    store = answerer.store
    for row in CASES["openqa"]["answers"]:
        blocks, prior, _, found = answerer.find(row["question"])
        if precision != "fp32":
            assert set(blocks.tolist()) & set(row["blocks"])
            continue
        assert blocks.tolist() == row["blocks"]
        wanted = np.array(row["relevance"]) - row["relevance"][0]
        np.testing.assert_allclose(prior, wanted, atol=1e-5)
        best = found[0]
        assert best.block == row["blocks"][row["block"]]
        ids = store.body(best.block)[best.first : best.last + 1].tolist()
        assert ids == row["answer_ids"]


# ---- there and back


@pytest.mark.parametrize("name", CASES)
def test_theirs_to_ours_to_theirs_is_the_same_to_the_byte(name, tmp_path):
    folder = released_folder(name, tmp_path / "theirs", "old bin")
    flags = ["--trust-pickle"]
    assert main([str(folder), str(tmp_path / "ours"), *flags]) == 0
    assert main([str(tmp_path / "ours"), str(tmp_path / "back"), "--to", "google"]) == 0
    theirs = torch.load(folder / "pytorch_model.bin", weights_only=True)
    theirs = {k: t for k, t in theirs.items() if "position_ids" not in k}
    back = load_file(tmp_path / "back" / "model.safetensors")
    assert set(theirs) <= set(back)
    for k, t in theirs.items():
        assert t.dtype == back[k].dtype and t.numpy().tobytes() == back[k].numpy().tobytes(), k
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    assert config == CASES[name]["config"]
    words = (tmp_path / "back" / "vocab.txt").read_bytes().decode().split("\n")
    assert words == [*reference.VOCABULARY, ""]
    if name == "openqa":
        rows = np.load(tmp_path / "back" / "block_records.npy", allow_pickle=True)  # our own
        assert [r.decode() for r in rows] == reference.records()
    convert(tmp_path / "back", tmp_path / "again", trust_pickle=True)
    once, twice = (load_file(tmp_path / n / "model.safetensors") for n in ("ours", "again"))
    assert all(torch.equal(t, twice[k]) for k, t in once.items())


def test_a_half_precision_checkpoint_stays_one(tmp_path):
    folder = released_folder("embedder", tmp_path / "theirs", "safetensors")
    half = {k: t.half() for k, t in tensors_of("embedder").items()}
    save_file(half, folder / "model.safetensors")
    convert(folder, tmp_path / "ours")
    kept = load_file(tmp_path / "ours" / "model.safetensors")
    assert {t.dtype for t in kept.values()} == {torch.float16}
    assert Released(tmp_path / "ours").embedder.dense.weight.dtype == torch.float32


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_records_are_read_as_numpy_writes_them(protocol, tmp_path):
    import pickle

    rows = [b"a", b"", b"\xc3\xa9" * 40, b"x" * 300, b"", b"y" * 70_000] * 700
    with open(tmp_path / "r.npy", "wb") as f:
        header = {"descr": "|O", "fortran_order": False, "shape": (len(rows),)}
        np.lib.format.write_array_header_1_0(f, header)
        pickle.dump(np.array(rows, dtype=object), f, protocol=protocol)
    assert list(read_records(tmp_path / "r.npy")) == rows
    write_records(tmp_path / "w.npy", rows[:50], 50)
    assert np.load(tmp_path / "w.npy", allow_pickle=True).tolist() == rows[:50]  # our own
