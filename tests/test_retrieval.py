"Search against sorting in every back end, exclusion, the null document, files, and the explorer."

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from realm_nb.core.errors import UserError
from realm_nb.core.files import seal
from realm_nb.retrieval import (
    FACTORIES,
    MISSING,
    ExactIndex,
    FaissIndex,
    MergedIndex,
    StoredLayers,
    document_sequences,
    embed_candidates,
    embed_store,
    load_index,
    log_p_z,
    overfetch,
    plane,
    save_index,
    top_k_valid,
)


def with_null(ids):
    "∅ before the candidates `ids`, as `find_candidates` puts it."
    return np.pad(ids, ((0, 0), (1, 0)), constant_values=MISSING)


BACK_ENDS = {
    "Flat": "",
    "SQfp16": "",
    "IVF8,Flat": "nprobe=1",
    "HNSW8": "",
    "PQ4x4": "",
    "IVF8,SQfp16": "nprobe=2",
}


def clustered(n=600, dim=16, seed=0):
    g = np.random.default_rng(seed)
    return (
        g.standard_normal((12, dim))[g.integers(12, size=n)] * 2 + g.standard_normal((n, dim))
    ).astype(np.float32)


@settings(deadline=None, max_examples=40)
@given(
    st.integers(1, 40),
    st.integers(1, 8),
    st.integers(1, 10),
    st.integers(0, 6),
    st.integers(1, 50),
    st.integers(0, 10**6),
)
def test_search_equals_sorting_and_never_returns_the_excluded(n, queries, k, banned, chunk, seed):
    g = np.random.default_rng(seed)
    z, x = (
        g.standard_normal((n, 8), dtype=np.float32),
        g.standard_normal((queries, 8), dtype=np.float32),
    )
    exclude = [g.choice(n, min(g.integers(banned + 1), n), replace=False) for _ in range(queries)]
    for index in (ExactIndex(z), ExactIndex(z, chunk=chunk), FaissIndex(z)):
        scores, ids = index.search(x, k, exclude)
        assert (
            scores.shape == ids.shape == (queries, k)
            and scores.dtype == np.float32
            and ids.dtype == np.int64
        )
        for q in range(queries):
            want = [i for i in np.argsort(-(z @ x[q]), kind="stable") if i not in exclude[q]][:k]
            assert ids[q, : len(want)].tolist() == want
            assert (ids[q, len(want) :] == MISSING).all() and np.isneginf(
                scores[q, len(want) :]
            ).all()
            assert np.allclose(scores[q, : len(want)], z[want] @ x[q], atol=1e-4)


def test_flat_and_exact_agree_to_the_bit_where_scores_differ():
    g = np.random.default_rng(0)
    z, x = (
        g.integers(-9, 10, (3000, 32)).astype(np.float32),
        g.integers(-9, 10, (64, 32)).astype(np.float32),
    )
    (s, i), (t, j) = ExactIndex(z, chunk=777).search(x, 9), FaissIndex(z).search(x, 9)
    assert (s == t).all()
    alone = ((s[:, :, None] == s[:, None, :]).sum(2) == 1)[:, :8]
    assert alone.mean() > 0.5 and (i[:, :8][alone] == j[:, :8][alone]).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_dtype_is_scored_in_float32(dtype):
    z, x = torch.from_numpy(clustered(300)), clustered(5, seed=1)
    stored = z.to(dtype).double().numpy()
    with torch.autocast("cpu", torch.bfloat16):
        scores, ids = ExactIndex(z, dtype=dtype, chunk=64).search(x, 8)
    want = np.argsort(-(x.astype(np.float64) @ stored.T), axis=1)[:, :8]
    assert (ids == want).mean() > 0.9 and scores.dtype == np.float32
    assert np.allclose(
        scores, np.take_along_axis(x.astype(np.float64) @ stored.T, ids, 1), rtol=1e-5, atol=1e-4
    )
    faiss_ids = FaissIndex(z.to(dtype)).search(x, 8)[1]
    assert (faiss_ids == ids).mean() > 0.9


