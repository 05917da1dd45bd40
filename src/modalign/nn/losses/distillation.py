"""Distillation losses between two recommenders, on logits and on vectors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from modalign import ot


def margin_logits(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Logits of triples, `log sigmoid(positive - negative)`, all below 0.

    Args:
        positive_scores: scores of observed items, (B,) or (B, 1).
        negative_scores: scores of unobserved items, (B,) or (B, K).

    Source: Zhuang et al. 2025 (TARec).

    Example:
        >>> round(margin_logits(torch.tensor([2.0]), torch.tensor([0.0])).item(), 6)
        -0.126928
    """
    return functional.logsigmoid(positive_scores - negative_scores)


def transported_logits(
    source: Tensor,
    target: Tensor,
    method: Literal["sinkhorn", "sort"] = "sinkhorn",
    *,
    p: float = 2.0,
    eps: float = 0.01,
    value: Literal["dual", "sharp"] = "dual",
    root: bool = False,
    tolerance: float = 1e-3,
    max_iterations: int = 60,
) -> Tensor:
    """Transport between two sets of logits, as a mean over groups; a scalar.

    The logits of a group are points on the line with equal masses. "sinkhorn" is the debiased
    entropic divergence `S_eps(source, target)` with the cost `|x - y|^p / p`, "sort" the exact
    `W_p^p / p`, computed by sorting; S_eps tends to it as eps tends to 0.

    Both compare sets: the order of the logits inside a group does not matter, so that neither
    matches a logit with its triple (the ranking loss and the loss on vectors do).

    Args:
        source: (G, n), without gradient.
        target: (G, m).
        method: "sinkhorn" or "sort".
        p: exponent of the cost, >= 1.
        eps: entropic regularisation; a blur length l of other libraries is `eps = l^p`.
        value: "dual" or "sharp" (the paper's algorithm; its gradient keeps the plan fixed).
        root: take the p-th root, `(p value)^(1 / p)`; the paper has both.
        tolerance: marginal error at which Sinkhorn stops.
        max_iterations: maximum number of sweeps.

    Source: Zhuang et al. 2025 (TARec), equations 8 to 12.

    Limits: differences below `eps^(1 / p)` are blurred by "sinkhorn".

    Example:
        >>> a = torch.tensor([[-3.0, -1.0, 0.0]])
        >>> transported_logits(a, a.flip(-1) + 2.0, "sort").item()  # a shift by t costs t^2 / 2
        2.0
    """
    if method == "sort":
        values = ot.sorted_transport(source, target, p=p)
    else:
        values = ot.sinkhorn_divergence(
            source.unsqueeze(-1),
            target.unsqueeze(-1),
            p=p,
            reg=eps,
            value=value,
            start="sorted",
            tolerance=tolerance,
            max_iterations=max_iterations,
        ).value
    if root:
        # The derivative of the root at 0 is infinite; the constant keeps that of equal sets finite.
        values = (p * values.clamp_min(0.0) + 1e-12).pow(1.0 / p)
    return values.mean()


def transported_masses(
    source: Tensor,
    target: Tensor,
    points: Tensor,
    *,
    temperature: float = 1.0,
    eps: float = 0.05,
    tolerance: float = 1e-3,
    max_iterations: int = 60,
) -> Tensor:
    """Transport between what source and target recommend to each user; a scalar, the mean.

    Both models spread a mass of 1 over the same candidates of a user, `P = softmax(source / t)`
    and `Q = softmax(target / t)`. Moving mass from one candidate to another costs as much as the
    two items differ, `1 - cosine`, so that a target that recommends similar items instead of the
    source's own is closer to it than one that recommends unrelated items; KL sees no such
    difference. The value is the debiased divergence `S_eps(P, Q)`; its gradient moves the
    target's masses, the candidates stay where they are.

    Args:
        source: scores of the candidates, (B, n), without gradient.
        target: scores of the same candidates, (B, n).
        points: vectors of the candidates, (B, n, d), without gradient.
        temperature: t of both softmaxes.
        eps: entropic regularisation, in units of the cost (0 to 2).
        tolerance: marginal error at which Sinkhorn stops.
        max_iterations: maximum number of its sweeps.

    Source: TARec (Zhuang et al. 2025), equations 6, 8 and 10 to 12, read as masses on a shared
    support; the ground cost is a choice of this code, as equation 9 has one for locations only.

    Example:
        >>> items = torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]])
        >>> likes = torch.tensor([[9.0, 0.0, 0.0]])  # the first item
        >>> near = transported_masses(likes, torch.tensor([[0.0, 9.0, 0.0]]), items)
        >>> far = transported_masses(likes, torch.tensor([[0.0, 0.0, 9.0]]), items)
        >>> bool(near < 0.1 * far)
        True
    """
    return ot.sinkhorn_divergence(
        points,
        points,
        functional.softmax(source / temperature, dim=-1),
        functional.softmax(target / temperature, dim=-1),
        cost=ot.cosine_cost,
        reg=eps,
        tolerance=tolerance,
        max_iterations=max_iterations,
    ).value.mean()


