"""Bad files, by every reader: each is refused in one line, in seconds, with the file's name.

`DAMAGES` are contents that no reader takes; a new entry of `READERS` is tried with all of them."""

import bz2
import json
import os
import time

import pytest

from realm_nb.core.errors import UserError
from realm_nb.spans import main as tag_main
from realm_nb.text import documents, sources, tagger_training, wikitext
from realm_nb.text.documents import READERS, read_corpus, read_path
from realm_nb.text.sources import load_questions, registry
from realm_nb.text.sources import main as fetch_main
from realm_nb.text.tagger_training import read_conll, read_labelled

ALL = {
    **{kind: lambda path, kind=kind: list(read_path(path, kind)) for kind in READERS},
    "questions": load_questions,
    "conll": read_conll,
}
LONG = b"x" * (sources.LONGEST_LINE + 1)


def refused(work, path, *words):
    "What `work` says as it refuses `path`."
    began = time.monotonic()
    with pytest.raises(UserError) as e:
        work(path)
    said = str(e.value)
    assert time.monotonic() - began < 60 and "\n" not in said and len(said) < 2000, said
    assert all(word in said for word in (os.path.basename(str(path))[:40], *words)), said
    return said


# ---- what is no file


def fifo(path):
    os.mkfifo(path)


def loop(path):
    path.symlink_to(path)


def broken_link(path):
    path.symlink_to(path.with_name("nothing"))


def device(path):
    path.symlink_to("/dev/zero")


NO_FILES = {
    "a pipe": fifo,
    "a link to itself": loop,
    "a dead link": broken_link,
    "a device": device,
}


@pytest.mark.parametrize("make", NO_FILES.values(), ids=NO_FILES)
@pytest.mark.parametrize("reader", ALL)
def test_what_is_no_file_is_refused_at_once(tmp_path, reader, make):
    make(tmp_path / "bad")
    refused(ALL[reader], tmp_path / "bad")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "nothing", "a/b/c"])
@pytest.mark.parametrize("reader", ALL)
def test_a_name_without_a_file_is_refused(tmp_path, reader, name):
    with pytest.raises(UserError, match=r"no such file|no question set"):
        ALL[reader](f"{tmp_path}/{name}")


@pytest.mark.parametrize("reader", ["questions", "conll"])
def test_a_folder_is_no_file(tmp_path, reader):
    refused(ALL[reader], tmp_path, "folder")


# ---- contents that no reader takes

DAMAGES = {
    "bytes that are no text": b"\xff\xfe\xfa\x00\x80" * 50,
    "text of 16 bits": "The lake is deep.".encode("utf-16"),
    "text of 32 bits": "The lake is deep.".encode("utf-32"),
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a zip": b"PK\x03\x04" + b"\x00\xff" * 30,
    "latin letters": "Café\n".encode("latin-1"),
    "half a letter": "Café".encode()[:-1],
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", ALL)
def test_what_is_no_text_is_refused_by_every_reader(tmp_path, reader, damage):
    (tmp_path / "bad").write_bytes(DAMAGES[damage])
    refused(ALL[reader], tmp_path / "bad")


EMPTY = {"nothing": b"", "a mark of order": b"\xef\xbb\xbf", "blanks": b" \r\n\n \t\n"}


@pytest.mark.parametrize("empty", EMPTY)
@pytest.mark.parametrize("reader", ALL)
def test_an_empty_file_is_refused(tmp_path, reader, empty):
    (tmp_path / "bad").write_bytes(EMPTY[empty])
    work = ALL[reader]
    if reader in READERS:
        work = lambda path: list(read_corpus(path, kind=reader))
    refused(work, tmp_path / "bad")


# ---- contents that one reader refuses, and what it says

PAGE = "<page><title>A</title><revision><text>{}</text></revision></page>"
XML = '<?xml version="1.0" encoding="{}"?><mediawiki>' + PAGE.format("a") + "</mediawiki>"
LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 12))
BOMB = f'<!DOCTYPE mediawiki [<!ENTITY l0 "{"ha" * 50}">{LAUGHS}]><mediawiki>'
DUMPS = {
    "an unknown encoding": (XML.format("x-foo"), "x-foo"),
    "UTF-7": (XML.format("utf-7"), "unreadable XML"),
    "UTF-32 that isn't": (XML.format("utf-32"), "XML"),
    "a codec that is no encoding": (XML.format("rot13"), "XML"),
    "a billion laughs": (BOMB + PAGE.format("&l11;") + "</mediawiki>", "amplification"),
    "an unknown entity": (f"<mediawiki>{PAGE.format('&ha;')}</mediawiki>", "line 1"),
    "an outside entity": (
        '<!DOCTYPE m [<!ENTITY x SYSTEM "file:///etc/hostname">]><mediawiki>'
        + PAGE.format("&x;")
        + "</mediawiki>",
        "damaged XML",
    ),
    "a character that XML lacks": (f"<mediawiki>{PAGE.format(chr(0))}</mediawiki>", "line 1"),
    "another format": ("<rss><page/></rss>", "<rss>"),
    "a name of a megabyte": (f"<{'x' * 1_000_000}/>", "not a MediaWiki dump"),
    "tags that cross": ("<mediawiki><page></mediawiki></page>", "line 1"),
    "half a page": (f"<mediawiki>{PAGE.format('a')[:-9]}", "line 1"),
    "a hundred thousand tags": ("<a>" * 100_000, "not a MediaWiki dump"),
}


