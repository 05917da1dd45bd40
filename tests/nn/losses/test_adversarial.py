"""Real rows, the critic and both losses against joined rows, closed forms and a game."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from modalign.core import seeds
from modalign.graph.one_sided import TwoWayGraph
from modalign.graph.propagate import CSR
from modalign.nn.losses.adversarial import (
    AdversarialSettings,
    AdversarialTask,
    Critic,
    dense_observations,
    gradient_lengths,
    observation_rows,
    real_rows,
    score_rows,
)
from modalign.nn.rows import Rows

B, N, D = 6, 15, 4
PLAIN = AdversarialSettings(hidden=(5, 3), dropout=(0.0, 0.0))
OFFICIAL = AdversarialSettings(
    hidden=(5, 3), scores="dot", mask_observed=True, unit_aux=True, slope=1.0, norm="none"
)


def seen() -> CSR:
    rng = seeds.torch_generator(1)
    users, items = torch.arange(B).repeat(4), torch.randint(N, (4 * B,), generator=rng)
    return TwoWayGraph(users, items, B, N).seen


def observed(of: CSR) -> torch.Tensor:
    matrix = torch.zeros(of.n_rows, of.n_columns)
    owner = torch.repeat_interleave((of.indptr[1:] - of.indptr[:-1]).long())
    matrix[owner, of.indices.long()] = 1.0
    return matrix


def pair(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = seeds.torch_generator(seed)
    return torch.randn(B, D, generator=rng), torch.randn(N, D, generator=rng)


def unit(x: torch.Tensor) -> torch.Tensor:
    return x / x.norm(dim=1, keepdim=True)


def task(settings: AdversarialSettings = PLAIN) -> AdversarialTask:
    with seeds.torch_seed(2):
        return AdversarialTask(N, settings)


# ------------------------------------------------------------------ rows


def test_cosine_rows_are_cosines_whatever_the_lengths() -> None:
    users, items = pair(3)
    rows = score_rows(users, items, PLAIN, seen()).join()
    torch.testing.assert_close(rows, unit(users) @ unit(items).T)
    assert rows.abs().max() <= 1 + 1e-6
    scaled = score_rows(users * 5, items * torch.rand(N, 1), PLAIN, seen()).join()
    torch.testing.assert_close(scaled, rows)


def test_official_rows_are_products_with_zeros_at_observed_items() -> None:
    users, items = pair(3)
    rows = score_rows(users, items, OFFICIAL, seen())
    expected = (users @ items.T) * (1 - observed(seen()))
    torch.testing.assert_close(rows.join(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(rows.unit().join(), unit(expected), rtol=1e-4, atol=1e-5)


def test_dense_observations_by_hand_and_at_both_ends_of_the_temperature() -> None:
    ones = CSR(torch.tensor([0, 2]).int(), torch.tensor([0, 1]).int(), torch.ones(2), 4)
    row = dense_observations(ones, 0.5, 0.0, None)[0]
    hand = torch.tensor([0.440399, 0.440399, 0.059601, 0.059601])
    torch.testing.assert_close(row, hand, rtol=0, atol=1e-6)
    assert (row[0] / row[2]).item() == pytest.approx(math.exp(2), rel=1e-5)
    for temperature, expected in ((1e6, [0.25] * 4), (1e-3, [0.5, 0.5, 0.0, 0.0])):
        found = dense_observations(ones, temperature, 0.0, None)[0]
        torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="generator"):
        dense_observations(ones, 0.5, 0.1, None)


@pytest.mark.parametrize(
    ("temperature", "noise", "low", "high"),
    [
        (0.005, 1.0, 0.0, 0.05),
        (0.1, 1e-5, 0.9, 1.0),
        (0.005, 1e-5, 0.999, 1.0),
        (0.1, 0.1, 0.7, 0.9),
    ],
)
def test_share_of_a_row_on_observed_items(
    temperature: float, noise: float, low: float, high: float
) -> None:
    # 6 observed of 7,050 items: full noise buries them, a tenth of the temperature does not.
    n_rows, n = 40, 7050
    items = torch.arange(6).repeat(n_rows)
    ones = CSR(torch.arange(0, 6 * n_rows + 1, 6).int(), items.int(), torch.ones(len(items)), n)
    rows = dense_observations(ones, temperature, noise, seeds.torch_generator(5))
    assert low <= rows[:, :6].sum(1).mean().item() <= high
    torch.testing.assert_close(rows.sum(1), torch.ones(n_rows), rtol=1e-4, atol=0)


@pytest.mark.parametrize("settings", [PLAIN, OFFICIAL])
@pytest.mark.parametrize("densify", ["gumbel", "observed"])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_real_rows_are_observations_plus_own_scores(
    settings: AdversarialSettings, densify: str, noise: float
) -> None:
    settings = dataclasses.replace(
        settings, densify=densify, gumbel_noise=noise, gumbel_temperature=0.3, aux_weight=2.0
    )
    users, items = (one.requires_grad_() for one in pair(3))
    rows, share = real_rows((users, items), seen(), settings, seeds.torch_generator(6))
    first = observed(seen())
    if densify == "gumbel":
        first = dense_observations(seen(), 0.3, noise, seeds.torch_generator(6))
    with torch.no_grad():
        own = unit(users) @ unit(items).T
        if settings is not PLAIN and settings.scores == "dot":
            own = unit((users @ items.T) * (1 - observed(seen())))
    expected = unit(first + 2.0 * own)
    torch.testing.assert_close(rows.join(), expected, rtol=1e-4, atol=1e-5)
    assert not rows.join().requires_grad
    ratio = first.norm(dim=1).mean() / (2.0 * own).norm(dim=1).mean()
    torch.testing.assert_close(share, ratio, rtol=1e-4, atol=1e-5)


def test_observations_without_noise_are_thin_and_the_same() -> None:
    settings = dataclasses.replace(PLAIN, gumbel_noise=0.0, gumbel_temperature=0.3)
    rows = observation_rows(seen(), settings, None)
    assert rows.dense is None
    torch.testing.assert_close(rows.join(), dense_observations(seen(), 0.3, 0.0, None))
    first = TwoWayGraph(torch.tensor([0]), torch.tensor([2]), 2, N).seen
    rows = observation_rows(first, settings, None)  # the second user has no item
    torch.testing.assert_close(rows.join(), dense_observations(first, 0.3, 0.0, None))


# ------------------------------------------------------------------ the critic


def by_definition(critic: Critic, x: torch.Tensor) -> torch.Tensor:
    """The critic on joined rows, without dropout."""
    settings = critic.settings
    for layer, weight in enumerate((critic.first, critic.second)):
        x = x @ weight + critic.biases[layer]
        x = torch.where(x > 0, x, settings.slope * x)
        if settings.norm == "batch":
            x = (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()
        if settings.norm == "layer":
            spread = (x.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
            x = (x - x.mean(1, keepdim=True)) / spread
        if settings.norm != "none":
            x = x * critic.gains[layer] + critic.shifts[layer]
    out = (x @ critic.third)[:, 0] + critic.biases[2]
    return settings.scale * (out.sigmoid() if settings.output == "sigmoid" else out)


@pytest.mark.parametrize(
    ("norm", "output", "scale"),
    [
        ("batch", "sigmoid", 1.0),
        ("batch", "sigmoid", 100.0),
        ("layer", "sigmoid", 1.0),
        ("layer", "linear", 1.0),
        ("none", "linear", 1.0),
    ],
)
def test_losses_in_thin_form_are_those_of_joined_rows(norm: str, output: str, scale: float) -> None:
    settings = dataclasses.replace(PLAIN, norm=norm, output=output, scale=scale, aux_weight=2.0)
    both = task(settings).double()
    with torch.no_grad():
        both.critic.first.mul_(3)
    rng = seeds.torch_generator(7)
    relations = [tuple(t.double() for t in pair(seed)) for seed in (3, 4)]
    fused = tuple(t.double() for t in pair(5))
    theirs = seen()._replace(values=seen().values.double())
    parts = both.critic_loss(relations, fused, theirs, seeds.torch_generator(7))
    sum(parts.values()).backward()
    thin = {name: p.grad.clone() for name, p in both.named_parameters()}
    both.zero_grad()

    real = real_rows(fused, theirs, settings, rng)[0].join()
    fake = torch.cat([unit(score_rows(*one, settings, seen()).join()) for one in relations])
    position = torch.rand(len(fake), 1, generator=rng).double()
    between = (position * real.repeat(2, 1) + (1 - position) * fake).requires_grad_()
    verdict = by_definition(both.critic, between)
    (slope,) = torch.autograd.grad(verdict.sum(), between, create_graph=True)
    expected = {
        "critic_fake": by_definition(both.critic, fake).mean(),
        "critic_real": -by_definition(both.critic, real).mean(),
        "critic_penalty": (slope.norm(dim=1) - 1).square().mean(),
    }
    sum(expected.values()).backward()
    for name, value in parts.items():
        torch.testing.assert_close(value.detach(), expected[name].detach(), rtol=1e-6, atol=1e-7)
    for name, p in both.named_parameters():
        scale_of = p.grad.abs().max().item() + 1e-3
        torch.testing.assert_close(thin[name] / scale_of, p.grad / scale_of, rtol=1e-5, atol=1e-6)


def test_the_generators_loss_is_minus_the_mean_verdict_on_unit_rows() -> None:
    both = task(dataclasses.replace(PLAIN, norm="none", output="linear"))
    relations = [pair(3), pair(4)]
    fake = torch.cat([unit(unit(users) @ unit(items).T) for users, items in relations])
    found = both.generator_loss(relations, seen(), None)
    torch.testing.assert_close(found, -by_definition(both.critic, fake).mean())


def test_penalty_of_a_linear_critic_is_known() -> None:
    w = torch.randn(N, 1, generator=seeds.torch_generator(8), requires_grad=True)
    x = torch.randn(B, N, generator=seeds.torch_generator(9))
    lengths = gradient_lengths(lambda z: z[:, 0], x @ w, w.T @ w)
    penalty = (lengths - 1).square().mean()
    length = w.detach().norm()
    assert penalty.item() == pytest.approx((length.item() - 1) ** 2, rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(w.grad, 2 * (length - 1) * w.detach() / length)
    z = x @ w
    squashed = gradient_lengths(lambda z: 100 * z[:, 0].sigmoid(), z, w.T @ w)
    p = z.detach()[:, 0].sigmoid()
    torch.testing.assert_close(squashed.detach(), 100 * p * (1 - p) * length)


def test_the_penalty_has_its_weight() -> None:
    found = []
    for weight in (1.0, 3.0):
        both = task(dataclasses.replace(PLAIN, penalty_weight=weight))
        parts = both.critic_loss([pair(3)], pair(5), seen(), seeds.torch_generator(7))
        found.append(parts["critic_penalty"].detach())
    torch.testing.assert_close(found[1], 3 * found[0])


def test_weights_start_with_kaimings_spread() -> None:
    with seeds.torch_seed(2):
        critic = Critic(2000, AdversarialSettings(hidden=(100, 40)))
    for weight in (critic.first, critic.second):
        assert weight.std().item() == pytest.approx((2 / len(weight)) ** 0.5, rel=0.05)


def test_positions_are_drawn_for_each_row_and_users_stay_paired(monkeypatch) -> None:
    seen_z = []

    def spy(judge, z, gram):
        seen_z.append(z.detach())
        return gradient_lengths(judge, z, gram)

    monkeypatch.setattr("modalign.nn.losses.adversarial.gradient_lengths", spy)
    both = task()
    relations, fused = [pair(3), pair(4)], pair(5)
    both.critic_loss(relations, fused, seen(), seeds.torch_generator(7))
    real = both.critic.enter(real_rows(fused, seen(), PLAIN, seeds.torch_generator(7))[0])
    generated = [score_rows(*one, PLAIN, seen()).unit() for one in relations]
    fake = torch.cat([both.critic.enter(one) for one in generated])
    positions = (seen_z[0] - fake) / (real.repeat(2, 1) - fake)
    for row in positions.detach():
        torch.testing.assert_close(row, row.mean().expand_as(row), rtol=1e-3, atol=1e-3)
        assert 0 <= row.mean() <= 1
    assert positions.detach().mean(1).std() > 0.1


def test_batch_norm_before_a_linear_output_hides_the_gradient() -> None:
    settings = dataclasses.replace(PLAIN, norm="batch", output="linear")
    critic = task(settings).critic
    z = critic.enter(Rows(*pair(3)))
    lengths = gradient_lengths(lambda z: critic.judge(z, None), z, critic.first.T @ critic.first)
    assert lengths.max() < 1e-4


def test_judging_changes_no_state_and_one_row_can_be_judged() -> None:
    critic = task().critic
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    alone = critic(Rows(torch.ones(1, 2), torch.ones(N, 2)), seeds.torch_generator(1))
    assert alone.isfinite().all()
    critic(Rows(torch.ones(3, 2), torch.ones(N, 2)))
    for name, value in critic.state_dict().items():
        assert torch.equal(value, before[name])


def test_slope_one_makes_the_critic_affine_and_the_paper_does_not() -> None:
    rng = seeds.torch_generator(10)
    left = torch.randn(3, N, generator=rng, dtype=torch.float64)
    left[2] = (left[0] + left[1]) / 2
    rows = Rows(left, torch.eye(N, dtype=torch.float64))
    for slope, affine in ((1.0, True), (0.2, False)):
        settings = dataclasses.replace(PLAIN, slope=slope, norm="none", output="linear")
        with torch.no_grad():
            a, b, middle = task(settings).double().critic(rows)
        assert (abs(middle - (a + b) / 2) < 1e-10) == affine


def test_dropout_is_drawn_from_the_generator_alone() -> None:
    critic = task(dataclasses.replace(PLAIN, dropout=(0.3, 0.5))).critic
    rows = Rows(*pair(3))
    first, again, other = (critic(rows, seeds.torch_generator(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(critic(rows), task(PLAIN).critic(rows))


# ------------------------------------------------------------------ the game


def test_each_side_moves_its_own_and_in_its_direction() -> None:
    both = task(dataclasses.replace(PLAIN, penalty_weight=0.0, norm="layer"))
    users, items = (one.requires_grad_() for one in pair(3))
    fused = pair(5)

    @torch.no_grad()
    def verdicts() -> tuple[float, float]:
        parts = both.critic_loss([(users, items)], fused, seen(), seeds.torch_generator(7))
        assert set(parts) == {"critic_fake", "critic_real"}
        return -float(parts["critic_real"]), float(parts["critic_fake"])

    real, fake = verdicts()
    parts = both.critic_loss([(users, items)], fused, seen(), seeds.torch_generator(7))
    sum(parts.values()).backward()
    assert users.grad is None
    with torch.no_grad():
        for p in both.parameters():
            p -= 0.05 * p.grad
    assert verdicts()[0] - verdicts()[1] > real - fake

    both.zero_grad()
    before = verdicts()[1]
    both.generator_loss([(users, items)], seen(), None).backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in both.parameters())
    assert (users.grad != 0).any()
    assert (items.grad != 0).any()
    with torch.no_grad():
        for p in (users, items):
            p -= 0.5 * p.grad
    assert verdicts()[1] > before


def test_default_widths_follow_the_number_of_items() -> None:
    shapes = {n: Critic(n, AdversarialSettings()).second.shape for n in (16, 400, 5000)}
    assert shapes == {16: (4, 2), 400: (100, 50), 5000: (1024, 512)}


@pytest.mark.slow
def test_textbook_game_is_won_by_the_generator() -> None:
    n, rows = 20, 64
    rng = seeds.torch_generator(11)
    directions = unit(torch.randn(2, n, generator=rng))
    real = directions.repeat(rows // 2, 1) + 0.05 * torch.randn(rows, n, generator=rng)
    eye = torch.eye(n)
    real = Rows(unit(real), eye)
    settings = AdversarialSettings(hidden=(32, 16), norm="none", output="linear")
    with seeds.torch_seed(12):
        critic = Critic(n, settings)
    free = torch.randn(rows, n, generator=rng).requires_grad_()
    critic_step = torch.optim.Adam(critic.parameters(), 2e-3, betas=(0.5, 0.9), fused=True)
    free_step = torch.optim.Adam([free], 5e-2, betas=(0.5, 0.9))
    gaps = []
    for _ in range(150):
        for _ in range(5):
            fake = Rows(unit(free.detach()), eye)
            z_real, z_fake = critic.enter(real), critic.enter(fake)
            position = torch.rand(rows, 1, generator=rng)
            between = position * z_real + (1 - position) * z_fake
            gram = critic.first.T @ critic.first
            lengths = gradient_lengths(lambda z: critic.judge(z, None), between, gram)
            gap = critic.judge(z_real, None).mean() - critic.judge(z_fake, None).mean()
            critic_step.zero_grad()
            (10 * (lengths - 1).square().mean() - gap).backward()
            critic_step.step()
        gaps.append(gap.item())
        free_step.zero_grad()
        z = critic.enter(Rows(unit(free), eye), frozen=True)
        (-critic.judge(z, None, frozen=True).mean()).backward()
        free_step.step()
    assert max(gaps) > 0.3
    # The mean of the last: a single one swings by a few hundredths with the processor's rounding.
    assert sum(gaps[-20:]) / 20 < 0.05
    closest = (unit(free.detach()) @ directions.T).max(1).values.mean()
    assert closest > 0.95
