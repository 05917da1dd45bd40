"""The contract that every registered model passes, as small checks over its `ModelSpec`.

    for name, check in checks(spec):
        check(spec)            # raises ContractBroken with what was expected and what was found

`checks(spec)` chooses the checks by what the model declares; a model of another package is
tested by parametrising a test over it. The checks take seconds, on toy data
(`modalign.testing.toy`) in the configuration that the model registered as `toy`. Where a toy
configuration fails a check, change the toy configuration, never the threshold.

No check here can find a trainer that does not clear its gradients; the tests of the trainer do.
The module is long because it is a list: one function for each promise.
"""

from __future__ import annotations

import dataclasses
import functools
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pydantic
import torch
from torch import Tensor, nn

from modalign.core import seeds
from modalign.core.interfaces import Batch, Phase, Queries, Recommender
from modalign.core.modality import Modality
from modalign.core.sparse import from_scipy
from modalign.core.view import TrainView
from modalign.core.vital_signs import readings
from modalign.data.interactions import Interactions
from modalign.models._registry import ModelSpec
from modalign.testing.harness import (
    auc,
    batches,
    build,
    prepare,
    queries,
    score_all,
    train,
)
from modalign.testing.toy import relabelled, toy_dataset
from modalign.testing.trials import TRIALS, Trial, tried
from modalign.train import optim
from modalign.train.trainer import TrainOptions, fit

Check = Callable[[ModelSpec], None]

LEARNT = 0.75
"""Minimum AUC on held-out items of a trained personal model; popularity alone reaches 0.6."""
GAIN = 0.03
"""Minimum gain of a trained model over an untrained copy of it, in AUC."""
BATCH_SIZE = 64


class ContractBroken(AssertionError):
    """A model breaks a promise that the rest of the library relies on."""


MOVED = 1e-6
"""Difference of scores above which they are not the same."""


def _require(kept: bool, promise: str) -> None:
    if not kept:
        raise ContractBroken(promise)


def _require_close(left: Tensor, right: Tensor, promise: str) -> None:
    try:
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)
    except AssertionError as error:
        raise ContractBroken(f"{promise}: {error}") from None


def is_trained(spec: ModelSpec) -> bool:
    """Whether the model is trained by gradient descent."""
    return bool(build(spec, toy_dataset().view()).phases())


def is_personal(spec: ModelSpec) -> bool:
    """Whether the model can distinguish users: it is trained, or it reads histories."""
    return is_trained(spec) or "history" in spec.needs


# ------------------------------------------------------------------ construction


def check_config(spec: ModelSpec) -> None:
    """The configuration is frozen, survives JSON, documents its fields, rejects unknown keys.

    Raises:
        ContractBroken: it does not.
    """
    config = spec.config(**spec.toy)
    again = spec.config.model_validate_json(config.model_dump_json())
    _require(again == config, "a configuration read back from JSON equals the one written")
    json.loads(json.dumps(spec.config.model_json_schema()))
    bare = [name for name, field in spec.config.model_fields.items() if not field.description]
    _require(not bare, f"every option is documented; {bare} are not")
    try:
        spec.config(**{"no_such_option_as_this": 1})
    except pydantic.ValidationError:
        pass
    else:
        raise ContractBroken("an unknown option is rejected")
    for name in spec.config.model_fields:
        try:
            setattr(config, name, getattr(config, name))
        except pydantic.ValidationError:
            continue
        raise ContractBroken(f"a configuration is frozen; {name} could be set")


def check_variants(spec: ModelSpec) -> None:
    """Every named variant is a valid configuration that builds and differs from the default."""
    view = toy_dataset().view()
    for name, overrides in spec.variants.items():
        build(spec, view, overrides=overrides)
        _require(spec.config(**overrides) != spec.config(), f"variant {name!r} changes an option")


def check_documented(spec: ModelSpec) -> None:
    """The class has a summary line, and the spec names its source."""
    _require(bool(spec.summary), "the class has documentation with a summary line")
    _require(bool(spec.paper), "the spec names the paper of the method")


def check_seed(spec: ModelSpec) -> None:
    """One seed gives one set of weights, another seed another; no global generator is used."""
    view = toy_dataset().view()
    before = _global_states()
    first, second, other = (build(spec, view, seed) for seed in (1, 1, 2))
    _require(_global_states() == before, "building a model uses no global generator")
    _require(_same(first.state_dict(), second.state_dict()), "the same seed, the same weights")
    if is_trained(spec):
        _require(
            not _same(dict(first.named_parameters()), dict(other.named_parameters())),
            "another seed, other weights",
        )


