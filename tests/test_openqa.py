"""The scorer against cases worked out by hand, spans and losses against brute force, and the
commands from end to end."""

import copy
import itertools
import json
import math
import shutil
import time
import types

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from realm_nb.core.errors import UserError
from realm_nb.core.folder import Run
from realm_nb.core.packing import pad
from realm_nb.qa import ask, table1
from realm_nb.qa import reader as reading
from realm_nb.qa.finetune import FinetuneConfig, OpenQA, fine_tune, openqa_step
from realm_nb.qa.reader import (
    Reader,
    ReaderConfig,
    Reading,
    Readings,
    TrainingSet,
    best_answers,
    body_characters,
    draw_blocks,
    join,
    lexical_overlap,
    load_body,
    nth,
    reader_loss,
    retriever_loss,
    right_spans,
    span_mask,
    train_reader,
    word_boundaries,
)
from realm_nb.qa.retrievers import Bm25, Dense, interleave, tokenize_questions
from realm_nb.qa.scoring import (
    answer_blocks,
    blocks_with_answers,
    exact_match,
    f1,
    matches,
    normalize,
    recall_at,
    right,
    without_overlap,
)
from realm_nb.retrieval import embed_store
from realm_nb.store import CorpusConfig, build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.sources import load_questions
from realm_nb.text.tokenizer import tiny_tokenizer
from realm_nb.towers import ModelConfig, Towers, quiet_transformers, tiny_towers
from realm_nb.train import run_stages
from realm_nb.workspace import Config, Workspace

# (prediction, answers, exact match, F1), worked out by hand
CASES = [
    ("Paris", ["Paris"], True, 1),
    ("paris", ["PARIS"], True, 1),
    ("Paris.", ["Paris"], True, 1),
    ("  Paris \n", ["Paris"], True, 1),
    ("the Nile", ["Nile"], True, 1),
    ("a Nile", ["an Nile"], True, 1),
    ("Nile", ["River Nile"], False, 2 / 3),
    ("River  Nile", ["River Nile"], True, 1),
    ("Rome", ["Paris"], False, 0),
    ("Rome", ["Paris", "Rome"], True, 1),
    ("U.S.", ["US"], True, 1),
    ("U. S.", ["US"], False, 0),
    ("Beyonc\u00e9", ["Beyonce\u0301"], True, 1),
    ("Beyoncé", ["Beyonce"], False, 0),
    ("Ångström", ["A\u030angstro\u0308m"], True, 1),
    ("1,000", ["1000"], True, 1),
    ("1.5", ["15"], True, 1),
    ("$5", ["5"], True, 1),
    ("5%", ["5"], True, 1),
    ("1914–18", ["191418"], False, 0),
    ("1914-18", ["191418"], True, 1),
    ("rock 'n' roll", ["rock n roll"], True, 1),
    ("O'Neill", ["ONeill"], True, 1),
    ("AC/DC", ["ACDC"], True, 1),
    ("The The", ["the"], True, 1),
    ("The", ["a"], True, 1),
    ("", [""], True, 1),
    ("", ["Paris"], False, 0),
    ("Paris", [""], False, 0),
    ("...", [""], True, 1),
    ("theatre", ["atre"], False, 0),
    ("Athens", ["thens"], False, 0),
    ("an-the", ["anthe"], True, 1),
    ("Barack Hussein Obama", ["Barack Obama"], False, 0.8),
    ("Obama", ["Barack Obama", "Obama Barack"], False, 2 / 3),
    ("Obama Barack", ["Barack Obama"], False, 1),
    ("to be or not to be", ["to be"], False, 0.5),
    ("be be", ["be"], False, 2 / 3),
    ("one two three four", ["one two", "three four five"], False, 2 / 3),
    ("the cat sat", ["a cat sat"], True, 1),
    ("Vitamin A", ["vitamin"], True, 1),
    ("日本", ["日本"], True, 1),
    ("São Paulo", ["Sa\u0303o Paulo"], True, 1),
    ("“Paris”", ["Paris"], False, 0),
    ("July 4, 1776", ["July 4 1776"], True, 1),
    ("4 July 1776", ["July 4, 1776"], False, 1),
]
# (prediction, expressions, right)
EXPRESSIONS = [
    ("Longbow", [r"long\s?bow"], True),
    ("long bow", [r"long\s?bow"], True),
    ("a long bow", [r"long\s?bow"], False),
    ("1945", [r"194[0-5]"], True),
    ("1946", [r"194[0-5]"], False),
    ("Ben Nevis", ["Everest", "Ben\\s+Nevis"], True),
    ("Everest in Nepal", ["everest"], True),
    ("C++", ["C++"], True),
    ("anything", ["(unclosed"], False),
    ("anything", ["[", "any"], True),
    ("anything", ["*"], False),
    ("", ["x"], False),
    ("", [""], True),
    ("Beyoncé", ["beyonc."], True),
    ("line\nbreak", ["line$"], True),
]