def test_the_matrix_of_scores_is_bounded():
    "No tensor of a search is larger than 1024 x (chunk + what is kept), whatever N and B."

    class Largest(TorchDispatchMode):
        n = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for t in out if isinstance(out, (tuple, list)) else (out,):
                if isinstance(t, torch.Tensor) and t.data_ptr() != index.embeddings.data_ptr():
                    self.n = max(self.n, t.numel())
            return out

    index, x = (
        ExactIndex(
            np.random.default_rng(0).standard_normal((4000, 4), dtype=np.float32), chunk=100
        ),
        np.random.default_rng(1).standard_normal((1500, 4), dtype=np.float32),
    )
    with Largest() as seen:
        _, ids = index.search(x, 5, [[0]] * 1500)
    assert seen.n <= 1024 * (100 + 6)
    assert (ids[1030] == index.search(x[1030:1031], 5, [[0]])[1][0]).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.gpu
def test_gpu_finds_what_the_cpu_finds():
    z, x = clustered(5000, 64), clustered(20, 64, seed=1)
    for dtype in (torch.float32, torch.float16):
        assert (
            ExactIndex(z, "cuda", dtype).search(x, 8, [[0]] * 20)[1]
            == ExactIndex(z, dtype=dtype).search(x, 8, [[0]] * 20)[1]
        ).mean() > 0.99


# ---- exclusion


@pytest.mark.parametrize("factory", BACK_ENDS)
@settings(deadline=None, max_examples=8)
@given(st.integers(1, 12), st.integers(0, 30), st.integers(0, 10**6))
def test_no_back_end_returns_the_excluded(factory, k, banned, seed):
    z = clustered()
    index = INDICES.setdefault(factory, None) or FaissIndex(z, factory, BACK_ENDS[factory])
    INDICES[factory] = index
    x = z[np.random.default_rng(seed).integers(len(z), size=6)]
    best = ExactIndex(z).search(x, max(1, banned))[1][
        :, :banned
    ]  # the hardest case: exactly the best are excluded
    scores, ids = index.search(x, k, best)
    for row, s, no in zip(ids, scores, best):
        there = row != MISSING
        assert (
            not set(row[there]) & set(no)
            and len(set(row[there])) == there.sum()
            and (row[there] < len(z)).all()
            and (row >= MISSING).all()
        )
        assert (
            np.isfinite(s[there]).all()
            and np.isneginf(s[~there]).all()
            and (np.diff(there.astype(int)) <= 0).all()
        )
    if factory in ("Flat", "SQfp16"):
        assert (ids != MISSING).all()


INDICES: dict = {}  # each is made once


def test_an_index_that_runs_dry_ends_in_missing():
    index = FaissIndex(clustered(), "IVF8,Flat", "nprobe=1")
    raw = index.index.search(clustered()[:4], 400)[1]
    assert (raw == -1).any(), "this index does answer -1"
    scores, ids = index.search(clustered()[:4], 400, [[0], [1], [2], [3]])
    assert (
        ((ids == MISSING) == np.isneginf(scores)).all()
        and (ids == MISSING).any()
        and all(i not in row for i, row in enumerate(ids))
    )


def test_exclusion_costs_no_candidates():
    z = np.eye(6, dtype=np.float32)
    for index in (ExactIndex(z), FaissIndex(z)):
        _, ids = index.search(z[:1] + 0.1, 5, [[0]])
        assert sorted(ids[0]) == [1, 2, 3, 4, 5]
        _, ids = index.search(
            z[:2] + 0.1, 3, [[0], [0, 1, 2]]
        )  # the longest list decides how many are asked for
        assert sorted(ids[1]) == [3, 4, 5] and len(set(ids[0]) - {0, MISSING}) == 3


def test_without():
    scores, ids = np.array([[5.0, 4, 3, 2, 1]]), np.array([[7, MISSING, 7, 3, 9]])
    for exclude, want in (
        (None, [7, 3, 9]),
        ([set()], [7, 3, 9]),
        ([{7}], [3, 9, MISSING]),
        ([[3, 9]], [7, MISSING, MISSING]),
        ([np.array([MISSING])], [7, 3, 9]),
    ):
        s, i = top_k_valid(scores, ids, 3, exclude)
        assert (
            i.tolist() == [want]
            and [dict(zip([7, 3, 9], [5.0, 2.0, 1.0])).get(j, -np.inf) for j in want]
            == s[0].tolist()
        )
    assert top_k_valid(scores, ids, 1)[1].tolist() == [[7]] and top_k_valid(scores, ids, 7)[
        1
    ].shape == (1, 7)
    two = top_k_valid(np.array([[2.0, 1], [2, 1]]), np.array([[0, 1], [0, 1]]), 2, [[0], [1]])
    assert two[1].tolist() == [[1, MISSING], [0, MISSING]]