def check_seed_of_training(spec: ModelSpec) -> None:
    """Training twice from one seed ends with the same weights, bit for bit."""
    view = toy_dataset().view()
    before = _global_states()
    first, second = (train(spec, build(spec, view, 1), view, 1, epochs=2) for _ in range(2))
    _require(_global_states() == before, "training uses no global generator")
    _require(_same(first.state_dict(), second.state_dict()), "the same seed, the same training")


def check_view_is_not_kept(spec: ModelSpec) -> None:
    """The model keeps what it computed, and not the data set from which it computed it."""
    model = build(spec, toy_dataset().view())
    for path, value in _attributes(model):
        _require(
            not isinstance(value, TrainView | Interactions),
            f"the model keeps no data; {path} is a {type(value).__name__}",
        )


# ------------------------------------------------------------------ loss and phases


def check_loss(spec: ModelSpec) -> None:
    """The loss of every phase is a mapping of names to finite scalars, one of them with a
    gradient.
    """
    view = toy_dataset().view()
    model = build(spec, view)
    for batch in batches(spec, view, BATCH_SIZE)[:3]:
        prepare(model, batch)
        for phase in model.phases():
            parts = model.loss(batch, phase.name)
            _require(
                isinstance(parts, Mapping) and len(parts) > 0, "the loss is a mapping of parts"
            )
            for name, value in parts.items():
                _require(
                    isinstance(name, str), f"the name of a loss part is a string, not {name!r}"
                )
                _require(
                    isinstance(value, Tensor) and value.shape == (),
                    f"the loss part {name!r} is a scalar tensor",
                )
                _require(bool(value.isfinite()), f"the loss part {name!r} is finite: {value}")
            _require(
                any(value.requires_grad for value in parts.values()),
                "the loss depends on a parameter",
            )


def check_loss_is_repeatable(spec: ModelSpec) -> None:
    """Computed twice, the loss is the same; computing it changes no state and draws no number."""
    view = toy_dataset().view()
    model = build(spec, view)
    batch = batches(spec, view, BATCH_SIZE)[0]
    prepare(model, batch)
    for phase in model.phases():
        state, drawn = _state(model), _global_states()
        first = {k: v.detach().clone() for k, v in model.loss(batch, phase.name).items()}
        _require(_global_states() == drawn, "a loss draws from no global generator")
        _require(_same(_state(model), state), "a loss changes no parameter and no buffer")
        second = {k: v.detach() for k, v in model.loss(batch, phase.name).items()}
        _require(_same(first, second), "a loss computed twice is the same")


def check_needs(spec: ModelSpec) -> None:
    """The loss reads what the model declares in `needs`: other negatives give another loss."""
    view = toy_dataset().view()
    model = build(spec, view)
    batch = batches(spec, view, BATCH_SIZE)[0]
    prepare(model, batch)
    main = model.phases()[0].name
    before = _total(model, batch, main)
    changed: list[tuple[str, Batch]] = []
    if batch.negatives is not None:
        changed.append(("negatives", dataclasses.replace(batch, negatives=batch.positives)))
    if batch.history is not None:
        # By items: the loss of other users' histories is the same where it is their plain mean.
        rolled = torch.roll(batch.history.to_dense(), 1, dims=1).to_sparse_csr()
        changed.append(("history", dataclasses.replace(batch, history=rolled)))
    if batch.positives is not None:
        rolled = torch.roll(batch.positives, 1)
        changed.append(("positives", dataclasses.replace(batch, positives=rolled)))
    _require(bool(changed), "a batch has positives or a history")
    for name, other in changed:
        _require(
            float(_total(model, other, main)) != float(before),
            f"the loss depends on the batch's {name}, which the model declares in `needs`",
        )


def check_phases_partition(spec: ModelSpec) -> None:
    """Every trainable parameter belongs to one phase, and a phase has no other parameters."""
    model = build(spec, toy_dataset().view())
    phases = model.phases()
    owned = [id(p) for phase in phases for p in phase.params]
    trainable = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    names = [phase.name for phase in phases]
    _require(len(set(names)) == len(names), f"phases have different names, not {names}")
    _require(len(set(owned)) == len(owned), "no parameter belongs to two phases")
    _require(set(owned) <= set(trainable), "phases have only parameters of the model")
    lost = [name for key, name in trainable.items() if key not in set(owned)]
    _require(not lost, f"every trainable parameter belongs to a phase; {lost} do not")
    _require(all(phase.every >= 1 for phase in phases), "`every` of a phase is at least 1")


