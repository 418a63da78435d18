"Corpus: readers and their complaints, the wikitext parser, packing, and the token store."

import bz2
import json
import pickle
import re
import shutil
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from realm_nb.core.errors import UserError
from realm_nb.core.files import seal
from realm_nb.store import (
    ARRAYS,
    CorpusConfig,
    TokenStore,
    build_store,
    file_state,
    is_list,
    pack,
    prepare_store,
)
from realm_nb.text.documents import (
    licence_of,
    read_corpus,
    read_jsonl,
    read_mediawiki,
    read_parquet,
    read_path,
)
from realm_nb.text.sentences import sentences
from realm_nb.text.sources import registry
from realm_nb.text.tokenizer import load_tokenizer, tiny_tokenizer, tokenizer_digest
from realm_nb.text.wikitext import Document, strip_markup

MARKUP = re.compile(r"\{\{|\}\}|\[\[|\]\]|<ref|\|thumb|</|'''|https?://")
ESCAPE = {"&": "&amp;", "<": "&lt;"}


def dump(*pages) -> str:
    "A MediaWiki dump of (title, wikitext) or (title, wikitext, ns, redirect)."

    def page(title, text, ns=0, redirect=""):
        escaped = "".join(ESCAPE.get(c, c) for c in text)
        return (
            f"<page><title>{title}</title><ns>{ns}</ns>{redirect}<revision><text>"
            f"{escaped}</text></revision></page>\n"
        )

    return (
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">\n'
        + "".join(page(*p) for p in pages)
        + "</mediawiki>\n"
    )


def complaint(call, *parts):
    "`call` raises a one-line UserError that holds every one of `parts`."
    with pytest.raises(UserError) as e:
        call()
    text = str(e.value)
    assert "\n" not in text
    for part in parts:
        assert str(part) in text, text


# ---- wikitext


@pytest.mark.parametrize(
    "wikitext, expected",
    [
        ("The '''lake''' is ''deep''.", "The lake is deep."),
        ("A [[lake]] in [[Ostrand|the hills]].", "A lake in the hills."),
        (
            "It is old.<ref name=a>{{cite book|title=X}}</ref> It is<ref name=a/> cold.",
            "It is old. It is cold.",
        ),
        (
            "It is {{convert|12|km|mi}} long and {{convert|3|to|5|m|ft|abbr=on}} deep.",
            "It is 12 kilometres long and 3 to 5 metres deep.",
        ),
        (
            "He ({{lang-de|Arl}}; {{IPA|/a/}}; born {{circa|1890}}) fished.",
            "He (Arl; born c. 1890) fished.",
        ),
        (
            "He ({{IPA|/a/}}; born 1890) fished ({{IPA|x}}) there{{fact}}.",
            "He (born 1890) fished there.",
        ),
        (
            "It holds 10<sup>4</sup> fish &ndash; H<sub>2</sub>O&nbsp;too.",
            "It holds 10⁴ fish – H2O too.",
        ),
        (
            "[[File:A.jpg|thumb|A [[lake]] seen.]]It is deep.[[Category:Lakes]][[de:See]]",
            "It is deep.",
        ),
        ("{| class=wikitable\n|-\n| 1 || 2\n|}\nIt is deep.", "It is deep."),
        (
            "{{Infobox lake\n| name = {{nowrap|Arle}}\n}}\nIt is deep.<!-- really? -->",
            "It is deep.",
        ),
        (
            "Intro is here.\n== Fish ==\nPerch live here.\n=== See also ===\n* Some other lake.\n"
            "== Depth ==\nIt is deep.\n== References ==\nHolm 1990.\n=== Books ===\nMore of it.",
            "Intro is here.\nPerch live here.\nIt is deep.",
        ),
        (
            "It lies\nin the hills.\n* Perch\n* Trout live here too.\nThey are big.",
            "It lies in the hills.\nTrout live here too.\nThey are big.",
        ),
        (
            "See [http://a.example the list] and http://b.example now.\n\nFine line.",
            "See the list and now.\nFine line.",
        ),
        (
            "He said: {{quote|Fish are friends.}} It was so.",
            "He said:\nFish are friends.\nIt was so.",
        ),
        ("<gallery>\nA.jpg|The lake.\n</gallery>\nIt is deep.", "It is deep."),
        ("A broken {{template never ends.\n\nIt is deep.", "It is deep."),
        ("", ""),
        ("{{stub}}", ""),
        ("[[", ""),
    ],
)
def test_markup(wikitext, expected):
    assert strip_markup(wikitext) == expected