@pytest.mark.parametrize("prediction, answers, em, overlap", CASES)
def test_scorer(prediction, answers, em, overlap):
    assert exact_match(prediction, answers) is em and right(prediction, answers) is em
    assert math.isclose(f1(prediction, answers), overlap)


@pytest.mark.parametrize("prediction, patterns, ok", EXPRESSIONS)
def test_expressions(prediction, patterns, ok):
    assert right(prediction, patterns, expressions=True) is ok


def test_there_are_enough_cases():
    assert len(CASES) + len(EXPRESSIONS) >= 40


@pytest.mark.parametrize("pattern", [r"(a+)+$", r"(a|aa)+$", r"(.*a){25}$"])
def test_a_slow_expression_is_stopped(pattern):
    began = time.perf_counter()
    assert not matches(pattern, "a" * 200 + "!", seconds=0.2)
    assert time.perf_counter() - began < 20


def test_normal_form_of_a_normal_form():
    for prediction, answers, *_ in CASES:
        for text in (prediction, *answers):
            assert normalize(normalize(text)) == normalize(text)


def test_answer_blocks_are_those_of_a_search():
    g = np.random.default_rng(0)
    vocabulary = ["Red", "fox", "the", "fox's", "U.S.", "a", "dog,", "1914–18", "Élan"]
    texts = [" ".join(g.choice(vocabulary, g.integers(0, 12))) for _ in range(80)]
    answers = [" ".join(g.choice(vocabulary, n)) for n in (1, 1, 2, 2, 3, 4) for _ in range(5)]
    found = answer_blocks(texts, answers)
    for answer in answers:
        form = normalize(answer)
        if form:
            assert found[form].tolist() == [
                b for b, t in enumerate(texts) if f" {form} " in f" {normalize(t)} "
            ]
        else:
            assert form not in found


def test_recall_and_overlap():
    positives = blocks_with_answers(
        ["x fox", "y", "fox z"], [{"answers": ["fox"]}, {"answers": ["wolf"]}]
    )
    recall = recall_at(np.array([[1, 0, 2], [0, 1, 2]]), positives, ks=(1, 2, 3, 50))
    assert {k: v.tolist() for k, v in recall.items()} == {
        1: [False, False],
        2: [True, False],
        3: [True, False],
    }
    kept, dropped = without_overlap(
        [{"question": q} for q in ("Who was it?", "who was it", "The end?")],
        [[{"question": "END"}]],
    )
    assert [q["question"] for q in kept] == ["Who was it?"] and dropped == 1


# ---- reader


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    "A tiny base over the small encyclopedia."
    quiet_transformers()
    work = tmp_path_factory.mktemp("openqa")
    tokenizer = tiny_tokenizer(d.text for d in read_corpus("mini"))
    store = build_store(read_corpus("mini"), tokenizer, work / "store", max_block_len=64)
    torch.manual_seed(0)
    model = {"dim": 16, "pooling": "mean", "learned_null": True, "scaled": True}
    towers = tiny_towers(len(tokenizer), hidden=32, layers=1, **model)
    bert = towers.encoder.model.bert
    bert.save_pretrained(work / "base")
    tokenizer.save_pretrained(work / "base")
    words = word_boundaries(tokenizer)
    questions = tokenize_questions(load_questions("mini"), tokenizer)
    positives = blocks_with_answers([store.text(b) for b in range(len(store))], questions)
    return {
        "work": work,
        "tokenizer": tokenizer,
        "store": store,
        "words": words,
        "towers": towers,
        "reader": Reader(copy.deepcopy(bert), words, ReaderConfig(max_span=5, dropout=0.0)),
        "questions": questions,
        "positives": positives,
    }


def test_spans_are_those_of_brute_force(world):
    store, tokenizer, words = world["store"], world["tokenizer"], world["words"]
    g = np.random.default_rng(1)
    for max_span in (1, 4, 10):
        pairs = [
            join(
                world["questions"][g.integers(100)]["x"],
                store,
                int(g.integers(len(store))),
                int(g.integers(20, 90)),
            )
            for _ in range(12)
        ]
        mask = span_mask(pairs, words, max_span)
        for p, m in zip(pairs, mask):
            names, n, want = (
                tokenizer.convert_ids_to_tokens(p.sequence.token_ids),
                len(p.sentence),
                set(),
            )
            for a, b in itertools.combinations_with_replacement(range(n), 2):
                i, j = a + p.body, b + p.body
                good = [
                    any(c.isalnum() for c in names[k]) and not names[k].startswith("[")
                    for k in (i, j)
                ]
                continued = b + 1 < n and names[j + 1].startswith("##")
                if (
                    b - a < max_span
                    and p.sentence[a] == p.sentence[b]
                    and all(good)
                    and not names[i].startswith("##")
                    and not continued
                ):
                    want.add((i, b - a))
            assert {tuple(x) for x in torch.nonzero(m).tolist()} == want


