"""What a visitor or a caller can type, and what can lie in a folder: one line says what is wrong.

Never a stack trace, never a hang, never a file of somebody else's that is gone."""

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from realm_nb.core.errors import UserError
from realm_nb.evaluate import measure, predict
from realm_nb.qa import ask, table1
from realm_nb.qa.ask import Answerer
from realm_nb.qa.reader import Reader, load_body
from realm_nb.show.explorer import (
    Explorer,
    Settings,
    compare,
    corpus_map,
    curves,
    fill,
    look_up,
    suggestions,
)
from realm_nb.show.world import EditedCorpus
from realm_nb.text.tokenizer import tiny_tokenizer
from realm_nb.text.wikitext import Document
from realm_nb.towers import Towers, load_bert, load_tensors
from realm_nb.workspace import load

app = pytest.importorskip("realm_nb.show.app")
if app.gr is None:
    pytest.skip(
        "the app's extra is not installed: pip install 'realm_nb[app]'", allow_module_level=True
    )

SENTENCE, HIDDEN = "Alan Turing was an English mathematician born in [MASK] in 1912.", "London"
NASTY = "<script>window.hacked=1</script>\"'><img src=x onerror=hack()> javascript:hack() {{7*7}}"


@pytest.fixture(scope="module")
def environment(smoke_environment):
    with pytest.MonkeyPatch.context() as m:
        m.setenv("REALM_NB_HOME", smoke_environment["REALM_NB_HOME"])
        m.setenv("REALM_NB_QUIET", "1")
        yield smoke_environment


@pytest.fixture(scope="module")
def run(smoke_run, environment, tmp_path_factory):
    "A finished run with a reader."
    folder = Path(shutil.copytree(smoke_run, tmp_path_factory.mktemp("bad") / "run"))
    command = [sys.executable, "-m", "realm_nb", "train", "--recipe", "smoke", "--run", str(folder)]
    done = subprocess.run(
        [*command, "--stages", "finetune"], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(run, tmp_path):
    "The run, to be damaged: its files are links, so a file is damaged by another in its place."
    return Path(shutil.copytree(run, tmp_path / "copy", copy_function=os.link))


@pytest.fixture(scope="module")
def x(run):
    return Explorer(run)


@pytest.fixture(scope="module")
def answerer(run):
    return Answerer(run)


@pytest.fixture(scope="module")
def site(run):
    site = app.Site(run)
    site.x.index()
    site.x.realm()
    return site


def put(path, content):
    "A file, or with None a hole, in place of what is at `path`."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())


def put_json(path, change):
    about = json.loads(path.read_text())
    change(about)
    put(path, json.dumps(about))


def put_tensors(path, change):
    tensors = {name: tensor.clone() for name, tensor in load_file(path).items()}
    change(tensors)
    path.unlink()
    save_file(tensors, path)


def refused(main, argv, capsys, *needles):
    "`main(argv)` ends with status 2 and one line, which says all `needles`."
    assert main([str(word) for word in argv]) == 2
    err = capsys.readouterr().err.strip()
    assert err.startswith("error: ") and "\n" not in err and len(err) < 1000, err
    for needle in needles:
        assert needle in err, err


def one_line(error, *needles):
    text = str(error.value)
    assert "\n" not in text and len(text) < 1000, text
    for needle in needles:
        assert needle in text, text


# ---------------------------------------------------------------- the commands


