"The released checkpoints: the same numbers as the classes that made them, and nothing of them run."

import contextlib
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


# ---- bad folders


class Hostile:
    "What a pickle does when it is loaded: makes a file that the test looks for."

    mark = ""

    def __init__(self, how):
        self.how = how

    def __reduce__(self):
        import builtins
        import os

        if self.how == "os.system":
            return os.system, (f"touch {self.mark}",)
        if self.how == "eval":
            return builtins.eval, (f"open({self.mark!r}, 'w').close()",)
        if self.how == "getattr":
            return getattr, (Opener(), "read")
        return Opener, ()


class Opener:
    def __reduce__(self):
        return open, (Hostile.mark, "w")


def hostile_object(how):
    "An object array that holds one, or one inside another."
    if how == "in an array":
        rows = np.empty(2, dtype=object)
        rows[:] = [b"text", Hostile("os.system")]
        return rows
    if how == "nested":
        rows = np.empty(1, dtype=object)
        rows[0] = np.array([[b"text", {"deep": [Hostile("eval")]}]], dtype=object)
        return rows
    return Hostile(how)


HOSTILE = ["os.system", "eval", "getattr", "in an array", "nested"]


@pytest.fixture
def hostile_mark(tmp_path):
    Hostile.mark = str(tmp_path / "it ran")
    yield Path(Hostile.mark)
    assert not Path(Hostile.mark).exists(), "it ran"


