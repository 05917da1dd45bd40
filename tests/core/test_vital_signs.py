"""Vital signs read from a record, and the one warning about those below their bounds."""

from __future__ import annotations

from modalign.core.vital_signs import Reading, VitalSign, readings, warning

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
