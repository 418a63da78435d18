"Answers in whole words: where they stand, what they may not repeat, what their score is made of."

import json

import numpy as np
import pytest
import torch

from realm_nb import answers
from realm_nb.answers import (
    CHECK,
    LENGTH,
    candidate_answers,
    echoes,
    is_right,
    load_facts,
    measure_facts,
    plain_words,
    predict_answers,
    split_passages,
    telling_words,
)
from realm_nb.core.errors import UserError
from realm_nb.core.folder import Run
from realm_nb.evaluate import retrieve
from realm_nb.masking import Example
from realm_nb.pretrain import Realm
from realm_nb.retrieval import MISSING, ExactIndex
from realm_nb.show.world import EditedCorpus
from realm_nb.store import build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.tokenizer import tiny_tokenizer, tokenize
from realm_nb.text.wikitext import Document
from realm_nb.towers import pack, pair_sequence, query_sequence, tiny_towers
from realm_nb.train import evaluate, evaluate_facts
from realm_nb.workspace import Workspace, recipe

BLANKS = [
    ("Marie Curie was born in ", "."),
    ("", " wrote On the Origin of Species."),
    ("The Great Wall stands in ", ""),
    ("Livingstone met Stanley in the year ", ", in Africa."),
    ("In the ", " of the and"),
]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    "(towers over data/mini with a pointer, a tokenizer, the index of its blocks)."
    documents = list(read_corpus("mini"))
    tokenizer = tiny_tokenizer(d.text for d in documents)
    folder = tmp_path_factory.mktemp("answers") / "store"
    store = build_store(documents, tokenizer, folder, max_block_len=72)
    torch.manual_seed(0)
    towers = tiny_towers(len(tokenizer), hidden=48, pooling="mean", pointer=True).eval()
    realm = Realm(towers, store, max_query_len=48)
    return realm, tokenizer, ExactIndex(realm.build_index(bar=False))


def ask(parts, blank, k=6):
    "(what is predicted, candidates int64 [k + 1], log p(z|x) [k + 1])."
    realm, tokenizer, index = parts
    before, after = tokenize(tokenizer, list(blank))["input_ids"]
    x = np.array([*before, realm.store.special.mask, *after])
    example = Example(x, np.array([len(before)]), np.zeros(1, np.int64), -1, ())
    ids, log_p_z = retrieve(realm, index, [example], k + 1)
    return predict_answers(realm, tokenizer, blank, ids[0], log_p_z[0]), ids[0], log_p_z[0]


@pytest.mark.parametrize("blank", BLANKS)
def test_no_candidate_shares_a_word_with_the_sentence(parts, blank):
    realm, tokenizer, _ = parts
    says, ids, _ = ask(parts, blank)
    read = split_passages(realm.store, tokenizer, ids[1:].tolist())
    every = candidate_answers(blank, read, dict.fromkeys(ids[1:].tolist(), 0.0), most=10**6)
    x = set(plain_words(" ".join(blank)))
    assert says.candidates and len(every) > len(says.candidates)
    for c in every:
        assert not telling_words(c.text) & (x - answers.COMMON)
        assert telling_words(c.text), "it says something"


@pytest.mark.parametrize("blank", BLANKS)
def test_the_place_given_holds_the_words_of_the_answer(parts, blank):
    realm, tokenizer, _ = parts
    says, ids, _ = ask(parts, blank)
    for c in says.candidates:
        for place in c.places:
            assert place.block in ids[1:]
            there = realm.store.text(place.block)[place.start : place.end]
            assert plain_words(there) == plain_words(c.text)
            assert tuple(tokenize(tokenizer, [there])["input_ids"][0]) == c.token_ids


def test_shares_add_up_to_one_and_the_best_comes_first(parts):
    for blank in BLANKS:
        candidates = ask(parts, blank)[0].candidates
        assert sum(c.share for c in candidates) == pytest.approx(1, abs=1e-5)
        scores = [c.score for c in candidates]
        assert scores == sorted(scores, reverse=True) and len(set(scores)) > 1


def naive_score(realm, tokenizer, blank, candidate, prior):
    "The score of a candidate, one passage after the other, summed in float64."
    before, after = tokenize(tokenizer, list(blank))["input_ids"]
    special, n, p = realm.store.special, len(candidate.token_ids), 0.0
    x = np.array([*before, *[special.mask] * n, *after])
    columns = 1 + len(before) + torch.arange(n)
    for block in {place.block for place in candidate.places}:
        pair = pair_sequence(x, realm.store.body(block), special, 48 + realm.store.max_block_len)
        log_p = realm.towers.encoder(pack([pair]), torch.zeros(n, dtype=torch.long), columns)
        right = log_p.double()[torch.arange(n), list(candidate.token_ids)]
        p += np.exp(float(prior[block]) + right.sum().item())
    filled = query_sequence(np.array([*before, *candidate.token_ids, *after]), special, 48)
    s, embed = candidate.places[0].sentence, realm.towers.embedder
    own = pair_sequence(s.title_ids, s.token_ids, special, realm.store.max_block_len)
    q, z = embed(pack([filled]))[0].double(), embed(pack([own]))[0].double()
    cosine = (q @ z / q.norm() / z.norm()).item()
    return np.log(p) / n**LENGTH + CHECK * cosine + candidate.evidence