def refused(capsys, folder, *flags, said=()) -> str:
    "One line, exit status 2, and nothing written."
    target = folder.parent / "target"
    before = sorted(p.name for p in folder.parent.iterdir())
    assert main([str(folder), str(target), *flags]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1, line
    assert sorted(p.name for p in folder.parent.iterdir()) == before
    for word in said:
        assert word in line, line
    return line


def test_the_hostile_objects_would_run(tmp_path):
    "The tests below prove nothing unless unpickling these does something."
    import pickle

    for i, how in enumerate(HOSTILE):
        Hostile.mark = str(tmp_path / str(i))
        data = pickle.dumps(hostile_object(how))
        with contextlib.suppress(AttributeError):
            pickle.loads(data)
        assert Path(Hostile.mark).exists(), how


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("how", HOSTILE)
def test_a_hostile_checkpoint_is_refused(how, old, tmp_path, capsys, hostile_mark):
    folder = released_folder("embedder", tmp_path / "theirs")
    bad = tensors_of("embedder") | {"realm.more": hostile_object(how)}
    new = not old
    torch.save(bad, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
    refused(capsys, folder, said=["pytorch_model.bin", "nothing of it was run"])


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("how", HOSTILE)
def test_hostile_records_are_refused(how, protocol, tmp_path, capsys, hostile_mark):
    import pickle

    folder = released_folder("openqa", tmp_path / "theirs")
    with open(folder / "block_records.npy", "wb") as f:
        header = {"descr": "|O", "fortran_order": False, "shape": (14,)}
        np.lib.format.write_array_header_1_0(f, header)
        pickle.dump(hostile_object(how), f, protocol=protocol)
    refused(capsys, folder, said=["block_records.npy", "add --trust-pickle"])
    line = refused(capsys, folder, "--trust-pickle", said=["block_records.npy"])
    assert "nothing of it was run" in line


def test_a_hostile_pickle_without_an_array_header_is_refused(tmp_path, capsys, hostile_mark):
    import pickle

    folder = released_folder("openqa", tmp_path / "theirs")
    data = pickle.dumps(Hostile("os.system"))
    (folder / "block_records.npy").write_bytes(data)
    refused(capsys, folder, "--trust-pickle", said=["block_records.npy"])


def test_a_call_among_real_records_is_refused(tmp_path, capsys, hostile_mark):
    "A file that is right for thousands of texts and then asks for something."
    folder = released_folder("openqa", tmp_path / "theirs")
    whole = (folder / "block_records.npy").read_bytes()
    at = whole.index(b"ada lovelace")
    for evil in (
        b"cposix\nsystem\n(X\x04\x00\x00\x00trueR",
        b"R",
        b"b",
        b"}",
        b"]",
        b"X\x01\0\0\0a",
    ):
        data = whole[: at - 2] + evil + whole[at - 2 :]
        (folder / "block_records.npy").write_bytes(data)
        refused(capsys, folder, "--trust-pickle", said=["block_records.npy"])


@pytest.mark.parametrize("dtype", ["S5", "U5", "int64", "O2"])
def test_records_of_another_kind_are_refused(dtype, tmp_path, capsys):
    folder = released_folder("openqa", tmp_path / "theirs")
    rows = np.array([["a", "b"]], dtype=object) if dtype == "O2" else np.zeros(14, dtype)
    np.save(folder / "block_records.npy", rows)
    refused(capsys, folder, "--trust-pickle", said=["block_records.npy"])


def test_records_that_are_not_as_many_as_the_vectors_are_refused(tmp_path, capsys):
    folder = released_folder("openqa", tmp_path / "theirs")
    np.save(folder / "block_records.npy", np.array([b"a"] * 13, dtype=object))
    refused(capsys, folder, "--trust-pickle", said=["13 texts for 14 vectors"])
    np.save(folder / "block_records.npy", np.array([b"a"] * 13 + [b"\xff"], dtype=object))
    refused(capsys, folder, "--trust-pickle", said=["record 13 is no UTF-8"])


@pytest.mark.parametrize("name", CASES)
def test_every_missing_tensor_is_named(name, tmp_path, capsys):
    folder = released_folder(name, tmp_path / "theirs", "safetensors")
    tensors = tensors_of(name)
    left_out = 0
    for k in list(tensors)[:: max(1, len(tensors) // 6)]:
        optional = "pooler" in k or "predictions" in k
        if optional or (name == "scorer-shared"):
            continue
        left_out += 1
        save_file({n: t for n, t in tensors.items() if n != k}, folder / "model.safetensors")
        refused(capsys, folder, "--trust-pickle", said=[k])
    assert left_out or name == "scorer-shared"


@pytest.mark.parametrize("name", ["embedder", "scorer", "encoder", "reader", "openqa"])
def test_every_wrong_shape_is_named(name, tmp_path, capsys):
    folder = released_folder(name, tmp_path / "theirs", "safetensors")
    tensors = tensors_of(name)
    for k in list(tensors)[:: max(1, len(tensors) // 6)]:
        wrong = torch.zeros(tensors[k].shape[0] + 1, *tensors[k].shape[1:])
        save_file(tensors | {k: wrong}, folder / "model.safetensors")
        refused(capsys, folder, "--trust-pickle", said=[k, "shape"])
        save_file(tensors | {k: tensors[k] * torch.nan}, folder / "model.safetensors")
        refused(capsys, folder, "--trust-pickle", said=["NaN"])
        save_file(tensors | {k: tensors[k].long()}, folder / "model.safetensors")
        refused(capsys, folder, "--trust-pickle", said=[k, "int64"])


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 48},
        {"num_hidden_layers": 10**12},
        {"num_hidden_layers": 3},
        {"vocab_size": 2**40},
        {"num_attention_heads": 0},
        {"num_attention_heads": 7},
        {"hidden_act": "eval"},
        {"hidden_act": 3},
        {"layer_norm_eps": "small"},
        {"retriever_proj_size": True},
        {"position_embedding_type": "relative_key"},
        {"max_position_embeddings": -1},
    ],
    ids=str,
)
def test_a_config_that_does_not_fit_is_refused(change, tmp_path, capsys):
    folder = released_folder("embedder", tmp_path / "theirs")
    config = CASES["embedder"]["config"] | change
    (folder / "config.json").write_text(json.dumps(config))
    refused(capsys, folder)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"vocab_size": 1e999}', "null", "\xff"])
def test_a_damaged_config_is_refused(text, tmp_path, capsys):
    folder = released_folder("embedder", tmp_path / "theirs")
    (folder / "config.json").write_bytes(text.encode("latin1"))
    refused(capsys, folder, said=["config.json"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.999])
def test_a_truncated_file_is_refused(layout, share, tmp_path, capsys):
    folder = released_folder("encoder", tmp_path / "theirs", layout)
    path = max(folder.iterdir(), key=lambda p: p.stat().st_size)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(capsys, folder, said=[path.name])


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.98])
def test_truncated_records_are_refused(share, tmp_path, capsys):
    folder = released_folder("openqa", tmp_path / "theirs")
    path = folder / "block_records.npy"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    refused(capsys, folder, "--trust-pickle", said=[path.name])