def check_phase_moves_only_its_own(spec: ModelSpec) -> None:
    """A step of one phase changes parameters of that phase and no other state."""
    view = toy_dataset().view()
    model = build(spec, view)
    batch = batches(spec, view, BATCH_SIZE)[0]
    prepare(model, batch)
    for phase in model.phases():
        mine = {id(p) for p in phase.params}
        before = _state(model)
        _step(model, phase, batch)
        moved = {name for name, value in _state(model).items() if not _equal(value, before[name])}
        owned = {name for name, p in model.named_parameters() if id(p) in mine}
        _require(bool(moved & owned), f"a step of phase {phase.name!r} changes its parameters")
        _require(
            moved <= owned,
            f"a step of phase {phase.name!r} changes only its parameters; it also changed "
            f"{sorted(moved - owned)}",
        )


def check_every_parameter_gets_a_gradient(spec: ModelSpec) -> None:
    """In an epoch every parameter of a phase receives a gradient from the phase's loss.

    A parameter that is never trained is a bug that raises no error.
    """
    view = toy_dataset().view()
    model = build(spec, view)
    waiting = {id(p): name for name, p in model.named_parameters() if p.requires_grad}
    data = batches(spec, view, BATCH_SIZE)
    model.train()
    model.on_epoch(0, seeds.torch_generator(0, "epoch", 0))
    rng = seeds.torch_generator(0, "steps", 0)
    for step, batch in enumerate(data):
        for phase in model.phases():
            _step(model, phase, batch)
            for p in phase.params:
                if p.grad is not None and bool((p.grad != 0).any()):
                    waiting.pop(id(p), None)
        model.after_step(step, batch, rng)
    _require(not waiting, f"every parameter receives a gradient; {[*waiting.values()]} do not")


def check_no_stray_tensor(spec: ModelSpec) -> None:
    """No tensor except the parameters requires a gradient or keeps a graph alive."""
    view = toy_dataset().view()
    model = build(spec, view)
    if model.phases():
        batch = batches(spec, view, BATCH_SIZE)[0]
        prepare(model, batch)
        model.loss(batch, model.phases()[0].name)
    parameters = {id(p) for p in model.parameters()}
    for path, value in _attributes(model):
        if isinstance(value, Tensor) and id(value) not in parameters:
            _require(
                not value.requires_grad,
                f"a tensor that requires a gradient is a Parameter; {path} is not",
            )


def check_resamples(spec: ModelSpec) -> None:
    """`resamples` is true exactly if hooks draw, and a hook depends only on its arguments."""
    view = toy_dataset().view()
    model = build(spec, view)
    batch = batches(spec, view, BATCH_SIZE)[0]
    phase = model.phases()[0].name
    losses = []
    for seed in (1, 2, 1):
        prepare(model, batch, seed)
        losses.append(float(_total(model, batch, phase)))
    _require(losses[0] == losses[2], "the hooks depend only on their arguments")
    if model.resamples:
        _require(losses[0] != losses[1], "a model with `resamples` has another loss in each epoch")
    else:
        _require(
            losses[0] == losses[1], "a model whose hooks draw random numbers declares `resamples`"
        )


# ------------------------------------------------------------------ scores


def check_scores(spec: ModelSpec) -> None:
    """Scores are finite and of shape (B, n_items), also for users and items without interactions;
    scoring changes nothing, and `score` and `scorer` give the same.
    """
    view = toy_dataset().view()  # the last user and the last item have no interaction
    model = train(spec, build(spec, view), view, epochs=1)
    state, drawn = _state(model), _global_states()
    scores = score_all(spec, model, view)
    _require(scores.shape == (view.n_users, view.n_items), "scores have shape (B, n_items)")
    _require(bool(scores.isfinite().all()), "scores are finite")
    model.eval()
    with torch.no_grad():
        direct = model.score(queries(spec, view, torch.arange(view.n_users)))
    _require_close(direct, scores, "`score` equals `scorer().score`")
    _require(_equal(scores, score_all(spec, model, view)), "scores computed twice are the same")
    _require(_same(_state(model), state), "scoring changes no parameter and no buffer")
    _require(_global_states() == drawn, "scoring draws from no global generator")


