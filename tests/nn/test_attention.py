"""Attention between modalities against a loop, and the ways in which it can collapse."""

from __future__ import annotations

import math

import pytest
import torch

from modalign.core import seeds
from modalign.nn.attention import CrossModalAttention

D, N = 8, 5


def made(n_heads: int = 2, **options) -> CrossModalAttention:
    with seeds.torch_seed(4):
        return CrossModalAttention(D, n_heads, **options).double()


def views(m: int) -> list[torch.Tensor]:
    rng = seeds.torch_generator(5)
    return [torch.randn(N, D, generator=rng, dtype=torch.float64) for _ in range(m)]


@torch.no_grad()
def by_loop(attention: CrossModalAttention, given: list[torch.Tensor]) -> torch.Tensor:
    """The definition, one node, modality and head at a time."""
    step = D // attention.n_heads
    out = torch.zeros(len(given), N, D, dtype=torch.float64)
    for node in range(N):
        for m in range(len(given)):
            heads = []
            for h in range(attention.n_heads):
                part = slice(h * step, (h + 1) * step)
                q = given[m][node] @ attention.query[:, part]
                scores = [float(q @ (e[node] @ attention.key[:, part])) for e in given]
                weights = [math.exp(s / math.sqrt(step)) for s in scores]
                total = sum(weights)
                columns = part if attention.values == "slice" else slice(None)
                heads.append(
                    sum(w / total * e[node, columns] for w, e in zip(weights, given, strict=True))
                )
            out[m, node] = torch.cat(heads) @ attention.out
    return out


@pytest.mark.parametrize("values", ["whole", "slice"])
@pytest.mark.parametrize("n_heads", [1, 2, 4])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_equals_the_definition(m: int, n_heads: int, values: str) -> None:
    attention, given = made(n_heads, values=values), views(m)
    expected = by_loop(attention, given)
    torch.testing.assert_close(attention(given), expected)
    torch.testing.assert_close(attention.mean(given), expected.mean(0))


@pytest.mark.parametrize("values", ["whole", "slice"])
def test_without_an_output_matrix_heads_are_averaged_or_stand_side_by_side(values: str) -> None:
    attention, given = made(2, values=values, output_matrix=False), views(2)
    beta, stacked = attention.weights(given), torch.stack(given)
    assert attention.out is None
    whole = torch.einsum("hqkn,knd->qnhd", beta, stacked)
    if values == "whole":
        expected = whole.mean(2)
    else:
        expected = torch.cat([whole[:, :, 0, :4], whole[:, :, 1, 4:]], dim=2)
    torch.testing.assert_close(attention(given), expected)
    torch.testing.assert_close(attention.mean(given), expected.mean(0))


def test_scaled_weights_do_not_depend_on_the_length_of_a_view_but_values_do() -> None:
    given = views(2)
    scaled, plain = made(scaled=True), made()
    lengths = torch.tensor([1e-3, 50.0], dtype=torch.float64)
    shorter = [view * factor for view, factor in zip(given, lengths, strict=True)]
    torch.testing.assert_close(scaled.weights(shorter), scaled.weights(given))
    # The weights are those of the plain attention on rows of length sqrt(d).
    rows = [view / view.norm(dim=1, keepdim=True) * math.sqrt(D) for view in given]
    torch.testing.assert_close(scaled.weights(given), plain.weights(rows))
    torch.testing.assert_close(scaled(rows), plain(rows))
    torch.testing.assert_close(scaled([view * 3 for view in given]), scaled(given) * 3)
    # As short as views are at the start, the plain attention is a mean, the scaled one is not.
    short = [view * 0.02 for view in given]
    assert (plain.weights(short) - 0.5).abs().max() < 0.001 < 0.1
    assert (scaled.weights(short) - 0.5).abs().max() > 0.1


def test_weights_sum_to_one_over_those_listened_to() -> None:
    beta = made().weights(views(3))
    assert beta.shape == (2, 3, 3, N)
    torch.testing.assert_close(beta.sum(2), torch.ones(2, 3, N, dtype=torch.float64))


def test_modalities_in_another_order_come_out_in_that_order() -> None:
    attention, given = made(), views(3)
    order = [2, 0, 1]
    torch.testing.assert_close(attention([given[m] for m in order]), attention(given)[order])


def test_without_queries_it_is_the_plain_mean() -> None:
    attention, given = made(), views(3)
    torch.nn.init.zeros_(attention.query)
    mean = torch.stack(given).mean(0)
    torch.testing.assert_close(attention(given)[1], torch.cat([mean, mean], 1) @ attention.out)


def test_one_modality_is_the_value_path_alone() -> None:
    attention, (view,) = made(), views(1)
    torch.testing.assert_close(attention([view])[0], torch.cat([view, view], 1) @ attention.out)


def test_modalities_hear_each_other_and_queries_and_keys_learn() -> None:
    attention, given = made(), views(2)
    changed = [given[0], given[1] + 1]
    assert not torch.equal(attention(given)[0], attention(changed)[0])
    attention(given).square().sum().backward()
    for weight in (attention.query, attention.key):
        assert (weight.grad != 0).any()


def test_nodes_do_not_hear_each_other() -> None:
    attention, given = made(), views(2)
    alone = attention([view[2:3] for view in given])
    torch.testing.assert_close(attention(given)[:, 2:3], alone)


def test_collapsed_is_a_linear_map_of_the_own_view() -> None:
    attention, given = made(mode="collapsed"), views(2)
    assert sum(p.numel() for p in attention.parameters()) == 2 * D * D
    expected = given[0] @ (attention.out[:D] + attention.out[D:])
    torch.testing.assert_close(attention(given)[0], expected)
    torch.testing.assert_close(attention([given[0], given[1] + 1])[0], expected)
    torch.testing.assert_close(attention.mean(given), attention(given).mean(0))
    with pytest.raises(ValueError, match="no weights"):
        attention.weights(given)


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="divisible by 3 heads"):
        CrossModalAttention(8, 3)
