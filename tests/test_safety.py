"""What a run promises: nothing lost, nothing silently wrong.

Bad values are made from the settings themselves, so that a new setting or command is tested too."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from math import nan
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import realm_nb.core.files as files
import realm_nb.core.loop as loop
from realm_nb.core.config import describe, load_by_name
from realm_nb.core.errors import UserError
from realm_nb.core.files import SEAL, atomic_folder, check_seal, seal
from realm_nb.core.folder import Run
from realm_nb.core.loop import Training, fit, step_folders

# Each command: the words before its flags, its settings, and the words it cannot do without.
COMMANDS = {
    "train": (["train"], "workspace:Config", []),
    "train's own": (["train"], "train:TrainOptions", []),
    "evaluate": (["evaluate"], "train:EvaluateOptions", []),
    "build": (["build"], "builder.builder:Options", []),
    "ask": (["ask"], "qa.ask:AskConfig", ["who?"]),
    "table1": (["table1"], "qa.table1:Table1Config", []),
    "fetch": (["fetch"], "text.sources:FetchOptions", ["list"]),
    "report": (["tag", "report"], "spans:ReportOptions", []),
    "agreement": (["tag", "agreement"], "text.tagger_training:AgreementOptions", []),
    "conll": (["tag", "conll"], "text.tagger_training:ConllOptions", ["out"]),
    "tagger": (["tag", "train"], "text.tagger_training:TaggerConfig", ["in", "--out", "out"]),
    "app": (["app"], "show.app:_AppOptions", []),
    "convert": (["convert"], "hub.released:ConvertConfig", ["from", "to"]),
}
NUMBERS = ("nan", "inf", "-inf", "-5", "1e300", str(2**64), "9" * 400, "x", "", "0x10", "1,5", "½")
WORDS = ("a\0b", "\ud800", "x" * 5000, "two\nlines", "\x1b[31m")
BOOLEANS = ("2", "perhaps", "nan", "")


def numeric(kind):
    return kind in (int, float)


CASES = [
    (command, name, s.kind)
    for command, (_, path, _) in COMMANDS.items()
    for name, s in describe(load_by_name(path)()).items()
    if not s.field.metadata.get("positional")
]


@pytest.fixture
def realm(smoke_environment, monkeypatch, capsys, tmp_path):
    "`realm WORDS…` in this process, in an empty folder: (status, the lines of stderr)."
    from realm_nb.__main__ import main

    monkeypatch.chdir(tmp_path)
    for name in ("REALM_NB_HOME", "REALM_NB_QUIET"):
        monkeypatch.setenv(name, smoke_environment[name])

    def call(*words):
        capsys.readouterr()
        return main([str(w) for w in words]), capsys.readouterr().err.strip().splitlines()

    return call


def refused(answer, *needles):
    status, lines = answer
    assert status == 2 and lines and lines[-1].startswith("error: "), answer
    assert len(lines[-1]) < 1000 and not [line for line in lines if "Traceback" in line], answer
    for needle in needles:
        assert str(needle) in lines[-1], lines[-1]


@pytest.mark.parametrize(("command", "name", "kind"), CASES, ids=[f"{c}-{n}" for c, n, _ in CASES])
def test_no_setting_takes_nonsense(realm, tmp_path, command, name, kind):
    head, _, more = COMMANDS[command]
    bad = NUMBERS if numeric(kind) else BOOLEANS if kind is bool else WORDS
    for value in bad:
        refused(realm(*head, *more, f"--{name}={value}"))
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_every_number_has_bounds():
    for command, name, kind in CASES:
        s = describe(load_by_name(COMMANDS[command][1])())[name]
        if numeric(kind):
            meta = s.field.metadata
            assert meta["low"] <= getattr(s.holder, s.field.name) <= meta["high"], (command, name)


@pytest.mark.parametrize(
    "flags",
    [
        ["--pretrain.candidates", "4096", "--pretrain.batch", "100000"],
        ["--pretrain.batch", "1000000"],
        ["--ict.batch", "1000000", "--stages", "corpus,mask,ict"],
        ["--device", "cuda"],
        ["--device", "mps"],
        ["--device", "meta"],
        ["--device", "cpu:7"],
        ["--device", "cuda:99"],
        ["--precision", "fp8"],
        ["--stages", ","],
        ["--resume-with", "corpus.source"],
        ["--resume-with", "pretrain.lr"],
        ["--run", "x" * 300],
        ["--run", "/dev/null"],
        ["--run", "/proc/realm"],
        ["--corpus", "y" * 300 + ".jsonl"],
        ["--base", "z" * 300],
        ["--mask.tagger", "w" * 300],
        ["--model.embedder_layers", "99"],
        ["--model.frozen_layers", "99"],
        ["--pretrain.index", "IVF-1"],
        ["--pretrain.index", "Flat" * 1000],
        ["--pretrain.builder_cores", "5-2"],
        ["--pretrain.builder_cores", "0-99999999999"],
        ["--pretrain.builder", "abacus"],
    ],
    ids=lambda flags: " ".join(flags)[:60],
)
def test_what_cannot_work_is_one_line(realm, flags):
    if torch.accelerator.is_available() and "--device" in flags:
        pytest.skip("this machine has an accelerator")
    refused(realm("train", "--recipe", "smoke", *flags))


# The folder of a run


@pytest.fixture
def run(smoke_run, tmp_path):
    return Path(shutil.copytree(smoke_run, tmp_path / "run"))


def again(realm, run, *flags, stage="evaluate"):
    (run / "stages" / f"{stage}.json").unlink(missing_ok=True)
    return realm("train", "--recipe", "smoke", "--run", run, *flags)


def spoil(path: Path, how: str):
    "Damage a file of a run, or put something else in its place."
    if how == "a folder":
        path.unlink(missing_ok=True)
        path.mkdir()
    elif how == "a loop":
        path.unlink(missing_ok=True)
        path.symlink_to(path.name)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(
            {
                "empty": b"",
                "bits": bytes(range(256)) * 8,
                "a list": b"[]",
                "nothing in it": b"{}",
                "deep": b"[" * 100_000,
                "other kinds": b'{"recipe": 5, "stage": [], "step": {}}',
            }[how]
        )


# `{}` says nothing wrong, and where a link leads nowhere there is no file: the stage ends again.
HOWS = ("empty", "bits", "a list", "nothing in it", "deep", "other kinds", "a folder", "a loop")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["config.json", "inputs.json", "stages/pretrain.json"])
def test_a_spoilt_file_of_a_run_is_one_line_or_harmless(realm, run, name, how):
    spoil(run / name, how)
    status, lines = answer = again(realm, run, "--stages", "corpus,mask,warmup,ict,pretrain")
    if status:
        refused(answer)
    else:
        assert name != "config.json" and "done in" in lines[-1], lines


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ["metrics.jsonl", "log.txt", "trainer.lock", "heldout.npz"])
def test_a_spoilt_log_never_ends_in_a_traceback(realm, run, name, how):
    spoil(run / name, how)
    status, lines = answer = again(realm, run)
    if status:
        refused(answer)
    assert not any("Traceback" in line for line in lines)


def test_strange_folders_among_the_checkpoints_are_left_alone(realm, run):
    for name in ("step_foo", "step_", "step_-3", "step_9.5"):
        (run / "checkpoints/pretrain" / name).mkdir()
    assert again(realm, run)[0] == 0
    assert (run / "checkpoints/pretrain/step_foo").is_dir()


def test_a_folder_of_other_things_is_no_run(realm, tmp_path):
    (tmp_path / "thesis/checkpoints/pretrain/step_1").mkdir(parents=True)
    (tmp_path / "thesis/chapter").write_text("years of work")
    before = sorted(tmp_path.rglob("*"))
    refused(realm("train", "--recipe", "smoke", "--run", "thesis"), "thesis", "--run")
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_that_we_have_not_made_is_never_replaced(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/diary").write_text("years of work")
    for path in (tmp_path / "mine", tmp_path / "mine/diary"):
        with pytest.raises(UserError, match="mine"), atomic_folder(path) as tmp:
            (tmp / "new").touch()
    assert (tmp_path / "mine/diary").read_text() == "years of work"
    assert len(list(tmp_path.rglob("*"))) == 2


def test_two_threads_make_one_folder(tmp_path):
    def make(number):
        for _ in range(20):
            with atomic_folder(tmp_path / "made") as tmp:
                (tmp / "a").write_text(str(number))
                (tmp / "b").write_text(str(number))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(make, range(4)))
    check_seal(tmp_path / "made", "a", "b", whole=True)
    assert [p.name for p in tmp_path.iterdir()] == ["made"]


# What a run began with


CORPUS = [
    {"title": f"Town {i}", "text": " ".join(f"In 18{j}{i} the town of Ulm grew." for j in range(9))}
    for i in range(10)
]


def write_corpus(path: Path, documents):
    path.write_text("".join(json.dumps(d) + "\n" for d in documents))


@pytest.mark.parametrize("is_folder", [False, True], ids=["a file", "a folder"])
def test_a_corpus_that_has_changed_is_refused(realm, tmp_path, is_folder):
    if is_folder:
        (tmp_path / "docs").mkdir()
    corpus = tmp_path / "docs" / "a.jsonl" if is_folder else tmp_path / "docs.jsonl"
    write_corpus(corpus, CORPUS)
    flags = ["--recipe", "smoke", "--run", "r", "--corpus", "docs" if is_folder else "docs.jsonl"]
    begin = ["--corpus.max_block_len", "40", "--stages", "corpus,mask"]
    assert realm("train", *flags, *begin)[0] == 0
    first = json.loads((tmp_path / "r/stages/corpus.json").read_text())
    write_corpus(corpus, CORPUS[:-1])
    refused(realm("train", *flags, *begin), "corpus has changed", "--run")
    if is_folder:
        write_corpus(corpus, CORPUS)
        write_corpus(corpus.with_name("b.jsonl"), CORPUS[:1])
        refused(realm("train", *flags, *begin), "corpus has changed")
        corpus.with_name("b.jsonl").unlink()
    write_corpus(corpus, CORPUS)
    assert realm("train", *flags, *begin)[0] == 0, "the old text is welcome again"
    assert json.loads((tmp_path / "r/stages/corpus.json").read_text()) == first


def test_two_folders_of_one_name_are_two_corpora(realm, tmp_path, monkeypatch):
    counts = []
    for place, documents in (("here", CORPUS), ("there", CORPUS[:4])):
        (tmp_path / place / "docs").mkdir(parents=True)
        write_corpus(tmp_path / place / "docs" / "a.jsonl", documents)
        monkeypatch.chdir(tmp_path / place)
        flags = ["--recipe", "smoke", "--run", "r", "--corpus", "docs", "--stages", "corpus"]
        assert realm("train", *flags)[0] == 0
        counts.append(json.loads(Path("r/stages/corpus.json").read_text())["documents"])
    assert counts == [10, 4]


def test_other_base_weights_or_spans_are_refused(realm, run):
    held = json.loads((run / "inputs.json").read_text())
    assert {"corpus", "token store", "base weights", "spans", "precision", "device"} <= held.keys()
    for name in ("corpus", "token store", "base weights"):
        (run / "inputs.json").write_text(json.dumps({**held, name: "another"}))
        refused(again(realm, run), name, "has changed")


def test_what_auto_stood_for_is_kept(realm, run):
    held = json.loads((run / "inputs.json").read_text())
    (run / "inputs.json").write_text(json.dumps({**held, "precision": "bf16", "threads": 1}))
    assert again(realm, run)[0] == 0
    assert "bfloat16" in (run / "report.md").read_text()
    refused(again(realm, run, "--precision", "fp32"), "precision")
    (run / "inputs.json").write_text(json.dumps({**held, "device": "cuda"}))
    refused(again(realm, run), "device has changed")


# Checkpoints


def pretrain_again(realm, run, *flags):
    "Go on with pre-training, as after a kill in the middle of it."
    return again(realm, run, "--stages", "pretrain", *flags, stage="pretrain")


def weights(run):
    return load_file(run / "checkpoints/pretrain/step_12/towers.safetensors")


def test_two_checkpoints_can_be_gone_on_from(run):
    for stage in ("warmup", "ict", "pretrain"):
        folders = step_folders(run / "checkpoints" / stage)
        assert len([f for f in folders if (f / "optimizer.safetensors").exists()]) == 2
        for folder in folders:
            check_seal(folder, whole=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda f: (f / "optimizer.safetensors").write_bytes(b""),
        lambda f: (f / "meta.json").write_text("{}"),
        lambda f: (f / SEAL).unlink(),
        lambda f: (f / "towers.safetensors").unlink(),
        lambda f: shutil.rmtree(f),
    ],
    ids=["optimizer", "meta", "seal", "weights gone", "all gone"],
)
def test_training_goes_on_from_the_checkpoint_before_a_damaged_one(realm, run, damage):
    end = weights(run)
    damage(run / "checkpoints/pretrain/step_12")
    status, lines = pretrain_again(realm, run)
    assert status == 0 and any("going on from step 10 of 12" in line for line in lines), lines
    assert all(torch.equal(end[name], t) for name, t in weights(run).items())


def test_a_finished_stage_whose_checkpoint_is_lost_is_trained_again(realm, run):
    end = weights(run)
    shutil.rmtree(run / "checkpoints/pretrain/step_12")
    status, lines = again(realm, run)
    assert status == 0 and any("trained again" in line for line in lines), lines
    assert all(torch.equal(end[name], t) for name, t in weights(run).items())


def test_every_changed_byte_of_a_checkpoint_is_found(smoke_run, tmp_path):
    folder = Path(shutil.copytree(smoke_run / "checkpoints/ict/step_12", tmp_path / "step_12"))
    g = torch.Generator().manual_seed(0)
    for path in sorted(folder.iterdir()):
        size = path.stat().st_size
        places = range(size) if size < 3000 else torch.randint(size, (60,), generator=g).tolist()
        with open(path, "r+b") as f:
            for place in places:
                f.seek(place)
                was = f.read(1)
                f.seek(place)
                f.write(bytes([was[0] ^ 1]))
                f.flush()
                with pytest.raises((ValueError, OSError, KeyError, TypeError, AttributeError)):
                    check_seal(folder, whole=True)
                f.seek(place)
                f.write(was)
        check_seal(folder, whole=True)


@pytest.mark.parametrize("kind", ["shape", "name", "not finite", "kind"])
def test_moments_that_do_not_fit_are_refused(realm, run, kind):
    newest = run / "checkpoints/pretrain/step_12"
    moments = load_file(newest / "optimizer.safetensors")
    name = "0.exp_avg"
    moments |= {
        "shape": {name: moments[name][:1].clone()},
        "name": {"9999.exp_avg": moments[name].clone()},
        "not finite": {name: torch.full_like(moments[name], torch.nan)},
        "kind": {name: moments[name].long()},
    }[kind]
    save_file(moments, newest / "optimizer.safetensors")
    seal(newest)
    refused(pretrain_again(realm, run), "step_12", "exp_avg")


# What is not finite


class Toy(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(2, 1)

    def save(self, folder):
        save_file(self.state_dict(), Path(folder) / "towers.safetensors")

    def load_weights(self, folder):
        self.load_state_dict(load_file(Path(folder) / "towers.safetensors"))


def fit_toy(folder, loss_of, steps=6, rate=1e-2):
    toy = Toy()
    training = Training("toy", steps, save_every=2, batch_of=lambda step: [step, step + 1])
    fit(Run(folder, quiet=True), training, toy, [(toy.net, rate)], lambda s: loss_of(toy, s))
    return toy


def plain_loss(toy, step):
    return toy.net(torch.ones(4, 2)).square().mean(), {}


@pytest.mark.parametrize("what", ["the loss", "a gradient"])
def test_what_is_not_finite_stops_the_run_with_its_name_and_batch(tmp_path, what):
    def bad(toy, step):
        loss, _ = plain_loss(toy, step)
        if step == 3 and what == "the loss":
            loss = loss * torch.inf
        elif step == 3:  # a finite value, but no finite slope: the root at 0
            loss = loss + (0 * toy.net.bias.sum()).sqrt()
        return loss, {}

    with pytest.raises(UserError, match=r"toy: .* is not finite at step 3") as e:
        fit_toy(tmp_path / "run", bad)
    assert "--resume-with" in str(e.value)
    saved = json.loads((tmp_path / "run/failures/toy-3.json").read_text())
    assert saved["batch"] == [3, 4] and saved["not finite"]
    assert [f.name for f in step_folders(tmp_path / "run/checkpoints/toy")] == ["step_2"]
    whole = fit_toy(tmp_path / "whole", plain_loss)
    mended = fit_toy(tmp_path / "run", plain_loss)
    assert torch.equal(whole.net.weight, mended.net.weight), "and it went on from step 2"


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path, monkeypatch):
    def poison(toy, step):
        loss, _ = plain_loss(toy, step)
        if step == 5:
            monkeypatch.setattr(torch.optim.AdamW, "step", lambda _: toy.net.weight.data.fill_(nan))
        return loss, {}

    with pytest.raises(UserError, match=r"net\.weight is not finite at step 5"):
        fit_toy(tmp_path / "run", poison)
    assert [f.name for f in step_folders(tmp_path / "run/checkpoints/toy")] == ["step_2", "step_4"]


def test_a_run_goes_on_with_another_rate_and_says_so(realm, run):
    lower = ["--pretrain.lr_encoder", "1e-5"]
    refused(pretrain_again(realm, run, *lower), "lr_encoder", "other settings")
    shutil.rmtree(run / "checkpoints/pretrain/step_12")
    status, _ = pretrain_again(realm, run, *lower, "--resume-with", "pretrain.lr_encoder")
    assert status == 0
    assert "resumed with pretrain.lr_encoder = 1e-05" in (run / "log.txt").read_text()
    assert json.loads((run / "config.json").read_text())["pretrain"]["lr_encoder"] == 1e-5
    assert again(realm, run, *lower)[0] == 0, "from now on it is the run's own"


# Caches


def caches(environment):
    return sorted(p.parent for p in Path(environment["REALM_NB_HOME"]).rglob(SEAL))


def test_zeroed_bytes_in_a_cache_are_found(realm, run, smoke_environment):
    again(realm, run)
    seen = set()
    for folder in caches(smoke_environment):
        for path in folder.iterdir():
            size = path.stat().st_size
            if path.name == SEAL or size < 2000:
                continue
            with open(path, "r+b") as f:
                f.seek(size // 2)
                was = f.read(64)
                f.seek(size // 2)
                f.write(bytes(b ^ 255 for b in was))
            with pytest.raises(ValueError, match="checksum"):
                check_seal(folder)
            with open(path, "r+b") as f:
                f.seek(size // 2)
                f.write(was)
            seen.add(folder.name.split("-")[0])
    assert {"store", "spans", "scratch"} <= seen, seen


def test_a_byte_that_no_sample_reads_is_found_by_verify(realm, run, monkeypatch):
    path = run / "checkpoints/ict/step_12/towers.safetensors"
    real = files.sampled_sha256
    monkeypatch.setattr(files, "sampled_sha256", lambda p: "" if p == path else real(p))
    seal(path.parent)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 + 12_345] ^= 1
    path.write_bytes(data)
    check_seal(path.parent)  # not among what is sampled
    refused(again(realm, run, "--verify"), "towers.safetensors", "checksum")


# Around it


def test_a_terminal_without_signs_ends_no_run(smoke_environment, run):
    (run / "stages/evaluate.json").unlink()
    environment = {**smoke_environment, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-m", "realm_nb", "train", "--recipe", "smoke", "--run", str(run)],
        env=environment,
        capture_output=True,
        timeout=300,
    )
    assert done.returncode == 0 and b"\\u2205" in done.stdout, done.stderr


def test_no_command_tells_third_parties(monkeypatch):
    code = "import realm_nb, os; print(*(os.environ.get(n) for n in ('HF_HUB_DISABLE_TELEMETRY'"
    code += ", 'DO_NOT_TRACK', 'GRADIO_ANALYTICS_ENABLED')))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert said.split() == ["1", "1", "False"]


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        fit_toy(tmp_path / "run", lambda toy, s: plain_loss(toy, s) if s < 5 else stop())
    real, count = loop.save_file, []

    def full(*args):
        count.append(1)
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(loop, "save_file", full)
    with pytest.raises(UserError, match="no space left"), loop.on_disk(tmp_path / "run"):
        fit_toy(tmp_path / "run", plain_loss)
    monkeypatch.setattr(loop, "save_file", real)
    whole, mended = (fit_toy(tmp_path / name, plain_loss) for name in ("whole", "run"))
    assert count and torch.equal(whole.net.weight, mended.net.weight)
    assert not list((tmp_path / "run").rglob("*.tmp"))


def stop():
    raise KeyboardInterrupt
