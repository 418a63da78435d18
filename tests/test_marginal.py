"The marginal likelihood and its gradient against brute force, in float64, on drawn cases."

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from realm_nb.core.errors import UserError
from realm_nb.marginal import (
    MARGINALS,
    document_reward,
    inspection,
    marginal_vocabulary,
    posterior,
    realm_loss,
    retrieval_utility,
    sequence_log_p,
    sequence_marginal,
    token_marginal,
    token_reward,
)
from realm_nb.retrieval import log_p_z

case = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 5), st.integers(0, 10**6))


def draw(B, K, M, seed):
    g = torch.Generator().manual_seed(seed)
    f = torch.randn(B, K, generator=g, dtype=torch.float64, requires_grad=True)
    log_p_y_z = torch.log(torch.rand(B, K, M, generator=g, dtype=torch.float64))
    real = torch.arange(M) < torch.randint(0, M + 1, (B, 1), generator=g)
    return f, log_p_y_z, real


@settings(deadline=None, max_examples=30)
@given(case)
def test_marginals_equal_brute_force(shape):
    f, log_p_y_z, real = draw(*shape)
    p_z, p_y_z = f.softmax(-1), log_p_y_z.exp()
    token, sequence = (
        token_marginal(f.log_softmax(-1), log_p_y_z, real),
        sequence_marginal(f.log_softmax(-1), log_p_y_z, real),
    )
    loss = {"token": 0.0, "sequence": 0.0}
    for b in range(len(f)):
        whole = 0.0
        for k in range(f.shape[1]):
            product = 1.0
            for j in range(real.shape[1]):
                if real[b, j]:
                    product = product * p_y_z[b, k, j]
            whole = whole + p_z[b, k] * product
        assert (
            abs(
                sequence[b].item()
                - float(torch.log(torch.as_tensor(whole, dtype=torch.float64).detach()))
            )
            < 1e-10
        )
        loss["sequence"] -= sequence[b].item()
        for j in range(real.shape[1]):
            want = (
                torch.log(sum(p_z[b, k] * p_y_z[b, k, j] for k in range(f.shape[1]))).item()
                if real[b, j]
                else 0.0
            )
            assert abs(token[b, j].item() - want) < 1e-10
            loss["token"] -= want
    n = max(1, int(real.sum()))
    for form, total in loss.items():
        assert abs(realm_loss(f.log_softmax(-1), log_p_y_z, real, form).item() - total / n) < 1e-10


@settings(deadline=None, max_examples=30)
@given(case)
def test_gradient_is_the_documents_reward(shape):
    f, log_p_y_z, real = draw(*shape)
    (gradient,) = torch.autograd.grad(
        sequence_marginal(f.log_softmax(-1), log_p_y_z, real).sum(), f
    )
    log_p_y = sequence_log_p(log_p_y_z, real)
    r = document_reward(f.log_softmax(-1), log_p_y)
    assert (gradient - r).abs().max() < 1e-9
    paper = (
        log_p_y.exp() / sequence_marginal(f.log_softmax(-1), log_p_y_z, real).exp().unsqueeze(1) - 1
    ) * f.softmax(-1)
    assert (r - paper).abs().max() < 1e-9
    assert r.sum(1).abs().max() < 1e-12
    assert (posterior(f.log_softmax(-1), log_p_y).sum(1) - 1).abs().max() < 1e-12
    (by_token,) = torch.autograd.grad(token_marginal(f.log_softmax(-1), log_p_y_z, real).sum(), f)
    r = token_reward(f.log_softmax(-1), log_p_y_z, real)
    assert (by_token - r).abs().max() < 1e-9 and r.sum(1).abs().max() < 1e-12


def test_gradient_equals_finite_differences():
    f, log_p_y_z, real = draw(3, 4, 2, 7)
    value = lambda f: token_marginal(f.log_softmax(-1), log_p_y_z, real).sum()
    (gradient,) = torch.autograd.grad(value(f), f)
    for b, k in itertools.product(range(3), range(4)):
        step = torch.zeros_like(f)
        step[b, k] = 1e-6
        assert (
            abs(
                (
                    (value(f.detach() + step) - value(f.detach() - step)) / 2e-6 - gradient[b, k]
                ).item()
            )
            < 1e-7
        )


@settings(deadline=None, max_examples=20)
@given(case, st.integers(1, 3))
def test_missing_candidates_and_padding_change_nothing(shape, more):
    f, log_p_y_z, real = draw(*shape)
    B, K, M = log_p_y_z.shape
    x, z = torch.randn(B, 6, dtype=torch.float64), torch.randn(B, K, 6, dtype=torch.float64)
    there = torch.ones(B, K, dtype=torch.bool)
    wide_z, wide_there = (
        torch.cat([z, torch.randn(B, more, 6, dtype=torch.float64)], 1),
        torch.cat([there, torch.zeros(B, more, dtype=torch.bool)], 1),
    )
    wide_y = torch.cat(
        [
            torch.cat([log_p_y_z, torch.randn(B, more, M, dtype=torch.float64)], 1),
            torch.randn(B, K + more, more, dtype=torch.float64),
        ],
        2,
    )
    wide_real = torch.cat([real, torch.zeros(B, more, dtype=torch.bool)], 1)
    for form in ("token", "sequence"):
        assert (
            abs(
                realm_loss(log_p_z(x, z, there), log_p_y_z, real, form)
                - realm_loss(log_p_z(x, wide_z, wide_there), wide_y, wide_real, form)
            ).item()
            < 1e-10
        )
    order = torch.randperm(K)
    assert (
        abs(
            realm_loss(log_p_z(x, z, there), log_p_y_z, real)
            - realm_loss(log_p_z(x, z[:, order], there), log_p_y_z[:, order], real)
        ).item()
        < 1e-10
    )


