"""What a stranger tried: the environment, odd texts, spoilt results, exchanged parts of a run."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from realm_nb.core.distributed import local_rank, start
from realm_nb.core.errors import STOPPED, UserError, cli, nearest
from realm_nb.core.files import atomic_folder, cache_home
from realm_nb.qa.reader import Pair, span_mask
from realm_nb.store import TokenStore, build_store
from realm_nb.text.documents import Document
from realm_nb.text.tokenizer import tiny_tokenizer
from realm_nb.towers import Sequence, pair_sequence


def process(words, environment=os.environ, **more):
    "`realm WORDS…` under a shell that may close its streams: (status, stderr)."
    line = f"exec {sys.executable} -m realm_nb {words}"
    done = subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=60, **more
    )
    return done.returncode, done.stderr


@pytest.fixture
def realm(smoke_environment, monkeypatch, capsys, tmp_path):
    "`realm WORDS…` in this process, in an empty folder: (status, the last line of stderr)."
    from realm_nb.__main__ import main

    monkeypatch.chdir(tmp_path)
    for name in ("REALM_NB_HOME", "REALM_NB_QUIET"):
        monkeypatch.setenv(name, smoke_environment[name])

    def call(*words):
        status = main([str(w) for w in words])
        return status, capsys.readouterr().err.strip().splitlines()[-1]

    return call


@pytest.fixture
def run(smoke_run, tmp_path):
    return Path(shutil.copytree(smoke_run, tmp_path / "run"))


# The environment


@pytest.mark.parametrize("streams", [">&-", "<&- >&- 2>&-"])
def test_closed_streams_end_no_command(smoke_environment, streams):
    status, said = process(f"fetch list {streams}", smoke_environment)
    assert (status, said) == (0, "")


def test_a_file_never_takes_the_place_of_a_closed_stream(tmp_path):
    program = (
        "import sys\nfrom realm_nb.core.errors import cli\n"
        "main = cli(lambda argv: print(open('mine', 'w').fileno(), file=open('number', 'w')))\n"
        "sys.exit(main([]))"
    )
    line = f'exec {sys.executable} -c "{program}" 2>&- >&-'
    subprocess.run(["bash", "-c", line], cwd=tmp_path, check=True, timeout=60)
    assert int((tmp_path / "number").read_text()) > 2


@pytest.mark.parametrize("home", [b"h\xff", b"a\nb", b"a\x1b[31m"])
def test_a_cache_that_no_library_can_name_is_refused(monkeypatch, home):
    monkeypatch.setitem(os.environb, b"REALM_NB_HOME", home)
    with pytest.raises(UserError, match="set REALM_NB_HOME"):
        cache_home()


def test_without_a_home_the_cache_must_be_named(monkeypatch):
    monkeypatch.delenv("REALM_NB_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match="set REALM_NB_HOME"):
        cache_home()


@pytest.mark.parametrize(
    "told",
    [
        {"RANK": "x"},
        {"RANK": ""},
        {"RANK": "0"},
        {"RANK": "0", "WORLD_SIZE": "1"},
        {"RANK": "0", "WORLD_SIZE": "0"},
        {"RANK": "-1", "WORLD_SIZE": "1"},
        {"RANK": "5", "WORLD_SIZE": "2"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"},
        {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "99999999"},
    ],
    ids=str,
)
def test_an_environment_of_no_group_is_refused(monkeypatch, told):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in told.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="unset RANK"):
        start("cpu")


@pytest.mark.parametrize("told", ["x", "", "-1"])
def test_a_local_rank_that_is_none_is_the_first(monkeypatch, told):
    monkeypatch.setenv("LOCAL_RANK", told)
    assert local_rank() == 0


def test_a_second_interrupt_does_not_break_the_ending():
    program = (
        "import os, signal, sys\nfrom realm_nb.core.errors import cli\n"
        "@cli\ndef main(argv):\n    raise KeyboardInterrupt\n"
        "status = main()\nos.kill(os.getpid(), signal.SIGINT)\nsys.exit(status)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert done.returncode == STOPPED and b"Traceback" not in done.stderr
    before = signal.getsignal(signal.SIGINT)
    cli(lambda argv: STOPPED)([])
    assert signal.getsignal(signal.SIGINT) is before, "who calls from Python keeps his Ctrl-C"


def test_a_disk_that_safetensors_finds_full_is_named(tmp_path, capsys):
    @cli
    def main(argv):
        with atomic_folder(tmp_path / "weights"):
            raise SafetensorError("I/O error: No space left on device (os error 28)")

    assert main([]) == 2 and f"{tmp_path / 'weights'}: no space left" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_name_among_many_stays_one_short_line(realm):
    status, line = realm("train", "--nope")
    assert status == 2 and len(line) < 300, line
    assert nearest("zzz", ["a", "b"]) == "; known: a, b"


# Odd texts


@pytest.mark.parametrize("max_len", [16, 72])
def test_an_endless_title_leaves_room_for_the_body(tmp_path, max_len):
    body = "Ada met Bob in London. Bob met Ada in Paris."
    documents = [Document("word " * 2000, body)]
    tokenizer = tiny_tokenizer([body, "word"])
    store: TokenStore = build_store(documents, tokenizer, tmp_path / "store", max_block_len=max_len)
    sequence = pair_sequence(store.title_ids(0), store.body(0), store.special, max_len)
    assert len(store.title_ids(0)) == max_len // 2 and len(sequence) <= max_len
    assert len(sequence) > max_len // 2 + 3, "some of the body is read"
    endless = np.zeros(2000, np.uint16)
    assert len(pair_sequence(endless, store.body(0), store.special, max_len)) == max_len


def test_equal_documents_leave_the_null_document_as_it_is(realm, tmp_path):
    line = json.dumps({"title": "T", "text": "Ada Lovelace met Charles Babbage in London. " * 2})
    Path("same.jsonl").write_text(f"{line}\n" * 30)
    flags = ["--warmup.steps", "0", "--ict.steps", "1", "--pretrain.steps", "1"]
    stages = ["--stages", "corpus,mask,ict,pretrain"]
    status, last = realm(
        "train",
        "--recipe",
        "smoke",
        "--run",
        "r",
        "--corpus",
        "same.jsonl",
        *flags,
        *stages,
        "--corpus.held_out",
        "0.3",
    )
    assert status == 0, last


def test_no_answer_ends_before_it_begins():
    ids = torch.arange(5, 17)
    pair = Pair(Sequence(ids.numpy(), 3), 3, torch.zeros(8, dtype=torch.long))
    words = torch.tensor([[True], [False]]).expand(2, 32)
    mask = span_mask([pair], words, 40)
    first, width = mask[0].nonzero().T
    assert len(first) and (first + width < len(ids)).all()


# What a run has noted, and parts of another run


@pytest.mark.parametrize(
    ("stage", "spoilt"),
    [
        ("pretrain", {"refresh": 5}),
        ("pretrain", {"refresh": {"degraded": True}}),
        ("ict", {"recall": [1], "among": 3}),
        ("ict", {"recall": {"recall@1": 0.5}, "among": "x"}),
        ("ict", {"recall": {"recall@1": "x"}, "among": 3}),
        ("warmup", {"reading": 3}),
        ("warmup", {"reading": {"own_block": None, "null": "x"}}),
    ],
)
def test_results_of_other_kinds_are_named(realm, run, stage, spoilt):
    (run / f"stages/{stage}.json").write_text(json.dumps(spoilt))
    status, line = realm("evaluate", "--run", run)
    assert status == 2 and line.startswith("error: ") and "stages" in line, line


@pytest.mark.parametrize("threads", ["x", 0, -1, 1.5, True, None, 10**9])
def test_a_number_of_threads_that_is_none_is_refused(realm, run, threads):
    path = run / "inputs.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"threads": threads}))
    status, line = realm("train", "--recipe", "smoke", "--run", run)
    assert status == 2 and str(path) in line, line


@pytest.mark.parametrize("lost", ["pretrain", "ict"])
def test_weights_and_index_of_different_moments_are_never_measured(realm, run, lost):
    shutil.rmtree(run / "checkpoints" / lost)
    report = (run / "report.md").read_text()
    status, line = realm("evaluate", "--run", run)
    assert status == 2 and "another Embedder" in line and "run realm train again" in line, line
    assert (run / "report.md").read_text() == report


def test_a_lost_log_gives_no_means_of_nothing(realm, run):
    (run / "metrics.jsonl").unlink()
    (run / "stages/pretrain.json").unlink()
    stages = ["--stages", "corpus,mask,warmup,ict,pretrain"]
    assert realm("train", "--recipe", "smoke", "--run", run, *stages)[0] == 0
    assert set(json.loads((run / "stages/pretrain.json").read_text())) == {"refresh"}