@pytest.mark.parametrize("dump", DUMPS)
def test_a_bad_dump_is_refused_with_its_reason(tmp_path, dump):
    content, word = DUMPS[dump]
    (tmp_path / "bad.xml").write_text(content)
    refused(ALL["mediawiki"], tmp_path / "bad.xml", word)


GOOD = bz2.compress(f"<mediawiki>{PAGE.format('The lake is deep.')}</mediawiki>".encode())
PACKED = {
    "garbage": b"\xde\xad" * 500,
    "cut off": GOOD[:-10],
    "only its head": GOOD[:4],
    "changed": GOOD[:20] + bytes(255 - b for b in GOOD[20:40]) + GOOD[40:],
    "two dumps": GOOD + GOOD,
    "not packed": b"<mediawiki></mediawiki>",
}


@pytest.mark.parametrize("damage", PACKED)
def test_a_bad_bz2_is_refused(tmp_path, damage):
    (tmp_path / "bad.bz2").write_bytes(PACKED[damage])
    refused(ALL["mediawiki"], tmp_path / "bad.bz2", "damaged")


@pytest.mark.parametrize("inside", ["a", "\n", "<a/>", "<page>"])
def test_a_page_that_never_ends_is_refused_before_it_fills_the_memory(tmp_path, inside):
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    packer = bz2.BZ2Compressor()
    with open(tmp_path / "bad.bz2", "wb") as f:
        f.write(packer.compress(b"<mediawiki><page><text>"))
        piece = inside.encode() * (2**20 // len(inside))
        for _ in range(1 if "<" in inside else 40):  # MiB; an element counts for more
            f.write(packer.compress(piece))
        f.write(packer.flush())
    assert os.path.getsize(tmp_path / "bad.bz2") < 2**20
    refused(ALL["mediawiki"], tmp_path / "bad.bz2", "a page of more than 32 MiB")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**21


LINES = {
    "no JSON": b"{",
    "a list": b"[1]",
    "a number": b"5",
    "null": b"null",
    "no text": b'{"title": "A"}',
    "a list as a key": b"{[1]: 2}",
    "a number as the text": b'{"title": "A", "text": 5}',
    "an object as the title": b'{"title": {"a": 1}, "text": "a"}',
    "ten thousand brackets": b"[" * 10_000,
    "ten thousand in a text's place": b'{"title": "A", "text": ' + b"[" * 900 + b"]" * 900 + b"}",
    "digits without end": b"1" * 10_000,
    "not a number": b"NaN",
    "bytes that are no text": b'{"title": "\xff", "text": "a"}',
    "a line without end": LONG,
    "two objects": b'{"title": "A", "text": "a"}{}',
}


@pytest.mark.parametrize("line", LINES)
def test_a_bad_line_of_json_is_named_by_its_number(tmp_path, line):
    good = b'{"title": "A", "text": "a"}\r\n'
    (tmp_path / "bad.jsonl").write_bytes(good + LINES[line] + b"\n" + good)
    refused(ALL["jsonl"], tmp_path / "bad.jsonl", "line 2")


QUESTIONS = {
    "no JSON": b"{",
    "a list": b"[1]",
    "no answers": b'{"question": "q"}',
    "answers of none": b'{"question": "q", "answers": []}',
    "a number as an answer": b'{"question": "q", "answers": [1]}',
    "none as an answer": b'{"question": "q", "answers": [null]}',
    "an object as the answers": b'{"question": "q", "answers": {"a": 1}}',
    "true as the question": b'{"question": true, "answers": ["a"]}',
    "null as the question": b'{"question": null, "answers": ["a"]}',
    "a blank question": b'{"question": " ", "answers": ["a"]}',
    "only a place": b'{"path": "a", "line": 3}',
    "a line without end": LONG,
}
TABLE = {
    "no tab": b"q",
    "three columns": b"q\t['a']\tb",
    "no list": b"q\ta",
    "a call": b"q\t__import__('os').system('true')",
    "a sum": b"q\t" + b"1+" * 5000 + b"1",
    "minus minus": b"q\t" + b"-" * 5000 + b"1",
    "brackets": b"q\t" + b"[" * 5000,
    "a dictionary": b"q\t{'a': 1}",
    "a list as a key": b"q\t{[]: 1}",
    "an open quote": b"\"q\t['a']",
    "a set of lists": b"q\t{[1]}",
    "a zero": b"q\t'\0'",
    "a long field": b"q\t['" + b"a" * 200_000 + b"']",
    "a line without end": LONG,
}


@pytest.mark.parametrize("line", QUESTIONS)
def test_a_bad_question_is_named_by_its_line(tmp_path, line):
    good = b'{"question": "q", "answers": ["a"]}\n'
    (tmp_path / "bad.jsonl").write_bytes(good + QUESTIONS[line] + b"\n")
    refused(load_questions, tmp_path / "bad.jsonl", "line 2")


@pytest.mark.parametrize("line", TABLE)
def test_a_bad_row_of_questions_is_named_by_its_line(tmp_path, line):
    (tmp_path / "bad.tsv").write_bytes(b"q\t['a']\r\n" + TABLE[line] + b"\n")
    refused(load_questions, tmp_path / "bad.tsv", "line 2" if line != "a zero" else "bad.tsv")


def test_what_else_a_question_says_is_kept(tmp_path):
    row = {"question": "q", "answers": ["a\ud800"], "path": "p", "line": 3, "own": [1]}
    (tmp_path / "q.jsonl").write_text(json.dumps(row))
    assert load_questions(tmp_path / "q.jsonl") == [row | {"answers": ["a\ufffd"]}]


CONLL = {
    "one column": "Ann\n",
    "another label": "Ann PER\n",
    "a label without a kind": "Ann B-\n",
    "only document starts": "-DOCSTART- O\n\n",
    "JSON": '{"a": 1}\n',
    "a line without end": LONG.decode(),
}


@pytest.mark.parametrize("content", CONLL)
def test_bad_labels_are_refused(tmp_path, content):
    (tmp_path / "bad.conll").write_text(CONLL[content])
    refused(read_conll, tmp_path / "bad.conll")


JSONS = {
    "no JSON": "{",
    "a number among records": '[{"title": "A", "text": "a"}, 5]',
    "numbers by name": '{"1": 2}',
    "a number": "5",
    "a record alone": '{"title": "A", "text": "a"}',
    "brackets": "[" * 100_000,
    "digits without end": "1" * 10_000,
    "an extract that is no text": '{"A": {"title": "A", "extract": 5}}',
}
COUNTRIES = {
    "a number as the government": '{"Introduction": {}, "Government": 5}',
    "a list as the name": '{"Introduction": {}, "Government": {"Country name": [1]}}',
    "a number as a form": '{"Introduction": 1, "Government": {"Country name": {"conventional '
    'short form": {"text": 5}}}}',
    "null everywhere": '{"Introduction": null, "Government": null}',
}


@pytest.mark.parametrize("content", JSONS)
def test_bad_json_is_refused(tmp_path, content):
    (tmp_path / "bad.json").write_text(JSONS[content])
    refused(ALL["json"], tmp_path / "bad.json")


@pytest.mark.parametrize("content", COUNTRIES)
def test_a_country_of_other_kinds_of_values_is_named_by_its_file(tmp_path, content):
    (tmp_path / "ostrand.json").write_text(COUNTRIES[content])
    assert [d.title for d in read_path(tmp_path / "ostrand.json")] == ["ostrand"]


@pytest.mark.parametrize("suffix", [".txt", ".json"])
def test_a_file_too_large_to_be_one_text_is_refused_unread(tmp_path, suffix):
    with open(tmp_path / f"bad{suffix}", "wb") as f:
        f.truncate(sources.LARGEST_TEXT + 1)
    refused(lambda path: list(read_path(path)), tmp_path / f"bad{suffix}", "64 are the most")


# ---- tables


def tables():
    import pyarrow as pa

    title = pa.array(["A"])
    bad = pa.array([b"\xff"]).view(pa.string())
    return {
        "bytes that are no text": ({"title": title, "text": bad}, ""),
        "numbers": ({"title": title, "text": [5]}, "row 1"),
        "lists": ({"title": title, "text": [["a"]]}, "row 1"),
        "objects": ({"title": title, "text": [{"a": "b"}]}, "row 1"),
        "none": ({"title": title, "text": pa.array([None], pa.string())}, "row 1"),
        "bytes": ({"title": title, "text": [b"a"]}, "row 1"),
        "no text": ({"title": title}, "'text'"),
        "no columns": ({}, "'text'"),
        "a thousand other columns": ({f"column {i}": [1] for i in range(1000)}, "column 1"),
    }


@pytest.mark.parametrize("content", tables())
def test_a_bad_table_is_refused(tmp_path, content):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns, word = tables()[content]
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    refused(ALL["parquet"], tmp_path / "bad.parquet", word)


@pytest.mark.parametrize("keep", [0, 3, 4, 8, 100, -1, -8, -100])
def test_a_table_that_is_cut_off_is_refused(tmp_path, keep):
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"title": ["A"] * 99, "text": ["a"] * 99}), tmp_path / "bad.parquet")
    (tmp_path / "bad.parquet").write_bytes((tmp_path / "bad.parquet").read_bytes()[:keep])
    refused(ALL["parquet"], tmp_path / "bad.parquet", "damaged")


