"""Masking: spans fall on whole pieces and never leak, examples are the same for any worker, tagging
resumes, and a tagger can be trained."""

import os
import signal
import subprocess
import sys
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from realm_nb.core.device import rng
from realm_nb.core.errors import UserError
from realm_nb.masking import (
    MOST,
    POLICIES,
    Copies,
    CopiesElsewhere,
    Example,
    Masker,
    Questions,
    batch_ids,
    hash_bits,
    held_out_blocks,
    nth_ids,
    shuffled,
    split_sentences,
)
from realm_nb.spans import SpanTable, judge, main, stretches, tag_in_parts, tag_store, to_tokens
from realm_nb.store import build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.tagger_training import (
    TaggerConfig,
    bio_labels,
    read_conll,
    train_tagger,
    write_conll,
)
from realm_nb.text.taggers import LinkTagger, RuleTagger, Span, disjoint, find_dates, make_tagger
from realm_nb.text.tokenizer import tiny_tokenizer, tokenize
from realm_nb.text.wikitext import Document

os.environ["REALM_NB_QUIET"] = "1"
relaxed = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
STRANGE = [
    "",
    " ",
    "\t\n",
    "🙂🙂🏳️‍🌈 in 1999",
    "وُلد في القاهرة عام 1990 مع Marie Curie",
    "שלום Warsaw שלום",
    "[[File:x.jpg]] {{a|b}} <ref/>",
    "A\u0301ngstro\u0308m of Łódź",
    "\x00\x01",
    "ﬁﬂ ½ ① Ⅳ 1914–18",
    "word " * 20_000,
    "1999 " * 20_000,
    "Marie " * 17_000,
    "A" * 100_000,
    "<b>" * 30_000,
    "1" * 100_000,
    "a.b." * 25_000,
    "Dr. J. " * 14_000,
]


@pytest.fixture(scope="module")
def mini():
    return list(read_corpus("mini"))


@pytest.fixture(scope="module")
def tokenizer(mini):
    return tiny_tokenizer(d.text for d in mini)


@pytest.fixture(scope="module")
def store(mini, tokenizer, tmp_path_factory):
    return build_store(
        mini, tokenizer, tmp_path_factory.mktemp("store") / "store", max_block_len=64
    )


@pytest.fixture(scope="module")
def table(store):
    return tag_store(store, RuleTagger(), max_tokens=48)


def maker(store, table, tokenizer, policy="salient", **more):
    return Masker(store, table, policy, max_query_len=48, **more)


def alike(a: Example, b: Example) -> bool:
    return all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("x", "positions", "y")) and (
        a.sentence,
        a.exclude,
    ) == (b.sentence, b.exclude)


@pytest.mark.parametrize("text", STRANGE, ids=range(len(STRANGE)))
def test_strange_input_survives(text, tokenizer):
    began = time.perf_counter()
    spans = RuleTagger().tag([text])[0]
    assert time.perf_counter() - began < 20
    assert spans == sorted(spans) and all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in pairwise(spans))


@relaxed
@given(st.text(max_size=200))
def test_any_text(text):
    for spans in (find_dates(text), RuleTagger().tag([text])[0]):
        assert all(0 <= s.start < s.end <= len(text) for s in spans) and all(
            a.end <= b.start for a, b in pairwise(spans)
        )


@relaxed
@given(
    st.text(alphabet=st.characters(codec="utf-8"), max_size=80),
    st.integers(0, 80),
    st.integers(0, 80),
)
def test_pieces_are_those_wholly_inside(tokenizer, text, start, end):
    starts, ends = (
        np.array(tokenize(tokenizer, [text])["offset_mapping"][0], np.int64).reshape(-1, 2).T
    )
    inside = np.flatnonzero((starts >= start) & (ends <= end) & (ends > starts))
    a, b = to_tokens(Span(start, end, ""), starts, ends)
    assert list(range(a, b)) == inside.tolist()


@relaxed
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(1, 9)), max_size=30))
def test_disjoint_keeps_the_longest(pairs):
    spans = [Span(a, a + n, "x") for a, n in pairs]
    kept = disjoint(spans)
    assert all(a.end <= b.start for a, b in pairwise(kept))
    for s in spans:
        assert any(
            s.start < k.end and k.start < s.end and k.end - k.start >= s.end - s.start for k in kept
        )


