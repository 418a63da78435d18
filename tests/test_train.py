"""The command line as a user meets it: real processes on the small encyclopedia, stopped and
continued; and every kind of bad input."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from realm_nb.core.folder import Metrics

HEAD = [sys.executable, "-m", "realm_nb.train"]


@pytest.fixture(scope="module")
def environment(smoke_environment):
    return smoke_environment


def train(environment, *flags):
    return subprocess.run(
        [*HEAD, *map(str, flags)], env=environment, capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def here(environment, monkeypatch, capsys):
    "`train`, but in this process: for what fails before the work begins."
    from realm_nb.train import main

    for name in ("REALM_NB_HOME", "REALM_NB_QUIET"):
        monkeypatch.setenv(name, environment[name])
    return lambda *flags: (main([*map(str, flags)]), capsys.readouterr().err)


def lines(run, stage):
    return [
        m
        for line in (Path(run) / "metrics.jsonl").read_text().splitlines()
        if (m := json.loads(line))["stage"] == stage
    ]


def losses(run, stage):
    return [(m["step"], m["loss"]) for m in lines(run, stage)]


@pytest.fixture(scope="module")
def finished(smoke_run):
    return smoke_run


def test_a_run_leaves_what_it_promises(finished):
    for name in (
        "config.json",
        "metrics.jsonl",
        "log.txt",
        "report.md",
        "curves.png",
        "heldout.npz",
    ):
        assert (finished / name).stat().st_size > 0
    assert [m["step"] for m in lines(finished, "pretrain")] == list(range(1, 13))
    assert {"loss", "ru", "p_null", "hit", "stale"} <= lines(finished, "pretrain")[0].keys()
    assert [m["stale"] for m in lines(finished, "pretrain")] == [0, 1, 2, 3] * 3
    report = (finished / "report.md").read_text()
    assert (
        report.count("### ") == 10 and report.count("| before |") == report.count("| after |") == 50
    )
    assert sorted(p.name for p in (finished / "stages").iterdir()) == [
        f"{s}.json" for s in ("corpus", "evaluate", "ict", "mask", "pretrain", "warmup")
    ]
    assert (
        not list(finished.rglob("*.tmp"))
        and not list(finished.rglob("*.pkl"))
        and not list(finished.rglob("*.bin"))
    )


def test_no_held_out_block_gave_a_training_sentence(finished, environment):
    code = (
        "from realm_nb.workspace import Workspace; import numpy as np, sys;"
        "w = Workspace.open(sys.argv[1]); (train, held), store = w.sentences, w.store;"
        "assert not np.intersect1d(store.block_of(train), store.block_of(held)).size;"
        "assert w.held_out[[e.block for e in w.held_out_examples(50)]].all();"
        "assert not w.held_out[store.block_of(train)].any(); print('ok')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(finished)], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "ok", done.stderr


def test_running_again_does_nothing(finished, environment):
    before = (finished / "metrics.jsonl").read_bytes()
    again = train(environment, "--recipe", "smoke", "--run", finished)
    assert again.returncode == 0 and again.stderr.count("already finished") == 6
    assert (finished / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("stage,step", [("warmup", 7), ("pretrain", 6), ("pretrain", 11)])
def test_a_killed_run_goes_on_and_is_the_same_to_the_bit(
    finished, environment, tmp_path, stage, step
):
    run = tmp_path / "killed"
    process = subprocess.Popen(
        [*HEAD, "--recipe", "smoke", "--run", str(run)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    end = time.monotonic() + 200
    while time.monotonic() < end and process.poll() is None:
        text = (run / "metrics.jsonl").read_text() if (run / "metrics.jsonl").exists() else ""
        if f'"stage": "{stage}", "step": {step},' in text:
            break
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (run / "stages" / "evaluate.json").exists(), "it was killed before the end"
    done = train(environment, "--recipe", "smoke", "--run", run)
    assert done.returncode == 0, done.stderr
    for s in ("warmup", "ict", "pretrain"):
        assert losses(run, s) == losses(finished, s)
    weights = "checkpoints/pretrain/step_12/towers.safetensors"
    assert (run / weights).read_bytes() == (finished / weights).read_bytes()


@pytest.mark.parametrize("retrieval", ["frozen", "random"])
def test_controls_run(environment, tmp_path, retrieval):
    flags = [
        "--recipe",
        "smoke",
        "--run",
        tmp_path / "run",
        "--retrieval",
        retrieval,
        "--stages",
        "corpus,mask,ict,pretrain",
        "--ict.steps",
        2,
        "--pretrain.steps",
        3,
        "--model.frozen_layers",
        1,
    ]
    done = train(environment, *flags)
    assert done.returncode == 0, done.stderr
    from realm_nb.towers import Towers

    (ict,), (end,) = (
        (tmp_path / "run" / "checkpoints" / s).glob("step_*") for s in ("ict", "pretrain")
    )
    a, b = (dict(Towers.load(f).embedder.named_parameters()) for f in (ict, end))
    a.pop(
        "null"
    )  # a learned ∅ is set to the blocks' level before the first step, in every kind of retrieval
    assert all((a[n] == b[n]).all() for n in a) == (retrieval == "frozen")


def one_line(done, *needles):
    """Exit status 2 and one error line, the last of stderr, that holds `needles`.

    `done` is a finished process, or (status, stderr) of a call of `main`."""
    status, stderr = done if isinstance(done, tuple) else (done.returncode, done.stderr)
    assert status == 2, (status, stderr)
    text = stderr.strip().splitlines()
    assert [line.startswith("error: ") for line in text] == [False] * (len(text) - 1) + [
        True
    ] and "Traceback" not in stderr, stderr
    for n in needles:
        assert n in text[-1], text[-1]


@pytest.mark.parametrize(
    "flags,needles",
    [
        (["--recipe", "quik"], ["'quik'", "did you mean quick"]),
        (["--pretrain.stepz", "3"], ["--pretrain.stepz", "did you mean pretrain.steps"]),
        (["--pretrain.steps", "many"], ["--pretrain.steps", "whole number", "'many'"]),
        (["--pretrain.steps", "0"], ["--pretrain.steps", "at least 1"]),
        (["--pretrain.steps"], ["pretrain.steps", "expected one argument"]),
        (["--model.scaled", "perhaps"], ["--model.scaled", "true or false"]),
        (["--stages", "pretain"], ["'pretain'", "pretrain"]),
        (["--policy", "salent"], ["'salent'", "salient"]),
        (["--refresh", "asink"], ["'asink'", "sync"]),
        (["--base", "minilm"], ["'minilm'", "minilm-l6"]),
        (["--model.layers", "9"], ["9 layers", "model.layers"]),
        (["--device", "gpux"], ["'gpux'", "cuda"]),
        (["--corpus", "nowhere.jsonl"], ["nowhere.jsonl"]),
        (["--corpus", "wiki-dmp"], ["wiki-dmp", "wiki-dump"]),
        (["--corpus.held_out", "1.5"], ["--corpus.held_out", "between 0 and 1"]),
        (["stray"], ["stray"]),
    ],
)
def test_bad_flags(here, tmp_path, flags, needles):
    one_line(
        here(
            *([] if "--recipe" in flags else ["--recipe", "smoke"]),
            "--run",
            tmp_path / "run",
            *flags,
        ),
        *needles,
    )


def test_a_bad_flag_ends_the_process_with_2_and_writes_nothing(environment, tmp_path):
    one_line(
        train(environment, "--run", tmp_path / "run", "--recipe", "quik"),
        "'quik'",
        "did you mean quick",
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "content,needles",
    [
        (b"", ["corpus.jsonl", "no documents"]),
        (b'{"title": "A", "text": "One."}\nnot json\n', ["corpus.jsonl", "2", "JSON"]),
        (b'{"title": "A"}\n', ["corpus.jsonl", "1", "text"]),
        (b'{"text": "One sentence here."}\n', ["corpus.jsonl", "1", "title"]),
        (b'{"title": "A", "text": "caf\xe9"}\n', ["corpus.jsonl", "UTF-8"]),
        (b'{"title": "A", "text": "Too little to train on here."}\n', ["corpus.jsonl"]),
    ],
)
def test_bad_corpora(here, tmp_path, monkeypatch, content, needles):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.jsonl").write_bytes(content)
    one_line(here("--recipe", "smoke", "--run", "run", "--corpus", "corpus.jsonl"), *needles)


def test_a_run_folder_of_other_settings_is_refused_and_kept(finished, here):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    one_line(
        here("--recipe", "smoke", "--run", finished, "--seed", "1"),
        "seed",
        "other settings",
        "--run",
    )
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_an_unwritable_run_folder(here, tmp_path):
    (tmp_path / "file").write_text("")
    one_line(
        here("--recipe", "smoke", "--run", tmp_path / "file" / "run"),
        "cannot write the run folder",
        "--run",
    )


def test_a_damaged_checkpoint_is_named_and_trained_again(finished, here, tmp_path):
    import shutil

    run = shutil.copytree(finished, tmp_path / "run")
    (run / "stages" / "evaluate.json").unlink()
    weights = run / "checkpoints/pretrain/step_12/towers.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    status, _ = here("--recipe", "smoke", "--run", run)
    log = (run / "log.txt").read_text()
    assert status == 0 and "step_12 is damaged (towers.safetensors has another size)" in log, log
    assert weights.read_bytes() == whole


def test_help_names_every_setting():
    from realm_nb.core.config import settings
    from realm_nb.workspace import Config

    text = subprocess.run([*HEAD, "--help-all"], capture_output=True, text=True).stdout
    assert all(f"--{name}" in text for name in settings(Config()))


def test_a_step_in_parts_is_the_step_in_one(environment, tmp_path):
    smoke = ("--recipe", "smoke", "--stages", "corpus,mask,warmup,ict,pretrain", "--run")
    for parts in ("1", "3"):
        done = train(environment, *smoke, tmp_path / parts, "--pretrain.accumulate", parts)
        assert done.returncode == 0, done.stderr
    whole, parted = (Metrics(tmp_path / parts / "metrics.jsonl").of("pretrain") for parts in "13")
    for a, b in zip(whole, parted, strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
        assert a["grad"] == pytest.approx(b["grad"], rel=1e-3)
    refused = train(environment, *smoke, tmp_path / "9", "--pretrain.accumulate", "9")
    assert refused.returncode == 2 and "--pretrain.accumulate 9" in refused.stderr


def test_sentences_may_come_from_another_corpus_than_the_one_searched(environment, tmp_path):
    news = tmp_path / "news.jsonl"
    lines = [f"In {1900 + i} Marie Curie spoke in Warsaw on day {i}." for i in range(40)]
    news.write_text("".join(json.dumps({"title": t[:7], "text": t}) + "\n" for t in lines))
    flags = ("--recipe", "smoke", "--mask.recurring", "false", "--mask.sentences")
    done = train(environment, *flags, news, "--run", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "run/stages/mask.json").read_text())
    assert found["pretrain_sentences"] == 40 < found["train_sentences"]
    held = json.loads((tmp_path / "run/inputs.json").read_text())
    assert held["store of sentences"] != held["token store"]
    wrong = train(environment, *flags, tmp_path / "no.jsonl", "--run", tmp_path / "other")
    assert wrong.returncode == 2 and "no.jsonl" in wrong.stderr and "Traceback" not in wrong.stderr
    assert not (tmp_path / "other/checkpoints").exists()
