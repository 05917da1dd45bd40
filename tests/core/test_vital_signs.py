"""Vital signs read from a record, and the one warning about those below their bounds."""

from __future__ import annotations

import math

import pytest
import torch

from modalign.core.vital_signs import Reading, VitalSign, gradient_shares, readings, warning

RNG = torch.Generator().manual_seed(0)
SPREAD = VitalSign("spread", "deviation of the similarity", 0.01, "set detach=true")
FOCUS = VitalSign("focus", "distance of the plan from a mean", 0.1, "set reg=0.05")


def test_a_sign_is_read_whole_and_by_part() -> None:
    record = {"epoch": 2, "alive/spread": 0.2, "alive/focus/text": 0.05, "alive/focus/image": 0.3,
              "alive/spreading": 0.9, "loss/bpr": 0.1}  # fmt: skip
    found = readings([SPREAD, FOCUS], record)
    assert [(one.title, one.value, one.alive) for one in found] == [
        ("spread", 0.2, True),
        ("focus of text", 0.05, False),
        ("focus of image", 0.3, True),
    ]


def test_only_the_named_parts_are_judged() -> None:
    some = VitalSign("share", "share of a source", 0.1, "set eta", ("views",))
    record = {"alive/share/views": 0.2, "alive/share/ids": 0.01, "alive/share": 0.0}
    assert [one.part for one in readings([some], record)] == ["views"]


def test_a_record_without_signs_says_nothing() -> None:
    assert readings([SPREAD], {"epoch": 1}) == []
    assert warning([], "cm3") is None
    assert warning([Reading(SPREAD, "", 0.01)], "cm3") is None


def test_one_warning_names_every_idle_sign_and_each_advice_once() -> None:
    idle = [Reading(FOCUS, "text", 0.0), Reading(FOCUS, "image", 0.01), Reading(SPREAD, "", 0.0)]
    said = str(warning(idle, "bandvae"))
    assert said.count("set reg=0.05") == 1
    assert said.count("set detach=true") == 1
    assert all(word in said for word in ("focus of text", "focus of image", "below 0.1", "bandvae"))


def test_gradient_shares_are_lengths_of_gradients() -> None:
    w, u = (torch.nn.Parameter(torch.randn(3, generator=RNG)) for _ in range(2))
    parts = {
        "square": w.square().sum() + u.sum(),
        "line": (2 * w).sum(),
        "other": torch.nn.Parameter(torch.ones(1)).sum(),
        "constant": torch.tensor(5.0),
    }
    lengths = {
        "square": float(torch.cat([2 * w.detach(), torch.ones(3)]).norm()),
        "line": math.sqrt(12),
        "other": 0.0,
        "constant": 0.0,
    }
    total = sum(lengths.values())
    wanted = {name: one / total for name, one in lengths.items()}
    assert gradient_shares(parts, [w, u]) == pytest.approx(wanted, rel=1e-5)
    parts["square"].backward()  # the graphs are still there
    assert w.grad is not None
