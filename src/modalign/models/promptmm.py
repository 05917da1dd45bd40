"""PromptMM: a teacher of content and prompts, and a LightGCN of ids that learns from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple, cast

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.core.view import TrainView
from modalign.data.sampling import NegativeSampler
from modalign.features.reduce import thin_svd
from modalign.graph.bipartite import BipartiteGraph
from modalign.graph.one_sided import TwoWayGraph
from modalign.models._registry import register
from modalign.models._shared.content import ContentConfig, Projections, prepared, scaled
from modalign.models._shared.seeded_loss import SeededLoss
from modalign.models._shared.unit import unit
from modalign.nn.dropout import kept
from modalign.nn.losses.pairwise import bpr_of_vectors, l2_penalty

Weight = Annotated[float, Field(ge=0)]


class PromptMMConfig(ContentConfig):
    """Options of PromptMM; those of the teacher are the authors' for Netflix."""

    embedding_size: Annotated[int, Field(ge=1, le=4096)] = 32
    """Width of the vectors of teacher, prompts and student."""
    n_layers: Annotated[int, Field(ge=0, le=8)] = 1
    """Number of propagation steps of the student."""
    teacher_layers: Annotated[int, Field(ge=1, le=8)] = 2
    """Number of propagation steps of the teacher's ids."""
    teacher_epochs: Annotated[int, Field(ge=1)] = 30
    """Epochs in which the teacher is trained, beside the student; then it is frozen."""
    student_init: Literal["teacher", "own"] = "teacher"
    """When the teacher is frozen, set the student's vectors to the teacher's, or go on with its
    own."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.4
    """Dropout of the teacher's projected content."""
    content_share: Weight = 0.55
    """Weight of the unit vectors of content in the teacher's vectors, omega."""
    prompt_in_content: Weight = 1.0
    """Weight of the prompt in the features."""
    prompt_in_ids: Weight = 0.005
    """Weight of the prompt in the ids."""
    prompt_weight: Weight = 1.0
    """Weight of the BPR of the prompts alone."""
    content_weight: Weight = 1.0
    """Weight of the BPR of each modality alone."""
    pair_weight: Weight = 0.1
    """Weight of the teacher's margins between positive and negative, lambda 1."""
    list_weight: Weight = 0.1
    """Weight of the teacher's lists in each modality, lambda 2."""
    rest_weight: Weight | None = None
    """Weight of the order among the negatives of a list; null: what makes it the plain KL."""
    vector_weight: Weight = 0.1
    """Weight of the cosines of the student's items with the teacher's content, lambda 3."""
    n_listed: Annotated[int, Field(ge=1, le=1000)] = 10
    """Negatives in a list."""
    reg: Weight = 1e-5
    """Weight of half the squared vectors of the batch, and of the teacher's content of all."""


class _Teacher(NamedTuple):
    """Final vectors, and those of each modality, of all users and items."""

    users: Tensor
    items: Tensor
    user_content: list[Tensor]
    item_content: list[Tensor]