def check_scores_do_not_depend_on_the_batch(spec: ModelSpec) -> None:
    """A user's scores are the same alone, among all, in blocks and in another order."""
    view = toy_dataset().view()
    model = train(spec, build(spec, view), view, epochs=1)
    whole = score_all(spec, model, view)
    scorer = model.scorer()
    order = torch.from_numpy(seeds.numpy_generator(0, "order").permutation(view.n_users))
    with torch.inference_mode():
        for size in (1, 7):
            for users in order.split(size):
                block = scorer.score(queries(spec, view, users))
                _require_close(block, whole[users], f"scores in blocks of {size} are those of all")


def check_factorised(spec: ModelSpec) -> None:
    """`factorised` is true exactly if there are vectors whose product is the score."""
    view = toy_dataset().view()
    model = train(spec, build(spec, view), view, epochs=1).eval()
    asked = queries(spec, view, torch.arange(view.n_users))
    with torch.no_grad():
        if not model.factorised:
            _require(
                not _has_tables(model), "a model with user and item tables declares `factorised`"
            )
            return
        users, items = model.user_vectors(asked), model.item_vectors()
        scores = model.score(asked)
    _require(
        users.ndim == 2 and items.ndim == 2 and users.shape[1] == items.shape[1],
        f"user and item vectors have one width, not {tuple(users.shape)}, {tuple(items.shape)}",
    )
    _require(len(items) == view.n_items, "there is a vector for each item")
    _require_close(users @ items.T, scores, "the product of the vectors is the score")


def check_unseen_users(spec: ModelSpec) -> None:
    """`unseen_users` is true exactly if scores do not depend on the user's id.

    Declared: a user without an id is scored, by the history if the model needs one, and the same
    as all others otherwise. Not declared: histories are not read, and different users have
    different scores.
    """
    view = toy_dataset().view()
    model = train(spec, build(spec, view), view, epochs=1).eval()
    some = torch.arange(0, view.n_users, 7)
    with torch.inference_mode():
        if model.unseen_users:
            scores = model.score(queries(spec, view, some, unseen=True))
            _require(bool(scores.isfinite().all()), "unseen users have finite scores")
            alike = len(torch.unique(scores, dim=0)) == 1
            _require(
                alike != ("history" in spec.needs),
                "scores of unseen users depend on their history exactly if the model needs one",
            )
            return
        scores = model.score(_with_history(some, view, shift=0))
        others = model.score(_with_history(some, view, shift=1))
        _require(_equal(scores, others), "a model that reads histories declares `unseen_users`")
        _require(
            len(torch.unique(scores, dim=0)) > 1,
            "a model that scores all users alike declares `unseen_users`",
        )


def check_state_dict(spec: ModelSpec) -> None:
    """Weights written and read into a fresh copy give the same scores, bit for bit."""
    view = toy_dataset().view()
    model = train(spec, build(spec, view, 1), view, epochs=1)
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    copy = build(spec, view, 2)
    copy.load_state_dict(torch.load(file, weights_only=True))
    _require(
        _equal(score_all(spec, model, view), score_all(spec, copy, view)),
        "the state dict contains everything that scores depend on",
    )


def check_learns(spec: ModelSpec) -> None:
    """A trained model ranks held-out items of two clear tastes better than an untrained copy."""
    dataset = toy_dataset()
    view = dataset.view()
    held_out = Interactions(
        np.concatenate([dataset.valid.users, dataset.test.users]),
        np.concatenate([dataset.valid.items, dataset.test.items]),
    )
    model = build(spec, view)
    before = auc(score_all(spec, model, view), held_out, view)
    after = auc(score_all(spec, train(spec, model, view), view), held_out, view)
    _require(
        after >= before + GAIN,
        f"training adds {GAIN} to the AUC of held-out items: {before:.3f} "
        f"before, {after:.3f} after",
    )
    if is_personal(spec):
        _require(after >= LEARNT, f"the AUC of held-out items is at least {LEARNT}: {after:.3f}")


def check_mechanism_pays(spec: ModelSpec, trial: Trial) -> None:
    """On the world planted for it the mechanism lives, and in the mean it beats its control.

    Args:
        spec: the registered model.
        trial: the world, the control and the margin.

    Raises:
        ContractBroken: a vital sign is below its bound, or the gain below the margin.
    """
    found = {seed: tried(spec, trial, seed) for seed in trial.seeds}
    for seed, one in found.items():
        _require(not one.idle, f"the mechanism works where it must (seed {seed}): {one.idle}")
    gain = sum(one.gain for one in found.values()) / len(found)
    pairs = ", ".join(f"{one.full:.4f} / {one.control:.4f}" for one in found.values())
    _require(
        gain >= trial.margin,
        f"the mechanism adds {trial.margin} to the Recall@10 of {trial.control!r}: it adds "
        f"{gain:.4f} (with / without: {pairs})",
    )