def test_overfetch():
    assert (
        overfetch(4, 100)
        == overfetch(4, 100, None)
        == overfetch(4, 100, [[], []])
        == overfetch(4, 100, [])
        == 4
    )
    assert overfetch(4, 100, [[1], [1, 2, 3], []]) == 7 and overfetch(4, 5, [[1, 2, 3]]) == 5


def test_nothing_to_search():
    for index in (
        ExactIndex(np.zeros((0, 4), np.float32)),
        FaissIndex(np.zeros((0, 4), np.float32)),
    ):
        scores, ids = index.search(np.ones((2, 4), np.float32), 3, [[0], []])
        assert (ids == MISSING).all() and ids.shape == (2, 3) and np.isneginf(scores).all()
    assert ExactIndex(np.ones((3, 4), np.float32)).search(np.ones((2, 4), np.float32), 0)[
        1
    ].shape == (2, 0)


# ---- files


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_exact_index_is_mapped_from_its_file(tmp_path, dtype):
    z, x = clustered(), clustered(5, seed=2)
    save_index(ExactIndex(z, dtype=dtype), tmp_path / "index")
    again = load_index(tmp_path / "index")
    assert (
        again.embeddings.dtype == dtype
        and str(tmp_path / "index") in Path("/proc/self/maps").read_text()
    )
    for a, b in zip(again.search(x, 5), ExactIndex(z, dtype=dtype).search(x, 5)):
        assert (a == b).all()
    assert (
        tmp_path / "index" / "index.safetensors"
    ).stat().st_size <= z.size * dtype.itemsize + 256


def test_damaged_index_is_one_clear_line(tmp_path):
    folder = tmp_path / "index"
    save_index(ExactIndex(clustered()), folder)
    (file,) = folder.glob("*.safetensors")
    whole = file.read_bytes()
    for damaged in (whole[:1000], b"{", b""):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"the index .* is damaged .*; delete it and build"):
            load_index(folder)
    with pytest.raises(UserError, match="nothing is damaged"):
        load_index(tmp_path / "nothing")


def test_wrong_settings_are_one_clear_line():
    with pytest.raises(UserError, match="FAISS does not know the index 'Flta'; did you mean Flat"):
        FaissIndex(np.eye(4, dtype=np.float32), "Flta")
    with pytest.raises(UserError, match="nprob=3"):
        FaissIndex(np.eye(4, dtype=np.float32), "Flat", "nprob=3")
    with pytest.raises(UserError, match="4 blocks are too few for the index 'IVF64,Flat'"):
        FaissIndex(np.eye(4, dtype=np.float32), "IVF64,Flat")


NONSENSE = "F" * 4000, "IVF0,Flat", "IVF999999999,Flat", "IVF99999999999999999999,Flat", "HNSW0"
NONSENSE += "HNSW1", "HNSW100000", "NSG0", "PQ0", "PQ3", "PQ4x40", "IDMap,Flat", "PCA64,Flat", "LSH"
NONSENSE += "", "\0", "Flat,", "IVF-1,Flat", "IVF8(IVF8,Flat),", "𝕱lat"


@pytest.mark.parametrize("factory", NONSENSE, ids=lambda s: repr(s[:20]))
def test_no_factory_string_crashes(factory):
    "FAISS itself aborts, or asks for all memory, at some of these."
    with pytest.raises(UserError) as told:
        FaissIndex(clustered(), factory)
    assert "\n" not in str(told.value) and len(str(told.value)) < 300


@pytest.mark.parametrize("factory", ["IVF8,Flat", "HNSW8"])
def test_no_option_crashes(factory):
    "Neither when it is set nor when it is searched with."
    name = "nprobe" if factory.startswith("IVF") else "efSearch"
    words = "-1", "0", "1e30", "nan", "", "inf", "0x10", "4,", " 4", "9" * 4000, "1000000000"
    for text in (*(f"{name}={word}" for word in words), name, "=4", "x" * 4000, f"{name}=4," * 500):
        with pytest.raises(UserError, match="does not know the options"):
            FaissIndex(clustered(), factory, text)
    for value in (1, 100_000):
        _, ids = FaissIndex(clustered(), factory, f"{name}={value}").search(clustered()[:5], 3)
        assert (ids[:, 0] != MISSING).all()


