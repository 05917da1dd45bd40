"""PromptMM against numbers computed by hand, and its two stages."""

from __future__ import annotations

import pytest
import torch
from test_mgcn import BATCH, ITEMS, T, V
from torch.testing import assert_close
from toys import OPTIONS, USERS, put, toy_view

from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.promptmm import PromptMM, PromptMMConfig, bernoulli_kl, list_kl
from modalign.nn.losses.pairwise import bpr_of_vectors, l2_penalty


def made(view=None, **options) -> PromptMM:
    given = {"content_share": 0.5, "prompt_in_ids": 0.1, "dropout": 0.0, "teacher_epochs": 1}
    model = PromptMM(PromptMMConfig(**{**OPTIONS, **given, **options}), view or toy_view(V, T))
    tokens = torch.tensor([[0.2, 0.3], [0.4, 0.1]]), torch.tensor([[0.5, 0], [0, 0.5], [0.5, 0.5]])
    model.set_tokens(*tokens)
    for layer in (model.prompt_users, model.prompt_items, *model.content.layers):
        layer.weight.data, layer.bias.data = torch.eye(2), torch.zeros(2)
    put(model, teacher_users=USERS, teacher_items=ITEMS, users=USERS, items=ITEMS)
    return model.eval()


def test_teacher_of_the_toy():
    model = made()
    prompts = model._prompts()
    teacher = model._teacher(None, prompts)
    expected = [[3.121320, 1.707107], [3.914214, 2.914213], [2.414214, 2.414214]]
    assert_close(teacher.item_content[0], torch.tensor(expected), atol=2e-6, rtol=0)
    expected = [[0.958394, 1.058412], [0.992098, 1.043889]]
    assert_close(teacher.users, torch.tensor(expected), atol=2e-6, rtol=0)
    expected = [[1.018649, 0.985265], [0.889091, 1.192926], [1.024622, 1.084750]]
    assert_close(teacher.items, torch.tensor(expected), atol=2e-6, rtol=0)
    users, items = BATCH.users, BATCH.items()
    mine, theirs = teacher.users[users], teacher.items[items]
    assert bpr_of_vectors(mine, theirs).item() == pytest.approx(0.694981, abs=1e-6)
    assert l2_penalty(mine, theirs, batch_size=2).item() == pytest.approx(3.145642, abs=5e-6)
    found = [bpr_of_vectors(prompts[0][users], prompts[1][items]).item()]
    for u, v in zip(teacher.user_content, teacher.item_content, strict=True):
        found.append(bpr_of_vectors(u[users], v[items]).item())
    assert found == pytest.approx([0.719708, 0.503204, 1.913411], abs=2e-6)
    whole = 0.694981 + sum(found) + 1e-5 * (3.145642 + 31.933754)
    assert model.loss(BATCH)["teacher"].item() == pytest.approx(whole, abs=1e-5)


def test_losses_of_the_student():
    model = made(n_layers=0, vector_weight=1.0)
    assert model.loss(BATCH)["vectors"].item() == pytest.approx(0.185969 + 0.125348, abs=2e-6)
    assert bernoulli_kl(torch.tensor(1.0), torch.tensor(0.5)).item() == pytest.approx(
        0.026345, abs=1e-6
    )
    teacher, student = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[2.0, 1.0, 0.0]])
    plain = (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum()
    assert list_kl(teacher, student).item() == pytest.approx(plain.item(), abs=1e-6)
    assert list_kl(teacher, student).item() == pytest.approx(0.420512, abs=1e-6)
    assert list_kl(teacher, student, 0.0).item() == pytest.approx(0.369811, abs=1e-6)
    assert list_kl(teacher, teacher).item() == pytest.approx(0, abs=1e-7)


def test_without_the_teacher_the_student_is_lightgcn():
    nothing = {"pair_weight": 0.0, "list_weight": 0.0, "vector_weight": 0.0, "reg": 0.0}
    model = made(n_layers=2, **nothing)
    light = LightGCN(LightGCNConfig(embedding_size=2, n_layers=2, reg=0.0), toy_view())
    light.embeddings.data = torch.tensor(USERS + ITEMS)
    for ours, theirs in zip(model.tables(), light.tables(), strict=True):
        assert_close(ours, theirs)
    assert_close(model.loss(BATCH)["bpr"], light.loss(BATCH)["bpr"])


def test_the_teacher_learns_from_its_own_loss_and_is_frozen_later():
    model = made()
    parts = model.loss(BATCH)
    student = sum(part for name, part in parts.items() if name != "teacher")
    student.backward()
    assert model.teacher_items.grad is None
    assert model.items.grad is not None
    model.zero_grad()
    parts["teacher"].backward()
    assert model.items.grad is None
    teacher = model._teacher(None, model._prompts())
    model.on_epoch(1, torch.Generator().manual_seed(0))
    assert "teacher" not in model.loss(BATCH)
    assert_close(model.items.data, teacher.items.detach())
    model.items.data.zero_()
    model.on_epoch(2, torch.Generator().manual_seed(0))
    assert (model.items == 0).all()  # set once


def test_an_item_that_lacks_a_modality_leaves_its_vectors():
    view = toy_view(V, T, missing=(0, 1))
    model = made(view, n_layers=0, vector_weight=1.0)
    before = model.loss(BATCH)["vectors"]
    model.content.present[0, 1] = True
    assert model.loss(BATCH)["vectors"] != before
