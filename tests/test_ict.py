"The inverse cloze task: pairs, loss, precision, and recall among all blocks."

from pathlib import Path

import numpy as np
import pytest
import torch

from realm_nb.core.device import rng
from realm_nb.core.packing import pack
from realm_nb.ict import ict_batch, ict_blocks, ict_loss, ict_pair, ict_recall, ict_scores
from realm_nb.towers import embed_all, pair_sequence, tiny_towers


def tiny_embedder(vocabulary, seed=0, dim=8):
    torch.manual_seed(seed)
    model = {"layers": 1, "hidden": 16, "dim": dim, "pooling": "mean"}
    return tiny_towers(vocabulary, **model).embedder.eval()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    from realm_nb.store import build_store
    from realm_nb.text.documents import read_jsonl
    from realm_nb.text.tokenizer import tiny_tokenizer

    documents = list(read_jsonl(Path(__file__).parents[1] / "data/mini/documents.jsonl"))[:16]
    tokenizer = tiny_tokenizer([d.text for d in documents])
    folder = tmp_path_factory.mktemp("store") / "store"
    store = build_store(documents, tokenizer, folder, max_block_len=64)
    return store, tokenizer, store.special


def test_a_sentence_is_removed_nine_times_in_ten(corpus):
    store = corpus[0]
    block = int(ict_blocks(store, np.zeros(len(store), bool))[0])
    whole = store.body(block).tolist()
    kept = 0
    for i in range(2000):
        query, body = ict_pair(store, block, rng(i))
        if body.tolist() == whole:
            kept += 1
        else:
            assert len(query) + len(body) == len(whole)
        assert any(query.tolist() == store.sentence(s).tolist() for s in store.sentence_ids(block))
    assert 150 < kept < 250
    assert ict_pair(store, block, rng(0), removal=0.0)[1].tolist() == whole


def test_held_out_blocks_and_single_sentences_are_left_out(corpus):
    store = corpus[0]
    held = np.zeros(len(store), bool)
    held[::3] = True
    blocks = set(ict_blocks(store, held).tolist())
    assert blocks == {
        b for b in range(len(store)) if len(store.sentence_ids(b)) >= 2 and not held[b]
    }


def test_documents_carry_their_title(corpus):
    store, _, special = corpus
    blocks = ict_blocks(store, np.zeros(len(store), bool))[:4]
    for b, s in zip(blocks, ict_batch(store, blocks, 0)[1]):
        title = store.title_ids(store.document_of(int(b)))
        assert (
            s.token_ids[: len(title) + 2].tolist() == [special.cls, *title, special.sep]
            and s.second == len(title) + 2
        )


def test_loss_equals_a_double_loop_whole_or_in_halves():
    scores = torch.randn(8, 8, dtype=torch.float64)
    each = [
        -torch.log(torch.exp(scores[i, i]) / sum(torch.exp(scores[i, j]) for j in range(8)))
        for i in range(8)
    ]
    assert abs(ict_loss(scores)[0] - sum(each) / 8) < 1e-12
    assert abs(ict_loss(scores[5:], first=5)[0] - sum(each[5:]) / 3) < 1e-12
    shown = torch.eye(8)
    shown[0, 3] = 2
    assert (
        ict_loss(shown)[1]["accuracy"] == 7 / 8
        and ict_loss(shown[:2].roll(4, 1), first=4)[1]["accuracy"] == 1 / 2
    )


def test_scores_scaled_gathered_and_by_two_towers(corpus):
    store, tokenizer, _special = corpus
    one, two = tiny_embedder(len(tokenizer)), tiny_embedder(len(tokenizer), 1)
    queries, documents = ict_batch(store, ict_blocks(store, np.zeros(len(store), bool))[:5], 0)
    q, d, q2 = (e(pack(s)) for e, s in ((one, queries), (one, documents), (two, queries)))
    plain = ict_scores(one, queries, documents)
    assert torch.allclose(plain, q @ d.T, atol=1e-4) and torch.allclose(
        ict_scores(one, queries, documents, scale=8**-0.5), plain / 8**0.5, atol=1e-4
    )
    assert torch.allclose(
        ict_scores(one, queries, documents, query_embedder=two), q2 @ d.T, atol=1e-4
    )
    assert torch.allclose(
        ict_scores(one, queries, documents, gather=lambda d: torch.cat([d, -d])),
        torch.cat([plain, -plain], 1),
        atol=1e-4,
    )
    ict_loss(ict_scores(one, queries, documents, query_embedder=two))[0].backward()
    assert all(
        max(p.grad.abs().max() for p in e.parameters() if p.grad is not None) > 0
        for e in (one, two)
    ), "both towers learn"


def test_scores_are_float32_under_autocast(corpus):
    store, tokenizer, _special = corpus
    embedder = tiny_embedder(len(tokenizer), dim=64)
    queries, documents = ict_batch(store, ict_blocks(store, np.zeros(len(store), bool))[:6], 0)
    with torch.autocast("cpu", torch.bfloat16):
        scores = ict_scores(embedder, queries, documents)
        q, d = embed_all(embedder, queries), embed_all(embedder, documents)
    assert scores.dtype == torch.float32 and torch.allclose(
        scores, (q.double() @ d.double().T).float(), atol=1e-4
    )


def test_recall_is_among_all_blocks(corpus, monkeypatch):
    store, tokenizer, special = corpus
    embedder, blocks = (
        tiny_embedder(len(tokenizer)),
        ict_blocks(store, np.zeros(len(store), bool))[::2],
    )
    whole = [
        pair_sequence(store.title_ids(store.document_of(b)), store.body(b), special, 64)
        for b in range(len(store))
    ]
    with torch.no_grad():
        among = embed_all(embedder, whole).numpy()
    queries, documents = ict_batch(store, blocks, 2**31 - 1, 0, 1.0)
    ranks = []
    with torch.no_grad():
        for b, q, d in zip(blocks, queries, documents):
            x, own = embedder(pack([q]))[0], embedder(pack([d]))[0]
            ranks.append(
                sum(
                    float(x @ torch.from_numpy(among[j])) >= float(x @ own)
                    for j in range(len(store))
                    if j != b
                )
            )
    for chunk in (5, 10**6):
        monkeypatch.setattr("realm_nb.ict.CHUNK", chunk)
        got = ict_recall(embedder, store, blocks, among, ks=(1, 5, 20))
        assert got == pytest.approx(
            {f"recall@{k}": np.mean([r < k for r in ranks]) for k in (1, 5, 20)}
        )
    half = ict_recall(embedder, store, blocks, among.astype(np.float16), ks=(20,))["recall@20"]
    assert abs(half - got["recall@20"]) < 0.1


def test_an_embedder_that_tells_nothing_apart_has_no_recall(corpus):
    store, tokenizer, _special = corpus
    embedder, blocks = tiny_embedder(len(tokenizer)), ict_blocks(store, np.zeros(len(store), bool))
    torch.nn.init.zeros_(embedder.norm.weight)
    torch.nn.init.ones_(embedder.norm.bias)
    same = np.ones((len(store), 8), np.float32)
    assert ict_recall(embedder, store, blocks, same) == {"recall@1": 0.0, "recall@5": 0.0}