def test_a_table_without_rows_has_no_documents(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    text = pa.array([], pa.string())
    pq.write_table(pa.table({"title": text, "text": text}), tmp_path / "bad.parquet")
    refused(lambda path: list(read_corpus(path)), tmp_path / "bad.parquet", "no documents")


def test_a_huge_row_group_is_refused_and_a_packed_one_read_bit_by_bit(tmp_path, monkeypatch):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "bad.parquet"
    table = pa.table({"title": ["A"] * 500, "text": ["a" * 10_000] * 500})
    pq.write_table(table, path)
    size = pq.ParquetFile(path).metadata.row_group(0).total_byte_size
    assert len(list(read_path(path))) == 500
    assert documents._batch_size(path, pq.ParquetFile(path).metadata) == 1000
    monkeypatch.setattr(documents, "LARGEST_GROUP", 10 * size)
    assert documents._batch_size(path, pq.ParquetFile(path).metadata) == 10
    assert len(list(read_path(path))) == 500
    monkeypatch.setattr(documents, "LARGEST_GROUP", size - 1)
    refused(ALL["parquet"], path, "row group")


# ---- pages that are too tangled, and text of odd characters


def test_a_tangled_page_is_counted_and_left_out(tmp_path):
    pages = PAGE.format("{{a|" * 20_000) + PAGE.format("The lake is deep.")
    (tmp_path / "d.xml").write_text(f"<mediawiki>{pages}</mediawiki>")
    counts = documents.Counter()
    (found,) = documents.read_mediawiki(tmp_path / "d.xml", counts)
    assert found.text == "The lake is deep." and counts["too tangled"] == 1 and counts["page"] == 2
    assert wikitext.is_tangled("x" * (wikitext.LONGEST_TEXT + 1))


def test_odd_characters_have_a_place(tmp_path):
    row = {"title": "A\ud800", "text": "a\0b\r\nc\ufeff\udfff"}
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n")
    (found,) = read_path(tmp_path / "d.jsonl")
    assert (found.title, found.text) == ("A\ufffd", "a\0b\r\nc\ufeff\ufffd")
    (tmp_path / "d.txt").write_bytes("\ufeffThe lake\r\nis \0deep.\r\n".encode())
    (found,) = read_path(tmp_path / "d.txt")
    assert found.text == "The lake is \0deep."


# ---- data sets by name


def test_a_data_set_with_other_columns_is_refused(monkeypatch):
    import datasets

    ints = datasets.Sequence(datasets.ClassLabel(names=["O", "B-PER"]))
    good = datasets.Features(
        {"tokens": datasets.Sequence(datasets.Value("string")), "ner_tags": ints}
    )
    rows = [{"tokens": ["Ann"], "ner_tags": [1]}, {"tokens": [], "ner_tags": []}]
    for table, word in (
        (datasets.Dataset.from_list([{"a": 1}]), "columns"),
        (datasets.Dataset.from_list([{"tokens": "a", "ner_tags": "b"}]), "owner/name"),
        (datasets.Dataset.from_list([{"tokens": ["a", "b"], "ner_tags": ["O"]}]), "label"),
        (datasets.Dataset.from_list([{"tokens": [1], "ner_tags": ["O"]}]), "label"),
        (datasets.Dataset.from_list(rows[1:], good), "no sentences"),
    ):
        monkeypatch.setattr(datasets, "load_dataset", lambda *a, table=table, **k: table)
        with pytest.raises(UserError, match=word):
            read_labelled("owner/name")
    table = datasets.Dataset.from_list(rows, good)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: table)
    assert read_labelled("owner/name") == [(["Ann"], ["B-PER"])]