def check_mechanism(spec: ModelSpec) -> None:
    """Each declared vital sign is logged, lies in [0, 1], and is above its bound after training.

    The toy data's modalities tell the tastes, so that a mechanism that aligns them must work.
    """
    view = toy_dataset().view()
    model = build(spec, view)
    options = TrainOptions(
        seed=0, epochs=model.config.epochs, batch_size=model.config.batch_size, device="cpu"
    )
    record = fit(model, view, options).history[-1]
    for sign in type(model).vital_signs:
        found = readings([sign], record)
        _require(bool(found), f"the log has the vital sign {sign.name!r}")
        for one in found:
            _require(0 <= one.value <= 1, f"{one.title} is in [0, 1]: {one.value}")
            _require(one.alive, f"{one.title} is at least {sign.at_least}: {one.value:.4f}")


# ------------------------------------------------------------------ data


def check_item_order(spec: ModelSpec) -> None:
    """The scores of a solved model do not depend on the order of the items."""
    view = toy_dataset().view()
    order = seeds.numpy_generator(0, "order").permutation(view.n_items)
    other = relabelled(view, order)
    scores = score_all(spec, train(spec, build(spec, view), view), view)
    moved = score_all(spec, train(spec, build(spec, other), other), other)
    _require_close(moved, scores[:, torch.from_numpy(order)], "scores move with their items")


def check_modalities_are_read(spec: ModelSpec) -> None:
    """Each modality in use changes the loss or the scores."""
    view = toy_dataset().view()
    base = _answers(spec, view)
    for name, modality in view.modalities.items():
        flipped = Modality(name, modality.features[::-1].copy(), modality.present[::-1].copy())
        changed = dataclasses.replace(view, modalities={**view.modalities, name: flipped})
        _require(not _same(_answers(spec, changed), base), f"the features of {name!r} are read")


def check_cold_items(spec: ModelSpec) -> None:
    """`cold_items` is true exactly if the content of an item without interactions moves its scores.

    The same weights score it with the features of two other items.
    """
    view = toy_dataset().view()
    cold = 3
    kept = view.items != cold
    whole = np.all([one.present for one in view.modalities.values()], axis=0)
    like = [int(item) for item in np.flatnonzero(whole) if item != cold][:2]

    def with_content_of(item: int) -> TrainView:
        changed = {}
        for name, one in view.modalities.items():
            features, present = one.features.copy(), one.present.copy()
            features[cold], present[cold] = features[item], True
            changed[name] = Modality(name, features, present, one.entity, one.provenance)
        return dataclasses.replace(
            view, users=view.users[kept], items=view.items[kept], modalities=changed
        )

    views = [with_content_of(item) for item in like]
    first = train(spec, build(spec, views[0], 1), views[0], epochs=1).eval()
    second = build(spec, views[1], 1)
    second.load_state_dict(first.state_dict())
    scores = [
        score_all(spec, model.eval(), one)[:, cold]
        for model, one in zip((first, second), views, strict=True)
    ]
    moved = float((scores[0] - scores[1]).abs().max()) > MOVED
    _require(
        moved == spec.cls.cold_items,
        f"the content of an item without interactions moves its scores: {spec.cls.cold_items}",
    )


def check_missing_rows_are_not_read(spec: ModelSpec) -> None:
    """The numbers in a missing feature row have no influence."""
    view = toy_dataset().view()
    spoilt = {}
    for name, modality in view.modalities.items():
        features = modality.features.copy()
        features[~modality.present] = 1e3
        spoilt[name] = Modality(name, features, modality.present)
    _require(
        _same(_answers(spec, dataclasses.replace(view, modalities=spoilt)), _answers(spec, view)),
        "the numbers of a missing row are not read",
    )