def test_gradient_is_finite_with_missing_candidates():
    x, z = torch.randn(2, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    there = torch.tensor([[True, False, False], [True, True, False]])
    realm_loss(
        log_p_z(x, z, there), -torch.rand(2, 3, 2), torch.ones(2, 2, dtype=torch.bool)
    ).backward()
    assert x.grad.isfinite().all() and z.grad.isfinite().all() and (z.grad[0, 1:] == 0).all()


@pytest.mark.parametrize("others", [-900.0, -torch.inf])
def test_one_certain_document_is_supervised_retrieval(others):
    f = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    certain = torch.full((2, 5, 1), others, dtype=torch.float64)
    certain[:, 3] = 0.0
    real = torch.ones(2, 1, dtype=torch.bool)
    two = torch.autograd.grad(f.log_softmax(-1)[:, 3].sum(), f)[0]
    for form in (sequence_marginal, token_marginal):
        one = torch.autograd.grad(form(f.log_softmax(-1), certain, real).sum(), f)[0]
        assert (one - two).abs().max() < 1e-12
    assert (
        document_reward(f.log_softmax(-1), sequence_log_p(certain, real)) - two
    ).abs().max() < 1e-12


def test_signs_of_reward_and_utility():
    g = torch.Generator().manual_seed(0)
    log_p_z, log_p_y = (
        torch.randn(500, 6, generator=g, dtype=torch.float64).log_softmax(-1),
        torch.rand(500, 6, generator=g, dtype=torch.float64).log(),
    )
    mixture = torch.log((log_p_z.exp() * log_p_y.exp()).sum(1, keepdim=True))
    assert ((document_reward(log_p_z, log_p_y) > 0) == (log_p_y > mixture)).all()
    assert ((retrieval_utility(log_p_y) > 0) == (log_p_y > log_p_y[:, :1])).all() and (
        retrieval_utility(log_p_y)[:, 0] == 0
    ).all()


def test_utility_is_against_the_null_document():
    log_p_y = torch.log(torch.tensor([[0.1, 0.2, 0.05]]))
    assert torch.allclose(retrieval_utility(log_p_y).exp(), torch.tensor([[1.0, 2.0, 0.5]]))


@pytest.mark.parametrize("form", MARGINALS)
def test_an_example_without_masks_is_exactly_nothing(form):
    f = torch.randn(64, 7, requires_grad=True)
    real = torch.zeros(64, 3, dtype=torch.bool)
    loss = realm_loss(f.log_softmax(-1), -torch.rand(64, 7, 3), real, form)
    loss.backward()
    assert loss.item() == 0 and (f.grad == 0).all()
    one = torch.cat([real[:1], torch.ones(1, 3, dtype=torch.bool)])
    log_p_y_z = -torch.rand(2, 7, 3)
    both, alone = (realm_loss(f[i:2].log_softmax(-1), log_p_y_z[i:], one[i:], form) for i in (0, 1))
    assert both.item() == pytest.approx(alone.item(), rel=1e-6)
    assert (token_reward(f.log_softmax(-1), -torch.rand(64, 7, 3), real) == 0).all()


@pytest.mark.parametrize("form", MARGINALS)
@pytest.mark.parametrize("garbage", [-torch.inf, torch.nan, 50.0])
def test_what_stands_in_padding_does_not_matter(form, garbage):
    g = torch.Generator().manual_seed(1)
    f, y, real = (
        torch.randn(3, 4, generator=g),
        -torch.rand(3, 4, 3, generator=g),
        torch.tensor([[1, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=torch.bool),
    )
    results = []
    for fill in (0.0, garbage):
        f_, y_ = (
            f.clone().requires_grad_(),
            y.masked_fill(~real.unsqueeze(1), fill).requires_grad_(),
        )
        loss = realm_loss(f_.log_softmax(-1), y_, real, form)
        loss.backward()
        results.append(
            (loss.detach(), f_.grad, y_.grad, token_reward(f.log_softmax(-1), y_.detach(), real))
        )
    for a, b in zip(*results):
        assert a.isfinite().all() and torch.equal(a, b)


def test_the_loss_of_parts_is_the_loss_of_the_whole():
    f, y, real = draw(6, 4, 3, 5)
    for form in MARGINALS:
        parts = [
            realm_loss(
                f[i : i + 3].log_softmax(-1),
                y[i : i + 3],
                real[i : i + 3],
                form,
                masks=real.sum().item() / 2,
            )
            for i in (0, 3)
        ]
        assert abs((sum(parts) / 2 - realm_loss(f.log_softmax(-1), y, real, form)).item()) < 1e-12
    assert realm_loss(f.log_softmax(-1), y, real, masks=0).isfinite()
    assert realm_loss(
        f[:1].log_softmax(-1), y[:1], torch.ones(1, 3, dtype=torch.bool), masks=0.5
    ) == realm_loss(f[:1].log_softmax(-1), y[:1], torch.ones(1, 3, dtype=torch.bool), masks=1)


def test_unknown_marginal_is_one_clear_line():
    f, y, real = draw(1, 2, 1, 0)
    with pytest.raises(UserError, match="unknown marginal 'tokn'; did you mean token"):
        realm_loss(f, y, real, "tokn")
    assert realm_loss(f.log_softmax(-1), y, real) == realm_loss(f.log_softmax(-1), y, real, "token")


@pytest.mark.parametrize("form", MARGINALS)
def test_tiny_probabilities_do_not_underflow(form):
    f = torch.randn(1, 3, requires_grad=True)
    loss = realm_loss(
        f.log_softmax(-1), torch.full((1, 3, 10), -400.0), torch.ones(1, 10, dtype=torch.bool), form
    )
    loss.backward()
    assert abs(loss.item() - 400) < 1e-2 and f.grad.abs().max() < 1e-3


def test_scores_are_float32_under_autocast():
    g = torch.Generator().manual_seed(0)
    x, z, there = (
        torch.randn(8, 128, generator=g),
        torch.randn(8, 5, 128, generator=g),
        torch.ones(8, 5, dtype=torch.bool),
    )
    want = torch.log_softmax((x[:, None].double() * z.double()).sum(-1), -1)
    with torch.autocast("cpu", torch.bfloat16):
        got = log_p_z(x, z, there)
        half = log_p_z(x.bfloat16(), z.bfloat16(), there)
        loss = realm_loss(got, -torch.rand(8, 5, 2), torch.ones(8, 2, dtype=torch.bool))
    assert got.dtype == half.dtype == loss.dtype == torch.float32
    assert (got - want).abs().max() < 1e-4
    assert (
        half
        - torch.log_softmax((x.bfloat16()[:, None].double() * z.bfloat16().double()).sum(-1), -1)
    ).abs().max() < 1e-4
    assert log_p_z(x.double(), z.double(), there).dtype == torch.float64
    scaled = torch.log_softmax((x[:, None].double() * z.double()).sum(-1) * 0.25, -1)
    assert (log_p_z(x, z, there, 0.25) - scaled).abs().max() < 1e-4


def test_inspection_says_what_the_formulas_say():
    f, y, real = draw(5, 4, 3, 11)
    real[0] = True
    seen = inspection(f.log_softmax(-1), y, real)
    p_y_z = torch.tensor(
        [
            [math.prod(y[b, k, j].exp().item() for j in range(3) if real[b, j]) for k in range(4)]
            for b in range(5)
        ],
        dtype=torch.float64,
    )
    p_y = (seen.p_z * p_y_z).sum(1, keepdim=True)
    for got, want in (
        (seen.p_z, f.softmax(-1)),
        (seen.p_y_z, p_y_z),
        (seen.p_z_y, seen.p_z * p_y_z / p_y),
        (seen.r, (p_y_z / p_y - 1) * seen.p_z),
        (seen.ru, torch.log(p_y_z / p_y_z[:, :1])),
        (seen.log_p_y_x, p_y[:, 0].log()),
    ):
        assert (got - want).abs().max() < 1e-12 and not got.requires_grad


def test_vocabulary_is_mixed_by_brute_force():
    g = torch.Generator().manual_seed(0)
    prior, each = (
        torch.randn(4, generator=g).log_softmax(-1),
        torch.randn(4, 2, 6, generator=g).log_softmax(-1),
    )
    got = marginal_vocabulary(prior, each).exp()
    for j in range(2):
        for v in range(6):
            assert (
                abs(
                    got[j, v].item()
                    - sum(prior[k].exp() * each[k, j, v].exp() for k in range(4)).item()
                )
                < 1e-6
            )


def test_the_reward_is_the_gradient_at_the_scores():
    f = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64, requires_grad=True)
    likelihood = torch.tensor([0.2, 0.9, 0.1], dtype=torch.float64)
    value = torch.log((f.softmax(0) * likelihood).sum())
    value.backward()
    one = torch.ones(1, 1, dtype=torch.bool)
    seen = inspection(f.detach()[None].log_softmax(1), likelihood.log()[None, :, None], one)
    p_y = value.exp().item()
    assert np.allclose(seen.r[0], f.grad, atol=1e-12)
    assert abs(seen.log_p_y_x.exp().item() - p_y) < 1e-12
    assert np.allclose(seen.ru[0], np.log(likelihood.numpy() / 0.2))
    assert np.allclose(seen.p_z[0], f.softmax(0).detach())
    assert np.allclose(seen.p_z_y[0], seen.p_z[0] * likelihood / p_y)