@pytest.mark.parametrize(
    "reason,span,starts,ends",
    [
        ("crosses sentences", (0, 11), range(10), range(1, 11)),
        ("no whole piece", (1, 2), [0, 4], [4, 8]),
        ("cut off", (7, 9), range(10), range(1, 11)),
        ("too long", (0, 5), range(10), range(1, 11)),
        ("whole sentence", (0, 2), range(3), range(1, 4)),
        ("kept", (0, 2), range(10), range(1, 11)),
    ],
)
def test_every_reason_is_counted(reason, span, starts, ends):
    assert judge(Span(*span, ""), 10, np.array(starts), np.array(ends), 8, 4)[2] == reason


@relaxed
@given(data=st.data())
def test_masks_decode_to_the_span_and_nothing_leaks(data, store, table, tokenizer):
    policy, budget = data.draw(st.sampled_from(POLICIES)), data.draw(st.booleans())
    masker = maker(
        store, table, tokenizer, policy, same_budget=budget, seed=data.draw(st.integers(0, 9))
    )
    s, draw = (
        int(data.draw(st.sampled_from(masker.sentences.tolist()))),
        data.draw(st.integers(0, 50)),
    )
    e, whole = masker(s, draw), store.sentence(s)[:48]
    assert (e.x[e.positions] == tokenizer.mask_token_id).all() and (e.y == whole[e.positions]).all()
    assert (
        np.delete(e.x, e.positions) == np.delete(whole, e.positions)
    ).all() and tokenizer.mask_token_id not in np.delete(e.x, e.positions)
    assert (
        1 <= len(e.positions) <= MOST
        and (np.diff(e.positions) > 0).all()
        and e.block == store.block_of(s)
    )
    if policy == "salient":
        assert any(
            s == r and a == e.positions[0] and b == e.positions[-1] + 1
            for r, a, b in zip(table.sentence, table.start, table.end)
        )
        starts, ends = store.sentence_spans(s)
        assert (
            masker.answer(e)
            == store.sentence_text(s)[starts[e.positions[0]] : ends[e.positions[-1]]]
        )
        assert tokenizer.decode(e.y.tolist()).replace(" ", "") == tokenizer.decode(
            tokenize(tokenizer, [masker.answer(e)])["input_ids"][0]
        ).replace(" ", "")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("budget", [False, True])
def test_a_batch_is_its_examples_one_by_one(store, table, tokenizer, policy, budget):
    masker = maker(store, table, tokenizer, policy, same_budget=budget, copies=Copies(store))
    ids, draws = masker.sentences[:200], np.arange(200) % 7
    assert all(map(alike, masker.batch(ids, draws), (masker(s, d) for s, d in zip(ids, draws))))
    assert not all(map(alike, masker.batch(ids, draws), masker.batch(ids, draws + 1))), (
        "another visit, another mask"
    )


def test_policies_hide_equally_much_with_the_same_budget(store, table, tokenizer):
    counts = [
        [
            len(e.y)
            for e in maker(store, table, tokenizer, p, same_budget=True).batch(
                table.sentence[::3], 4
            )
        ]
        for p in POLICIES
    ]
    assert counts[0] == counts[1] == counts[2]


class Walk:
    "The first 400 examples of the walk through `ids`, as a data set."

    def __init__(self, masker, ids):
        self.masker, self.ids = masker, ids

    def __len__(self):
        return 400

    def __getitems__(self, i):
        return self.masker.batch(*nth_ids(self.ids, np.asarray(i), 0, "pretrain"))


@pytest.mark.filterwarnings("ignore:This DataLoader")
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_workers_do_not_matter(store, table, tokenizer, context):
    walk = Walk(maker(store, table, tokenizer), table.sentence[::7])
    load = lambda workers, start=0: [
        e
        for batch in DataLoader(
            walk,
            8,
            sampler=range(start, 400),
            collate_fn=list,
            num_workers=workers,
            multiprocessing_context=context if workers else None,
        )
        for e in batch
    ]
    one = load(0)
    assert len(one) == 400 and all(map(alike, one, load(1)))
    if context == "fork":
        assert all(map(alike, one, load(4)))
    assert all(map(alike, one[200:], load(4 if context == "fork" else 1, 200))), (
        "resumed in the middle"
    )
    pairs = [p for t in range(50) for p in batch_ids(walk.ids, t, 8, 0, "pretrain")]
    assert all(map(alike, one, (walk.masker(*p) for p in pairs)))


@relaxed
@given(st.integers(1, 700), st.integers(0, 2**60))
def test_shuffles_are_permutations(n, k):
    assert sorted(shuffled(np.arange(n), n, k).tolist()) == list(range(n))