def test_formula_makes_the_sentence_go():
    text = strip_markup("Here <math>x^2</math> is a square number. The rest stays as it is.")
    assert sentences(text) == ["The rest stays as it is."]


@given(st.text(alphabet="ab{}[]|=<>/!'*#:;\n &.-", max_size=80))
@settings(max_examples=300, deadline=None)
def test_any_wikitext_is_survived(wikitext):
    assert not re.search(r"\{\{|\}\}|\[\[|\]\]|\x01", strip_markup(wikitext))


@pytest.mark.parametrize("suffix", [".xml", ".xml.bz2"])
def test_pages_that_are_no_articles(tmp_path, suffix):
    path, counts = tmp_path / f"d{suffix}", Counter()
    text = dump(
        ("Lake", "The lake is deep."),
        ("Lac", "#REDIRECT [[Lake]]", 0, '<redirect title="Lake" />'),
        ("Talk:Lake", "How deep is it?", 1),
        ("Arle", "Arle may be a lake. {{Disambiguation|geo}}"),
        ("Arle (disambiguation)", "Arle may be a lake."),
        ("Bare", "{{stub}}"),
    )
    path.write_bytes(bz2.compress(text.encode()) if suffix.endswith("bz2") else text.encode())
    assert list(read_mediawiki(path, counts)) == [Document("Lake", "The lake is deep.")]
    assert counts == {
        "page": 6,
        "article": 1,
        "redirect": 1,
        "other namespace": 1,
        "disambiguation": 2,
        "empty": 1,
    }


