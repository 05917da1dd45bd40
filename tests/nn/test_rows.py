"""Rows in thin form against the same rows joined."""

from __future__ import annotations

import pytest
import torch

from modalign.core import seeds
from modalign.graph.propagate import CSR
from modalign.nn.rows import Rows, unit_rows

B, N, R, H = 4, 9, 3, 5


def made(dense: bool, sparse: bool, dtype: torch.dtype = torch.float64) -> Rows:
    rng = seeds.torch_generator(1)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=rng, dtype=dtype)

    entries = CSR(
        torch.tensor([0, 2, 2, 5, 6], dtype=torch.int32),
        torch.tensor([1, 7, 0, 3, 8, 8], dtype=torch.int32),
        draw(6),
        N,
    )
    return Rows(draw(B, R), draw(N, R), draw(B, N) if dense else None, entries if sparse else None)


PARTS = pytest.mark.parametrize(
    ("dense", "sparse"), [(False, False), (True, False), (False, True), (True, True)]
)


@PARTS
def test_lengths_products_and_scales_are_those_of_joined_rows(dense: bool, sparse: bool) -> None:
    rows = made(dense, sparse)
    joined = rows.join()
    weight = torch.randn(N, H, generator=seeds.torch_generator(2), dtype=torch.float64)
    factor = torch.tensor([1.0, -2.0, 0.0, 0.5], dtype=torch.float64)
    torch.testing.assert_close(rows.squared_lengths(), joined.square().sum(1))
    torch.testing.assert_close(rows.times(weight), joined @ weight)
    torch.testing.assert_close(rows.scaled(factor).join(), factor[:, None] * joined)
    torch.testing.assert_close(rows.unit().join(), joined / joined.norm(dim=1, keepdim=True))
    torch.testing.assert_close((rows + rows.detach()).join(), 2 * joined)


def test_parts_that_only_one_has_are_kept_in_a_sum() -> None:
    dense, sparse = made(True, False), made(False, True)
    for total in (dense + sparse, sparse + dense):
        torch.testing.assert_close(total.join(), dense.join() + sparse.join())


def test_product_in_float32_agrees_to_five_digits() -> None:
    rows = made(True, True, torch.float32)
    weight = torch.randn(N, H, generator=seeds.torch_generator(2))
    torch.testing.assert_close(rows.times(weight), rows.join() @ weight, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_joined_rows() -> None:
    weight = torch.randn(N, H, generator=seeds.torch_generator(2), dtype=torch.float64)

    def through(left: torch.Tensor, right: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
        entries = made(False, True).sparse
        assert entries is not None
        rows = Rows(left, right, sparse=entries._replace(values=values)).unit()
        return rows.times(weight).square().sum()

    start = made(False, True)
    assert start.sparse is not None
    parts = start.left, start.right, start.sparse.values
    leaves = [one.clone().requires_grad_() for one in parts]
    assert torch.autograd.gradcheck(through, leaves)


def test_rows_of_zeros_stay_and_get_no_gradient() -> None:
    left = torch.tensor([[0.0, 0.0], [1.0, 2.0]], requires_grad=True)
    unit = Rows(left, torch.ones(3, 2)).unit()
    torch.testing.assert_close(unit.join().norm(dim=1), torch.tensor([0.0, 1.0]))
    (unit.join() * torch.arange(3.0)).sum().backward()
    assert left.grad is not None
    assert left.grad.isfinite().all()
    assert (left.grad[0] == 0).all()


def test_unit_rows_have_length_one_or_zero_without_a_wild_gradient() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0], [1e-9, 0.0]], requires_grad=True)
    unit = unit_rows(x)
    torch.testing.assert_close(unit.norm(dim=1), torch.tensor([1.0, 0.0, 0.0]))
    (unit * torch.tensor([1.0, 2.0])).sum().backward()
    assert x.grad is not None
    assert (x.grad[1:] == 0).all()
    torch.testing.assert_close(unit_rows(7 * x), torch.stack([unit[0], x[1], x[1]]))
