"""Alignment of a modality's vectors with the id vectors by transport, and their distance.

The equations R8 to R12 that comments cite are listed in `docs/models/recgoat.md`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from modalign import ot
from modalign.errors import TrainingError
from modalign.models.recgoat.config import Distance, RecGOATConfig

TINY = 1e-12
DIRECTIONS = 64
"""Number of directions of the sliced distance."""
ANCHORS_OF_ABSOLUTE_COST = 512
MAP_BLOCK = 4096
"""Rows that the sample map computes at a time."""

Pair = tuple[Tensor, Tensor]
State = Mapping[str, Tensor]


def standardised(z: Tensor, rows: Tensor | None = None) -> Tensor:
    """Columns scaled to mean 0 and standard deviation 1; a constant column becomes zeros.

    Args:
        z: (n, d).
        rows: rows over which means and standard deviations are taken; None takes all.
    """
    measured = z if rows is None else functional.embedding(rows, z)
    middle = measured.mean(0)
    variance = (measured - middle).square().mean(0)
    # Clamped before the root, whose slope at zero is infinite.
    scale = torch.where(variance > TINY**2, variance.clamp(min=TINY**2).rsqrt(), 0.0)
    return (z - middle) * scale


def feature_cost(source: Tensor, target: Tensor, power: int = 2) -> Tensor:
    """R8: mean over rows of `|z_p - z'_q|^power` of standardised columns, (d, d).

    With power 2 it is `2 - 2 corr(z_p, z'_q)`, by one matrix product; with power 1 only the first
    512 rows are used.

    Args:
        source: z, (n, d).
        target: z', (n, d).
        power: 1 or 2.

    Example:
        >>> x = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
        >>> feature_cost(x, x).round(decimals=3).tolist()  # the columns correlate with -1/2
        [[0.0, 3.0], [3.0, 0.0]]
    """
    a, b = standardised(source), standardised(target)
    if power == 1:
        a, b = a[:ANCHORS_OF_ABSOLUTE_COST], b[:ANCHORS_OF_ABSOLUTE_COST]
        return torch.cdist(a.T[None], b.T[None], p=1)[0] / len(a)
    return ot.squared_distance(a.T, b.T) / len(a)


def unit_spread(cost: Tensor) -> Tensor:
    """R8: each cost less its mean, over its deviation; (..., d, d)."""
    centred = cost - cost.mean((-2, -1), keepdim=True)
    return centred / centred.square().mean((-2, -1), keepdim=True).sqrt().clamp(min=TINY)


def released_plan(source: Tensor, target: Tensor, iterations: int = 100) -> Tensor:
    """The plan as the released code computes it, whose mass is about 1e-27 instead of 1 (E4).

    Mean squared differences of the unscaled columns, times 100, divided by a regularisation of
    0.01, are exponentiated in float32; 1e-8 in the denominators avoids a division by zero.

    Args:
        source: vectors of a modality, (n, d).
        target: vectors of the ids, (n, d).
        iterations: number of Sinkhorn iterations.

    Returns:
        The plan, (d, d).
    """
    d = source.shape[1]
    difference = ot.squared_distance(source.T, target.T) / len(source)
    kernel = torch.exp(-100 * difference / 0.01)
    u, v = (kernel.new_full((d,), 1 / d) for _ in range(2))
    for _ in range(iterations):
        u = (1 / d) / (kernel @ v + 1e-8)
        v = (1 / d) / (kernel.T @ u + 1e-8)
    return u[:, None] * kernel * v


def size_of(z: Tensor) -> Tensor:
    """Root mean square of the entries, a scalar without gradient."""
    return differentiable_size(z.detach())


def differentiable_size(z: Tensor) -> Tensor:
    """Root mean square of the entries, a scalar; the gradient of zeros is zero."""
    # Clamped before the root, whose slope at zero is infinite.
    return z.square().mean().clamp(min=TINY**2).sqrt()


class FeatureTransport(nn.Module):
    """R8 to R10: each feature of the ids as a mean of a modality's features, plus a trained matrix.

    With T the plan between the d features of a modality and the d features of the ids,
    `z_hat = s z (d T + Delta)`: the columns of d T sum to one, Delta is trained, and s scales the
    result to the size of the ids. T has no gradient. The gradient of s goes through the size of
    the result (`scale_gradient`): where s is a constant, the distances of R12 shrink vectors that
    s enlarges again, and Delta grows without bound until it cancels T.

    The plans of all S spaces (the modalities, and the users' preferences) are solved together.

    Args:
        config: options.
        n_spaces: number of spaces S.
    """

    plan: Tensor
    f: Tensor
    g: Tensor
    churn: Tensor

    def __init__(self, config: RecGOATConfig, n_spaces: int) -> None:
        super().__init__()
        self.config = config
        d = config.embedding_size
        start = {
            "identity": torch.eye(d) / d,
            "none": torch.zeros(d, d),
        }.get(config.plan, torch.full((d, d), d**-2))
        self.register_buffer("plan", start.repeat(n_spaces, 1, 1))
        for name in ("f", "g"):
            self.register_buffer(name, torch.zeros(n_spaces, d))
        self.register_buffer("churn", torch.zeros(()), persistent=False)
        self.delta: nn.Parameter | None = None
        if config.adapt != "none":
            self.delta = nn.Parameter(torch.zeros(n_spaces, d, d))
        if config.adapt == "xavier" and self.delta is not None:
            for one in self.delta:
                nn.init.xavier_uniform_(one)

    @property
    def learns_plan(self) -> bool:
        """Whether the plan is computed from the vectors."""
        return self.config.plan in ("sinkhorn", "released")

    @torch.no_grad()
    def renewed(self, pairs: Sequence[Pair]) -> State:
        """New plans between modality and id vectors of the anchors, (n, d) each.

        Raises:
            TrainingError: the mass of a plan is not 1.
        """
        config = self.config
        if config.plan == "released":
            plans = [released_plan(*pair, config.plan_iterations) for pair in pairs]
            return {"plan": torch.stack(plans), "f": self.f, "g": self.g}
        costs = [feature_cost(*pair, power=config.cost_power) for pair in pairs]
        solved = ot.sinkhorn(
            unit_spread(torch.stack(costs)),
            reg=config.plan_reg,
            f=self.f,
            g=self.g,
            max_iterations=config.plan_iterations,
        )
        mass = solved.plan.sum((1, 2))
        if not bool(((mass - 1).abs() < 1e-4).all()):
            raise TrainingError(
                f"a transport plan has mass {mass.tolist()} instead of 1; "
                "try a larger plan_reg or a smaller learning rate"
            )
        share = config.plan_average
        plan = share * self.plan + (1 - share) * solved.plan if share else solved.plan
        return {"plan": plan, "f": solved.f, "g": solved.g}

    @torch.no_grad()
    def keep(self, state: State) -> None:
        """Use these plans from now on."""
        self.churn.copy_((state["plan"] - self.plan).abs().sum((1, 2)).mean() / 2)
        for name, value in state.items():
            getattr(self, name).copy_(value)

    def mapping(self, space: int, state: State | None) -> Tensor:
        """`d T + Delta` of one space, (d, d)."""
        plan = (self.plan if state is None else state["plan"])[space]
        factor = len(plan) if self.config.scale_plan else 1
        return factor * plan if self.delta is None else factor * plan + self.delta[space]

    def forward(
        self, space: int, z: Tensor, target: Tensor, anchors: Pair, state: State | None
    ) -> Tensor:
        """Vectors of a space after transport (R10), (n, d).

        Args:
            space: number of the space.
            z: its vectors, (n, d).
            target: vectors of the ids, (n_target, d).
            anchors: rows of z and of target on which sizes are measured.
            state: plans to use; None uses the kept ones.
        """
        mapped = z @ self.mapping(space, state)
        if not self.config.match_scale:
            return mapped
        own, others = anchors
        size = differentiable_size if self.config.scale_gradient else size_of
        return mapped * (size_of(target[others]) / size(mapped[own]))

    def diagnostics(self, names: Sequence[str]) -> dict[str, float]:
        """Entropy in bits of the rows of each plan, and how much the last ones changed."""
        rows = self.plan / self.plan.sum(2, keepdim=True).clamp(min=1e-38)
        bits = -torch.xlogy(rows, rows).sum(2).mean(1) / torch.log(rows.new_tensor(2.0))
        found = {f"plan_bits/{name}": float(b) for name, b in zip(names, bits, strict=True)}
        return {**found, "plan_churn": float(self.churn)}


class SampleTransport(nn.Module):
    """R11 as a map: each item as a mean of the anchors' id vectors, by transport of items.

    `z_hat_i = sum_j w_ij z_j` with `w_ij` proportional to `exp((g_j - D_ij) / eps)` over anchors
    j. At the anchors it is the barycentric projection of their plan; it also maps items that are
    not anchors. Distances have gradients, the potentials g do not.

    Args:
        config: options.
        n_anchors: number of anchors of each space.
    """

    g: Tensor
    f: Tensor
    churn: Tensor

    def __init__(self, config: RecGOATConfig, n_anchors: Sequence[int]) -> None:
        super().__init__()
        self.config, self.n_anchors = config, tuple(n_anchors)
        for name in ("f", "g"):
            self.register_buffer(name, torch.zeros(len(n_anchors), max(n_anchors, default=0)))
        self.register_buffer("reg", torch.ones(len(n_anchors)))

    learns_plan = True

    @torch.no_grad()
    def renewed(self, pairs: Sequence[Pair]) -> State:
        """New potentials and regularisations between modality and id vectors of the anchors."""
        state = {name: torch.zeros_like(getattr(self, name)) for name in ("f", "g", "reg")}
        for space, (source, target) in enumerate(pairs):
            n = len(target)
            cost = scaled_distance(*self._scaled(source, target, source))
            solved = ot.sinkhorn(
                cost,
                reg=self.config.distance_reg,
                scale="mean",
                f=self.f[space, :n],
                g=self.g[space, :n],
                max_iterations=self.config.plan_iterations,
            )
            state["f"][space, :n], state["g"][space, :n] = solved.f, solved.g
            state["reg"][space] = solved.reg
        return state

    @torch.no_grad()
    def keep(self, state: State) -> None:
        """Use these potentials from now on."""
        for name, value in state.items():
            getattr(self, name).copy_(value)

    def _scaled(self, z: Tensor, target: Tensor, own: Tensor) -> Pair:
        """Both sides in units of the targets' length, z scaled to their size."""
        length = row_length(target)
        factor = size_of(target) / size_of(own) if self.config.match_scale else 1.0
        return z * (factor / length), target / length

    def forward(
        self, space: int, z: Tensor, target: Tensor, anchors: Pair, state: State | None
    ) -> Tensor:
        """Vectors of a space after transport, (n, d).

        Args:
            space: number of the space.
            z: its vectors, (n, d).
            target: vectors of the ids, (n_target, d).
            anchors: rows of z and of target between which items are transported.
            state: potentials to use; None uses the kept ones.
        """
        own, others = anchors
        columns = target[others]
        n = len(columns)
        g, reg = (getattr(self, name) if state is None else state[name] for name in ("g", "reg"))
        length = row_length(columns)
        x, y = self._scaled(z, columns, z[own])
        even = columns.new_full((n,), 1 / n)
        parts = [
            ot.entropic_map(block, y, g[space, :n], even, reg[space], cost=scaled_distance)
            for block in x.split(MAP_BLOCK)
        ]
        return torch.cat(parts) * length

    def diagnostics(self, names: Sequence[str]) -> dict[str, float]:
        """None: there is no plan between features."""
        return {}


def row_length(z: Tensor) -> Tensor:
    """Root mean square of the rows' lengths, a scalar without gradient."""
    return z.detach().square().sum(-1).mean().sqrt().clamp(min=TINY)


def scaled_distance(x: Tensor, y: Tensor) -> Tensor:
    """R11: distances with 1e-12 under the root, so that their gradient is finite (E24)."""
    return (ot.squared_distance(x, y) + TINY).sqrt()


def cloud_distances(
    moved: Tensor,
    fixed: Tensor,
    *,
    kind: Distance = "plan",
    reg: float = 0.05,
    iterations: int = 100,
    rng: torch.Generator | None = None,
) -> Tensor:
    """R12: 1-Wasserstein distances between clouds, in units of the second one's row length, (S,).

    "plan" is the mean distance under an entropic plan without gradient, at least W1; "divergence"
    is debiased, zero where the clouds agree; "sliced" is the mean over 64 directions of the exact
    distance on the line, at most W1.

    Args:
        moved: S clouds of n points, (S, n, d).
        fixed: (S, n, d).
        kind: see above.
        reg: entropic regularisation of the plan, as a share of the mean distance.
        iterations: maximum number of Sinkhorn iterations.
        rng: draws the directions of "sliced".

    Example:
        >>> x = torch.eye(3).unsqueeze(0)
        >>> round(float(cloud_distances(x + 1.0, x, reg=0.01)), 4)  # moved by a length of sqrt 3
        1.7321
    """
    length = torch.stack([row_length(one) for one in fixed])[:, None, None]
    x, y = moved / length, fixed / length
    if kind == "sliced":
        shape = (DIRECTIONS, x.shape[2])
        drawn = torch.randn(shape, generator=rng, device=x.device, dtype=x.dtype)
        directions = drawn / drawn.norm(dim=1, keepdim=True)
        along = ((one @ directions.T).transpose(1, 2) for one in (x, y))
        return ot.sorted_transport(*along, p=1.0).mean(1)
    if kind == "divergence":
        return ot.sinkhorn_divergence(
            x,
            y,
            cost=scaled_distance,
            reg=reg,
            scale="mean",
            tolerance=1e-3,
            max_iterations=iterations,
        ).value
    distance = scaled_distance(x, y)
    solved = ot.sinkhorn(
        distance.detach(), reg=reg, scale="mean", tolerance=1e-3, max_iterations=iterations
    )
    return (solved.plan * distance).sum((1, 2))
