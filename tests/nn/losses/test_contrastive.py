"""The contrast of views against hand tables, a loop and a closed form of its gradient."""

from __future__ import annotations

import math

import pytest
import torch

from modalign.core import seeds
from modalign.nn.losses.contrastive import view_contrast

E = torch.eye(2, dtype=torch.float64)
H = torch.tensor([[1.0, 1.0], [0.0, 2.0]], dtype=torch.float64)


def tables(n: int = 7, d: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    rng = seeds.torch_generator(6)
    draw = torch.randn(2, n, d, generator=rng, dtype=torch.float64)
    return draw[0], draw[1]


def by_loop(e, h, keys_h, keys_e, places, temperature, keep_self=False) -> float:
    def s(v, w):
        return math.exp(torch.cosine_similarity(v, w, dim=0).item() / temperature)

    total = 0.0
    for u, place in enumerate(places):
        below = sum(s(other, e[u]) for other in keys_h)
        below += sum(s(keys_e[c], e[u]) for c in range(len(keys_e)) if keep_self or c != place)
        total -= math.log(s(h[u], e[u]) / below)
    return total / len(places)


def test_hand_table() -> None:
    assert view_contrast(E, H, 0.5).item() == pytest.approx(0.461079096, abs=1e-9)
    kept = view_contrast(E, H, 0.5, keep_self=True)
    assert kept.item() == pytest.approx(1.089466277, abs=1e-9)


@pytest.mark.parametrize("keep_self", [False, True])
@pytest.mark.parametrize("chunk", [None, 1, 3, 100])
def test_equals_the_definition_in_one_piece_or_several(chunk: int | None, keep_self: bool) -> None:
    e, h = tables()
    every = range(len(e))
    expected = by_loop(e, h, h, e, every, 0.2, keep_self)
    loss = view_contrast(e, h, 0.2, keep_self=keep_self, chunk=chunk)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_against_all_users_the_own_place_is_left_out() -> None:
    e, h = tables()
    users = torch.tensor([5, 2])
    loss = view_contrast(e[users], h[users], 0.3, others=(h, e, users), chunk=1)
    expected = by_loop(e[users], h[users], h, e, users.tolist(), 0.3)
    assert loss.item() == pytest.approx(expected, rel=1e-9)


def test_chunks_have_the_gradient_of_the_whole() -> None:
    found = []
    for chunk in (None, 2):
        e, h = (one.clone().requires_grad_() for one in tables())
        view_contrast(e, h, 0.2, chunk=chunk).backward()
        found.append((e.grad, h.grad))
    for left, right in zip(*found, strict=True):
        torch.testing.assert_close(left, right)


def test_lengths_do_not_matter_and_turning_towards_the_view_lowers_it() -> None:
    e, h = tables()
    loss = view_contrast(e, h, 0.5)
    torch.testing.assert_close(view_contrast(3 * e, h * torch.rand(7, 1).double() * 9, 0.5), loss)
    turned = h.clone()
    turned[0] = h[0] / h[0].norm() + 0.1 * e[0] / e[0].norm()
    assert view_contrast(e[:1], turned[:1], 0.5, others=(h, e, torch.tensor([0]))) < view_contrast(
        e[:1], h[:1], 0.5, others=(h, e, torch.tensor([0]))
    )


def test_where_all_are_alike_it_is_the_logarithm_of_the_number_compared() -> None:
    ones = torch.ones(6, 3)
    assert view_contrast(ones, ones, 0.5).item() == pytest.approx(math.log(11), rel=1e-6)


def test_empty_views_are_left_out_everywhere() -> None:
    e, h = tables()
    e[[1, 4]] = 0.0
    e.requires_grad_()
    loss = view_contrast(e, h, 0.5)
    kept = torch.tensor([0, 2, 3, 5, 6])
    torch.testing.assert_close(loss, view_contrast(e[kept], h[kept], 0.5))
    loss.backward()
    assert e.grad.isfinite().all()
    assert (e.grad[[1, 4]] == 0).all()
    nothing = view_contrast(torch.zeros(3, 4, requires_grad=True), torch.randn(3, 4), 0.5)
    assert nothing.item() == 0.0


def test_kept_empty_views_are_a_constant_without_a_gradient() -> None:
    e = torch.zeros(5, 3, requires_grad=True)
    h = tables(5, 3)[1].float().requires_grad_()
    loss = view_contrast(e, h, 0.5, drop_empty=False)
    assert loss.item() == pytest.approx(math.log(9), rel=1e-6)
    loss.backward()
    assert (e.grad == 0).all()
    assert (h.grad == 0).all()


def test_gradient_of_one_view_is_the_closed_form() -> None:
    e, h = tables()
    t, u = 0.3, 2
    row = e[u : u + 1].clone().requires_grad_()
    view_contrast(row, h[u : u + 1], t, others=(h, e, torch.tensor([u]))).backward()
    q = row.detach()[0] / row.detach()[0].norm()
    others = torch.cat([h, e[[c for c in range(len(e)) if c != u]]])
    others = others / others.norm(dim=1, keepdim=True)
    weights = (others @ q / t).softmax(0)
    weights[u] -= 1
    flat = others - (others @ q)[:, None] * q  # what is orthogonal to q
    expected = (weights[:, None] * flat).sum(0) / (t * row.detach().norm())
    torch.testing.assert_close(row.grad[0], expected, rtol=1e-10, atol=1e-10)