@pytest.mark.parametrize("factory", [*BACK_ENDS, "NSG8", "exact", "merged"])
def test_a_query_that_is_not_finite_finds_nothing_and_the_others_all(factory):
    z = clustered()
    index = ExactIndex(z, chunk=100)
    if factory == "merged":
        index = MergedIndex(index, z[:3])
    elif factory != "exact":
        index = FaissIndex(z, factory, BACK_ENDS.get(factory, ""))
    x = z[:5].copy()
    want = index.search(x, 4)[1]
    x[1, 3], x[2, 0], x[3] = np.nan, np.inf, np.nan
    scores, ids = index.search(x, 4)
    assert (ids[1:4] == MISSING).all() and np.isneginf(scores[1:4]).all()
    assert (ids[[0, 4]] == want[[0, 4]]).all() and (ids[0] != MISSING).any()


def test_queries_of_another_width_are_refused():
    z = clustered(50, 8)
    for index in (ExactIndex(z), FaissIndex(z), ExactIndex(z[:0]), FaissIndex(z[:0])):
        for x in (np.ones((2, 7), np.float32), np.ones((2, 16), np.float32), np.ones(8, "f4")):
            with pytest.raises(UserError, match="vectors of 8 numbers and is asked for"):
                index.search(x, 3)


def test_more_candidates_than_blocks():
    z = clustered(5, 8)
    for index in (ExactIndex(z), FaissIndex(z), FaissIndex(z, FACTORIES[3])):
        scores, ids = index.search(z[:2], 1000, [[0], []])
        assert ids.shape == (2, 1000) and (ids[:, 5:] == MISSING).all()
        assert set(ids[0]) == {1, 2, 3, 4, MISSING} and np.isneginf(scores[0, 4:]).all()


def harmed(folder):
    "Each way a folder of files can be spoilt: its name, undone after each."
    files = {path: path.read_bytes() for path in folder.iterdir()}
    for path, whole in files.items():
        half = len(whole) // 2
        for content in (None, b"", whole[:half], whole[:half] + bytes(64) + whole[half + 64 :]):
            path.unlink()
            if content is not None:
                path.write_bytes(content)
            yield f"{path.name} {None if content is None else len(content)}"
            path.write_bytes(whole)


def test_every_harm_to_an_index_or_stored_layers_is_one_line(tmp_path):
    save_index(ExactIndex(clustered()), tmp_path / "index")
    layers = tmp_path / "layers"
    layers.mkdir()
    offsets, rows = np.array([0, 3, 5, 9]), np.ones((9, 4), np.float16)

    def write(offsets, rows):
        np.save(layers / "offsets.npy", offsets)
        np.save(layers / "rows.npy", rows)
        seal(layers)

    write(offsets, rows)
    tried = []
    for open_it, folder in ((load_index, tmp_path / "index"), (StoredLayers, layers)):
        for how in harmed(folder):
            with pytest.raises(UserError, match="is damaged") as told:
                open_it(folder)
            assert "\n" not in str(told.value), how
            tried.append(how)
        assert len(open_it(folder)) in (3, 600)
    assert len(tried) == 20
    wrong = [np.array(o) for o in ([0, 5, 3, 9], [0, 3, 5, 8], [1, 3, 5, 9], [0, 3, 3, 9], 0, [])]
    wrong += [offsets.astype(float), offsets.reshape(2, 2), np.array(["a"])]
    cases = [(o, rows) for o in wrong]
    cases += [(offsets, rows.astype("f4")), (offsets, rows[:5]), (offsets, rows[:, 0])]
    for some in cases:
        write(*some)
        with pytest.raises(UserError, match=r"the frozen layers .* is damaged"):
            StoredLayers(layers)
    save_index(ExactIndex(clustered() * np.float32(np.nan)), tmp_path / "nan")
    with pytest.raises(UserError, match="not all of its numbers are finite"):
        load_index(tmp_path / "nan")


# ---- p(z|x)


def test_the_null_document_comes_first_and_shares_the_probability():
    ids = with_null(np.array([[4, 2]]))
    assert ids.tolist() == [[MISSING, 4, 2]]
    p = log_p_z(torch.zeros(1, 3), torch.randn(1, 3, 3), torch.tensor([[True, True, True]])).exp()
    assert torch.allclose(p, torch.full((1, 3), 1 / 3))


