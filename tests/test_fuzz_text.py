"""Whatever bytes, and whatever structure: only a `UserError` comes out of what reads text.

`REALM_NB_FUZZ=10000` tries so many cases of each kind."""

import bz2
import json
import os
from collections import Counter
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from realm_nb.core.errors import UserError
from realm_nb.text.documents import READERS, Document, read_mediawiki, read_path
from realm_nb.text.sentences import sentences
from realm_nb.text.sources import load_questions
from realm_nb.text.tagger_training import read_conll
from realm_nb.text.taggers import RuleTagger
from realm_nb.text.wikitext import link_sentences, mark_links, render, split_links, tidy

CASES = int(os.environ.get("REALM_NB_FUZZ", "200"))
QUICK = settings(
    max_examples=CASES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ANY_TEXT = st.text(st.characters(codec=None), max_size=60)


def among(words: str):
    "One of `words`, which stand between blanks."
    return st.sampled_from(words.split(" "))


MARKUP = st.lists(
    among("{{ }} [[ ]] {| |} |- | = == ' '' ''' <b> </b> <b <ref> </ref> <ref/> <br> <!-- -->")
    | among("<nowiki> </nowiki> http://a [http://a ] &amp; &#x110000; &#xd800; &#0; &bogus; {{{")
    | among("}}} convert|1|km lang|de|a File:a circa frac|1|2|3 * # : ; ---- __TOC__ ~~~~ <math>")
    | among('</math> a A The. 1 \n \t \x01 \ue000 \ue001 \ufffd \ud800 \u2028 < > / " ! ;:'),
    max_size=30,
).map("".join)
KEYS = among("title text extract question answer answers path line Introduction Government")
KEYS |= st.sampled_from(["Country name", "conventional short form"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | ANY_TEXT, inner, max_size=4),
    max_leaves=12,
)
RECORDS = st.dictionaries(KEYS, VALUES, max_size=6) | VALUES
LINES = st.lists(
    among("O B-PER I-PER Ann -DOCSTART- \t ['a'] [1] {} ( ' \" \\ q a\n \n \r\n \0 \ufeff [ ] ,")
    | among("'a' 1e999 -x None b'a' {1:2} 1+1j"),
    max_size=20,
).map(" ".join)
LINES_BYTES = st.binary(max_size=300) | LINES.map(lambda text: text.encode("utf-8", "replace"))
PROSE = st.lists(among("Mr. A . ? ! The lake 湖。 \n “ ( … a.b 1")).map(" ".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


def survive(work):
    "What `work` gives, or None if it refused in one line."
    try:
        return work()
    except UserError as e:
        assert "\n" not in str(e) and len(str(e)) < 3000
        return None


def check_documents(path, kind):
    for document in survive(lambda: list(read_path(path, kind))) or ():
        assert isinstance(document, Document)
        (document.title + document.text).encode()
        RuleTagger().tag(sentences(document.text))


def check_questions(path):
    for row in survive(lambda: load_questions(path)) or ():
        assert row["question"].strip() and row["answers"]
        "".join([row["question"], *row["answers"]]).encode()


def check_conll(path):
    for words, labels in survive(lambda: read_conll(path)) or ():
        assert len(words) == len(labels) > 0 and {label[0] for label in labels} <= set("OBI")


@pytest.mark.parametrize("kind", READERS)
@QUICK
@given(data=LINES_BYTES)
def test_any_bytes_are_read_or_refused_by_a_reader(folder, kind, data):
    (path := folder / f"any-{kind}").write_bytes(data)
    check_documents(path, kind)


@QUICK
@given(data=LINES_BYTES)
def test_any_bytes_are_questions_or_refused(folder, data):
    (path := folder / "q").write_bytes(data)
    check_questions(path)


@QUICK
@given(data=LINES_BYTES)
def test_any_bytes_are_labelled_words_or_refused(folder, data):
    (path := folder / "c").write_bytes(data)
    check_conll(path)


@QUICK
@given(records=st.lists(RECORDS, max_size=4))
def test_any_json_lines_are_documents_and_questions_or_refused(folder, records):
    (path := folder / "r.jsonl").write_text("\n".join(map(json.dumps, records)))
    check_documents(path, None)
    check_questions(path)


@QUICK
@given(record=st.lists(RECORDS, max_size=4) | RECORDS)
def test_any_json_is_documents_or_refused(folder, record):
    (path := folder / "r.json").write_text(json.dumps(record))
    check_documents(path, None)


@QUICK
@given(question=ANY_TEXT, answers=VALUES | ANY_TEXT)
def test_any_table_is_questions_or_refused(folder, question, answers):
    text = f"{question}\t{answers!r}\n"
    (path := folder / "q.tsv").write_bytes(text.encode("utf-8", "replace"))
    check_questions(path)


@QUICK
@given(wikitext=MARKUP | ANY_TEXT)
def test_any_wikitext_becomes_text(wikitext):
    text = tidy(render(mark_links(wikitext).nodes))
    plain, spans = split_links(text)
    assert all(0 <= a < b <= len(plain) for a, b in spans)
    for sentence, inside in link_sentences(text):
        assert sentence in plain and all(0 <= a < b <= len(sentence) for a, b in inside)


@QUICK
@given(
    title=ANY_TEXT, wikitext=MARKUP | ANY_TEXT, cut=st.integers(0, 400), flip=st.integers(0, 255)
)
def test_any_dump_is_read_or_refused(folder, title, wikitext, cut, flip):
    text = (
        f"<revision><text>{wikitext.replace('&', '&amp;').replace('<', '&lt;')}</text></revision>"
    )
    xml = f"<mediawiki><page><title>{title}</title><ns>0</ns>{text}</page></mediawiki>"
    data = bytearray(xml.encode("utf-8", "replace"))
    if cut < len(data):
        data[cut] ^= flip
    for path, written in (
        (folder / "d.xml", data),
        (folder / "d.bz2", bz2.compress(data)[: -1 - cut]),
    ):
        path.write_bytes(written)
        counts = Counter()
        survive(lambda path=path, counts=counts: list(read_mediawiki(path, counts, links=True)))
        assert counts["page"] <= 1
        check_documents(path, "mediawiki")


@QUICK
@given(text=ANY_TEXT | PROSE)
def test_any_text_is_cut_into_sentences_of_its_own_words(text):
    for sentence in sentences(text):
        assert sentence in text and sentence == sentence.strip()
    (spans,) = RuleTagger().tag([text])
    assert all(a.end <= b.start for a, b in pairwise(spans))
    assert all(0 <= s.start < s.end <= len(text) for s in spans)


COLUMN = st.sampled_from(
    [pa.string(), pa.large_string(), pa.binary(), pa.int64(), pa.list_(pa.string())]
)
CELLS = {
    pa.string(): st.text(max_size=9),
    pa.large_string(): st.text(max_size=9),
    pa.binary(): st.binary(max_size=9),
    pa.int64(): st.integers(-9, 9),
    pa.list_(pa.string()): st.lists(st.text(max_size=3), max_size=2),
}


@QUICK
@given(data=st.data(), kinds=st.tuples(COLUMN, COLUMN), n=st.integers(0, 3))
def test_any_table_is_documents_or_refused(folder, data, kinds, n):
    columns = {}
    for name, kind in zip(data.draw(st.permutations(["title", "text"])), kinds):
        cells = data.draw(st.lists(CELLS[kind] | st.none(), min_size=n, max_size=n))
        columns[name] = pa.array(cells, kind)
    if data.draw(st.booleans()):  # bytes that claim to be text
        columns["text"] = pa.array([b"\xff"] * n, pa.binary()).view(pa.string())
    pq.write_table(pa.table(columns), path := folder / "t.parquet")
    written = bytearray(path.read_bytes())
    for at in data.draw(st.lists(st.integers(0, len(written) - 1), max_size=3)):
        written[at] ^= data.draw(st.integers(0, 255))
    path.write_bytes(written)
    check_documents(path, None)