ALWAYS: tuple[Check, ...] = (
    check_config,
    check_variants,
    check_documented,
    check_seed,
    check_seed_of_training,
    check_view_is_not_kept,
    check_no_stray_tensor,
    check_scores,
    check_scores_do_not_depend_on_the_batch,
    check_factorised,
    check_unseen_users,
    check_state_dict,
    check_learns,
)
TRAINED: tuple[Check, ...] = (
    check_loss,
    check_loss_is_repeatable,
    check_needs,
    check_phases_partition,
    check_phase_moves_only_its_own,
    check_every_parameter_gets_a_gradient,
    check_resamples,
)
SOLVED: tuple[Check, ...] = (check_item_order,)
ALIGNED: tuple[Check, ...] = (check_mechanism,)
MULTIMODAL: tuple[Check, ...] = (
    check_modalities_are_read,
    check_missing_rows_are_not_read,
    check_cold_items,
)


def checks(spec: ModelSpec, trial: Trial | None = None) -> list[tuple[str, Check]]:
    """The checks that a model must pass, by name, chosen by what the model declares.

    Args:
        spec: the model.
        trial: a planted world on which its mechanism must beat a control; None takes that of
            `TRIALS`, if there is one.

    Example:
        >>> from modalign.models._registry import get
        >>> for name, check in checks(get("popularity"))[:3]:
        ...     check(get("popularity"))
    """
    chosen = [*ALWAYS, *(TRAINED if is_trained(spec) else SOLVED)]
    if "modalities" in spec.needs:
        chosen += MULTIMODAL
    if spec.cls.vital_signs:
        chosen += ALIGNED
    named = [(check.__name__.removeprefix("check_"), check) for check in chosen]
    trial = trial or TRIALS.get(spec.name)
    if spec.cls.vital_signs and trial is not None:
        named.append(("mechanism_pays", functools.partial(check_mechanism_pays, trial=trial)))
    return named


# ------------------------------------------------------------------ helpers


def _equal(left: Tensor, right: Tensor) -> bool:
    return left.shape == right.shape and bool(torch.equal(left, right))


def _same(left: Mapping[str, Tensor], right: Mapping[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(_equal(left[k], right[k]) for k in left)


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all parameters and buffers, including those that are not saved."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: value.detach().clone() for name, value in named}


def _global_states() -> tuple[bytes, str, object]:
    """States of the global generators of torch, numpy and Python, to compare."""
    return (
        torch.random.get_rng_state().numpy().tobytes(),
        str(np.random.get_state(legacy=False)),  # noqa: NPY002
        random.getstate(),
    )


def _total(model: Recommender, batch: Batch, phase: str) -> Tensor:
    return torch.stack([part.detach() for part in model.loss(batch, phase).values()]).sum()


def _step(model: Recommender, phase: Phase, batch: Batch) -> None:
    optimizer = optim.build(phase)
    for p in model.parameters():
        p.grad = None
    torch.stack(list(model.loss(batch, phase.name).values())).sum().backward()
    optimizer.step()


def _has_tables(model: Recommender) -> bool:
    try:
        model.tables()
    except TypeError:
        return False
    return True


def _with_history(users: Tensor, view: TrainView, shift: int) -> Queries:
    """Queries of known users with the histories of users `shift` rows further on."""
    matrix = Interactions(view.users.numpy(), view.items.numpy()).csr(view.n_users, view.n_items)
    rows = (users.numpy() + shift) % view.n_users
    return Queries(users, from_scipy(matrix[rows]))


def _answers(spec: ModelSpec, view: TrainView) -> dict[str, Tensor]:
    """Loss parts of a batch and scores of an untrained (or solved) model."""
    model = build(spec, view)
    answers = {}
    if model.phases():
        batch = batches(spec, view, BATCH_SIZE)[0]
        prepare(model, batch)
        for phase in model.phases():
            for name, value in model.loss(batch, phase.name).items():
                answers[f"{phase.name}/{name}"] = value.detach()
    else:
        model.solve(view)
    answers["scores"] = score_all(spec, model, view)
    return answers


def _attributes(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """All values that a model keeps, with their paths: attributes and contents of containers."""
    seen: set[int] = set()
    stack: list[tuple[str, Any]] = [("model", model)]
    while stack:
        path, value = stack.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield path, value
        if isinstance(value, Mapping):
            stack += [(f"{path}[{key!r}]", inner) for key, inner in value.items()]
        elif isinstance(value, list | tuple | set | frozenset):
            stack += [(f"{path}[{place}]", inner) for place, inner in enumerate(value)]
        elif not isinstance(value, Tensor | type) and hasattr(value, "__dict__"):
            stack += [(f"{path}.{name}", inner) for name, inner in vars(value).items()]