def test_bombs_are_refused(tmp_path, capsys):
    "Archives that promise more than they hold, and tensors that claim more than is stored."
    import pickletools
    import zipfile

    folder = released_folder("embedder", tmp_path / "theirs")
    path = folder / "pytorch_model.bin"
    with zipfile.ZipFile(path) as z:
        members = {i.filename: z.read(i) for i in z.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as z:
        for name, data in members.items():
            z.writestr(name, data + b"\0" * (2**26 if "/data/" in name else 0))
    refused(capsys, folder, said=[path.name, "compressed"])
    wide = torch.zeros(1).expand(2**20, 2**20)
    torch.save({**tensors_of("embedder"), "realm.wide": wide}, path)
    refused(capsys, folder, said=[path.name, "realm.wide"])
    endless = {f"x{i}": torch.zeros(1) for i in range(3)} | {"y" * 2**25: torch.zeros(1)}
    torch.save(endless, path)
    refused(capsys, folder, said=[path.name])
    path.unlink()
    header = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    refused(capsys, folder, said=["model.safetensors"])
    assert pickletools  # its table of instructions is what the gate for records goes by


def test_links_that_lead_out_are_refused(tmp_path, capsys):
    folder = released_folder("embedder", tmp_path / "theirs")
    for name in ("config.json", "pytorch_model.bin", "vocab.txt"):
        path = folder / name
        outside = tmp_path / f"outside-{name}"
        path.rename(outside)
        path.symlink_to(outside)
        refused(capsys, folder, said=[name, "leads out"])
        path.unlink()
        outside.rename(path)
    shards(tensors_of("embedder"), folder, "model.safetensors", save_file)
    (folder / "pytorch_model.bin").unlink()
    index = folder / "model.safetensors.index.json"
    for name in ("../outside.safetensors", "/etc/passwd", "", ".", "no.safetensors"):
        index.write_text(json.dumps({"weight_map": {"realm.x": name}}))
        refused(capsys, folder)


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(tmp_path):
    real = released_folder("embedder", tmp_path / "models--a--b" / "blobs")
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123abcd"
    snapshot.mkdir(parents=True)
    for path in real.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    assert convert(snapshot, tmp_path / "ours")["kind"] == "embedder"


def test_a_pipe_in_the_folder_is_refused(tmp_path, capsys):
    import os

    folder = released_folder("embedder", tmp_path / "theirs")
    (folder / "pytorch_model.bin").unlink()
    os.mkfifo(folder / "pytorch_model.bin")
    refused(capsys, folder)


@pytest.mark.parametrize("wrong", ["too many", "twice", "no [CLS]", "no UTF-8"])
def test_a_vocabulary_that_does_not_fit_is_refused(wrong, tmp_path, capsys):
    folder = released_folder("embedder", tmp_path / "theirs")
    words = list(reference.VOCABULARY)
    if wrong == "too many":
        words += [f"extra{i}" for i in range(9)]
    elif wrong == "twice":
        words[9] = words[8]
    elif wrong == "no [CLS]":
        words[2] = "cls"
    text = "\n".join([*words, ""]).encode()
    (folder / "vocab.txt").write_bytes(text + (b"\xff\n" if wrong == "no UTF-8" else b""))
    refused(capsys, folder, said=["vocabulary"])


def test_what_is_converted_is_not_written_over_something_else(tmp_path, capsys):
    folder = released_folder("embedder", tmp_path / "theirs")
    mine = tmp_path / "target"
    mine.mkdir()
    (mine / "diary.txt").write_text("mine")
    refused(capsys, folder, said=["target"])
    assert (mine / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("file", ["model.safetensors", "config.json", "vocab.txt"])
def test_a_converted_folder_that_was_changed_is_refused(file, tmp_path, capsys):
    from realm_nb.qa.ask import main as ask

    released_folder("openqa", tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours", True)
    path = tmp_path / "ours" / file
    path.write_bytes(path.read_bytes().replace(b"1", b"2"))
    assert ask(["who?", "--run", str(tmp_path / "ours")]) == 2
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and "convert it again" in line


def test_a_checkpoint_without_a_part_says_which(tmp_path, capsys):
    from realm_nb.qa.ask import main as ask

    released_folder("embedder", tmp_path / "theirs")
    convert(tmp_path / "theirs", tmp_path / "ours")
    assert ask(["who?", "--run", str(tmp_path / "ours")]) == 2
    assert "is an embedder and has no reader" in capsys.readouterr().err


# ---- with a hub


def with_hub(url, home, code):
    "Run `code` in a process that knows no other hub than `url`; what it prints."
    import os
    import subprocess
    import sys

    offline = {"HF_HUB_OFFLINE": "0", "HF_TOKEN": "hf_local", "HF_HUB_DISABLE_XET": "1"}
    env = {**os.environ, **offline, "HF_ENDPOINT": url, "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_run_pushed_and_opened_by_name_has_the_same_figures(
    smoke_run, smoke_environment, tmp_path, monkeypatch
):
    from local_hub import local_hub

    for name, value in smoke_environment.items():
        monkeypatch.setenv(name, value)
    figures = (smoke_run / "stages" / "evaluate.json").read_text()
    with local_hub(tmp_path / "hub") as url:
        push = (
            f"from realm_nb.hub.share import push_to_hub; push_to_hub({str(smoke_run)!r}, 'ada/r')"
        )
        with_hub(url, tmp_path / "mine", push)
        card = (tmp_path / "hub" / "ada" / "r" / "README.md").read_text(encoding="utf-8")
        assert "realm train --recipe smoke" in card and "Apache-2.0" in card
        for row in json.loads(figures)["rows"][:3]:
            assert f"{row['after'][0]:.3f} [{row['after'][1]:.3f}" in card
        names = [p.name for p in (tmp_path / "hub" / "ada" / "r").rglob("*")]
        assert "optimizer.safetensors" not in names and "log.txt" not in names
        opened = with_hub(
            url,
            tmp_path / "theirs",
            "import realm_nb, shutil; from realm_nb.hub.released import local_folder;"
            "w = realm_nb.load('ada/r'); print(w.state().name, len(w.index()));"
            f"shutil.copytree(local_folder('ada/r'), {str(tmp_path / 'copy')!r})",
        )
    assert opened.startswith("pretrain-12 ")
    from realm_nb.train import evaluate

    measured = np.load(smoke_run / "heldout.npz")
    assert evaluate(["--run", str(tmp_path / "copy")]) == 0  # measured anew, from what was fetched
    again = np.load(tmp_path / "copy" / "heldout.npz")
    assert set(measured.files) == set(again.files) and measured.files
    for name in measured.files:
        np.testing.assert_allclose(measured[name], again[name], atol=1e-5, err_msg=name)


def test_a_released_checkpoint_is_fetched_converted_and_asked_by_name(tmp_path):
    from local_hub import local_hub

    released_folder("openqa", tmp_path / "hub" / "google" / "realm-small")
    (tmp_path / "hub" / "google" / "realm-small" / "evil.py").write_text("raise SystemExit(9)")
    with local_hub(tmp_path / "hub") as url:
        said = with_hub(
            url,
            tmp_path / "home",
            "from realm_nb.__main__ import main; from realm_nb.hub.released import local_folder;"
            f"ours = {str(tmp_path / 'ours')!r};"
            "main(['convert', 'google/realm-small', ours, '--trust-pickle']);"
            "main(['ask', 'when?', '--run', ours]);"
            "print(*sorted(p.name for p in local_folder('google/realm-small').iterdir()))",
        )
    assert "14 vectors in fp32, 14 blocks" in said and "[[in london, 1843]]" in said
    assert said.splitlines()[-1] == "block_records.npy config.json pytorch_model.bin vocab.txt"


def test_towers_and_readers_go_there_and_back(tmp_path):
    from local_hub import local_hub

    code = (
        "import torch; from realm_nb.towers import tiny_towers; "
        "from realm_nb.hub.share import from_pretrained, push_to_hub; "
        "from realm_nb.qa.reader import Reader, ReaderConfig; torch.manual_seed(0); "
        "t = tiny_towers(60, hidden=16, layers=1); "
        "words = torch.ones(2, 60, dtype=torch.bool); "
        "r = Reader(tiny_towers(60, hidden=16).embedder.bert, words, ReaderConfig()); "
        "same = lambda a, b: all(torch.equal(v, b[k]) for k, v in a.items()); "
        "ok = lambda a, b: same(a.state_dict(), b.state_dict());"
        "push_to_hub(t, 'ada/towers'); push_to_hub(r, 'ada/reader');"
        "print(ok(t, from_pretrained('ada/towers')), ok(r, from_pretrained('ada/reader')))"
    )
    with local_hub(tmp_path / "hub") as url:
        assert with_hub(url, tmp_path / "home", code) == "True True"
    files = sorted(p.name for p in (tmp_path / "hub" / "ada" / "towers").iterdir())
    assert {"README.md", "config.json", "model.safetensors"} <= set(files)


def test_a_hub_that_has_nothing_or_cannot_be_reached_is_one_line(tmp_path):
    from local_hub import local_hub

    code = (
        "import realm_nb\n"
        "for name in ('ada/none', 'ada/none/more', 'none'):\n"
        "    try: realm_nb.load(name)\n"
        "    except realm_nb.UserError as e: print(e)"
    )
    with local_hub(tmp_path / "hub") as url:
        (tmp_path / "hub").mkdir()
        lines = with_hub(url, tmp_path / "home", code).splitlines()
    assert len(lines) == 3 and "ada/none" in lines[0] and "hub" in lines[0]
    dead = with_hub("http://127.0.0.1:9", tmp_path / "home", code).splitlines()
    assert len(dead) == 3 and "connect to the network" in dead[0]


# ---- everywhere


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    "Released folders whose vocabulary is that of the small encyclopedia, by kind."
    from torch.nn.functional import layer_norm

    from realm_nb.hub.layouts import KINDS, VECTORS, parse_settings, part_shapes
    from realm_nb.text.documents import read_corpus
    from realm_nb.text.tokenizer import tiny_tokenizer

    home = tmp_path_factory.mktemp("released")
    documents = list(read_corpus("mini"))
    tokenizer = tiny_tokenizer(d.text for d in documents)
    texts = [d.text.split("\n")[0][:400].encode() for d in documents]
    config = {
        "model_type": "realm",
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "retriever_proj_size": 16,
        "span_hidden_size": 16,
        "max_position_embeddings": 160,
        "num_block_records": len(texts),
    }
    torch.manual_seed(0)
    for kind, parts in KINDS.items():
        folder = home / kind
        folder.mkdir()
        tensors = {}
        for prefix, _, part in parts:
            for shapes in part_shapes(parse_settings(config), part):
                for name, shape in shapes.items():
                    norm = "orm" in name and name.endswith("weight")
                    tensors[prefix + name] = 0.2 * torch.randn(shape) + norm
        if kind == "openqa":
            tensors[VECTORS] = layer_norm(torch.randn(len(texts), 16), [16])
            np.save(folder / "block_records.npy", np.array(texts, dtype=object))
        torch.save(tensors, folder / "pytorch_model.bin")
        (folder / "config.json").write_text(json.dumps(config))
        pieces = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
        (folder / "vocab.txt").write_text("".join(f"{p}\n" for p in pieces), encoding="utf-8")
    convert(home / "openqa", home / "run", trust_pickle=True)
    return home


@pytest.mark.parametrize("kind", ["embedder", "scorer"])
def test_training_starts_from_a_released_checkpoint(kind, small, tmp_path, monkeypatch):
    from realm_nb.qa.ask import main as ask
    from realm_nb.train import main as train
    from realm_nb.workspace import load

    monkeypatch.setenv("REALM_NB_HOME", str(tmp_path / "home"))
    run = tmp_path / "run"
    flags = ["--recipe", "smoke", "--base", str(small / kind), "--run", str(run)]
    stages = ["--stages", "corpus,mask,warmup,ict,pretrain,evaluate,finetune"]
    assert train([*flags, *stages, "--pretrain.steps", "4", "--ict.steps", "1"]) == 0
    w = load(run)
    theirs = torch.load(small / kind / "pytorch_model.bin", weights_only=True)
    name = "embedder.cls.dense.weight" if kind == "scorer" else "cls.dense.weight"
    assert torch.equal(w.towers("base").embedder.dense.weight, theirs[name])
    trained = w.towers()
    assert not torch.equal(trained.embedder.dense.weight, theirs[name])
    assert torch.allclose(trained.embedder.dense.weight, theirs[name], atol=0.1)
    assert (trained.own is not None) == (kind == "scorer")
    assert ask(["Who discovered radium?", "--run", str(run), "--retriever", "dense"]) == 0


def test_a_released_checkpoint_is_explored_and_its_corpus_changed(small):
    from realm_nb.show.explorer import Explorer, compare, corpus_map, fill, look_up
    from realm_nb.show.world import EditedCorpus
    from realm_nb.text.wikitext import Document

    x = Explorer(small / "run")
    sentence = "Marie Curie was born in [MASK] in 1867."
    filled = fill(x, sentence, "Warsaw")
    assert sum(z["p_z"] for z in filled["documents"]) == pytest.approx(1)
    assert sum(z["r"] for z in filled["documents"]) == pytest.approx(0, abs=1e-6)
    found = look_up(x, "Who found radium?")
    first = found["documents"][1]["block"]
    world = EditedCorpus(
        x.store, x.tokenizer, [Document("A", "Radium was found in Paris.")], [first]
    )
    changed = look_up(x, "Who found radium?", world=world)
    assert first not in [z["block"] for z in changed["documents"]]
    assert compare(x, sentence, "Warsaw")["moments"][0]["name"] == "released"
    assert len(corpus_map(x, most=50)["points"]) == 50


def test_the_page_opens_a_released_checkpoint(small):
    pytest.importorskip("gradio")
    from realm_nb.show.app import Site

    site = Site(str(small / "run"))
    site.prepare()
    assert site.reads and not site.notes
    facts = site.answerer("Who discovered radium?", 5)
    assert facts["answer"] and len(facts["evidence"]) == 5
    assert sum(e["p_z"] for e in facts["evidence"]) == pytest.approx(1, abs=1e-5)
    assert sum(e["share"] for e in facts["evidence"]) == pytest.approx(1, abs=1e-3)


def test_a_released_checkpoint_answers_from_another_corpus(small, tmp_path, capsys):
    from realm_nb.qa.ask import main as ask

    mine = tmp_path / "mine.jsonl"
    text = "The old harbour of Port Elm was rebuilt in 1911 by the engineer Ida Quill."
    mine.write_text(json.dumps({"title": "Harbour", "text": text}) + "\n")
    flags = ["--run", str(small / "run"), "--corpus", str(mine)]
    assert ask(["Who rebuilt the harbour?", *flags]) == 0
    assert "Harbour: The old harbour" in capsys.readouterr().out


def test_the_paper_table_has_a_row_for_it(small, tmp_path, capsys):
    from realm_nb.qa.table1 import main as table1

    questions = tmp_path / "few.jsonl"
    rows = [{"question": q, "answers": [a]} for q, a in reference.QUESTIONS.items()]
    questions.write_text("".join(json.dumps(r) + "\n" for r in rows))
    flags = ["--rows", "released", "--tests", str(questions), "--run", str(tmp_path / "table")]
    flags += ["--corpus", "mini", "--base", str(small / "run"), "--train", "mini"]
    flags += ["--start", "base"]
    assert table1([*flags, "--released", str(small / "embedder")]) == 2
    assert table1([*flags, "--released", str(small / "run")]) == 0
    assert "| REALM, released, over its own blocks | " in capsys.readouterr().out
    lines = (tmp_path / "table" / "answers-released-few.jsonl").read_text().splitlines()
    assert len(lines) == len(rows) and all(json.loads(line)["prediction"] for line in lines)


def test_the_towers_of_a_released_checkpoint_are_damaged_in_one_line(small, tmp_path):
    from realm_nb import UserError
    from realm_nb.hub.released import ReleasedTowers

    convert(small / "scorer", tmp_path / "ours")
    towers = Released(tmp_path / "ours").towers()
    folder = tmp_path / "towers"
    folder.mkdir()
    towers.save(folder)
    again = ReleasedTowers.load(folder)
    assert all(torch.equal(t, again.state_dict()[n]) for n, t in towers.state_dict().items())
    about = json.loads((folder / "towers.json").read_text())
    for change in ({"hidden_size": 64}, {"num_hidden_layers": 10**6}, {"hidden_act": "x"}):
        bad = {**about, "released": {**about["released"], **change}}
        (folder / "towers.json").write_text(json.dumps(bad))
        with pytest.raises(UserError, match="towers"):
            ReleasedTowers.load(folder)


def test_a_folder_is_not_converted_over_itself(small, capsys):
    before = sorted((p.name, p.stat().st_size) for p in (small / "run").iterdir())
    for flags in ([], ["--to", "google"]):
        assert main([str(small / "run"), str(small / "run"), *flags]) == 2
        assert "name another folder" in capsys.readouterr().err
    assert before == sorted((p.name, p.stat().st_size) for p in (small / "run").iterdir())


@pytest.mark.parametrize("kind", ["encoder", "scorer"])
def test_what_is_not_converted_yet_cannot_be_led_back(kind, small, tmp_path, capsys):
    assert main([str(small / kind), str(tmp_path / "back"), "--to", "google"]) == 2
    line = capsys.readouterr().err
    assert line.startswith("error: ") and line.count("\n") == 1
    assert not (tmp_path / "back").exists()