def test_epochs_differ_and_are_fair():
    orders = shuffled(np.tile(np.arange(50), (4000, 1)), 50, hash_bits(1, np.arange(4000))[:, None])
    where = np.stack([np.bincount(orders[:, i], minlength=50) for i in range(50)])
    assert len({tuple(o) for o in orders}) == 4000 and abs(where / 80 - 1).max() < 0.6
    assert abs(np.corrcoef(orders[:, 0], orders[:, 1])[0, 1]) < 0.06


def test_copies_are_excluded(tokenizer, tmp_path):
    text = "Marie Curie was born in Warsaw. She moved to Paris in 1891."
    store = build_store(
        [
            Document("A", text),
            Document("B", "“Marie Curie was born, in WARSAW!” It rains in London often."),
            Document("C", "Hills near Kraków are green."),
        ],
        tokenizer,
        tmp_path / "s",
        max_block_len=64,
    )
    table = tag_store(store, RuleTagger())
    alone, both = (Masker(store, table, copies=c) for c in (None, Copies(store)))
    assert [e.exclude for e in alone.batch(alone.sentences)] == [
        (e.block,) for e in alone.batch(alone.sentences)
    ]
    assert both(0).exclude == (0, 1) and both(2).exclude == (1, 0) and both(1).exclude == (0,)


def test_held_out_blocks_share_no_sentence(store, table, tokenizer):
    masker = maker(store, table, tokenizer)
    train, held = split_sentences(masker, held_out_blocks(store, 0.2))
    assert len(train) + len(held) == len(masker.sentences) and not set(store.block_of(train)) & set(
        store.block_of(held)
    )


def test_a_sentence_without_a_span_and_a_wrong_policy(store, table, tokenizer):
    bare = next(s for s in range(store.n_sentences) if s not in set(table.sentence.tolist()))
    with pytest.raises(UserError, match=f"sentence {bare}"):
        maker(store, table, tokenizer)(bare)
    with pytest.raises(UserError, match="salient"):
        maker(store, table, tokenizer, "salent")


def same_tables(a: SpanTable, b: SpanTable) -> bool:
    return (
        a.labels == b.labels
        and a.report == b.report
        and all(
            np.array_equal(getattr(a, k), getattr(b, k))
            for k in ("sentence", "start", "end", "label")
        )
    )


def test_one_process_or_two(store, table, tmp_path):
    cache = tmp_path / "tags"
    folders = [tmp_path / name for name in ("one", "two")]
    one, two = (
        tag_in_parts(store, RuleTagger(), 48, f, n, cache) for n, f in enumerate(folders, 1)
    )
    assert same_tables(one, table) and same_tables(two, table)
    assert same_tables(tag_store(store, RuleTagger(), 48, cache=cache), table), "from what was kept"


def test_a_damaged_piece_is_tagged_again(store, table, tmp_path):
    tag_store(store, RuleTagger(), 48, cache=tmp_path)
    for f in tmp_path.rglob("*.npz"):
        f.write_bytes(f.read_bytes()[:50])
    assert same_tables(tag_store(store, RuleTagger(), 48, cache=tmp_path), table)


SLOW = """
import sys, time
from realm_nb.spans import tag_stretches
from realm_nb.store import TokenStore
from realm_nb.text.taggers import RuleTagger
class Slow(RuleTagger):
    asked = 0
    def tag(self, texts):
        Slow.asked += len(texts)
        time.sleep(float(sys.argv[3]))
        return super().tag(texts)
list(tag_stretches(TokenStore.open(sys.argv[1]), Slow(), cache=sys.argv[2], size=40))
print(Slow.asked)
"""


def test_a_killed_tagging_goes_on(store, tmp_path):
    run = [sys.executable, "-c", SLOW, str(store.folder), str(tmp_path)]
    process = subprocess.Popen([*run, "0.5"])
    end = time.monotonic() + 120
    while time.monotonic() < end and len(list(tmp_path.rglob("*.npz"))) < 3:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {f.stat().st_mtime_ns for f in tmp_path.rglob("*.npz")}
    done = subprocess.run([*run, "0"], capture_output=True, text=True)
    assert 3 <= len(kept) < len(list(stretches(store, 40))) and kept <= {
        f.stat().st_mtime_ns for f in tmp_path.rglob("*.npz")
    }
    assert int(done.stdout) < store.n_sentences, done.stderr
    assert len(list(tmp_path.rglob("*.npz"))) == len(list(stretches(store, 40)))


def test_a_span_table_comes_back(table, tmp_path):
    table.save(tmp_path / "t")
    assert same_tables(SpanTable.load(tmp_path / "t"), table)
    (tmp_path / "t" / "spans.npy").write_bytes(b"x")
    with pytest.raises(UserError, match="damaged"):
        SpanTable.load(tmp_path / "t")


