"A corpus in parts: equal to the one-process form, whatever the parts, the processes and the kills."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from realm_nb import masking, recurring, store
from realm_nb.core.errors import UserError
from realm_nb.core.files import is_sealed
from realm_nb.core.shards import (
    HOST,
    build_from_parts,
    make_parts,
    part_folder,
    this_host,
)
from realm_nb.masking import Copies, normal, prepare_copies
from realm_nb.recurring import prepare_recurring, span_text
from realm_nb.spans import tag_in_parts, tag_store
from realm_nb.store import CorpusConfig, TokenStore, build_in_parts, build_store, prepare_store
from realm_nb.text.documents import read_corpus, read_mediawiki
from realm_nb.text.taggers import RuleTagger
from realm_nb.text.tokenizer import tiny_tokenizer

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = list(read_corpus("mini"))


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer(d.text for d in DOCUMENTS)


@pytest.fixture(scope="module")
def plain(tokenizer, tmp_path_factory):
    "The store of `mini` made in one process and one go, and its spans."
    folder = tmp_path_factory.mktemp("plain") / "store"
    config = CorpusConfig("mini", max_block_len=64)
    made = build_store(DOCUMENTS, tokenizer, folder, 64, 0, "mini", store.licence_of("mini"))
    return config, made, tag_store(made, RuleTagger(), 48)


@pytest.mark.parametrize("part, processes", [((1000, 2**24), 1), ((7, 2**24), 1), ((50, 500), 2)])
def test_a_store_in_parts_is_the_store_byte_by_byte(
    plain, tokenizer, tmp_path, monkeypatch, part, processes
):
    config, whole, _ = plain
    monkeypatch.setattr(store, "PART", part)
    made = build_in_parts(config, tokenizer, tmp_path / "s" / "store", processes)
    assert made.fingerprint == whole.fingerprint and made.titles == whole.titles
    names = {path.name for path in (tmp_path / "s").iterdir()}
    assert names == {"store", ".store.lock"}, "no part is left"


@pytest.mark.parametrize("limit, most", [(9, 0), (0, 40)])
def test_limits_are_kept_in_parts(tokenizer, tmp_path, monkeypatch, limit, most):
    monkeypatch.setattr(store, "PART", (4, 2**24))
    config = CorpusConfig("mini", 64, most, limit)
    made = build_in_parts(config, tokenizer, tmp_path / "parts")
    documents = read_corpus("mini", limit or None)
    licence = store.licence_of("mini")
    whole = build_store(documents, tokenizer, tmp_path / "whole", 64, most, "mini", licence)
    assert made.fingerprint == whole.fingerprint


PAGE = "<page><title>{}</title><ns>{}</ns><revision><text>{}</text></revision></page>\n"


def test_a_dump_is_parsed_in_parts(tokenizer, tmp_path, monkeypatch):
    "Pages that are no articles take places in parts, and leave no trace."
    monkeypatch.setattr(store, "PART", (3, 2**24))
    rows = [
        (f"Lake {i}", 0, f"'''Lake {i}''' is a [[lake]] in the hills. It is {i} metres deep.")
        for i in range(11)
    ]
    rows[2:2] = [("Talk:Lake", 1, "How deep is it?"), ("Moved", 0, "#REDIRECT [[Lake 1]]")]
    rows[5:5] = [("Lake", 0, "It may refer to [[Lake 1]]. {{disambiguation}}")] * 7
    path = tmp_path / "lakes.xml"
    path.write_text(f"<mediawiki>{''.join(PAGE.format(*row) for row in rows)}</mediawiki>")
    made = build_in_parts(CorpusConfig(str(path), 64), tokenizer, tmp_path / "parts", 2)
    documents = list(read_mediawiki(path))
    licence = store.licence_of(str(path))
    whole = build_store(documents, tokenizer, tmp_path / "whole", 64, 0, str(path), licence)
    assert made.fingerprint == whole.fingerprint and len(made.titles) == 11