@register(
    "promptmm",
    config=PromptMMConfig,
    toy={
        "embedding_size": 8,
        "teacher_epochs": 8,
        "learning_rate": 0.02,
        "batch_size": 64,
        "epochs": 16,
    },
    family="multimodal",
    paper="Wei et al., WWW 2024",
    variants={
        "without-teacher": {"pair_weight": 0.0, "list_weight": 0.0, "vector_weight": 0.0},
        "own-start": {"student_init": "own"},
    },
)
class PromptMM(SeededLoss):
    """A teacher of content and learnt prompts is distilled into a LightGCN of ids.

    With S_U, S_I the interactions divided by the root of the users' (items') degrees, tokens q the
    first principal components of the features (of users: S_U q), prompts p = q T + t, N(x)
    unit rows, the teacher is

        F_m = dropout((X_m + prompt_in_content N(p_I p_I' X_m)) W_m + b_m)
        U_m = S_U F_m,  V_m = S_I U_m
        u = P + prompt_in_ids N(p_U),  i = Q + prompt_in_ids N(p_I)
        u' = S_U i,  i' = S_I u', in the last layer both after a softmax over their columns
        e = mean over layers + content_share sum N(U_m) (items: N(V_m))

    trained by BPR of e, of the prompts and of each modality, and half the squared vectors. The
    student is LightGCN on tables of its own, trained by BPR and, with margins d of a pair and
    scores y of a user over the positive and `n_listed` negatives,

        pairs   = mean of KL(sigmoid(d teacher), sigmoid(d student))
        lists   = sum over m of the mean of KL(softmax(U_m V_m'), softmax(y student))
        vectors = sum over m of the mean over items of (1 - cos(V_m, student))^2

    Teacher and student are trained together for `teacher_epochs`, the teacher by its own loss only;
    then it is frozen. `score(u, i)` is the student's inner product. Items that lack m are left out
    of its lists and vectors.

    Limits: the student has no content, so an item without interactions has what the distillation
    of vectors gave it.

    Source: Wei et al., "PromptMM: multi-modal knowledge distillation for recommendation with
    prompt-tuning", WWW 2024: the teacher of the authors' release; the student of the paper's
    figures, which the release does not compute.
    """

    needs = ("negatives", "modalities")
    cold_items = False
    user_tokens: Tensor
    item_tokens: Tensor

    def __init__(self, config: PromptMMConfig, view: TrainView) -> None:
        super().__init__(config, view)
        self.config: PromptMMConfig = config
        size = config.embedding_size
        shapes = {"teacher_users": view.n_users, "teacher_items": view.n_items}
        shapes |= {"users": view.n_users, "items": view.n_items}
        for name, n in shapes.items():
            setattr(self, name, nn.Parameter(nn.init.xavier_uniform_(torch.empty(n, size))))
        self.graph = BipartiteGraph(view.users, view.items, view.n_users, view.n_items)
        self.one_sided = TwoWayGraph(view.users, view.items, view.n_users, view.n_items)
        modalities = prepared(config, view)
        self.content = Projections(modalities, config, view, size)
        for layer in self.content.layers:
            nn.init.xavier_uniform_(layer.weight)
        self.prompt_users, self.prompt_items = nn.Linear(size, size), nn.Linear(size, size)
        parts = []
        for one in modalities.values():
            scores = thin_svd(scaled(one, "unit").features, size).features
            parts.append(np.pad(scores, ((0, 0), (0, size - scores.shape[1]))))
        there = self.content.present[..., None]
        tokens = (torch.from_numpy(np.stack(parts)) * there).sum(0) / there.sum(0).clamp(min=1)
        self.set_tokens(self.one_sided.to_users.matmul(tokens), tokens)
        self.sampler = NegativeSampler(view.users, view.items, view.n_users, view.n_items)
        self.frozen: _Teacher | None = None

    teacher_users: nn.Parameter
    teacher_items: nn.Parameter
    users: nn.Parameter
    items: nn.Parameter

    def set_tokens(self, users: Tensor, items: Tensor) -> None:
        """Set the constant tokens q, and what the prompts need of the features."""
        self.register_buffer("user_tokens", users, persistent=False)
        self.register_buffer("item_tokens", items, persistent=False)
        # q'X and 1'X of each modality: p_I' X_m needs nothing else.
        for at, source in enumerate(self.content.inputs):
            product = torch.cat([items, items.new_ones(len(items), 1)], dim=1).T @ source.features
            self.register_buffer(f"product{at}", product, persistent=False)

    def on_epoch(self, epoch: int, rng: torch.Generator) -> None:
        """Draw a seed; freeze the teacher when its epochs are over."""
        super().on_epoch(epoch, rng)
        self.frozen = None
        if epoch >= self.config.teacher_epochs:
            with torch.no_grad():
                self.frozen = self._teacher(None, self._prompts())
                if epoch == self.config.teacher_epochs and self.config.student_init == "teacher":
                    self.users.copy_(self.frozen.users)
                    self.items.copy_(self.frozen.items)

    def _prompts(self) -> tuple[Tensor, Tensor]:
        return self.prompt_users(self.user_tokens), self.prompt_items(self.item_tokens)

    def _prompted(self, prompts: Tensor, rng: torch.Generator | None) -> list[Tensor]:
        """F_m of all items."""
        config, found = self.config, []
        weight = torch.cat([self.prompt_items.weight, self.prompt_items.bias[:, None]], dim=1)
        for at, (layer, plain) in enumerate(zip(self.content.layers, self.content(), strict=True)):
            shift = weight @ getattr(self, f"product{at}")  # p_I' X_m, (d, width)
            squares = torch.linalg.vecdot(prompts @ (shift @ shift.T), prompts)
            lengths = squares.clamp(min=1e-24).sqrt()[:, None]
            content = (
                plain + config.prompt_in_content * (prompts @ (shift @ layer.weight.T)) / lengths
            )
            if rng is not None and config.dropout:
                content = content * kept(content.shape, config.dropout, rng).to(content.dtype)
            found.append(content)
        return found

    def _teacher(self, rng: torch.Generator | None, prompts: tuple[Tensor, Tensor]) -> _Teacher:
        config, graph = self.config, self.one_sided
        user_content, item_content = [], []
        for content in self._prompted(prompts[1], rng):
            user_content.append(graph.to_users.matmul(content))
            item_content.append(graph.to_items.matmul(user_content[-1]))
        users = self.teacher_users + config.prompt_in_ids * unit(prompts[0])
        items = self.teacher_items + config.prompt_in_ids * unit(prompts[1])
        totals = [users, items]
        for layer in range(config.teacher_layers):
            users = graph.to_users.matmul(items)
            users = users.softmax(1) if layer == config.teacher_layers - 1 else users
            items = graph.to_items.matmul(users)
            items = items.softmax(1) if layer == config.teacher_layers - 1 else items
            totals = [totals[0] + users, totals[1] + items]
        final = []
        for total, contents in zip(totals, (user_content, item_content), strict=True):
            directions = torch.stack([unit(one) for one in contents]).sum(0)
            final.append(total / (config.teacher_layers + 1) + config.content_share * directions)
        return _Teacher(final[0], final[1], user_content, item_content)

    def loss(self, batch: Batch, phase: str = "main") -> Mapping[str, Tensor]:
        """`teacher` until it is frozen, and `bpr`, `reg`, `pairs`, `lists`, `vectors`."""
        config, n, index = self.config, len(batch), batch.items()
        teacher, parts = self.frozen, {}
        if teacher is None:
            rng = self._rng(phase) if self.training else None
            prompts = self._prompts()
            teacher = self._teacher(rng, prompts)
            parts["teacher"] = self._teacher_loss(teacher, prompts, batch.users, index)
            teacher = _Teacher(
                teacher.users.detach(),
                teacher.items.detach(),
                [one.detach() for one in teacher.user_content],
                [one.detach() for one in teacher.item_content],
            )
        users, items = self.tables()
        mine, theirs = users[batch.users], items[index]
        parts["bpr"] = bpr_of_vectors(mine, theirs)
        if config.reg:
            parts["reg"] = config.reg * l2_penalty(mine, theirs, batch_size=n)
        if config.pair_weight:
            margins = [
                _margins(*pair)
                for pair in (
                    (teacher.users[batch.users], teacher.items[index]),
                    (mine, theirs),
                )
            ]
            parts["pairs"] = config.pair_weight * bernoulli_kl(*margins).mean()
        if config.list_weight:
            listed = self._lists(teacher, mine, items, batch, index[:n], phase)
            parts["lists"] = config.list_weight * listed
        if config.vector_weight:
            total = users.new_zeros(())
            for content, there in zip(teacher.item_content, self.content.present, strict=True):
                apart = (1 - functional.cosine_similarity(content, items)).square()
                total = total + (apart * there).sum() / there.sum().clamp(min=1)
            parts["vectors"] = config.vector_weight * total
        return parts

    def _teacher_loss(
        self, teacher: _Teacher, prompts: tuple[Tensor, Tensor], users: Tensor, items: Tensor
    ) -> Tensor:
        config = self.config
        mine, theirs = teacher.users[users], teacher.items[items]
        total = bpr_of_vectors(mine, theirs)
        total = total + config.reg * l2_penalty(mine, theirs, batch_size=len(users))
        total = total + config.prompt_weight * bpr_of_vectors(prompts[0][users], prompts[1][items])
        for u, v in zip(teacher.user_content, teacher.item_content, strict=True):
            total = total + config.content_weight * bpr_of_vectors(u[users], v[items])
            total = total + config.reg * l2_penalty(u, v, batch_size=self.n_items)
        return total

    def _lists(
        self,
        teacher: _Teacher,
        mine: Tensor,
        items: Tensor,
        batch: Batch,
        positives: Tensor,
        phase: str,
    ) -> Tensor:
        rng = seeds.torch_generator(self._seed, phase, "lists")
        wanted = batch.users.cpu()[:, None].expand(-1, self.config.n_listed)
        drawn = self.sampler.sample(wanted, rng).to(positives.device)
        listed = torch.cat([positives[:, None], drawn], dim=1)  # (B, n_listed + 1)
        student = (items[listed] @ mine[:, :, None])[:, :, 0]
        total = mine.new_zeros(())
        each = zip(teacher.user_content, teacher.item_content, self.content.present, strict=True)
        for u, v, present in each:
            of_teacher = (v[listed] @ u[batch.users][:, :, None])[:, :, 0]
            rows = present[listed].all(1)
            losses = list_kl(of_teacher, student, self.config.rest_weight)
            total = total + (losses * rows).sum() / rows.sum().clamp(min=1)
        return total

    def tables(self) -> tuple[Tensor, Tensor]:
        """The student's vectors of all users and items."""
        free = torch.cat([self.users, self.items])
        users, items = self.graph.propagate(free, self.config.n_layers).split(
            [self.n_users, self.n_items]
        )
        return users, items