def lessons(n, seed):
    g = rng(seed, "lessons")

    def some(*letters):
        return "".join(g.choice(list(part)) for part in letters)

    return [
        (
            [
                "Zo" + some("mnr", "ae"),
                "Z" + some("aei", "lm"),
                "left",
                some("ABD", "ae", "lr") + "burg",
                ".",
            ],
            ["B-PER", "I-PER", "O", "B-LOC", "O"],
        )
        for _ in range(n)
    ]


def conll(path, sentences):
    path.write_text(
        "-DOCSTART- -X- O O\n\n"
        + "\n\n".join("\n".join(f"{w} X Y {t}" for w, t in zip(*s)) for s in sentences)
        + "\n"
    )
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    import torch
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("base")
    tiny_tokenizer((" ".join(w) for w, _ in lessons(200, 0)), 200).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(
        BertConfig(
            vocab_size=200,
            hidden_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=64,
        ),
        add_pooling_layer=False,
    ).save_pretrained(folder)
    return folder


def test_a_tagger_is_trained_by_command_and_finds_names(base, tmp_path, capsys):
    train, dev = conll(tmp_path / "train", lessons(200, 0)), conll(tmp_path / "dev", lessons(30, 1))
    assert (
        main(
            [
                "train",
                str(train),
                "--dev",
                str(dev),
                "--base",
                str(base),
                "--out",
                str(tmp_path / "out"),
                "--epochs",
                "6",
                "--lr",
                "0.005",
            ]
        )
        == 0
    )
    import json

    told = json.loads((tmp_path / "out" / "training.json").read_text())
    assert (
        told["loss"][-1] < told["loss"][0] / 5
        and told["scores"]["f1"] > 0.9
        and "loss" in capsys.readouterr().out
    )
    tagger = make_tagger(tmp_path / "out")
    text = "Zoma Zal left Balburg."
    assert [(text[s.start : s.end], s.label) for s in tagger.tag([text])[0]] == [
        ("Zoma Zal", "PER"),
        ("Balburg", "LOC"),
    ]
    assert not list((tmp_path / "out").glob("*.bin"))
    import pickle

    assert pickle.loads(pickle.dumps(tagger)).name == tagger.name
    for strange in STRANGE:
        tagger.tag([strange])


@pytest.mark.network
def test_bert_tiny_is_a_base(tmp_path):
    from realm_nb.text.sources import fetch

    path = fetch("bert-tiny", cache=os.environ.get("REALM_NB_TEST_CACHE"))
    config = TaggerConfig(base=str(path), epochs=4, lr=1e-3)
    result = train_tagger(lessons(150, 0), tmp_path / "t", config, dev=lessons(20, 1))
    assert result["loss"][-1] < result["loss"][0] / 3 and result["scores"]["f1"] > 0.8


@pytest.mark.network
def test_spacy_finds_names_and_survives():
    from realm_nb.text.sources import fetch
    from realm_nb.text.taggers import SpacyTagger

    tagger = SpacyTagger(fetch("spacy-sm", cache=os.environ.get("REALM_NB_TEST_CACHE")))
    text = "Marie Curie was born in Warsaw on 7 November 1867."
    assert [text[s.start : s.end] for s in tagger.tag([text])[0]] == [
        "Marie Curie",
        "Warsaw",
        "7 November 1867",
    ]
    for strange, spans in zip(STRANGE, tagger.tag(STRANGE)):
        assert all(0 <= s.start < s.end <= len(strange) for s in spans)


@relaxed
@given(st.lists(st.sampled_from(["O", "I-PER", "B-PER", "I-LOC", "B-LOC"]), max_size=8))
def test_conll_comes_back(tmp_path, labels):
    labels, words = bio_labels(labels), [f"w{i}" for i in range(len(labels))]
    at = np.cumsum([0, *(len(w) + 1 for w in words)])
    from realm_nb.text.taggers import bio_spans

    spans = [Span(int(at[a]), int(at[b]) - 1, kind) for a, b, kind in bio_spans(labels)]
    if not words:
        return
    write_conll(tmp_path / "c", [" ".join(words)], [spans])
    assert read_conll(tmp_path / "c") == [(words, labels)]