@pytest.mark.parametrize("processes", [1, 2])
def test_spans_in_parts_are_the_spans(plain, tmp_path, monkeypatch, processes):
    _, whole, spans = plain

    def short(store):
        yield from ((a, min(a + 30, store.n_sentences)) for a in range(0, store.n_sentences, 30))

    monkeypatch.setattr("realm_nb.spans.stretches", short)
    made = tag_in_parts(whole, RuleTagger(), 48, tmp_path / "spans", processes, tmp_path / "tags")
    assert made.fingerprint == spans.fingerprint and made.report == spans.report
    assert made.labels == spans.labels and len(list((tmp_path / "tags").rglob("*.npz"))) == 29


def naive(store, spans):
    texts = [f" {normal(store.text(b))} " for b in range(len(store))]
    answers = [span_text(store, *row) for row in zip(spans.sentence, spans.start, spans.end)]
    n = {a: sum(f" {a} " in text for text in texts) for a in {*answers} - {""}}
    return np.array([n.get(a, 0) > 1 for a in answers])


@pytest.mark.parametrize("sizes, processes", [((10**6, 10**6), 1), ((97, 13), 1), ((500, 100), 2)])
def test_recurring_spans_are_those_of_the_naive_form(
    plain, tokenizer, tmp_path, monkeypatch, sizes, processes
):
    config, _, spans = plain
    monkeypatch.setattr(recurring, "SPANS", sizes[0])
    monkeypatch.setattr(recurring, "BLOCKS", sizes[1])
    own = build_in_parts(config, tokenizer, tmp_path / "store")
    made = prepare_recurring(own, spans, processes)
    assert np.array_equal(made, naive(own, spans)) and made.any() and not made.all()
    assert len(list(tmp_path.glob("recurring-*"))) == 1, "the result alone stays"