def test_right_spans_are_what_the_scorer_says(world):
    store, words = world["store"], world["words"]
    seen = 0
    for q, held in list(zip(world["questions"], world["positives"]))[:30]:
        for b in held[:2]:
            pair = join(q["x"], store, int(b))
            mask = span_mask([pair], words, 5)[0].numpy()
            found = right_spans(store, int(b), pair, q["answers"], mask)
            want = np.zeros_like(mask)
            text, starts, ends = body_characters(store, int(b))
            for i, w in np.argwhere(mask):
                span = text[starts[i - pair.body] : ends[i + w - pair.body]]
                want[i, w] = exact_match(span, q["answers"])
            assert (found == want).all()
            seen += found.any()
    assert seen > 20


def test_text_of_a_span_is_the_corpus_text(world):
    store = world["store"]
    for b in range(0, len(store), 40):
        at, (text, starts, ends) = 0, body_characters(store, b)
        for s in store.sentence_ids(b):
            n = len(store.sentence(s))
            assert text[starts[at] : ends[at + n - 1]] == store.sentence_text(s).strip()
            at += n
        with pytest.raises(IndexError):
            starts[at]


def test_scores_by_hand_and_padding(world):
    reader, store = world["reader"].eval(), world["store"]
    pairs = [
        join(q["x"], store, b, max_pair_len)
        for q, b, max_pair_len in zip(world["questions"], (0, 7), (90, 30))
    ]
    with torch.no_grad():
        both, alone = reader(pad([p.sequence for p in pairs])), reader(pad([pairs[1].sequence]))
    n = len(pairs[1].sequence)
    for w in range(5):
        assert torch.allclose(both[1, : n - w, w], alone[0, : n - w, w], atol=1e-5)


def test_shared_by_hand(world):
    pair = join(world["questions"][0]["x"], world["store"], 3)
    ids, second = pair.sequence.token_ids.tolist(), pair.sequence.second
    idf = torch.rand(len(world["tokenizer"]))
    got = lexical_overlap(
        pad(
            [
                pair.sequence,
                join(world["questions"][1]["x"], world["store"], 4).sequence,
            ]
        ),
        idf,
    )[0][: len(ids)]
    want = [
        float(idf[v]) if v in (ids[second:] if i < second else ids[:second]) else 0.0
        for i, v in enumerate(ids)
    ]
    assert torch.allclose(got, torch.tensor(want))


def test_losses_by_brute_force_and_their_gradient():
    g = torch.Generator().manual_seed(3)
    scores, prior = (
        torch.randn(6, 7, 4, generator=g).double().requires_grad_(),
        torch.randn(6, generator=g).double().requires_grad_(),
    )
    mask, correct, rows = (
        torch.rand(6, 7, 4, generator=g) < 0.6,
        torch.rand(6, 7, 4, generator=g) < 0.1,
        torch.tensor([0, 0, 1, 1, 2, 2]),
    )
    correct[4:] = False
    want = []
    for q in range(2):
        z = sum(
            math.exp(float(scores[i, a, w] + prior[i]))
            for i in range(6)
            for a in range(7)
            for w in range(4)
            if rows[i] == q and mask[i, a, w]
        )
        y = sum(
            math.exp(float(scores[i, a, w] + prior[i]))
            for i in range(6)
            for a in range(7)
            for w in range(4)
            if rows[i] == q and mask[i, a, w] and correct[i, a, w]
        )
        want.append(math.log(z) - math.log(y))
    assert math.isclose(
        reader_loss(scores, mask, correct, rows, 3, prior).item(), sum(want) / 2, rel_tol=1e-9
    )
    assert torch.autograd.gradcheck(
        lambda s, p: reader_loss(s, mask, correct, rows, 3, p), (scores, prior)
    )
    assert reader_loss(scores, mask, torch.zeros_like(mask), rows, 3).item() == 0
    f, holds = (
        torch.randn(3, 20, generator=g).double().requires_grad_(),
        torch.rand(3, 20, generator=g) < 0.2,
    )
    holds[2] = False
    p = f.softmax(1)
    assert torch.allclose(retriever_loss(f, holds), -(p * holds).sum(1)[:2].log().mean())
    assert (
        torch.autograd.gradcheck(lambda x: retriever_loss(x, holds), (f,))
        and retriever_loss(f, torch.zeros_like(holds)).item() == 0
    )


