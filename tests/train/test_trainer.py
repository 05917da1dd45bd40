import logging

import pytest
import torch
from tiny import tiny_model, tiny_view

from modalign.core import seeds
from modalign.core.interfaces import Batch
from modalign.data.sampling import NegativeSampler
from modalign.errors import TrainingError
from modalign.train.trainer import TrainOptions, fit

OPTIONS = TrainOptions(seed=7, epochs=3, batch_size=64, device="cpu")


def by_hand(model, view, epochs, schedule):
    """The loop of the trainer written out: plain torch, no Fabric, no classes."""
    sampler = NegativeSampler(view.users, view.items, view.n_users, view.n_items)
    optimizers = [
        (name, every, torch.optim.AdamW(params, lr=0.01, weight_decay=0.1, fused=True))
        for name, params, every in schedule
    ]
    step = 0
    for epoch in range(epochs):
        model.on_epoch(epoch, seeds.torch_generator(7, "epoch", epoch))
        rng = seeds.torch_generator(7, "batches", epoch)
        hook_rng = seeds.torch_generator(7, "steps", epoch)
        order = torch.randperm(len(view.users), generator=rng)
        users, positives = view.users[order], view.items[order]
        negatives = sampler.sample(users, rng)
        for start in range(0, len(users), 64):
            part = slice(start, start + 64)
            batch = Batch(users[part], positives[part], negatives[part])
            for name, every, optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = 0.01 * 0.9**epoch
                if step % every == 0:
                    model.zero_grad(set_to_none=True)
                    parts = model.loss(batch, name)
                    loss = parts["rank"] + parts["l2"]
                    loss.backward()
                    optimizer.step()
            model.after_step(step, batch, hook_rng)
            step += 1


@pytest.mark.parametrize("two_phases", [False, True])
def test_equals_a_hand_written_loop_bit_for_bit(two_phases):
    view = tiny_view()
    ours, hand = tiny_model(view, two_phases), tiny_model(view, two_phases)
    fit(ours, view, OPTIONS)
    schedule = (
        [("users", [hand.user], 1), ("items", [hand.item], 2)]
        if two_phases
        else [("main", [hand.user, hand.item], 1)]
    )
    by_hand(hand, view, 3, schedule)
    assert ours.user.equal(hand.user)
    assert ours.item.equal(hand.item)


def test_messages_go_through_logging(caplog):
    with caplog.at_level(logging.DEBUG, "modalign"):
        fit(tiny_model(tiny_view()), tiny_view(), OPTIONS)
    epochs = [one for one in caplog.records if one.levelno == logging.DEBUG]
    assert len(epochs) == 3
    assert epochs[0].getMessage().startswith("epoch 1, loss/rank ")
    assert caplog.records[-1].levelno == logging.INFO
    assert {one.name for one in caplog.records} == {"modalign.train"}


def test_gradients_are_cleared_between_steps():
    """A trainer that never clears would pass every learning test; here it is caught alone."""
    view = tiny_view()
    model = tiny_model(view)
    gradients = []
    original = model.loss

    def spy(batch, phase="main"):
        gradients.append(model.user.grad is None)
        return original(batch, phase)

    model.loss = spy
    fit(model, view, OPTIONS)
    assert all(gradients)


def test_two_epochs_draw_two_different_losses():
    view = tiny_view()
    model = tiny_model(view)
    batch = Batch(view.users[:9], view.items[:9], view.items[9:18])
    losses = []
    for epoch in (0, 1):
        model.on_epoch(epoch, seeds.torch_generator(7, "epoch", epoch))
        losses.append(model.loss(batch)["rank"].item())
    assert losses[0] != losses[1]


def test_early_stopping_keeps_the_best_weights():
    view = tiny_view()
    model = tiny_model(view)
    values = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    weights = []

    def validate(one):
        weights.append(one.user.detach().clone())
        return {"recall@20": next(values)}

    options = TrainOptions(seed=7, epochs=50, patience=3, batch_size=64, device="cpu")
    state = fit(model, view, options, validate)
    assert (state.best_epoch, state.best_metric, state.epoch) == (2, 0.3, 5)
    assert model.user.equal(weights[1])
    assert [r["valid/recall@20"] for r in state.history] == [0.1, 0.3, 0.2, 0.3, 0.25]


def test_a_nan_loss_stops_with_its_name():
    view = tiny_view()
    model = tiny_model(view)
    with torch.no_grad():
        model.user[3] = float("nan")
    with pytest.raises(TrainingError, match="loss part 'rank' became nan in epoch 1"):
        fit(model, view, OPTIONS)


def test_an_error_from_weights_that_are_not_finite_says_so():
    """BANDVAE's plan refuses costs that are NaN: the learning rate was too large."""
    view = tiny_view()
    model = tiny_model(view)

    def refuse(batch, phase="main"):
        raise ValueError("expected numbers in cost")

    model.loss = refuse
    with pytest.raises(ValueError, match="in cost"):
        fit(model, view, OPTIONS)
    with torch.no_grad():
        model.user[3] = float("inf")
    with pytest.raises(TrainingError, match="numbers became NaN or infinite in epoch 1"):
        fit(model, view, OPTIONS)


def test_same_seed_same_weights_and_another_seed_others():
    view = tiny_view()
    models = [tiny_model(view) for _ in range(3)]
    for model, seed in zip(models, (7, 7, 8), strict=True):
        fit(model, view, TrainOptions(seed=seed, epochs=2, batch_size=64, device="cpu"))
    assert models[0].user.equal(models[1].user)
    assert not models[0].user.equal(models[2].user)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_the_cpu():
    view = tiny_view()
    cpu, cuda = tiny_model(view), tiny_model(view)
    fit(cpu, view, OPTIONS)
    fit(cuda, view, TrainOptions(seed=7, epochs=3, batch_size=64, device="cuda"))
    torch.testing.assert_close(cuda.user.cpu(), cpu.user, atol=1e-4, rtol=1e-4)


def test_bf16_trains():
    view = tiny_view()
    model = tiny_model(view)
    before = model.user.detach().clone()
    options = TrainOptions(seed=7, epochs=1, batch_size=64, device="cpu", precision="bf16-mixed")
    state = fit(model, view, options)
    assert model.user.dtype == torch.float32
    assert not model.user.equal(before)
    assert state.history[0]["loss/rank"] > 0