@torch.no_grad()
def test_a_score_is_what_a_naive_computation_gives(parts):
    realm, tokenizer, _ = parts
    lengths = set()
    for blank in BLANKS[:3]:
        says, ids, log_p_z = ask(parts, blank)
        prior = dict(zip(ids.tolist(), log_p_z.double().tolist()))
        for c in says.candidates[::3]:
            lengths.add(len(c.token_ids))
            naive = naive_score(realm, tokenizer, blank, c, prior)
            assert c.score == pytest.approx(naive, abs=2e-3)
    assert len(lengths) > 1


@torch.no_grad()
def test_a_fact_that_was_taught_can_be_the_answer_and_be_pointed_at(parts):
    realm, tokenizer, _ = parts
    told = "The villagers say that Marie Curie was born in Zakopane."
    corpus = EditedCorpus(realm.store, tokenizer, [Document("A village", told)])
    changed, block = Realm(realm.towers, corpus, 48), len(realm.store)
    says = predict_answers(changed, tokenizer, BLANKS[0], np.array([MISSING, block]), [-9.0, -0.1])
    (place,) = next(c for c in says.candidates if c.text == "Zakopane").places
    assert (place.block, told[place.start : place.end]) == (block, "Zakopane")
    assert place.follows and not any("Curie" in c.text for c in says.candidates)


def test_nothing_is_found_where_there_is_nothing_to_read(parts):
    realm, tokenizer, _ = parts
    says = predict_answers(realm, tokenizer, BLANKS[0], np.array([MISSING]), [0.0])
    assert not says.candidates and not says.found
    assert says.alone and not echoes({says.alone}, telling_words(" ".join(BLANKS[0])))
    far = ("word " * 60, ".")  # the blank lies where the sentence is cut
    assert not predict_answers(realm, tokenizer, far, np.array([MISSING, 0]), [0.0, 0.0]).candidates


def test_capitals_accents_and_articles_do_not_make_an_answer_wrong():
    assert is_right("The  CAFÉ", ["tea", "cafe"]) and is_right("al-Khwārizmī", ["al Khwarizmi"])
    assert not is_right("cafes", ["cafe"]) and not is_right("", ["cafe"])


@pytest.mark.parametrize(
    "line, why",
    [
        ("{", "not JSON"),
        ("[1]", "needs a sentence and a list of answers"),
        ('{"sentence": "A [MASK]."}', "needs a sentence and a list of answers"),
        ('{"sentence": "A [MASK].", "answers": []}', "needs a sentence and a list of answers"),
        ('{"sentence": "A [MASK].", "answers": [3]}', "needs a sentence and a list of answers"),
        ('{"sentence": "A.", "answers": ["b"]}', r"needs one \[MASK\]"),
        ('{"sentence": "[MASK] [MASK]", "answers": ["b"]}', r"needs one \[MASK\]"),
        ('{"sentence": "[MASK]", "answers": ["..."]}', "no letter and no digit"),
    ],
)
def test_a_wrong_line_of_facts_is_named(tmp_path, line, why):
    path = tmp_path / "facts.jsonl"
    path.write_text('{"sentence": "A [MASK].", "answers": ["b"]}\n\n' + line + "\n")
    with pytest.raises(UserError, match=rf"facts\.jsonl, line 3: .*{why}"):
        load_facts(path)


def test_the_command_says_in_one_line_what_is_wrong_with_the_facts(tmp_path, capsys):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")
    for path in (empty, tmp_path / "nowhere.jsonl"):
        assert evaluate(["--run", str(tmp_path), "--facts", str(path)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and said.count("\n") == 1 and path.name in said


def test_the_figures_of_facts_agree_with_each_other(parts):
    realm, tokenizer, index = parts
    facts = [answers.Fact(*blank, ["1867", "Warsaw"]) for blank in BLANKS]
    facts.append(answers.Fact("word " * 60, ".", ["Warsaw"]))
    found = measure_facts(realm, index, tokenizer, facts, k=3)
    assert {len(column) for column in found.values()} == {len(facts)}
    assert (found["exact"] <= found["five"]).all() and (found["hit@1"] <= found["hit@k"]).all()
    assert (found["five"] <= found["hit@k"]).all(), "an answer stands in a passage"
    assert not any(column[-1] for column in found.values())


def test_each_moment_of_a_run_has_a_row_behind_its_report(tmp_path, monkeypatch):
    monkeypatch.setenv("REALM_NB_HOME", str(tmp_path / "home"))
    workspace = Workspace(recipe("smoke"), Run(tmp_path / "run", quiet=True))
    (tmp_path / "run" / "report.md").write_text("# Report\n")
    path = tmp_path / "facts.jsonl"
    fact = {"sentence": "Marie Curie was born in [MASK].", "answers": ["Warsaw"]}
    path.write_text(json.dumps(fact) + "\n")
    shown = evaluate_facts(workspace, load_facts(path), 3)
    assert shown.count("| base weights |") == 1 and "hit@3" in shown
    report = (tmp_path / "run" / "report.md").read_text()
    assert report.startswith("# Report\n") and shown in report and "Sentences: 1;" in report