def test_step_is_the_two_losses_and_leaves_the_documents_alone(world):
    store, c = world["store"], FinetuneConfig(reader_blocks=3, retriever_blocks=400, max_span=5)
    towers = copy.deepcopy(world["towers"])
    vectors = torch.from_numpy(embed_store(towers.embedder, store, bar=False))
    model = OpenQA(towers, store, vectors, c, copy.deepcopy(world["reader"]))
    loss, figures = openqa_step(model, world["questions"][:6], world["positives"][:6])
    assert (
        math.isclose(loss.item(), figures["retriever"] + figures["reader"], rel_tol=1e-5)
        and figures["retriever"] > 0
    )
    loss.backward()
    assert all(p.grad is None for p in model.towers.embedder.parameters()) and any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in model.towers.own.parameters()
    )
    model.zero_grad(set_to_none=True)
    q = world["questions"][0]
    _, ((best, *_),) = model.retriever.search([q], 1)
    known = {
        **q,
        "answers": [store.sentence_text(store.sentence_ids(best)[0]).split()[0]],
    }  # a word of the best block, so that there is something right to read
    loss, figures = openqa_step(model, [known], [np.array([best])], end_to_end=True)
    assert figures["reader"] > 0
    loss.backward()
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in model.towers.embedder.parameters()
    )


def test_fine_tuning_goes_on_where_it_was_stopped(world, tmp_path):
    store = world["store"]
    vectors = embed_store(world["towers"].embedder, store, bar=False)
    c = FinetuneConfig(tune_steps=60, tune_batch=4, retriever_blocks=50, lr_tune=1e-3)
    training = TrainingSet(world["questions"], world["positives"])

    def tune(folder, stop=None):
        model = OpenQA(copy.deepcopy(world["towers"]), store, vectors, c)
        run = Run(folder, quiet=True)
        before = copy.deepcopy(model.towers.embedder.state_dict())
        if stop:
            model.towers.own.forward_count, forward = 0, model.towers.own.forward

            def failing(*a):
                model.towers.own.forward_count += 1
                if model.towers.own.forward_count > stop:
                    raise KeyboardInterrupt
                return forward(*a)

            model.towers.own.forward = failing
            with pytest.raises(KeyboardInterrupt):
                fine_tune(run, model, training)
            return
        fine_tune(run, model, training)
        assert all(torch.equal(v, before[k]) for k, v in model.towers.embedder.state_dict().items())
        return model.towers.own.state_dict()

    whole = tune(tmp_path / "a")
    tune(tmp_path / "b", stop=55)
    resumed = tune(tmp_path / "b")
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)


@pytest.fixture(scope="module")
def mpnet(world):
    "A folder with a tiny MPNet, which numbers the same pieces in its own way."
    from transformers import MPNetConfig, MPNetModel, MPNetTokenizer

    names = world["tokenizer"].convert_ids_to_tokens(range(len(world["tokenizer"])))
    vocab = {n: i for i, n in enumerate(["<s>", "<pad>", "</s>", "<unk>", *names, "<mask>"])}
    torch.manual_seed(0)
    config = MPNetConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    MPNetModel(config).save_pretrained(world["work"] / "mpnet")
    MPNetTokenizer(vocab=vocab, unk_token="[UNK]").save_pretrained(world["work"] / "mpnet")
    return world["work"] / "mpnet"


def test_reader_of_another_kind(world, mpnet, tmp_path):
    from transformers import MPNetModel

    tokenizer, store = world["tokenizer"], world["store"]
    body, own_ids = load_body(mpnet, tokenizer)
    special = [
        tokenizer.convert_tokens_to_ids(t)
        for t in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "in")
    ]
    assert own_ids[special].tolist() == [
        1,
        special[1] + 4,
        0,
        2,
        len(tokenizer) + 4,
        special[5] + 4,
    ]
    reader = Reader(body, world["words"], ReaderConfig(max_span=5), own_ids).eval()
    batch = pad([join(world["questions"][i]["x"], store, i).sequence for i in range(3)])
    with torch.no_grad():
        scores, known = (
            reader(batch),
            MPNetModel.from_pretrained(mpnet, attn_implementation="eager").eval(),
        )
        hidden = known(
            input_ids=torch.as_tensor(own_ids)[batch.ids], attention_mask=batch.mask
        ).last_hidden_state
        want = reader.head(
            torch.cat([hidden, lexical_overlap(batch, reader.idf).unsqueeze(-1)], -1)
        )
    real = batch.mask.bool()
    assert torch.allclose(scores[real][:, 0], want[real][:, 0], atol=1e-5), (
        "the matching words' vector is zero at the start"
    )
    reader.save(tmp_path)
    assert torch.equal(Reader.load(tmp_path).eval()(batch), scores) and not any(
        "pooler" in k for k in reader.state_dict()
    )
    assert load_body(mpnet, tokenizer, 1)[0].config.num_hidden_layers == 1