def divergence_of_logits(
    source: Tensor,
    target: Tensor,
    kind: Literal["kl", "bernoulli", "raw", "paired"] = "kl",
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Alternatives to optimal transport that compare logit by logit; a scalar.

    - "kl": `t^2 KL(softmax(source / t) | softmax(target / t))` inside each group, the mean over
      groups;
    - "bernoulli": the mean KL between the two probabilities `exp(logit)` that a triple is
      ordered correctly;
    - "raw": `mean(t (log t - s))` with t and s the negative logits, as in the released code; it is
      not a divergence and can be negative;
    - "paired": half the mean squared difference, `W_2^2 / 2` with the identity as plan.

    Args:
        source: (G, n), without gradient.
        target: (G, n).
        kind: one of the four.
        temperature: t of "kl".

    Source: Wei et al., WWW 2024 (PromptMM) for "kl" and "raw".

    Example:
        >>> a, b = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-2.0, -1.0]])
        >>> round(divergence_of_logits(a, b).item(), 4)
        0.4621
    """
    if kind == "kl":
        of_source = functional.log_softmax(source / temperature, dim=-1)
        of_target = functional.log_softmax(target / temperature, dim=-1)
        parts = (of_source.exp() * (of_source - of_target)).sum(-1)
        return temperature**2 * parts.mean()
    if kind == "bernoulli":
        return (_bernoulli(source, source) - _bernoulli(source, target)).mean()
    if kind == "raw":
        return (-source * ((-source).log() + target)).mean()
    return 0.5 * (source - target).square().mean()


def _bernoulli(source: Tensor, target: Tensor) -> Tensor:
    """Expected log-likelihood of a coin with `log p = target` under `log p = source`."""
    # log(1 - sigmoid(x)) from log sigmoid(x) without loss of accuracy near 0.
    tiny = torch.finfo(source.dtype).tiny
    log_tail = torch.log(-torch.expm1(target.clamp_max(-tiny)))
    return source.exp() * target - torch.expm1(source) * log_tail


def crossed_infonce(
    source_users: Tensor,
    source_items: Tensor,
    target_users: Tensor,
    target_items: Tensor,
    source_candidates: Tensor,
    target_candidates: Tensor,
    forbidden: tuple[Tensor, Tensor] | None = None,
    *,
    normalize: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """Contrast of each model's users with the other model's items; a scalar >= 0.

        L = mean_b [ -s(u_b, i'_b) + log(exp s(u_b, i'_b) + sum_j exp s(u_b, j')) ]
          + mean_b [ -s(u'_b, i_b) + log(exp s(u'_b, i_b) + sum_j exp s(u'_b, j)) ]

    with s a dot product over the temperature, unprimed vectors of the source and primed ones of
    the target. The first sum moves target items only, the second target users only.

    Args:
        source_users: vectors of the pairs' users in the source, (B, d), no gradient.
        source_items: vectors of the pairs' items in the source, (B, d).
        target_users: vectors of the same users in the target, (B, d).
        target_items: vectors of the same items in the target, (B, d).
        source_candidates: vectors of the items j in the source, (C, d).
        target_candidates: vectors of the same items in the target, (C, d).
        forbidden: indices b and j, int64 (n,) each, of pairs where item j is not a negative of
            user b (one of b's own items); None for none.
        normalize: normalise all vectors to unit length first.
        temperature: the dot products are divided by it.

    Source: Zhuang et al. 2025 (TARec), equation 13, with the exponential that is missing there.

    Example:
        >>> one = torch.tensor([[1.0, 0.0]])
        >>> others = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])
        >>> round(crossed_infonce(one, one, one, one, others, others).item() / 2, 6)
        0.407606
    """
    tensors = [source_users, source_items, target_users, target_items]
    tensors += [source_candidates, target_candidates]
    if normalize:
        tensors = [functional.normalize(one, dim=-1) for one in tensors]
    source_users, source_items, target_users, target_items, of_source, of_target = tensors
    return _contrast(source_users, target_items, of_target, forbidden, temperature) + _contrast(
        target_users, source_items, of_source, forbidden, temperature
    )


def _contrast(
    users: Tensor,
    items: Tensor,
    others: Tensor,
    forbidden: tuple[Tensor, Tensor] | None,
    temperature: float,
) -> Tensor:
    users = users / temperature
    positive = torch.linalg.vecdot(users, items)
    logits = users @ others.T
    if forbidden is not None:
        logits[forbidden] = -torch.inf
    rest = torch.logsumexp(logits, dim=-1)
    # -p + log(e^p + e^r) = softplus(r - p), which is 0 for a user without any candidate.
    return functional.softplus(rest - positive).mean()