def test_a_data_set_that_breaks_off_is_refused(monkeypatch):
    import datasets

    def rows(*a, **k):
        yield {"title": "A", "text": "a"}
        raise ConnectionError("reset\nby peer")

    monkeypatch.setattr(datasets, "load_dataset", rows)
    with pytest.raises(UserError, match="reset; check the name"):
        list(documents.read_dataset("owner/name"))


# ---- commands

FETCH = {
    "nothing": [],
    "an unknown name": ["wiki-vitl"],
    "an empty name": [""],
    "an unknown channel": ["mini", "--channel", "foot"],
    "no channel": ["nq-dev", "--channel", "hub"],
    "a word for a commit": ["bert-base", "--revision", "main"],
    "a short commit": ["bert-base", "--revision", "86b5e09"],
    "no commit": ["dpr"],
    "an unknown flag": ["mini", "--cahce", "x"],
    "a flag without its value": ["mini", "--cache"],
    "a name without end": ["x" * 10_000],
    "a line break": ["a\nb"],
    "show nothing": ["show"],
    "show an unknown name": ["show", "x"],
    "a file for a cache": ["wiki-vital", "--cache", "FILE"],
    "a file within a file": ["wiki-vital", "--cache", "FILE/a"],
    "a place for no files": ["wiki-vital", "--cache", "/proc/none"],
}
TAG = {
    "nothing": [],
    "an unknown command": ["trian"],
    "report: an unknown tagger": ["report", "--tagger", "rul"],
    "report: no tagger": ["report", "--tagger", ""],
    "report: an unknown corpus": ["report", "--corpus", "min", "--tagger", "rule"],
    "report: no processes": ["report", "--processes", "0"],
    "report: processes that are no number": ["report", "--processes", "nan"],
    "report: fewer than no documents": ["report", "--documents", "-1"],
    "report: documents without end": ["report", "--documents", "9" * 30],
    "report: a picture over a file": ["report", "--corpus", "mini", "--png", "FILE"],
    "report: a picture over a folder": ["report", "--corpus", "mini", "--png", "FOLDER"],
    "report: a picture in a file": ["report", "--corpus", "mini", "--png", "FILE/a.png"],
    "report: an unknown tokenizer": ["report", "--tagger", "rule", "--tokenizer", "nothing"],
    "agreement: only a comma": ["agreement", "--taggers", ","],
    "agreement: no taggers": ["agreement", "--taggers", ""],
    "agreement: an unknown tagger": ["agreement", "--taggers", "rule,rul"],
    "agreement: a corpus that is no dump": ["agreement", "--corpus", "mini", "--taggers", "rule"],
    "agreement: questions for a corpus": ["agreement", "--corpus", "nq-dev", "--taggers", "rule"],
    "agreement: examples below nothing": ["agreement", "--examples", "-3"],
    "agreement: an endless number": ["agreement", "--skip", "inf"],
    "conll: no file": ["conll"],
    "conll: an empty name": ["conll", ""],
    "conll: over a file": ["conll", "FILE"],
    "conll: over a folder": ["conll", "FOLDER"],
    "conll: into an empty folder": ["conll", "EMPTY"],
    "conll: under a file": ["conll", "FILE/a"],
    "conll: where nothing can be": ["conll", "/proc/none/a"],
    "conll: two words for a kind": ["conll", "NEW", "--kind", "A B"],
    "conll: an unknown tagger": ["conll", "NEW", "--tagger", "rul"],
    "train: nothing": ["train"],
    "train: nowhere": ["train", "FILE"],
    "train: over a file": ["train", "GOOD", "--out", "FILE"],
    "train: over a folder": ["train", "GOOD", "--out", "FOLDER"],
    "train: over something sealed": ["train", "GOOD", "--out", "SEALED"],
    "train: no labels": ["train", "FILE", "--out", "NEW"],
    "train: no file": ["train", "NEW", "--out", "NEW"],
    "train: other labels for the test": ["train", "GOOD", "--dev", "OTHER", "--out", "NEW"],
    "train: no labels for the test": ["train", "GOOD", "--dev", "FILE", "--out", "NEW"],
    "train: an unknown base": ["train", "GOOD", "--out", "NEW", "--base", "brt"],
    "train: an unknown device": ["train", "GOOD", "--out", "NEW", "--device", "gpu"],
    "train: no epochs": ["train", "GOOD", "--out", "NEW", "--epochs", "0"],
    "train: a rate that is no number": ["train", "GOOD", "--out", "NEW", "--lr", "nan"],
    "train: a rate below nothing": ["train", "GOOD", "--out", "NEW", "--lr", "-1"],
    "train: an empty batch": ["train", "GOOD", "--out", "NEW", "--batch", "0"],
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    "Files and folders that the tables name, and what they look like."
    monkeypatch.setenv("REALM_NB_WHEELS", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("FOLDER", "EMPTY", "SEALED"):
        (tmp_path / name).mkdir()
    (tmp_path / "FILE").write_text("mine")
    (tmp_path / "FOLDER/mine").write_text("mine")
    (tmp_path / "SEALED/sums.json").write_text("{}")
    (tmp_path / "GOOD").write_text("Ann B-PER\nsings O\n")
    (tmp_path / "OTHER").write_text("Ann B-ORG\n")
    return tmp_path


def listing(folder):
    return {p: p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.mark.parametrize(
    "main, argv",
    [
        pytest.param(main, argv, id=f"{name} {case}")
        for name, main, table in (("fetch", fetch_main, FETCH), ("tag", tag_main, TAG))
        for case, argv in table.items()
    ],
)
def test_a_bad_command_is_refused_in_one_line_and_changes_nothing(place, capsys, main, argv):
    words = ["FILE", "FOLDER", "EMPTY", "SEALED", "GOOD", "OTHER", "NEW"]
    argv = [str(place / a) if a.split("/")[0] in words else a for a in argv]
    if "dpr" in argv or "bert-base" in argv:
        argv += ["--cache", str(place / "cache")]
    before, began = listing(place), time.monotonic()
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert listing(place) == before and not (place / "NEW").exists()
    assert time.monotonic() - began < 60


def test_outputs_are_looked_at_before_the_work(place, monkeypatch, capsys):
    def never(*a, **k):
        raise AssertionError("worked first")

    monkeypatch.setattr(tagger_training._LinkedSentences, "read", never)
    monkeypatch.setattr(tagger_training, "read_labelled", never)
    monkeypatch.setattr("realm_nb.spans.build_store", never)
    monkeypatch.setattr("realm_nb.spans.make_tagger", never)
    for argv in (
        ["conll", str(place / "FILE")],
        ["train", str(place / "GOOD"), "--out", str(place / "FOLDER")],
        ["report", "--png", str(place / "FILE")],
    ):
        assert tag_main(argv) == 2
        said = capsys.readouterr().err
        assert "there already" in said or "something else" in said


def test_every_source_of_the_hub_but_one_names_a_commit():
    unpinned = {s.name for s in registry().values() if s.hub and not s.hub_revision}
    assert unpinned == {"dpr"}
    assert {len(s.hub_revision) for s in registry().values() if s.hub} == {0, 40}