def test_reader_of_other_pieces(world, mpnet, tmp_path):
    other = tiny_tokenizer(["quixotic zephyrs vex the bold"])
    with pytest.raises(UserError, match="word pieces, such as"):
        load_body(mpnet, other)
    with pytest.raises(UserError, match="cannot load weights"):
        load_body(tmp_path, world["tokenizer"])
    (tmp_path / "reader.json").write_text(json.dumps({"bert": {}, "width": 5, "dim": 16}))
    with pytest.raises(UserError, match=r"reader\.safetensors is missing"):
        Reader.load(tmp_path)


def test_a_step_has_as_many_pairs_alone_as_with_wrong_blocks(world, tmp_path, monkeypatch):
    seen, real = [], reading.read_pairs
    monkeypatch.setattr(
        reading,
        "read_pairs",
        lambda reader, store, questions, blocks: (
            seen.append((questions, blocks)) or real(reader, store, questions, blocks)
        ),
    )
    questions = [
        {**q, "set": "few" if i < 5 else "many"} for i, q in enumerate(world["questions"][:20])
    ]
    training = TrainingSet(questions, world["positives"][:20]).with_blocks([Bm25(world["store"])])
    ids = training.ids
    c = ReaderConfig(steps=10, positives_only_share=0.45, batch=6, num_negatives=2, max_span=5)
    reader = Reader(copy.deepcopy(world["reader"].body), world["words"], c)
    train_reader(Run(tmp_path, quiet=True), reader, world["store"], training)
    assert [(len(q), {len(b) for b in blocks}) for q, blocks in seen] == [(6, {1})] * 5 + [
        (2, {3})
    ] * 5
    usable = np.array([i for i, row in enumerate(ids) if np.isin(row, world["positives"][i]).any()])
    groups = [usable[usable < 5], usable[usable >= 5]]
    assert [q["question"] for asked, _ in seen for q in asked] == [
        questions[nth(groups, n, 0)]["question"] for n in range(40)
    ], "none is left out where the steps change"


def test_blocks_drawn():
    g = np.random.default_rng(0)
    ids, held = np.array([5, 3, 8, 1, 9, 2]), np.array([1, 3, 100])
    for _ in range(20):
        first, *others = draw_blocks(ids, held, 2, g)
        assert first in (3, 1) and len(others) == 2 and not {1, 3} & set(others)
    assert draw_blocks(ids, np.array([77]), 2, g) == []
    padded = np.concatenate([ids, [-1, -1]])
    assert all(-1 not in draw_blocks(padded, held, 50, g) for _ in range(20))


def test_sets_of_questions_count_the_same_and_come_round():
    few, many = np.arange(3), np.arange(10, 20)
    drawn = [nth([few, many], n, 0) for n in range(60)]
    assert all(d < 3 for d in drawn[::2]) and all(d >= 10 for d in drawn[1::2])
    assert all(sorted(drawn[::2][i : i + 3]) == [0, 1, 2] for i in range(0, 30, 3)) and all(
        sorted(drawn[1::2][i : i + 10]) == list(many) for i in range(0, 30, 10)
    )
    assert (
        drawn != [nth([few, many], n, 1) for n in range(60)]
        and len({tuple(drawn[1::2][i : i + 10]) for i in range(0, 30, 10)}) == 3
    )


def test_blocks_of_two_searches_in_turns():
    a, b = np.array([[4, 2, 7], [1, 2, 3]]), np.array([[2, 5], [9, 1]])
    assert interleave(a, b).tolist() == [[4, 2, 5, 7, -1], [1, 9, 2, 3, -1]]
    assert interleave(a).tolist() == a.tolist()


def test_further_retrievers_answer_more_questions():
    def found(*rows):
        return types.SimpleNamespace(search=lambda questions, k: (None, np.array(rows)))

    training = TrainingSet(["a", "b", "c"], [[7], [8], [9]]).with_blocks(
        [found([7, 1], [2, 3], [4, 5])]
    )
    training.validation = training.usable
    more = training.with_blocks([found([1, 7], [8, 2], [6, 6])])
    assert (
        training.usable.tolist() == [0]
        and more.usable.tolist() == [0, 1]
        and more.validation.tolist() == [0]
        and len(more.found) == 2
    )
    assert more.ids.tolist() == [[7, 1, -1, -1], [2, 8, 3, -1], [4, 6, 5, -1]]


def test_a_reader_in_bfloat16_scores_nearly_the_same(world):
    pairs = [join(world["questions"][0]["x"], world["store"], b) for b in range(3)]
    batch, reader = pad([p.sequence for p in pairs]), copy.deepcopy(world["reader"]).eval()
    with torch.no_grad():
        exact = reader(batch)
        reader.dtype = torch.bfloat16
        rough = reader(batch)
    assert rough.dtype == torch.float32 and not torch.equal(exact, rough)
    assert (exact - rough).abs().max() < 0.1 * exact.std()