def _margins(users: Tensor, items: Tensor) -> Tensor:
    """Score of the positive minus that of the negative."""
    scores = torch.linalg.vecdot(users, items.view(2, *users.shape))
    return cast(Tensor, scores[0] - scores[1])


def bernoulli_kl(teacher: Tensor, student: Tensor) -> Tensor:
    """KL from sigmoid(teacher) to sigmoid(student), of each entry."""
    p = teacher.sigmoid()
    own = p * functional.logsigmoid(teacher) + (1 - p) * functional.logsigmoid(-teacher)
    other = p * functional.logsigmoid(student) + (1 - p) * functional.logsigmoid(-student)
    return own - other


def list_kl(teacher: Tensor, student: Tensor, rest_weight: float | None = None) -> Tensor:
    """KL of the first entry against the rest, plus a weight times the KL within the rest, (B,).

    Args:
        teacher: scores, (B, n + 1), the positive first.
        student: scores, (B, n + 1).
        rest_weight: None for the teacher's share of the rest, which makes it the plain KL.

    Source: Zhao et al., "Decoupled knowledge distillation", CVPR 2022, equation 7.
    """
    first = [x[:, 0] - x[:, 1:].logsumexp(1) for x in (teacher, student)]
    rest = [x[:, 1:].log_softmax(1) for x in (teacher, student)]
    within = (rest[0].exp() * (rest[0] - rest[1])).sum(1)
    weight = (-first[0]).sigmoid() if rest_weight is None else rest_weight
    return bernoulli_kl(first[0], first[1]) + weight * within
