"The marginal likelihood and its gradient against brute force, in float64, on drawn cases."
import itertools

import torch
from hypothesis import given, settings, strategies as st

from realm_nb.marginal import document_reward, posterior, realm_loss, retrieval_utility, sequence_log_p, sequence_marginal, token_marginal
from realm_nb.retrieval import log_p_z

case = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))


def draw(B, K, M, seed):
    g = torch.Generator().manual_seed(seed)
    f = torch.randn(B, K, generator=g, dtype=torch.float64, requires_grad=True)
    log_p_y_z = torch.log(torch.rand(B, K, M, generator=g, dtype=torch.float64))
    real = torch.arange(M) < torch.randint(0, M + 1, (B, 1), generator=g)
    return f, log_p_y_z, real


@settings(deadline=None, max_examples=60)
@given(case)
def test_marginals_equal_brute_force(shape):
    f, log_p_y_z, real = draw(*shape)
    p_z, p_y_z = f.softmax(-1), log_p_y_z.exp()
    token, sequence = token_marginal(f.log_softmax(-1), log_p_y_z, real), sequence_marginal(f.log_softmax(-1), log_p_y_z, real)
    loss = {"token": 0.0, "sequence": 0.0}
    for b in range(len(f)):
        whole = 0.0
        for k in range(f.shape[1]):
            product = 1.0
            for j in range(real.shape[1]):
                if real[b, j]: product = product * p_y_z[b, k, j]
            whole = whole + p_z[b, k] * product
        assert abs(sequence[b].item() - float(torch.log(torch.as_tensor(whole, dtype=torch.float64)))) < 1e-10
        loss["sequence"] -= sequence[b].item()
        for j in range(real.shape[1]):
            want = torch.log(sum(p_z[b, k] * p_y_z[b, k, j] for k in range(f.shape[1]))).item() if real[b, j] else 0.0
            assert abs(token[b, j].item() - want) < 1e-10
            loss["token"] -= want
    n = max(1, int(real.sum()))
    for form, total in loss.items(): assert abs(realm_loss(f.log_softmax(-1), log_p_y_z, real, form).item() - total / n) < 1e-10


@settings(deadline=None, max_examples=60)
@given(case)
def test_gradient_is_the_documents_reward(shape):
    f, log_p_y_z, real = draw(*shape)
    gradient, = torch.autograd.grad(sequence_marginal(f.log_softmax(-1), log_p_y_z, real).sum(), f)
    log_p_y = sequence_log_p(log_p_y_z, real)
    r = document_reward(f.log_softmax(-1), log_p_y)
    assert (gradient - r).abs().max() < 1e-9
    paper = (log_p_y.exp() / sequence_marginal(f.log_softmax(-1), log_p_y_z, real).exp().unsqueeze(1) - 1) * f.softmax(-1)
    assert (r - paper).abs().max() < 1e-9
    assert r.sum(1).abs().max() < 1e-12
    assert (posterior(f.log_softmax(-1), log_p_y).sum(1) - 1).abs().max() < 1e-12


def test_gradient_equals_finite_differences():
    f, log_p_y_z, real = draw(3, 4, 2, 7)
    value = lambda f: token_marginal(f.log_softmax(-1), log_p_y_z, real).sum()
    gradient, = torch.autograd.grad(value(f), f)
    for b, k in itertools.product(range(3), range(4)):
        step = torch.zeros_like(f); step[b, k] = 1e-6
        assert abs(((value(f.detach() + step) - value(f.detach() - step)) / 2e-6 - gradient[b, k]).item()) < 1e-7


@settings(deadline=None, max_examples=40)
@given(case, st.integers(1, 3))
def test_missing_candidates_and_padding_change_nothing(shape, more):
    f, log_p_y_z, real = draw(*shape)
    B, K, M = log_p_y_z.shape
    x, z = torch.randn(B, 6, dtype=torch.float64), torch.randn(B, K, 6, dtype=torch.float64)
    there = torch.ones(B, K, dtype=torch.bool)
    wide_z, wide_there = torch.cat([z, torch.randn(B, more, 6, dtype=torch.float64)], 1), torch.cat([there, torch.zeros(B, more, dtype=torch.bool)], 1)
    wide_y = torch.cat([torch.cat([log_p_y_z, torch.randn(B, more, M, dtype=torch.float64)], 1), torch.randn(B, K + more, more, dtype=torch.float64)], 2)
    wide_real = torch.cat([real, torch.zeros(B, more, dtype=torch.bool)], 1)
    for form in ("token", "sequence"):
        assert abs(realm_loss(log_p_z(x, z, there), log_p_y_z, real, form) - realm_loss(log_p_z(x, wide_z, wide_there), wide_y, wide_real, form)).item() < 1e-10
    order = torch.randperm(K)
    assert abs(realm_loss(log_p_z(x, z, there), log_p_y_z, real) - realm_loss(log_p_z(x, z[:, order], there), log_p_y_z[:, order], real)).item() < 1e-10


def test_gradient_is_finite_with_missing_candidates():
    x, z = torch.randn(2, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    there = torch.tensor([[True, False, False], [True, True, False]])
    realm_loss(log_p_z(x, z, there), -torch.rand(2, 3, 2), torch.ones(2, 2, dtype=torch.bool)).backward()
    assert x.grad.isfinite().all() and z.grad.isfinite().all() and (z.grad[0, 1:] == 0).all()


def test_one_certain_document_is_supervised_retrieval():
    f = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    certain = torch.full((2, 5, 1), -900.0, dtype=torch.float64); certain[:, 3] = 0.0
    one = torch.autograd.grad(sequence_marginal(f.log_softmax(-1), certain, torch.ones(2, 1, dtype=torch.bool)).sum(), f)[0]
    two = torch.autograd.grad(f.log_softmax(-1)[:, 3].sum(), f)[0]
    assert (one - two).abs().max() < 1e-12


def test_utility_is_against_the_null_document():
    log_p_y = torch.log(torch.tensor([[0.1, 0.2, 0.05]]))
    assert torch.allclose(retrieval_utility(log_p_y).exp(), torch.tensor([[1.0, 2.0, 0.5]]))