def test_best_answers_sum_over_spans_of_one_form(world):
    store = world["store"]
    b = next(b for b in range(len(store)) if "Warsaw" in store.text(b))
    pair = join(world["questions"][0]["x"], store, b)
    mask = span_mask([pair], world["words"], 5)[0].numpy()
    (i, w), *_ = np.argwhere(right_spans(store, b, pair, ["Warsaw"], mask))
    a = i - pair.body
    made = [
        Reading(math.log(4), [(0.0, a, a + w)]),
        Reading(math.log(4), [(0.0, a, a + w), (math.log(0.5), 0, 0)]),
    ]
    best, other = best_answers(store, [b, b], made, [0.0, math.log(3)])
    # mass of all spans: 4 + 3 · 4 = 16; Warsaw 1 + 3, the other 3 / 2
    assert (
        best.text == "Warsaw" and math.isclose(best.p, 4 / 16) and math.isclose(other.p, 1.5 / 16)
    )
    assert best_answers(store, [b], [Reading(-1e9, [])]) == []


def test_weight_makes_right_answers_probable(world, tmp_path):
    store = world["store"]
    b = next(b for b in range(len(store)) if "Warsaw" in store.text(b))
    other = next(c for c in range(len(store)) if "Warsaw" not in store.text(c))
    pair = join(world["questions"][0]["x"], store, b)
    (i, w), *_ = np.argwhere(
        right_spans(store, b, pair, ["Warsaw"], span_mask([pair], world["words"], 5)[0].numpy())
    )
    spans = {
        b: Reading(0.0, [(0.0, i - pair.body, i - pair.body + w)]),
        other: Reading(0.0, [(0.0, 0, 0)]),
    }

    class Known(Readings):
        def __call__(self, questions, ids):
            return [[spans[c] for c in row] for row in ids.tolist()]

    readings, run = Known(world["reader"], store), Run(tmp_path, quiet=True)
    training = TrainingSet(
        [{"answers": ["Warsaw"], "set": "mini"}], [[b]], {"mini": 0}, validation=np.array([0])
    )

    def weight(*ids):
        found = np.array([[1.0, 0.0]]), np.array([ids])
        retriever = types.SimpleNamespace(search=lambda questions, k: found)
        return reading.choose_weight(run, training, retriever, readings)[0]

    assert weight(b, other) == reading.WEIGHTS[-1] / 0.5 and weight(other, b) == 0.0
    assert "log p of the right answer -0.000: mini 1 of 1 right" in (
        tmp_path / "log.txt"
    ).read_text(encoding="utf-8")
    assert reading.likelihood([], ["Warsaw"]) == math.log(reading.FLOOR)


def test_readings_are_made_once_and_kept(world, tmp_path):
    questions, ids = world["questions"][:3], np.array([[0, 1], [1, 2], [2, -1]])
    readings = Readings(world["reader"], world["store"], tmp_path / "r.jsonl")
    first = readings(questions, ids)
    assert [len(r) for r in first] == [2, 2, 1] and len(readings.known) == 5
    with open(tmp_path / "r.jsonl", "a") as f:
        f.write('["cut of')
    again = Readings(None, world["store"], tmp_path / "r.jsonl")  # nothing is left to read
    assert len(again.known) == 5
    for x, y in zip(itertools.chain(*first), itertools.chain(*again(questions, ids))):
        assert math.isclose(x.log_z, y.log_z, abs_tol=1e-3) and [s[1:] for s in x.spans] == [
            s[1:] for s in y.spans
        ]


def test_retrievers_agree_with_a_sort(world):
    store = world["store"]
    vectors = embed_store(world["towers"].embedder, store, bar=False)
    dense = Dense(world["towers"].embedder, vectors, store.special, 0.5)
    scores, ids = dense.search(world["questions"][:9], 4)
    with torch.no_grad():
        products = 0.5 * dense.embed(world["questions"][:9]).numpy() @ vectors.T
    assert np.allclose(scores, -np.sort(-products, 1)[:, :4], atol=1e-4)
    _, ids = Bm25(store).search(world["questions"], 5)
    assert np.mean([np.isin(row, h).any() for row, h in zip(ids, world["positives"])]) > 0.8


# ---- the commands


@pytest.fixture(scope="module")
def towers_run(world):
    "A run whose towers are untrained."
    run = Run(world["work"] / "towers", quiet=True)
    corpus = CorpusConfig(source="mini", max_block_len=64)
    config = Config(
        device="cpu", corpus=corpus, model=ModelConfig(base=str(world["work"] / "base"))
    )
    run.claim(config)
    for stage in ("ict", "pretrain"):
        (run.checkpoints / stage / "step_1").mkdir(parents=True)
        world["towers"].save(run.checkpoints / stage / "step_1")
    return run.folder


