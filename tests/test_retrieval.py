"Search against sorting, exclusion, and the null document."
import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from realm_nb.core import UserError
from realm_nb.retrieval import MISSING, ExactIndex, FaissIndex, log_p_z, with_null


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.integers(1, 8), st.integers(1, 10), st.integers(0, 6), st.integers(0, 10**6))
def test_search_equals_sorting_and_never_returns_the_excluded(n, queries, k, banned, seed):
    g = np.random.default_rng(seed)
    z, x = g.standard_normal((n, 8), dtype=np.float32), g.standard_normal((queries, 8), dtype=np.float32)
    exclude = [g.choice(n, min(banned, n), replace=False) for _ in range(queries)]
    for index in (ExactIndex(z), FaissIndex(z)):
        scores, ids = index.search(x, k, exclude)
        assert scores.shape == ids.shape == (queries, k)
        for q in range(queries):
            want = [i for i in np.argsort(-(z @ x[q]), kind="stable") if i not in exclude[q]][:k]
            assert ids[q, : len(want)].tolist() == want
            assert (ids[q, len(want):] == MISSING).all() and np.isneginf(scores[q, len(want):]).all()
            assert np.allclose(scores[q, : len(want)], z[want] @ x[q], atol=1e-4)


def test_exclusion_costs_no_candidates():
    z = np.eye(6, dtype=np.float32)
    _, ids = ExactIndex(z).search(z[:1] + 0.1, 5, [[0]])
    assert sorted(ids[0]) == [1, 2, 3, 4, 5]


def test_the_null_document_comes_first_and_shares_the_probability():
    ids = with_null(np.array([[4, 2]]))
    assert ids.tolist() == [[MISSING, 4, 2]]
    p = log_p_z(torch.zeros(1, 3), torch.randn(1, 3, 3), torch.tensor([[True, True, True]])).exp()
    assert torch.allclose(p, torch.full((1, 3), 1 / 3))


def test_unknown_factory_is_one_clear_line():
    with pytest.raises(UserError, match="FAISS does not know the index 'Flta'"): FaissIndex(np.eye(4, dtype=np.float32), "Flta")
