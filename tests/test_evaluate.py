"Measuring: the marginal's prediction against brute force, whatever the size of the last batch."

import numpy as np
import pytest
import torch

from realm_nb.evaluate import bootstrap, measure, predict, retrieve
from realm_nb.masking import Masker
from realm_nb.pretrain import (
    Realm,
    holds,
    log_probs_at_masks,
    prior_mask,
    realm_step,
    score,
    valid_mask,
)
from realm_nb.retrieval import MISSING, ExactIndex
from realm_nb.spans import tag_store
from realm_nb.store import build_store
from realm_nb.text.documents import read_corpus
from realm_nb.text.taggers import RuleTagger
from realm_nb.text.tokenizer import tiny_tokenizer
from realm_nb.towers import tiny_towers


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    documents = list(read_corpus("mini"))[:40]
    tokenizer = tiny_tokenizer(d.text for d in documents)
    folder = tmp_path_factory.mktemp("corpus") / "store"
    store = build_store(documents, tokenizer, folder, max_block_len=64)
    masker = Masker(store, tag_store(store, RuleTagger(), 48), max_query_len=48)
    torch.manual_seed(0)
    model = {"layers": 1, "hidden": 32, "dim": 16, "pooling": "mean", "pointer": True}
    realm = Realm(tiny_towers(len(tokenizer), **model).eval(), store, max_query_len=48)
    return realm, masker, ExactIndex(realm.build_index(bar=False))


@pytest.mark.parametrize("n", [1, 2, 17])
def test_any_number_of_examples(world, n):
    realm, masker, index = world
    short = [
        e for s in masker.sentences if len((e := masker(s)).y) == 1
    ]  # one mask in one sentence: the smallest batch there is
    found = measure(realm, masker, short[:n], index, 3)
    assert all(len(v) == n for v in found.values()) and found["said"].shape == (n, 10)


def test_predictions_equal_brute_force(world):
    realm, masker, index = world
    examples = [masker(s) for s in masker.sentences[5:13]]
    ids, log_p_z = retrieve(realm, index, examples, 4)
    with torch.no_grad():
        scores, said, said_null = predict(realm, examples, ids, log_p_z)
        again = score(realm, examples, ids)
        at, _, p = log_probs_at_masks(realm, examples, ids)
        rows = [(at.T.tolist(), p)]
    assert torch.allclose(scores.log_p_y_z, again.log_p_y_z, atol=1e-5) and torch.allclose(
        scores.log_p_z, again.log_p_z, atol=1e-4
    )
    for b, e in enumerate(examples):
        for j in range(len(e.y)):
            mixture = sum(
                log_p_z[b, k].exp() * p[i].exp()
                for places, p in rows
                for i, (bb, k, jj) in enumerate(places)
                if (bb, jj) == (b, j)
            )
            assert torch.isclose(mixture.sum(), torch.ones(()), atol=1e-4)
            assert said[b, j] == mixture.argmax()
            null = next(
                p[i] for places, p in rows for i, place in enumerate(places) if place == [b, 0, j]
            )
            assert said_null[b, j] == null.argmax()


def test_candidates_leave_out_the_origin_and_begin_with_the_null_document(world):
    realm, masker, index = world
    examples = [masker(s) for s in masker.sentences]
    ids, log_p_z = retrieve(realm, index, examples, 5)
    assert (ids[:, 0] == MISSING).all() and (ids[:, 1:] != MISSING).all()
    assert all(e.block not in row and len(set(row)) == 5 for e, row in zip(examples, ids.tolist()))
    assert torch.allclose(log_p_z.exp().sum(1), torch.ones(len(examples)), atol=1e-5)
    assert valid_mask(np.array([[MISSING, 3, MISSING]])).tolist() == [[True, True, False]]


def test_without_the_null_document_all_of_p_z_goes_to_blocks(world):
    realm, masker, index = world
    examples = [masker(s) for s in masker.sentences[:4]]
    realm.towers.model.null = False
    try:
        _, log_p_z = retrieve(realm, index, examples, 4)
        loss, scores = realm_step(realm, examples, index, 4)
        alone = prior_mask(realm, np.array([[MISSING, MISSING], [MISSING, 3]]))
    finally:
        realm.towers.model.null = True
    assert (log_p_z[:, 0] == -torch.inf).all() and (scores.log_p_z[:, 0] == -torch.inf).all()
    assert torch.allclose(log_p_z[:, 1:].exp().sum(1), torch.ones(4), atol=1e-5)
    assert loss.isfinite() and retrieve(realm, index, examples, 4)[1][:, 0].isfinite().all()
    assert alone.tolist() == [[True, False], [False, True]], "∅ stays where it is alone"


def test_hits_are_whole_words():
    assert (
        holds("He was born in Ulm, in 1879.", "ulm")
        and not holds("Ulma", "Ulm")
        and not holds("18790", "1879")
        and not holds("x", "")
    )


def test_bootstrap_is_repeatable_and_brackets_the_value():
    column = np.arange(100) % 3 == 0
    one, two = (bootstrap(np.mean, column, resamples=300, seed=4) for _ in range(2))
    assert one == two and one[1] < one[0] == column.mean() < one[2]