@pytest.fixture(scope="module")
def table(world, towers_run):
    "A table over the small encyclopedia, made by the command; its towers are untrained."
    flags = [
        "--run",
        str(world["work"] / "table"),
        "--towers",
        str(towers_run),
        "--base",
        str(world["work"] / "base"),
        "--start",
        "base",
        "--corpus",
        "mini",
        "--block_limit",
        "64",
        "--train",
        "mini",
        "--tests",
        "mini",
        "--validation",
        "10",
        "--qa.cloze_steps",
        "2",
        "--qa.steps",
        "3",
        "--qa.batch",
        "4",
        "--qa.tune_steps",
        "2",
        "--qa.tune_batch",
        "4",
        "--qa.retriever_blocks",
        "50",
    ]
    assert table1.main(flags) == 0
    return world["work"] / "table", flags


def fine_tuned(folder, towers_run, **settings):
    "A copy of the run, with the stage `finetune` of a few steps."
    shutil.copytree(towers_run, folder)
    workspace = Workspace.open(folder)
    workspace.run = Run(folder, quiet=True)
    small = {"steps": 3, "batch": 4, "tune_steps": 2, "tune_batch": 4, "retriever_blocks": 50}
    workspace.config.finetune = FinetuneConfig(
        questions="mini", left_out="", validation=10, **{"start": "base", **small, **settings}
    )
    run_stages(workspace, ["finetune"])
    return folder


@pytest.fixture(scope="module")
def finetuned(world, towers_run):
    "A run with a reader, trained as much as nothing."
    return fine_tuned(world["work"] / "finetuned", towers_run, cloze_steps=2)


def test_table_has_every_row(table, capsys):
    folder, flags = table
    text = (folder / "table1.md").read_text(encoding="utf-8")
    for row, name in table1.ROWS.items():  # the last has its test in test_hub.py
        assert (f"| {name} |" in text) == (row != "released")
    assert (
        "462 blocks" in text
        and "The reader, over all rows: right " in text
        and "REALM, X = CC-News | 40.4 | 40.7 | 42.9" in text
        and "minutes of processor time" in text
    )
    assert len(list(folder.glob("answers-*-mini.jsonl"))) == 5
    for path in folder.glob("answers-*-mini.jsonl"):
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        assert len(rows) == len(load_questions("mini")) and all(
            r["right"] == exact_match(r["prediction"], r["answers"])
            for r in rows
            if "prediction" in r
        )
    assert "one of 4 retrievers" in (folder / "log.txt").read_text(encoding="utf-8")
    assert (
        table1.main(flags) == 0 and capsys.readouterr().out.strip() == text.strip()
    )  # nothing is made twice


def test_table_without_ict(table, capsys):
    folder, flags = table
    run, mine = folder.parent / "no-ict", [*flags, "--run", str(folder.parent / "no-ict-table")]
    shutil.copytree(folder.parent / "towers/checkpoints/pretrain", run / "checkpoints/pretrain")
    shutil.copy(folder.parent / "towers/config.json", run)
    assert table1.main([*mine, "--towers", str(run), "--rows", "orqa"]) == 2
    assert "no checkpoint of ict" in capsys.readouterr().err
    assert table1.main([*mine, "--towers", str(run), "--rows", "bm25,realm"]) == 0
    assert "one of 3 retrievers" in (folder.parent / "no-ict-table/log.txt").read_text(
        encoding="utf-8"
    )


def test_table_with_another_reader(table, mpnet, capsys):
    folder, flags = table
    two = folder.parent / "two.jsonl"
    two.write_text("".join(json.dumps(q) + "\n" for q in load_questions("mini")[:2]))
    assert (
        table1.main(
            [
                *flags,
                "--run",
                str(folder.parent / "other"),
                "--start",
                str(mpnet),
                "--rows",
                "bm25",
                "--first",
                "20",
                "--tests",
                f"mini,{two}",
            ]
        )
        == 0
    )
    text, found = (
        capsys.readouterr().out,
        json.loads(next((folder.parent / "other/stages").glob("row-bm25-*.json")).read_text())[
            "figures"
        ],
    )
    assert (
        "**mini**, 20 questions" in text
        and "**all**, 22 questions" in text
        and found["all"]["answerable"]
        == found["mini"]["answerable"] + found[str(two)]["answerable"]
    )
    reader = Reader.load(folder.parent / "other/checkpoints/reader/step_3")
    assert reader.body.config.model_type == "mpnet"


def test_ask_a_run_with_another_reader(world, towers_run, mpnet):
    run = fine_tuned(world["work"] / "mpnet-run", towers_run, start=str(mpnet))
    reader = Reader.load(run / "checkpoints/reader/step_3")
    assert reader.body.config.model_type == "mpnet" and reader.config.steps == 3
    assert ask.main(["In which city was Marie Curie born?", "--run", str(run)]) == 0