@pytest.mark.parametrize(
    ("flags", "needle"),
    [
        (["--port", "99999"], "--port must"),
        (["--port", "-1"], "--port must"),
        (["--port", "1e3"], "--port takes a whole number"),
        (["--port"], "--port"),
        (["--port", "USED"], "cannot be used"),
        (["--host", "999.1.1.1"], "cannot listen on the host '999.1.1.1'"),
        (["--host", "no.such.invalid"], "cannot listen on the host"),
        (["--host", ""], "the host is empty"),
        (["--host", "8.8.8.8"], "cannot listen on the host"),
        (["--host", "127.0.0.1:7860"], "cannot listen on the host"),
        (["--host", "x" * 3000], "cannot listen on the host"),
        (["--host", "a\0b"], "has the character"),
        (["--run", "FILE"], "is no run's folder"),
        (["--run", "EMPTY"], "config.json"),
        (["--run", "nowhere"], "is no run's folder"),
        (["--run", "y" * 400], "cannot use"),
        (["--qa", "EMPTY"], "config.json"),
        (["--qa", "FILE"], "config.json"),
        (["--nonsense"], "unknown flag --nonsense"),
        (["word"], "one word too many"),
    ],
)
def test_the_app_refuses_a_flag_with_one_line(flags, needle, run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(app, "serve", lambda *_: pytest.fail("it serves"))
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        places = {
            "USED": s.getsockname()[1],
            "FILE": tmp_path / "file",
            "EMPTY": tmp_path / "empty",
        }
        flags = [places.get(flag, flag) for flag in flags]
        flags += [] if "--run" in flags else ["--run", run]
        refused(app.main, flags, capsys, needle)


def test_the_app_without_gradio_says_what_to_install(monkeypatch, run, capsys):
    monkeypatch.setattr(app, "gr", None)
    refused(app.main, ["--run", run], capsys, "pip install 'realm_nb[app]'")


LAST = "checkpoints/pretrain/step_12"
WORDS = "embedder.bert.embeddings.word_embeddings.weight"
HUGE = 10**9
GARBAGE = b"\x00\xff\xfe garbage \x80"


def in_towers(change):
    return lambda run: put_json(run / LAST / "towers.json", change)


def in_weights(change):
    return lambda run: put_tensors(run / LAST / "towers.safetensors", change)


def as_file(name, content):
    return lambda run: put(run / name, content)


def rename(tensors):
    tensors["other"] = tensors.pop(WORDS)


def some_nan(tensors):
    tensors[WORDS][3, 4] = float("nan")


def in_manifest(run):
    for path in run.glob("index/v*/embeddings.npy"):
        np.save(f := path.with_suffix(".tmp.npy"), np.load(path)[:-3])
        path.unlink()
        f.rename(path)


DAMAGED_RUNS = {
    "config {}": (as_file("config.json", "{}"), "config.json"),
    "config []": (as_file("config.json", "[]"), "config.json"),
    "config null": (as_file("config.json", "null"), "config.json"),
    "config binary": (as_file("config.json", GARBAGE), "config.json"),
    "config cut off": (as_file("config.json", '{"recipe": "smo'), "config.json"),
    "config deep": (as_file("config.json", "[" * 100_000), ""),
    "towers.json garbage": (as_file(f"{LAST}/towers.json", GARBAGE), "towers.json"),
    "towers.json []": (as_file(f"{LAST}/towers.json", "[]"), "towers.json"),
    "towers.json {}": (as_file(f"{LAST}/towers.json", "{}"), "towers.json"),
    "towers.json gone": (as_file(f"{LAST}/towers.json", None), "towers.json"),
    "a billion layers": (
        in_towers(lambda m: m["encoder"].update(num_hidden_layers=HUGE)),
        "num_hidden_layers is 1000000000",
    ),
    "layers in words": (
        in_towers(lambda m: m["encoder"].update(num_hidden_layers="many")),
        "num_hidden_layers",
    ),
    "a huge vocabulary": (
        in_towers(lambda m: m["embedder"].update(vocab_size=10**12)),
        "shape",
    ),
    "a huge width": (in_towers(lambda m: m["encoder"].update(intermediate_size=HUGE)), "shape"),
    "no heads": (in_towers(lambda m: m["encoder"].update(num_attention_heads=0)), "towers.json"),
    "a huge dim": (in_towers(lambda m: m["model"].update(dim=HUGE)), "shape"),
    "dim in words": (in_towers(lambda m: m["model"].update(dim="wide")), "dim"),
    "pooling unknown": (in_towers(lambda m: m["model"].update(pooling="max")), "pooling"),
    "a setting too many": (in_towers(lambda m: m["model"].update(colour=1)), "colour"),
    "weights garbage": (as_file(f"{LAST}/towers.safetensors", GARBAGE * 99), "towers.safetensors"),
    "weights empty": (as_file(f"{LAST}/towers.safetensors", ""), "towers.safetensors"),
    "weights gone": (as_file(f"{LAST}/towers.safetensors", None), "towers.safetensors"),
    "weights not finite": (in_weights(some_nan), f"tensor {WORDS} holds NaN"),
    "weights of another shape": (
        in_weights(lambda t: t.update({WORDS: t[WORDS][:-1].clone()})),
        f"{WORDS} has shape",
    ),
    "weights of another name": (in_weights(rename), "tensor"),
    "weights of whole numbers": (
        in_weights(lambda t: t.update({WORDS: t[WORDS].long()})),
        "kind int64, not floating",
    ),
    "index garbage": (
        lambda run: [put(p, GARBAGE) for p in run.glob("index/v*/embeddings.npy")],
        "index version",
    ),
    "index manifest []": (
        lambda run: [put(p, "[]") for p in run.glob("index/v*/manifest.json")],
        "index version",
    ),
    "index shorter": (in_manifest, "index version"),
}


@pytest.mark.parametrize("name", DAMAGED_RUNS)
def test_the_app_refuses_a_damaged_run_with_one_line(name, copy, capsys, monkeypatch):
    damage, needle = DAMAGED_RUNS[name]
    damage(copy)
    monkeypatch.setattr(app, "serve", lambda *_: pytest.fail("it serves a damaged run"))
    refused(app.main, ["--run", copy], capsys, needle)


def npz(path, **arrays):
    path.unlink(missing_ok=True)
    np.savez(path, **arrays)


DECORATION = {
    "heldout garbage": (as_file("heldout.npz", GARBAGE), "heldout.npz"),
    "heldout empty": (as_file("heldout.npz", ""), "heldout.npz"),
    "heldout of other arrays": (lambda run: npz(run / "heldout.npz", a=np.ones(3)), "heldout.npz"),
    "heldout of other shapes": (
        lambda run: npz(
            run / "heldout.npz",
            **{f"after/{n}": np.ones((2, 2)) for n in ("exact", "exact_null", "ll", "hit@1")},
        ),
        "heldout.npz",
    ),
    "a pickle in heldout": (
        lambda run: npz(run / "heldout.npz", **{"after/ll": np.array([{}], object)}),
        "heldout.npz",
    ),
    "reader.json garbage": (as_file("checkpoints/reader/step_4/reader.json", "{}"), "reader.json"),
    "finetune.json garbage": (as_file("stages/finetune.json", GARBAGE), "finetune.json"),
    "finetune.json []": (as_file("stages/finetune.json", "[]"), "finetune"),
}


@pytest.mark.parametrize("name", DECORATION)
def test_the_app_starts_without_what_decorates_it_and_says_so(name, copy, capsys, monkeypatch):
    damage, needle = DECORATION[name]
    damage(copy)
    pages = []

    def serve(site, options):
        pages.append(app.render("header.html", site=site))
        raise UserError("it would serve now")

    monkeypatch.setattr(app, "serve", serve)
    refused(app.main, ["--run", copy], capsys, "it would serve now")
    assert needle in pages[0] and "Not shown:" in pages[0]


@pytest.mark.parametrize(
    "content",
    [GARBAGE, "[1]\n", "7\n", '{"stage": 1}\n', '{"stage": "ict", "step": "x", "loss": 1}\n'],
    ids=str,
)
def test_curves_that_cannot_be_read_are_a_note_in_their_tab(content, tmp_path):
    put(tmp_path / "metrics.jsonl", content)
    with pytest.raises(UserError) as e:
        curves(tmp_path)
    one_line(e, "metrics.jsonl")
    drawn = app._drawn_curves(SimpleNamespace(folder=tmp_path))
    assert 'role="alert"' in drawn and "metrics.jsonl" in drawn


def test_curves_leave_out_what_is_not_finite(tmp_path):
    lines = ('{"stage":"ict","step":1,"loss":NaN}', '{"stage":"ict","step":2,"loss":0.5}')
    put(tmp_path / "metrics.jsonl", "\n".join(lines))
    assert curves(tmp_path) == {"ict": {"loss": [[2], [0.5]]}}
    assert "nan" not in app._drawn_curves(SimpleNamespace(folder=tmp_path))


def test_moments_that_are_damaged_are_noted_and_the_others_answer(copy):
    put(copy / "checkpoints/ict/step_12/towers.safetensors", GARBAGE)
    site = app.Site(copy)
    site.prepare()
    assert len(site.notes) == 1 and "ict/step_12" in site.notes[0]
    found = compare(site.x, SENTENCE, HIDDEN, only_ready=True)
    assert "ict-12" not in [m["name"] for m in found["moments"]] and len(found["moments"]) > 3


def in_reader(change):
    return lambda run: put_json(run / "checkpoints/reader/step_4/reader.json", change)


def in_reader_weights(change):
    return lambda run: put_tensors(run / "checkpoints/reader/step_4/reader.safetensors", change)


def beyond(tensors):
    tensors["vocabulary_map"][5] = 10**6


DAMAGED_READERS = {
    "json garbage": (as_file("checkpoints/reader/step_4/reader.json", GARBAGE), "reader.json"),
    "json []": (as_file("checkpoints/reader/step_4/reader.json", "[]"), "reader.json"),
    "a huge vocabulary": (in_reader(lambda m: m.update(vocabulary=10**12)), "shape"),
    "vocabulary in words": (in_reader(lambda m: m.update(vocabulary="all")), "reader.json"),
    "a billion layers": (
        in_reader(lambda m: m["body"].update(num_hidden_layers=HUGE)),
        "num_hidden_layers",
    ),
    "a huge span": (in_reader(lambda m: m["config"].update(max_span=2**31 - 1)), "shape"),
    "no blocks": (in_reader(lambda m: m["config"].update(reader_blocks=0)), "reader_blocks"),
    "an unknown body": (in_reader(lambda m: m["body"].update(model_type="x")), "reader.json"),
    "weights garbage": (
        as_file("checkpoints/reader/step_4/reader.safetensors", GARBAGE * 9),
        "reader.safetensors",
    ),
    "weights not finite": (
        in_reader_weights(lambda t: t["head.match"].fill_(float("inf"))),
        "head.match",
    ),
    "a map past the vocabulary": (in_reader_weights(beyond), "vocabulary_map"),
    "no checkpoint": (lambda run: shutil.rmtree(run / "checkpoints/reader"), "no reader"),
    "no weight": (as_file("stages/finetune.json", '{"weight": {}}'), "finetune"),
    "a weight in words": (as_file("stages/finetune.json", '{"weight": {"bm25": "x"}}'), "finetune"),
    "no stage": (as_file("stages/finetune.json", None), "no reader"),
}


@pytest.mark.parametrize("name", DAMAGED_READERS)
def test_a_damaged_reader_is_one_line(name, copy, capsys):
    damage, needle = DAMAGED_READERS[name]
    damage(copy)
    refused(ask.main, ["Who?", "--run", copy], capsys, needle)


@pytest.mark.parametrize(
    ("argv", "needle"),
    [
        ([""], "the question is empty"),
        (["   "], "the question is empty"),
        ([], "question"),
        (["w " * 50_000], "characters"),
        (["a\0b"], "has the character"),
        (["a\x1b[31mb"], "has the character"),
        (["\ud800"], "has the character"),
        (["who", "was", "it"], "one word too many"),
        (["Who?", "--top", "0"], "--top must"),
        (["Who?", "--top", "-1"], "--top must"),
        (["Who?", "--top", "x"], "--top takes a whole number"),
        (["Who?", "--top", "1" * 5000], ""),
        (["Who?", "--retriever", "tfidf"], "--retriever"),
        (["Who?", "--corpus", "no-such-corpus"], "no-such-corpus"),
        (["Who?", "--corpus", "+++"], ""),
        (["Who?", "--corpus", "/dev/null"], "/dev/null"),
        (["Who?", "--run", "/dev/null"], "config.json"),
        (["Who?", "--run", "nowhere"], "config.json"),
    ],
)
def test_ask_refuses_with_one_line(argv, needle, run, capsys):
    refused(ask.main, argv if "--run" in argv else [*argv, "--run", run], capsys, needle)


@pytest.mark.parametrize("question", ["?!…", "🦆", "\u0301", "zzzz qqqq xxxx", "who " * 1000])
def test_ask_answers_any_question_or_says_that_nothing_is_found(question, run, capsys):
    status = ask.main([question, "--run", str(run), "--top", "1000000000"])
    out, err = capsys.readouterr()
    assert (status == 0 and out.strip()) or (status == 2 and err.startswith("error: "))


TABLE = ["--corpus", "mini", "--train", "mini", "--start", "base"]


@pytest.mark.parametrize(
    ("flags", "needle"),
    [
        (["--rows", "bm26"], "unknown row 'bm26'"),
        (["--rows", ""], "unknown row"),
        (["--rows", "bm25,,"], "unknown row"),
        (["--tests", "no-test"], "no-test"),
        (["--tests", ""], "tests"),
        (["--tests", "mini,mini"], "twice"),
        (["--tests", "DAMAGED"], "damaged.jsonl"),
        (["--train", "no-set"], "no-set"),
        (["--train", ""], "questions"),
        (["--first", "-5"], "--first must"),
        (["--first", str(10**12)], "--first must"),
        (["--block_limit", "7"], "--block_limit must"),
        (["--block_limit", str(10**6)], "--block_limit must"),
        (["--read", "none"], "--read"),
        (["--precision", "fp8"], "--precision"),
        (["--towers", "EMPTY"], "is no run folder"),
        (["--towers", "nowhere"], "is no run folder"),
        (["--towers", "RUN", "--base", "OTHER"], "vocabulary"),
        (["--start", "encoder"], "--towers"),
        (["--start", "no-weights"], "no-weights"),
        (["--base", "no-base"], "no-base"),
        (["--base", "EMPTY"], "EMPTY"),
        (["--corpus", "no-corpus"], "no-corpus"),
        (["--corpus", ""], "unknown corpus"),
        (["--validation", "-1"], "validation must"),
        (["--qa.steps", "0"], "--qa.steps must"),
        (["--qa.lr", "nan"], "--qa.lr"),
        (["--seed", "-1"], "--seed"),
        (["--run", "SOMEBODY"], "somebody"),
        (["--run", "FILE"], "file"),
        (["--run", ""], "--run"),
        (["--nonsense", "1"], "unknown flag"),
    ],
)
def test_table1_refuses_with_one_line(flags, needle, run, x, base, tmp_path, capsys):
    somebody = tmp_path / "somebody"
    somebody.mkdir()
    (somebody / "letter.txt").write_text("dear")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged.jsonl").write_text('{"question": "Who?", "answers": 5}\n')
    places = {
        "SOMEBODY": somebody,
        "EMPTY": tmp_path / "empty",
        "FILE": tmp_path / "file",
        "DAMAGED": tmp_path / "damaged.jsonl",
        "RUN": run,
        "OTHER": base,
    }
    needle = needle.replace("EMPTY", str(tmp_path / "empty"))
    flags = [str(places.get(flag, flag)) for flag in flags]
    mine = [] if "--run" in flags else ["--run", str(tmp_path / "table")]
    given = dict(zip(TABLE[::2], TABLE[1::2])) | {"--tests": "mini"}
    given |= {"--base": str(x.workspace.base), "--rows": "bm25,base"}
    given |= dict(zip(flags[::2], flags[1::2]))
    refused(
        table1.main, [*(word for pair in given.items() for word in pair), *mine], capsys, needle
    )
    assert [p.name for p in somebody.iterdir()] == ["letter.txt"]
    assert (tmp_path / "file").read_text() == "x"


# ---------------------------------------------------------------- Python

DOCUMENT = Document("Story", "A story of four words or more is told here.")
BAD_TEXTS = (None, 5, 1.5, [], {}, b"bytes", True)


@pytest.mark.parametrize(
    "bad",
    [
        {"k": None},
        {"k": "4"},
        {"k": 0},
        {"k": -1},
        {"k": 21},
        {"k": 10**30},
        {"k": 2.5},
        {"k": True},
        {"k": []},
        {"temperature": float("nan")},
        {"temperature": float("inf")},
        {"temperature": 0},
        {"temperature": -1.0},
        {"temperature": "1"},
        {"temperature": 10**400},
        {"temperature": True},
        {"temperature": 1j},
        {"null": None},
        {"null": "yes"},
        {"exclude": 1},
        {"marginal": "word"},
        {"marginal": None},
        {"marginal": ["token"]},
        {"marginal": "x" * 10**6},
    ],
    ids=lambda bad: f"{bad!r:.40}",
)
def test_settings_refuse_what_is_out_of_range_or_of_another_kind(bad):
    with pytest.raises(UserError) as e:
        Settings(**bad)
    one_line(e, next(iter(bad)))


@pytest.mark.parametrize("bad", BAD_TEXTS, ids=repr)
def test_what_is_no_text_is_refused_by_name(bad, x):
    for work, what in (
        (lambda: fill(x, bad, HIDDEN), "sentence"),
        (lambda: fill(x, SENTENCE, bad), "hidden"),
        (lambda: fill(x, SENTENCE, HIDDEN, moment=bad), "moment"),
        (lambda: look_up(x, bad), "sentence"),
        (lambda: compare(x, bad), "sentence"),
        (lambda: compare(x, SENTENCE, bad), "hidden"),
        (lambda: corpus_map(x, bad), "moment"),
        (lambda: x.realm(bad), "moment"),
        (lambda: x.index(bad), "moment"),
        (lambda: EditedCorpus(x.store, x.tokenizer, [Document("T", bad)]), "text"),
        (lambda: EditedCorpus(x.store, x.tokenizer, [Document(bad, DOCUMENT.text)]), "title"),
    ):
        with pytest.raises(UserError) as e:
            work()
        one_line(e, what)


@pytest.mark.parametrize(
    ("text", "hidden", "needle"),
    [
        ("", "", "no blank"),
        ("no blank", "x", "no blank"),
        ("[MASK] and [MASK] x [MASK]", "two", "one blank"),
        ("[MASK]" * 100, "", "word pieces"),
        ("x" * 601, "", "600 is the most"),
        ("z " * 10**6 + "[MASK]", "", "600 is the most"),
        ("\ud800 [MASK]", "", "no character"),
        (SENTENCE, "y" * 81, "80 is the most"),
        (SENTENCE, "\u0301", "no letter"),
        (SENTENCE, "\0", "no letter"),
        (SENTENCE, "\udfff", "no character"),
        ("a " * 250 + "[MASK]", "", "shorten the sentence"),
    ],
    ids=lambda value: f"{value!r:.20}",
)
def test_sentences_that_cannot_be_filled_say_why(text, hidden, needle, x):
    with pytest.raises(UserError) as e:
        fill(x, text, hidden)
    one_line(e, needle)


@pytest.mark.parametrize(
    "text", ["\0[MASK]\x1b[0m", "? [MASK] !", "[MASK]", "🦆漢 [MASK]", "<b onload=hack()> [MASK]"]
)
def test_odd_sentences_are_filled(text, x):
    assert 0 < fill(x, text)["answers"][0]["p"] <= 1


@pytest.mark.parametrize(
    ("added", "removed", "needle"),
    [
        (None, (), "added"),
        ("text", (), "added"),
        ([{"title": "T", "text": "x"}], (), "added"),
        ([5], (), "added"),
        ([DOCUMENT] * 21, (), "20 is the most"),
        ([Document("T", "short")], (), "four words"),
        ([Document("T", "w " * 3000)], (), "4,000 is the most"),
        ([Document("t" * 121, DOCUMENT.text)], (), "120 is the most"),
        ((), None, "removed"),
        ((), "abc", "removed"),
        ((), 5, "removed"),
        ((), ["0"], "no block '0'"),
        ((), [-1], "no block -1"),
        ((), [10**9], "no block 1000000000"),
        ((), [1.5], "no block 1.5"),
        ((), [True], "no block True"),
        ((), [None], "no block None"),
        ((), [[0]], "no block [0]"),
    ],
    ids=lambda value: f"{value!r:.30}",
)
def test_a_world_refuses_what_is_no_document_and_no_block(added, removed, needle, x):
    with pytest.raises(UserError) as e:
        EditedCorpus(x.store, x.tokenizer, added, removed)
    one_line(e, needle)


def test_a_world_without_any_document_says_so(x):
    world = EditedCorpus(x.store, x.tokenizer, [], range(len(x.store)))
    with pytest.raises(UserError, match="no document is left"):
        fill(x, SENTENCE, HIDDEN, world=world)


@pytest.mark.parametrize("most", [-1, 0, 1, 10**9, "all", None, True, 2.5])
def test_a_map_of_no_size_is_refused(most, x):
    with pytest.raises(UserError, match="most is"):
        corpus_map(x, most=most)


def test_a_map_of_rings_that_are_not_there_is_drawn_without_them(x):
    assert corpus_map(x, most=5, also=(-1, 10**9))["blocks"] == corpus_map(x, most=5)["blocks"]


@pytest.mark.parametrize("bad", ["nowhere", "/dev/null", "", None, 5, [], b"x"], ids=repr)
@pytest.mark.parametrize("opens", [load, Answerer, Towers.load, Reader.load])
def test_what_is_no_folder_of_ours_is_one_line(opens, bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as e:
        opens(bad)
    one_line(e)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("bad", [5, ["run"], b"run", "nowhere", "/dev/null"], ids=repr)
def test_an_explorer_of_no_run_is_one_line(bad):
    with pytest.raises(UserError) as e:
        Explorer(bad)
    one_line(e)


@pytest.mark.parametrize("bad", [None, 5, "", b"x", "w" * 5000], ids=lambda b: f"{b!r:.20}")
def test_an_answerer_refuses_what_is_no_question(bad, answerer):
    with pytest.raises(UserError) as e:
        answerer(bad)
    one_line(e, "question")


@pytest.mark.parametrize("k", [-1, 1.5, "4", True, 10**9, None], ids=repr)
def test_an_answerer_refuses_a_number_of_blocks_that_is_none(k, answerer):
    with pytest.raises(UserError) as e:
        answerer.facts("Who was born in London?", k)
    one_line(e, "k")


def test_a_retriever_that_is_not_known_is_refused(run):
    with pytest.raises(UserError, match="retriever"):
        Answerer(run, retriever="tfidf")


def test_measuring_nothing_says_so(x):
    realm, masker = x.realm(), x.workspace.masker
    with pytest.raises(UserError, match="no examples"):
        measure(realm, masker, [], x.index())
    with pytest.raises(UserError, match="no examples"):
        predict(realm, [], np.zeros((0, 2), np.int64), torch.zeros(0, 2))
    for k in (0, 1, -3, True, 2.5):
        with pytest.raises(UserError, match="k is"):
            measure(realm, masker, x.workspace.held_out_examples(2), x.index(), k=k)


# ---------------------------------------------------------------- weights to start from


def config_with(**changes):
    return lambda base: put_json(base / "config.json", lambda c: c.update(changes))


def not_finite(base):
    put_tensors(
        base / "model.safetensors",
        lambda t: t["bert.embeddings.word_embeddings.weight"].fill_(float("nan")),
    )


DAMAGED_BASES = {
    "gone": (shutil.rmtree, "no such file"),
    "no config": (as_file("config.json", None), "cannot load"),
    "config garbage": (as_file("config.json", GARBAGE), "cannot load"),
    "config []": (as_file("config.json", "[]"), "cannot load"),
    "weights cut off": (as_file("model.safetensors", b"\x10" * 300), "cannot load"),
    "weights gone": (as_file("model.safetensors", None), "model.safetensors"),
    "a pickle alone": (
        lambda b: (b / "model.safetensors").rename(b / "pytorch_model.bin"),
        "model.safetensors",
    ),
    "another kind": (config_with(model_type="roberta"), "roberta"),
    "an unknown kind": (config_with(model_type="nonsense"), "nonsense"),
    "another vocabulary": (config_with(vocab_size=7), "other shapes"),
    "a huge vocabulary": (config_with(vocab_size=10**12), "other shapes"),
    "a billion layers": (config_with(num_hidden_layers=HUGE), "1000000000 layers"),
    "a layer too many": (config_with(num_hidden_layers=3), "no tensor"),
    "layers in words": (config_with(num_hidden_layers="two"), "num_hidden_layers"),
    "not finite": (not_finite, "NaN"),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    from transformers import BertConfig, BertForMaskedLM

    folder = tmp_path_factory.mktemp("base")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    tiny_tokenizer(["quixotic zephyrs vex the bold"]).save_pretrained(folder)
    BertForMaskedLM(BertConfig(vocab_size=100, intermediate_size=64, **sizes)).save_pretrained(
        folder
    )
    return folder


@pytest.mark.parametrize("name", DAMAGED_BASES)
def test_weights_to_start_from_that_are_damaged_are_one_line(name, base, x, tmp_path):
    damage, needle = DAMAGED_BASES[name]
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    damage(folder)
    with pytest.raises(UserError) as e:
        load_bert(folder)
    one_line(e, needle)
    if name != "another kind":  # a reader's body may be of another kind
        with pytest.raises(UserError) as e:
            load_body(folder, x.tokenizer)
        one_line(e)


def test_tensors_are_compared_with_what_is_expected_before_they_are_read(tmp_path):
    path = tmp_path / "a.safetensors"
    save_file({"a": torch.ones(2), "b": torch.ones(2, dtype=torch.float16)}, path)
    like = {"a": torch.zeros(2), "b": torch.zeros(2)}
    assert load_tensors(path, like)["b"].dtype == torch.float16, "fewer bits are still numbers"
    with torch.device("meta"):
        huge = torch.zeros(10**13)
    for other, needle in (
        ({"a": like["a"]}, "should not hold the tensor b"),
        (like | {"c": like["a"]}, "lacks the tensor c"),
        (like | {"a": huge}, "a has shape [2], not [10000000000000]"),
        (like | {"a": torch.zeros(2, dtype=torch.bool)}, "kind floating, not bool"),
    ):
        with pytest.raises(UserError) as e:
            load_tensors(path, other)
        one_line(e, "a.safetensors", needle)


# ---------------------------------------------------------------- endpoints and the page


@pytest.fixture(scope="module")
def address(site):
    page, address = site.page, _ = app.serve(site, app._AppOptions())
    yield address
    page.close()


@pytest.fixture(scope="module")
def client(address):
    from gradio_client import Client

    return Client(address, verbose=False)


MEGABYTE = "m" * 2**20
STORY = {"title": DOCUMENT.title, "text": DOCUMENT.text}
FILLS = [
    *({"text": bad} for bad in (None, 5, [], {"a": 1}, True, MEGABYTE, "", NASTY)),
    *({"hidden": bad} for bad in (None, 5, ["x"], MEGABYTE, "\0")),
    *({"k": bad} for bad in (None, "4", [4], -1, 0, 21, 10**30, 1.5, True)),
    *({"temperature": bad} for bad in (None, "hot", [], -1, 0, 10**300, {})),
    *({"null": bad} for bad in (None, "yes", 2, [])),
    *({"exclude": bad} for bad in (None, "no")),
    *({"marginal": bad} for bad in (None, "word", ["token"], 3, MEGABYTE)),
    *({"moment": bad} for bad in ("later", 5, ["base"], MEGABYTE)),
    {"added": [{"1": 2}]},
    {"added": [5]},
    {"added": [None]},
    {"added": "text"},
    {"added": 5},
    {"added": {"title": "T"}},
    {"added": [[STORY]]},
    {"added": [{"title": 1, "text": 2}]},
    {"added": [{"title": "T", "text": "short"}]},
    {"added": [STORY] * 3000},
    {"added": [{"title": "T", "text": MEGABYTE}]},
    *({"removed": bad} for bad in ([-1], [10**9], ["x"], "abc", 5, [None], [1.5], [[1]], {"a": 1})),
]


@pytest.mark.parametrize("bad", FILLS, ids=lambda bad: f"{bad!r:.40}")
def test_fill_over_the_wire_refuses_with_one_line(bad, client, capfd):
    given = {"text": SENTENCE, "hidden": HIDDEN} | bad
    with pytest.raises(Exception) as e:
        client.predict(**given, api_name="/fill")
    one_line(e)
    assert type(e.value).__name__ == "AppError" and "show_error" not in str(e.value), e.value
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("/look_up", {"text": None}),
        ("/look_up", {"text": ""}),
        ("/look_up", {"text": MEGABYTE}),
        ("/look_up", {"text": "a", "k": "x"}),
        ("/look_up", {"text": "a", "moment": ["base"]}),
        ("/ask", {"question": None}),
        ("/ask", {"question": " "}),
        ("/ask", {"question": ["Who?"]}),
        ("/ask", {"question": MEGABYTE}),
        ("/ask", {"question": "Who?", "k": -5}),
        ("/ask", {"question": "Who?", "k": None}),
        ("/compare", {"text": 5}),
        ("/compare", {"text": SENTENCE, "hidden": {}}),
        ("/compare", {"text": SENTENCE, "k": 1e9}),
        ("/compare", {"text": "no blank"}),
        ("/corpus_map", {"moment": "later"}),
        ("/corpus_map", {"moment": 7}),
        ("/corpus_map", {"moment": {}}),
    ],
    ids=lambda value: f"{value!r:.40}",
)
def test_the_other_endpoints_refuse_with_one_line(name, bad, client, capfd):
    with pytest.raises(Exception) as e:
        client.predict(**bad, api_name=name)
    one_line(e)
    assert type(e.value).__name__ == "AppError" and "show_error" not in str(e.value), e.value
    assert "Traceback" not in capfd.readouterr().err


def test_whatever_is_shown_stays_text(site, tmp_path):
    "Documents, titles, hidden words, moments, notes and curves with HTML in them: shown as text."
    story = f"The town of Paris is where {NASTY} was born, they say."
    shown = {"block": 5, "title": NASTY, "text": story, "says": NASTY, "ru": 0.1}
    figures = {"p_z": 0.5, "p_y_z": 0.5, "share": 0.5, "r": 0.1, "hit": True}
    map_ = corpus_map(site.x, most=4)
    map_["titles"][0] = NASTY
    put(tmp_path / "metrics.jsonl", json.dumps({"stage": NASTY, "step": 1, "loss": 1}))
    noted = SimpleNamespace(
        site=site, notes=[NASTY], x=site.x, reads=site.reads, folder=Path(NASTY), store=site.store
    )
    answer = {"question": NASTY, "answer": NASTY, "probability": 0.5, "evidence": [shown | figures]}
    answer["alternatives"] = [{"answer": NASTY, "probability": 0.5}]
    pages = {
        "error": app._error_box(UserError(NASTY)),
        "map": app.map_svg(map_, [shown]),
        "curves": app._drawn_curves(SimpleNamespace(folder=tmp_path)),
        "header": app.render("header.html", site=noted),
        "asked": app.render("asked.html", r=answer, site=site),
        "page": app.render("page.html", site=noted, setup=json.dumps({"first": [[NASTY, ""]]})),
    }
    for name, page in pages.items():
        assert "&lt;script&gt;" in page, f"{name} shows it"
        for bad in ("<script", "<img", "onerror=hack()>", 'href="javascript', "49"):
            if bad != "49" or name == "error":
                assert bad not in page, (name, bad)


def test_sixteen_visitors_at_once_get_what_they_ask(address, site):
    from concurrent.futures import ThreadPoolExecutor

    from gradio_client import Client

    pairs = (suggestions(site.x, 4) * 4)[:16]

    def visit(i):
        try:
            return Client(address, verbose=False).predict(*pairs[i], api_name="/fill")["sentence"]
        except Exception as e:
            return e

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(visit, range(16))) == [text for text, _ in pairs]


def test_the_states_of_visitors_are_bounded(address, site):
    import httpx

    with httpx.Client(base_url=address) as http:
        config = http.get("/config").json()
        moments = next(d for d in config["dependencies"] if d["api_name"] == "moments")
        for i in range(app.VISITORS + 20):
            body = {"data": [], "fn_index": moments["id"], "session_hash": f"session-{i}"}
            assert http.post("/gradio_api/run/moments", json=body).status_code == 200
    assert len(site.page.state_holder.session_data) <= app.VISITORS + 1