def test_damaged_dumps(tmp_path):
    good, path = (
        dump(*[(f"Lake {i}", "The lake is deep. " * 20) for i in range(200)]),
        tmp_path / "d.xml",
    )

    def read():
        return list(read_mediawiki(path))

    path.write_text(good[: len(good) // 2])
    complaint(read, path, "line ", "damaged XML")
    path.write_text("<html></html>")
    complaint(read, path, "not a MediaWiki dump", "<html>")
    path.write_text("")
    complaint(read, path, "damaged XML")
    packed, path = bz2.compress(good.encode()), tmp_path / "d.xml.bz2"
    path.write_bytes(packed[: len(packed) // 2])
    complaint(read, path, "bz2")
    path.write_bytes(b"BZh9" + b"\0" * 400)
    complaint(read, path, "bz2")
    path.write_bytes(packed[:200] + bytes(255 - b for b in packed[200:260]) + packed[260:])
    complaint(read, path, "bz2")


# ---- other readers


@pytest.mark.parametrize(
    "line, parts",
    [
        ('{"title": "B"', ["not JSON"]),
        ("[1]", ["list"]),
        ('{"title": "B"}', ["'text'"]),
        ('{"text": "b"}', ["'title'"]),
        ('{"title": 3, "text": "b"}', ["'title'", "3", "not a string"]),
        ('{"title": "B", "text": null}', ["'text'", "null"]),
        ("[" * 100_000, ["not JSON"]),
    ],
)
def test_bad_jsonl(tmp_path, line, parts):
    path = tmp_path / "c.jsonl"
    path.write_text('{"title": "A", "text": "a"}\n\n' + line + "\n")
    complaint(lambda: list(read_jsonl(path)), path, "line 3", *parts)


def test_wrong_encoding(tmp_path):
    for name, start in (("c.jsonl", b'{"title": "A", "text": "a"}\n'), ("c.txt", b"One line.\n")):
        (path := tmp_path / name).write_bytes(start + "{'Café'}".encode("latin-1"))
        complaint(
            lambda: list(read_path(path)),
            path,
            "line 2",
            "0xe9",
            f"offset {len(start) + 5}",
            "UTF-8",
        )
    (path := tmp_path / "w.txt").write_bytes("A lake".encode("utf-16"))
    complaint(lambda: list(read_path(path)), path, "line 1", "offset 0")


def test_bad_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "c.parquet"
    pq.write_table(pa.table({"id": [1], "body": ["a"]}), path)
    complaint(lambda: list(read_parquet(path)), path, "'title'", "'body'")
    pq.write_table(pa.table({"title": ["A", "B"], "text": ["a", None]}), path)
    complaint(lambda: list(read_parquet(path)), path, "row 2", "'text'")
    pq.write_table(pa.table({"title": ["A", "B"], "text": ["a", "b"], "url": ["", ""]}), path)
    assert list(read_corpus(path)) == [Document("A", "a"), Document("B", "b")]
    path.write_bytes(path.read_bytes()[:-20])
    complaint(lambda: list(read_parquet(path)), path, "damaged")


def test_text_files(tmp_path):
    (tmp_path / "b lake.txt").write_text("The lake\nis deep.\n\nIt is cold.")
    (tmp_path / "a.txt").write_text("\ufeffLake Arle\n\nIt is deep.", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "skip.pdf").write_bytes(b"\xff")
    assert list(read_corpus(tmp_path)) == [
        Document("Lake Arle", "It is deep."),
        Document("b lake", "The lake is deep.\n\nIt is cold."),
    ]


def test_json_files(tmp_path):
    path = tmp_path / "vital.json"
    path.write_text(
        json.dumps({"Lake": {"title": "Lake", "extract": "It is deep.", "topic": "geo"}})
    )
    assert list(read_corpus(path)) == [Document("Lake", "It is deep.")]
    path.write_text(
        json.dumps(
            {
                "Introduction": {"Background": {"text": "Old<br>land."}},
                "Government": {"Country name": {"conventional short form": {"text": "Ostrand"}}},
            }
        )
    )
    (d,) = read_corpus(path)
    assert d.title == "Ostrand" and "Background: Old land." in d.text
    path.write_text("{")
    complaint(lambda: list(read_corpus(path)), path, "not JSON")
    path.write_text("3")
    complaint(lambda: list(read_corpus(path)), path, "int")
    path.write_text('{"A": {"title": "A"}}')
    complaint(lambda: list(read_corpus(path)), path, "record 1", "'text'")


def test_corpus_names(tmp_path):
    def all_of(spec, **kw):
        return lambda: list(read_corpus(spec, **kw))

    complaint(all_of(tmp_path / "no.jsonl"), "no.jsonl", "no such file")
    complaint(all_of("wiki-vitl"), "wiki-vitl", "did you mean wiki-vital")
    complaint(all_of("mini+nothing"), "nothing")
    (tmp_path / "c.dat").write_text("x")
    complaint(all_of(tmp_path / "c.dat"), "c.dat", "'.dat'", ".jsonl")
    complaint(all_of(tmp_path / "c.dat", kind="jsn"), "jsn", "did you mean json")
    (tmp_path / "c.jsonl").write_text("\n")
    complaint(all_of(tmp_path / "c.jsonl"), "c.jsonl", "no documents")
    (tmp_path / "folder").mkdir()
    complaint(all_of(tmp_path / "folder"), "folder", "no documents")
    (tmp_path / "c.dat").write_text('{"title": "A+", "text": "a"}\n')
    assert all_of(tmp_path / "c.dat", kind="jsonl")() == [Document("A+", "a")]
    (tmp_path / "a+b.txt").write_text("A lake.")
    assert [d.title for d in read_corpus(tmp_path / "a+b.txt")] == ["a+b"]


def test_joined_and_limited(tmp_path):
    (tmp_path / "a.txt").write_text("A lake.")
    mini = list(read_corpus("mini"))
    assert list(read_corpus(f"{tmp_path / 'a.txt'}+mini")) == [Document("a", "A lake."), *mini]
    assert list(read_corpus("mini", limit=3)) == mini[:3]
    assert licence_of("mini").startswith("mini: ")


# ---- sentences


@pytest.mark.parametrize(
    "text",
    [
        "Mr. Ames met Dr. J. R. R. Holm of St. Louis.",
        "It costs $3.5 or 2.5 m. euros, e.g. in Bonn.",
        "He lived c. 1890 in the U.S. Army base.",
        "See vol. 3, no. 5 and fig. 7 of it.",
        "Gen. Smith and Lt. Gov. Brown left the U.K. in 1990.",
        "The firm Yahoo! was founded by them.",
        "Smith et al. (1990) wrote of it.",
        "Washington, D.C. is a big city.",
        'He asked "Why?" and then went home.',
    ],
)
def test_one_sentence(text):
    assert sentences(text) == [text]


@pytest.mark.parametrize(
    "text, n",
    [
        ("He left in 1990. She stayed on there.", 2),
        ("They moved to the U.S. The trip was long.", 2),
        ('"It is very deep!" "Is it so deep?"', 2),
        ("It was very cold there.[Note.] They went home at once.", 2),
        ("The first line ends here\nThe second line ends here", 2),
        ("He was, they said, a fool... They left him there.", 2),
        ("Das ist ein See. Über ihm fliegt ein Vogel.", 2),
        ("البحيرة عميقة جدا وباردة. المدينة قريبة من هنا.", 2),
        ("湖水很深而且非常冷。城市就在这附近的山上。", 2),
        ("", 0),
        ("Fishing", 0),
        ("THE WHOLE TITLE PAGE", 0),
        ("12 34 56 78", 0),
    ],
)
def test_several_sentences(text, n):
    assert len(sentences(text)) == n


@given(st.text(max_size=200))
@settings(deadline=None)
def test_sentences_keep_the_words(text):
    joined = re.sub(r"\s", "", text)
    at = 0
    for s in sentences(text):
        s = re.sub(r"\s", "", s)
        at = joined.index(s, at) + len(s)


# ---- blocks


@given(st.lists(st.integers(1, 80), max_size=60), st.integers(0, 90), st.integers(8, 100))
def test_pack(lengths, title_len, max_block_len):
    offsets = pack(lengths, title_len, max_block_len)
    budget = max_block_len - title_len - 3
    assert offsets[0] == 0 and offsets[-1] == len(lengths) and offsets == sorted(set(offsets))
    for a, b in pairwise(offsets):
        assert b == a + 1 or sum(lengths[a:b]) <= budget, "fits, or is one long sentence"
        assert b == len(lengths) or sum(lengths[a : b + 1]) > budget, (
            "greedy: the next sentence did not fit"
        )


# ---- store


@pytest.fixture(scope="session")
def mini():
    return list(read_corpus("mini"))


@pytest.fixture(scope="session")
def tokenizer(mini):
    return tiny_tokenizer(d.text for d in mini)


@pytest.fixture
def store(mini, tokenizer, tmp_path):
    return build_store(mini, tokenizer, tmp_path / "store", max_block_len=64, source="mini")


def check_store(store, documents, tokenizer, max_block_len):
    "Everything that a store promises about the documents it was built from."
    kept = [(d.title, ss) for d in documents if not is_list(d.title) and (ss := sentences(d.text))]
    assert store.titles == [t for t, _ in kept] and store.n_documents == len(kept)
    texts = [s for _, ss in kept for s in ss]
    assert [store.sentence_text(s) for s in range(store.n_sentences)] == texts
    assert [i for b in range(len(store)) for i in store.sentence_ids(b)] == list(range(len(texts)))
    owner = np.repeat(np.arange(len(kept)), [len(ss) for _, ss in kept])
    assert store.block_of(np.arange(len(texts))).tolist() == [
        store.block_of(s) for s in range(len(texts))
    ]
    for b in range(len(store)):
        ids = store.sentence_ids(b)
        assert {int(owner[s]) for s in ids} == {int(store.document_of(b))}, (
            "blocks never cross documents"
        )
        assert store.title(b) == kept[store.document_of(b)][0] and store.text(b) == " ".join(
            texts[s] for s in ids
        )
        assert store.body(b).dtype == np.uint16 and store.body(b).tolist() == [
            p for s in ids for p in store.sentence(s)
        ]
        assert (
            len(ids) == 1
            or len(store.body(b)) + len(store.title_ids(store.document_of(b))) + 3 <= max_block_len
        )
        assert all(store.block_of(s) == b for s in ids)
    for s, text in enumerate(texts):
        starts, ends = store.sentence_spans(s)
        assert (
            len(starts) == len(ends) == len(store.sentence(s))
            and (starts <= ends).all()
            and (ends <= len(text)).all()
            and (np.diff(starts.astype(int)) >= 0).all()
        )


def test_store_round_trip(store, mini, tokenizer):
    check_store(store, mini, tokenizer, 64)
    again = TokenStore.open(store.folder)
    assert (again.body(3) == store.body(3)).all() and again.meta[
        "tokenizer_digest"
    ] == tokenizer_digest(tokenizer)
    assert pickle.loads(pickle.dumps(store)).text(3) == store.text(3)
    assert len(pickle.dumps(store)) < 500, "workers reopen it, they don't copy it"


words = st.lists(
    st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=8)
    | st.sampled_from(
        ["lake", "the", "🐟🎣", "é", "ﷺ", "بحيرة", "אגם", "湖。", "[MASK]", "[SEP]", "."]
    ),
    max_size=30,
)


@given(
    st.lists(st.tuples(st.text(max_size=20), words.map(" ".join)), max_size=8), st.integers(8, 60)
)
@settings(max_examples=60, deadline=None)
def test_store_of_anything(tmp_path_factory, tokenizer, pairs, max_block_len):
    folder = tmp_path_factory.mktemp("store")
    documents = [Document(t, x) for t, x in pairs] + [Document("Lake", "The lake is very deep.")]
    check_store(
        build_store(documents, tokenizer, folder / "s", max_block_len),
        documents,
        tokenizer,
        max_block_len,
    )
    shutil.rmtree(folder)


def test_special_tokens_in_text_are_text(tokenizer, tmp_path):
    store = build_store(
        [Document("[SEP]", "Write [MASK] and [SEP] in the box.")], tokenizer, tmp_path / "s"
    )
    assert not set(tokenizer.all_special_ids) - {tokenizer.unk_token_id} & {
        *store.body(0).tolist(),
        *store.title_ids(0).tolist(),
    }


def test_lone_surrogate(tokenizer, tmp_path):
    store = build_store(
        [Document("A\ud800", "This lake \ud800 is very deep. That one is not deep.")],
        tokenizer,
        tmp_path / "s",
    )
    assert store.text(0) == "That one is not deep."


def test_first_pieces_only(mini, tokenizer, tmp_path):
    whole, short = (
        build_store(mini, tokenizer, tmp_path / str(m), max_block_len=64, max_pieces_per_document=m)
        for m in (0, 40)
    )
    assert short.n_documents == whole.n_documents and short.n_sentences < whole.n_sentences
    for d in range(short.n_documents):
        n = [len(short.sentence(s)) for b in short.blocks_of(d) for s in short.sentence_ids(b)]
        assert sum(n) <= 40 or len(n) == 1


def test_lists_are_left_out(tokenizer, tmp_path):
    documents = [
        Document(t, "The lake is very deep.")
        for t in (
            "List of lakes",
            "Index of lakes",
            "Outline of lakes",
            "Arle (disambiguation)",
            "Listing",
        )
    ]
    assert build_store(documents, tokenizer, tmp_path / "s").titles == ["Listing"]


def test_long_sentence_has_its_own_block(tokenizer, tmp_path):
    long = "the lake " * 16_000
    store = build_store(
        [Document("Lake", f"It is deep and cold.\n{long}\nIt is old and cold.")],
        tokenizer,
        tmp_path / "s",
        max_block_len=32,
    )
    assert " ".join(store.sentence_text(s) for s in range(1, store.n_sentences - 1)).replace(
        " ", ""
    ) == long.replace(" ", "")
    assert all(len(store.sentence_ids(b)) == 1 for b in range(1, len(store) - 1))
    assert max(int(store.sentence_spans(s)[1].max()) for s in range(store.n_sentences)) <= 60_000


def test_nothing_to_store(tokenizer, tmp_path):
    complaint(
        lambda: build_store([], tokenizer, tmp_path / "s", source="mine.txt"),
        "mine.txt",
        "sentence",
    )
    complaint(
        lambda: build_store([Document("A", "Title only")], tokenizer, tmp_path / "s"), "sentence"
    )
    complaint(
        lambda: build_store(
            [Document("A", "The lake is deep.")], tokenizer, tmp_path / "s", max_block_len=3
        ),
        "max_block_len is 3",
    )
    assert not any(tmp_path.iterdir()), "no half-written store is left"


def test_killed_build_leaves_the_old_store(mini, tokenizer, store):
    def dying():
        yield from mini[:100]
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        build_store(dying(), tokenizer, store.folder)
    assert (
        TokenStore.open(store.folder).n_documents == len(mini)
        and len(list(store.folder.parent.iterdir())) == 1
    )


@pytest.mark.parametrize(
    "name",
    [
        "meta.json",
        "titles.json",
        "token_ids.bin",
        "token_spans.bin",
        "text_bytes.bin",
        "title_token_ids.bin",
        "sentence_offsets.bin",
        "block_document.bin",
    ],
)
@pytest.mark.parametrize("how", ["missing", "cut", "garbage", "empty"])
def test_damaged_store(store, name, how):
    path = store.folder / name
    content = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(
            {"cut": content[: len(content) // 2], "garbage": b"\x80garbage" * 3, "empty": b""}[how]
        )
    complaint(lambda: TokenStore.open(store.folder), store.folder, "build it again")


def test_incompatible_store(store, tmp_path):
    meta = json.loads((store.folder / "meta.json").read_text())
    (store.folder / "meta.json").write_text(json.dumps(meta | {"format": 99}))
    complaint(lambda: TokenStore.open(store.folder), "format 99")
    (store.folder / "meta.json").write_text("[]")
    complaint(lambda: TokenStore.open(store.folder), "build it again")
    complaint(lambda: TokenStore.open(tmp_path / "nowhere"), "nowhere", "build it again")


def test_a_changed_file_has_a_store_of_its_own(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("REALM_NB_HOME", str(tmp_path / "home"))
    path = tmp_path / "lake.txt"
    path.write_text("The lake is very deep. It is old and cold.")
    config = CorpusConfig(source=str(path), max_block_len=64)
    first, again = prepare_store(config, tokenizer), prepare_store(config, tokenizer)
    assert (
        first.folder == again.folder and len(list((tmp_path / "home" / "corpora").iterdir())) == 1
    )
    path.write_text("The lake is not so deep.")
    assert prepare_store(config, tokenizer).text(0) == "The lake is not so deep."
    assert first.text(0).startswith("The lake is very deep."), "what was opened stays as it was"


def test_a_folder_is_known_by_the_files_that_are_read(tokenizer, tmp_path, monkeypatch):
    monkeypatch.setenv("REALM_NB_HOME", str(tmp_path / "home"))
    one, two = tmp_path / "one/docs", tmp_path / "two/docs"
    for folder, text in ((one, "The lake is very deep."), (two, "The sea is much deeper.")):
        folder.mkdir(parents=True)
        (folder / "a.txt").write_text(text)

    def store(folder):
        monkeypatch.chdir(folder.parent)
        return prepare_store(CorpusConfig(source="docs", max_block_len=64), tokenizer)

    first, second = store(one), store(two)
    assert (first.text(0), second.text(0)) == ("The lake is very deep.", "The sea is much deeper.")
    assert first.fingerprint != second.fingerprint and len(first.fingerprint) == 16
    (one / ".hidden.txt").write_text("The pond is not so deep.")
    (one / "notes.pdf").write_text("The pond is not so deep.")
    assert store(one).folder == first.folder, "neither is read"
    (one / "b.txt").write_text("The pond is not so deep.")
    assert store(one).text(len(store(one)) - 1) == "The pond is not so deep."
    (one / "b.txt").unlink()
    assert store(one).folder == first.folder
    (one / "a.txt").write_text("The lake is not so deep.")
    assert store(one).text(0) == "The lake is not so deep."


def test_a_registered_corpus_is_known_by_its_pin(monkeypatch):
    from realm_nb import store as module

    before, known = file_state("wiki-vital"), registry("corpus")
    changed = {**known, "wiki-vital": replace(known["wiki-vital"], sha256="0" * 64)}
    monkeypatch.setattr(module, "registry", lambda kind="": changed)
    assert file_state("wiki-vital") != before != []


@pytest.mark.parametrize("name, change", [("sentence_offsets", 1), ("block_document", 7)])
def test_arrays_that_do_not_fit_each_other_are_refused(mini, tokenizer, tmp_path, name, change):
    store = build_store(mini[:9], tokenizer, tmp_path / "store", 64)
    path = store.folder / f"{name}.bin"
    values = np.fromfile(path, ARRAYS[name])
    values[-1] += change
    values.tofile(path)
    seal(store.folder)
    complaint(lambda: TokenStore.open(store.folder), name, "build it again")


# ---- tokenizers


def test_tiny_tokenizer_is_repeatable(mini, tokenizer):
    assert tiny_tokenizer([d.text for d in mini]).get_vocab() == tokenizer.get_vocab()
    assert (
        tokenizer.convert_tokens_to_ids(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
        == list(range(5))
        and len(tokenizer) <= 2000
    )
    assert tokenizer("the lake")["input_ids"][0] == tokenizer.cls_token_id


def test_load_tokenizer(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "t")
    assert tokenizer_digest(load_tokenizer(tmp_path / "t")) == tokenizer_digest(tokenizer)
    (tmp_path / "empty").mkdir()
    complaint(lambda: load_tokenizer(tmp_path / "empty"), "empty", "tokenizer")


def test_digest_ignores_padding(tokenizer):
    before = tokenizer_digest(tokenizer)
    tokenizer(["the lake", "a"], padding=True, truncation=True, max_length=4)
    assert tokenizer_digest(tokenizer) == before


# ---- real text


@pytest.mark.network
def test_real_dump(tokenizer, tmp_path):
    from realm_nb.text.sources import fetch

    (path,), counts = [*fetch("wiki-dump").rglob("*.bz2")], Counter()
    documents = list(read_mediawiki(path, counts))
    assert counts == {
        "page": 206,
        "redirect": 99,
        "other namespace": 1,
        "disambiguation": 8,
        "empty": 1,
        "article": 97,
    }
    assert [d.title for d in documents][:3] == ["Anarchism", "Autism", "Albedo"]
    found = [s for d in documents for s in sentences(d.text)]
    assert 18_000 < len(found) < 20_000 and not [s for s in found if MARKUP.search(s)]
    assert not [s for s in found if re.search(r"\(\s*[,;)]|\s[,;](?:\s|$)|  ", s)], "no holes"
    assert build_store(documents, tokenizer, tmp_path / "s", max_block_len=110).n_documents == 96, (
        "a list is left out of the blocks"
    )


@pytest.mark.network
@pytest.mark.parametrize("name, n", [("wiki-vital", 10_033), ("factbook", 256)])
def test_packaged_corpora(name, n):
    assert sum(1 for _ in read_corpus(name)) == n