def test_copies_in_parts_are_the_copies(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(masking, "HASHED", 60)
    documents = [*DOCUMENTS[:40], *DOCUMENTS[20:60], *DOCUMENTS[30:35]]
    own = build_store(documents, tokenizer, tmp_path / "store", 64)
    words = [normal(own.sentence_text(s)) for s in range(own.n_sentences)]
    here, kept = Copies(own), prepare_copies(own, 2)
    for s, text in enumerate(words):
        same = [t for t, other in enumerate(words) if other == text][:64]
        assert here.of(s).tolist() == kept.of(s).tolist() == same
    assert np.array_equal(here.hashes, kept.hashes) and len(here.repeated) > 60


COMMAND = """
import sys, time
from realm_nb import store
from realm_nb.core.files import digest
from realm_nb.text.tokenizer import load_tokenizer
if __name__ == "__main__":
    store.PART = (5, 2**24)
    config = store.CorpusConfig("mini", max_block_len=64)
    store.build_in_parts(config, load_tokenizer(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
"""


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_build_goes_on_and_its_processes_end(
    plain, tokenizer, tmp_path, monkeypatch, processes
):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    script, folder = tmp_path / "command.py", tmp_path / "made" / "store"
    script.write_text(COMMAND)
    run = [sys.executable, str(script), str(tmp_path / "tokenizer"), str(folder), str(processes)]
    process = subprocess.Popen(run)
    parts = lambda: {p for p in folder.parent.glob("store-parts-*/0*") if is_sealed(p)}
    end = time.monotonic() + 120
    while len(parts()) < 3 and process.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not psutil.wait_procs(workers, 10)[1], "they end with the command"
    kept = {p: (p / "sums.json").stat().st_mtime_ns for p in parts()}
    assert 3 <= len(kept) < 43 and not folder.exists()
    bad = min(kept)
    (bad / "token_ids.bin").write_bytes(b"not what was sealed")
    made = {}
    monkeypatch.setattr(store, "PART", (5, 2**24))
    real = store._join_store

    def look(tokenizer, config, found, new):
        made.update({p: (p / "sums.json").stat().st_mtime_ns for p in found})
        real(tokenizer, config, found, new)

    monkeypatch.setattr(store, "_join_store", look)
    assert build_in_parts(plain[0], tokenizer, folder).fingerprint == plain[1].fingerprint
    changed = {p for p, t in kept.items() if made[p] != t}
    assert changed == {bad}, "the damaged part was made again, the others were kept"
    assert len(made) == 43


def test_a_process_that_is_ended_is_told_in_one_line(tmp_path):
    script = tmp_path / "command.py"
    script.write_text(
        "import os, sys\n"
        "from realm_nb.core.errors import cli\n"
        "from realm_nb.core.shards import make_parts\n"
        "def make(i, folder):\n"
        "    (folder / 'here').write_text('x')\n"
        "    if i == 3:\n"
        "        os.kill(os.getpid(), 9)\n"
        "@cli\n"
        "def main(argv):\n"
        "    make_parts(make, 6, sys.argv[1], 2)\n"
        "if __name__ == '__main__':\n"
        "    sys.exit(main())\n"
    )
    run = [sys.executable, str(script), str(tmp_path / "parts")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and done.stderr.startswith("error: a process"), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "run again" in done.stderr
    assert not is_sealed(part_folder(tmp_path / "parts", 3))


def failing(i: int, folder: Path):
    if i == 2:
        raise UserError("part 2 has no name; give it one")
    (folder / "here").write_text("x")


@pytest.mark.parametrize("processes", [1, 2])
def test_what_a_part_complains_of_is_said_once(tmp_path, capfd, processes):
    with pytest.raises(UserError, match="give it one"):
        make_parts(failing, 5, tmp_path / "parts", processes)
    assert capfd.readouterr() == ("", "")
    assert not is_sealed(part_folder(tmp_path / "parts", 2))


@pytest.mark.parametrize("text", ["4/4", "1", "a/b", "-1/3", "1/0", "0/1/2", "x" * 5000])
def test_a_host_that_cannot_be_is_refused(monkeypatch, tmp_path, text):
    monkeypatch.setenv(HOST, text)
    with pytest.raises(UserError, match=f"{HOST} is .*give a host's number"):
        make_parts(failing, 1, tmp_path / "parts")


def note(i: int, folder: Path):
    (folder / "host").write_text(os.environ[HOST])


def test_hosts_share_the_parts_and_need_no_other(tmp_path, monkeypatch):
    for host in ("1/2", "0/2"):
        monkeypatch.setenv(HOST, host)
        assert this_host() == (int(host[0]), 2)
        if host == "1/2":  # half of them are there already, of the other host's making
            make_parts(note, 3, tmp_path / "parts")
        parts = make_parts(note, 6, tmp_path / "parts")
    made = [(part / "host").read_text() for part in parts]
    assert made == ["1/2"] * 6, "none waited for the first host, which found all made"
    joined = build_from_parts(tmp_path / "joined", [], lambda _: (note, 2), lambda parts, new: None)
    assert joined.exists() and list(tmp_path.glob("joined-parts-*")), "others may be at work there"


def test_a_second_command_waits_for_the_first(plain, tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    script, folder = tmp_path / "command.py", tmp_path / "made" / "store"
    script.write_text(COMMAND)
    run = [sys.executable, str(script), str(tmp_path / "tokenizer"), str(folder), "1"]
    both = [subprocess.Popen(run, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert TokenStore(folder).fingerprint == plain[1].fingerprint


def test_bad_lines_leave_no_parts_behind(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("REALM_NB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(store, "PART", (2, 2**24))
    path = tmp_path / "own.jsonl"
    good = '{"title": "Lake", "text": "The lake is very deep."}\n'
    path.write_text(good * 5 + "not json\n")
    with pytest.raises(UserError, match=r"own\.jsonl.*6"):
        prepare_store(CorpusConfig(str(path), 64), tokenizer)
    assert not [p for p in (tmp_path / "home").rglob("*") if p.is_file() and p.name[0] != "."]
    path.write_text(good * 5)
    assert prepare_store(CorpusConfig(str(path), 64), tokenizer).n_documents == 5