def test_links_are_gold_spans(tmp_path):
    page = "<page><title>{}</title><ns>0</ns><revision><text>{}</text></revision></page>"
    body = "'''Curie''' was born in [[Warsaw]], in the [[Russian Empire|Empire]]. "
    body += "She studied [[ray]]s there with [[Pierre Curie|her husband]]."
    (tmp_path / "d.xml").write_text(f"<mediawiki>{page.format('A', body)}</mediawiki>")

    def cut(tagger):
        return [t[s.start : s.end] for t in tagger.sentences for s in tagger.tag([t])[0]]

    assert cut(make_tagger(f"links:{tmp_path / 'd.xml'}")) == ["Warsaw", "Empire"]
    assert cut(LinkTagger(tmp_path / "d.xml", names=False)) == [
        "Warsaw",
        "Empire",
        "rays",
        "her husband",
    ]


@pytest.mark.parametrize(
    "argv,needles",
    [
        (["train", "no.conll", "--out", "o"], ["no.conll", "no such file"]),
        (["train", "{bad}", "--out", "o"], ["line 2", "'lonely'"]),
        (
            ["train", "{good}", "--out", "o", "--base", "bert-tiy"],
            ["'bert-tiy'", "did you mean bert-tiny"],
        ),
        (["train", "{good}"], ["--out"]),
        (["train", "{good}", "--out", "o", "--epochs", "0"], ["--epochs", "at least 1"]),
        (["train", "{good}", "--out", "o", "--lr", "fast"], ["--lr", "fast"]),
        (["agreement", "--corpus", "{good}", "--taggers", "rule"], ["not a MediaWiki dump", "XML"]),
        (["agreement", "--corpus", "nowhere.xml"], ["nowhere.xml"]),
        (["report", "--tagger", "ruel", "--corpus", "mini"], ["ruel", "rule"]),
        (["agreemnt"], ["agreemnt", "agreement"]),
        ([], ["command"]),
    ],
)
def test_bad_commands(argv, needles, tmp_path, base):
    (tmp_path / "bad").write_text("fine O\nlonely\n")
    conll(tmp_path / "good", lessons(3, 0))
    argv = [a.format(bad=tmp_path / "bad", good=tmp_path / "good") for a in argv]
    done = subprocess.run(
        [sys.executable, "-c", "from realm_nb.spans import main; raise SystemExit(main())", *argv],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode == 2 and len(lines) == 1 and lines[0].startswith("error: "), done.stderr
    assert (
        any(n in lines[0] for n in needles)
        if "MediaWiki" in needles[0]
        else all(n in lines[0] for n in needles)
    ), lines[0]


def test_a_question_keeps_the_masks_and_asks_by_label(store, table, tokenizer):
    examples = maker(store, table, tokenizer).batch(table.sentence)
    asked = Questions(table, tokenizer, 1.0)(examples)
    turned = [e for e in asked if e.question is not None]
    assert len(turned) == len(asked), "every salient span has a label"
    for e, q in zip(examples, asked):
        assert (q.x == e.x).all() and (q.positions == e.positions).all(), "the Encoder reads x"
        assert tokenizer.mask_token_id not in q.question
        assert len(q.question) < len(e.x) + 4
    said = [tokenizer.decode(e.question.tolist()) for e in turned]
    assert sum(" when" in text for text in said) > 50
    assert not any(f"{word} when" in text for text in said for word in ("in", "on", "since"))


def test_masks_that_are_no_span_ask_nothing_and_choice_is_the_same_again(store, table, tokenizer):
    ask = Questions(table, tokenizer, 0.5)
    random = maker(store, table, tokenizer, "random").batch(table.sentence)
    kept = [e for e in ask(random) if e.question is None]
    assert len(kept) > 0.8 * len(random)
    salient = maker(store, table, tokenizer)
    first, again = (ask([salient(s) for s in table.sentence[:99]]) for _ in range(2))
    assert [e.question is None for e in first] == [e.question is None for e in again]
    assert 25 < sum(e.question is None for e in first) < 75


def test_sentences_of_another_corpus_leave_out_their_copies_where_they_are_searched(
    store, table, tokenizer, mini, tmp_path
):
    copied, block = store.sentence_text(7), int(store.block_of(7))
    texts = [f"Somebody wrote this in 1901. {copied}", "Nothing of 1902 stands elsewhere."]
    news = build_store([Document("news", t) for t in texts], tokenizer, tmp_path / "news")
    elsewhere = CopiesElsewhere(Copies(news), Copies(store))
    excluded = dict(zip(range(news.n_sentences), elsewhere.excluded(np.arange(news.n_sentences))))
    there = [s for s in excluded if news.sentence_text(s) == copied]
    assert len(there) == 1 and excluded.pop(there[0]) == (block,)
    assert set(excluded.values()) == {()}
    masker = maker(news, tag_store(news, RuleTagger(), 48), tokenizer, copies=elsewhere)
    assert {e.exclude for e in masker.batch(masker.sentences)} <= {(), (block,)}