def test_missing_candidates_have_no_probability_and_no_gradient():
    x, z = torch.randn(2, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    there = torch.tensor([[True, False, True], [True, False, False]])
    p = log_p_z(x, z, there)
    assert (
        (p.exp()[~there] == 0).all()
        and torch.allclose(p.exp().sum(1), torch.ones(2))
        and p[1, 0] == 0
    )
    assert torch.allclose(p[0, [0, 2]], (x[:1] @ z[0, [0, 2]].T).log_softmax(-1)[0])
    p[there].sum().backward()
    assert (z.grad[~there] == 0).all() and x.grad.isfinite().all()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    from realm_nb.store import build_store
    from realm_nb.text.documents import read_jsonl
    from realm_nb.text.tokenizer import tiny_tokenizer
    from realm_nb.towers import tiny_towers

    documents = list(read_jsonl(Path(__file__).parents[1] / "data/mini/documents.jsonl"))[:12]
    tokenizer = tiny_tokenizer([d.text for d in documents])
    folder = tmp_path_factory.mktemp("store") / "store"
    store = build_store(documents, tokenizer, folder, max_block_len=64)
    torch.manual_seed(0)
    embedder = tiny_towers(len(tokenizer), layers=1, hidden=16, dim=8, pooling="mean").embedder
    return store, embedder.eval()


def test_repeated_candidates_are_embedded_once(corpus):
    store, embedder = corpus
    ids = with_null(np.array([[3, 5, 7], [5, 7, 9], [3, 9, MISSING]]))
    rows = []
    handle = embedder.register_forward_hook(lambda module, args, out: rows.append(len(out)))
    z = embed_candidates(embedder, store, ids)
    handle.remove()
    assert sum(rows) == 5, "3, 5, 7, 9 and the null document"

    def gradients(z):
        embedder.zero_grad()
        (z * torch.arange(z.numel()).reshape(z.shape).sin()).sum().backward()
        return [p.grad.clone() for p in embedder.parameters() if p.grad is not None]

    from realm_nb.core.packing import pack

    naive = torch.stack(
        [torch.cat([embedder(pack(document_sequences(store, [b]))) for b in row]) for row in ids]
    )
    assert torch.allclose(z, naive, atol=1e-5)
    for a, b in zip(gradients(z), gradients(naive)):
        assert torch.allclose(a, b, atol=1e-4)


def test_a_learned_null_is_a_vector_and_the_embedders_is_a_sequence(corpus):
    store, embedder = corpus
    ids, special = with_null(np.array([[3], [5]])), store.special
    nothing = [special.cls, special.sep, special.sep]
    (null,) = document_sequences(store, [MISSING])
    assert null.token_ids.tolist() == nothing
    by_embedder = embed_candidates(embedder, store, ids)
    null = embedder.null = torch.nn.Parameter(torch.ones(8))
    try:
        learned = embed_candidates(embedder, store, ids)
        assert torch.equal(learned[:, 1], by_embedder[:, 1]) and (learned[:, 0] == 1).all()
        assert not torch.equal(by_embedder[0, 0], learned[0, 0])
        learned[:, 0].sum().backward()
        assert (null.grad == 2).all()
        without = embed_candidates(embedder, store, ids[:, 1:])
        assert torch.equal(without, by_embedder[:, 1:]), "no null among them"
        alone = embed_candidates(embedder, store, ids[:, :1])
        assert (alone == 1).all(), "nothing but null"
    finally:
        embedder.null = None


def test_a_store_is_embedded_whole_or_in_shares(corpus):
    store, embedder = corpus
    embedder.train()
    whole = embed_store(embedder, store, bar=False)
    assert embedder.training and whole.shape == (len(store), 8)
    embedder.eval()
    cut = len(store) // 3
    parts = [
        embed_store(embedder, store, b, bar=False)
        for b in (range(cut), range(cut, len(store)), range(0))
    ]
    assert np.allclose(np.concatenate(parts), whole, atol=1e-5) and parts[2].shape == (0, 8)


def test_plane_keeps_what_is_flat():
    g = np.random.default_rng(0)
    flat = g.standard_normal((30, 2)) * [3, 1]
    turned = flat @ np.linalg.qr(g.standard_normal((8, 8)))[0][:2] + 5
    points = plane(turned)
    distance = lambda a: np.linalg.norm(a[:, None] - a[None], axis=-1)
    assert (
        np.allclose(distance(points), distance(flat))
        and (points[0] >= 0).all()
        and points[:, 0].var() > points[:, 1].var()
    )
    assert plane(np.ones((1, 5))).tolist() == [[0, 0]] and plane(
        np.array([[0.0, 0], [2, 0]])
    ).shape == (2, 2)
