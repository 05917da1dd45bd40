"""What the benchmark of steps counts as arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from programs import program
from torch import Tensor
from torch.nn import functional
from torch.nn.functional import embedding_bag

A, B = torch.ones(3, 5), torch.ones(5, 7)
PRODUCT = 2 * 3 * 5 * 7
VECTOR = 2 * 3 * 5


def counted(work: Callable[[], object]) -> tuple[float, float]:
    """Dense and sparse operations of some work."""
    mode, sparse = program("step_floor").operations()
    with mode:
        work()
    return mode.get_total_flops(), sparse["operations"]


@pytest.mark.parametrize(
    ("work", "wanted"),
    [
        (lambda: A @ B, PRODUCT),
        (lambda: torch.mm(A, B, out=torch.empty(3, 7)), PRODUCT),
        (lambda: functional.linear(A, B.T, torch.zeros(7)), PRODUCT),
        (lambda: torch.zeros(3, 7).addmm_(A, B, alpha=2.0), PRODUCT),
        (lambda: torch.zeros(7, 3).t().addmm_(A, B), PRODUCT),
        (lambda: torch.baddbmm(torch.zeros(1, 3, 7), A[None], B[None]), PRODUCT),
        (lambda: torch.zeros(2, 3, 7).baddbmm_(A.expand(2, 3, 5), B.expand(2, 5, 7)), 2 * PRODUCT),
        (lambda: A @ B[:, 0], VECTOR),
        (lambda: torch.mv(A, B[:, 0], out=torch.empty(3)), VECTOR),
        (lambda: torch.zeros(3).addmv_(A, B[:, 0]), VECTOR),
        (lambda: torch.addmv(torch.zeros(3), A, B[:, 0]), VECTOR),
        (lambda: A * 2, 0),
    ],
)
def test_every_dense_product_counts_in_place_or_not(
    work: Callable[[], Tensor], wanted: int
) -> None:
    assert counted(work) == (wanted, 0)


def test_products_of_the_gradients_count_too() -> None:
    a, b = A.clone().requires_grad_(), B.clone().requires_grad_()
    assert counted(lambda: (a @ b).sum().backward()) == (3 * PRODUCT, 0)


def test_sums_of_rows_count_two_operations_an_entry_and_column() -> None:
    table, columns = torch.ones(4, 6), torch.tensor([0, 1, 1, 3, 2])
    starts = torch.tensor([0, 2])
    assert counted(lambda: embedding_bag(columns, table, starts, mode="sum")) == (0, 2 * 5 * 6)