def test_fine_tuning_a_run_leaves_what_answers(finetuned, towers_run):
    found = json.loads((finetuned / "stages/finetune.json").read_text())
    assert found["questions"] == len(load_questions("mini")) and found["overlap"] == {"mini": 0}
    assert set(found["weight"]) == set(found["validation"]) == {"bm25", "dense"}
    assert all(weight >= 0 for weight in found["weight"].values())
    log = (finetuned / "log.txt").read_text(encoding="utf-8")
    assert "one of 3 retrievers" in log and "answered by another block" in log
    tuned = Towers.load(finetuned / "checkpoints/question/step_2")
    before = Towers.load(towers_run / "checkpoints/pretrain/step_1")
    same = [torch.equal(a, b) for a, b in zip(tuned.own.parameters(), before.embedder.parameters())]
    assert not all(same)
    assert all(
        torch.equal(a, b) for a, b in zip(tuned.embedder.parameters(), before.embedder.parameters())
    ), "the documents' tower is frozen"


def test_the_stage_goes_on_where_it_was_stopped(world, towers_run, finetuned, monkeypatch):
    steps, pairs = [], reading.read_pairs

    def stopping(*args):
        steps.append(1)
        if len(steps) == 4:  # two steps of cloze questions, one of the reader
            raise KeyboardInterrupt
        return pairs(*args)

    monkeypatch.setattr(reading, "read_pairs", stopping)
    stopped, again = world["work"] / "stopped", world["work"] / "again"
    with pytest.raises(KeyboardInterrupt):
        fine_tuned(stopped, towers_run, cloze_steps=2)
    monkeypatch.undo()
    assert (stopped / "stages/question.json").exists()
    fine_tuned(again, stopped, cloze_steps=2)
    assert "cloze: going on from step 2 of 2" in (again / "log.txt").read_text(encoding="utf-8")
    for path in ("question/step_2/towers", "reader/step_3/reader"):
        whole = load_file(finetuned / f"checkpoints/{path}.safetensors")
        resumed = load_file(again / f"checkpoints/{path}.safetensors")
        assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_fine_tuning_from_the_encoder(world, towers_run):
    run = fine_tuned(world["work"] / "encoder-run", towers_run, start="encoder")
    encoder = Towers.load(towers_run / "checkpoints/pretrain/step_1").encoder.model.bert
    words = Reader.load(run / "checkpoints/reader/step_3").body.embeddings.word_embeddings.weight
    assert torch.equal(words, encoder.embeddings.word_embeddings.weight)


def test_ask_marks_its_evidence(finetuned, tmp_path, capsys):
    for retriever in ("bm25", "dense"):
        assert (
            ask.main(
                [
                    "In which city was Marie Curie born?",
                    "--run",
                    str(finetuned),
                    "--retriever",
                    retriever,
                    "--top",
                    "1",
                ]
            )
            == 0
        )
        answer, evidence = capsys.readouterr().out.strip().split("\n")
        text, p = answer.rsplit("  (", 1)
        assert f"[[{text}]]" in evidence and 0 < float(p.rstrip("%)")) <= 100
    mine = tmp_path / "mine.jsonl"
    text = "The old harbour of Port Elm was rebuilt in 1911 by the engineer Ida Quill."
    mine.write_text(json.dumps({"title": "Harbour", "text": text}) + "\n")
    for retriever in ("bm25", "dense"):
        flags = ["--run", str(finetuned), "--corpus", str(mine), "--retriever", retriever]
        assert ask.main(["who rebuilt the harbour", *flags]) == 0
    assert "Harbour: " in capsys.readouterr().out


@pytest.mark.parametrize(
    "flags, says",
    [
        (["--rows", "bm52"], "bm25"),
        (["--qa.steps", "many"], "whole number"),
        (["--qa.stpes", "1"], "qa.steps"),
        (["--read", "some"], "answerable, all"),
        (["--tests", "nowhere"], "nowhere"),
        (["--base", "nowhere"], "nowhere"),
        (["--start", "nowhere"], "unknown base weights 'nowhere'"),
        (["--towers", "nowhere", "--run", "{new}"], "run folder"),
        (["--corpus", "nowhere"], "nowhere"),
        (["--block_limit", "48"], "block_limit"),
    ],
)
def test_bad_input_of_experiments(table, capsys, flags, says):
    folder, good = table
    assert table1.main([*good, *(f.format(new=folder.parent / "new") for f in flags)]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and says in error


@pytest.mark.parametrize(
    "flags, says",
    [
        (["", "--run", "{run}"], "empty"),
        (["who?", "--run", "nowhere"], "realm_nb.train"),
        (["who?", "--run", "{towers}"], "--stages finetune"),
        (["who?", "--run", "{run}", "--corpus", "nowhere"], "nowhere"),
    ],
)
def test_bad_input_of_ask(finetuned, towers_run, capsys, flags, says):
    assert ask.main([f.format(run=finetuned, towers=towers_run) for f in flags]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error: ") and "\n" not in error and says in error
