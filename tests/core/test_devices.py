"""Devices by name, and memory that stays with the process."""

from __future__ import annotations

import platform

import pytest
import torch

from modalign.core import devices
from modalign.errors import ConfigError


def test_names():
    assert devices.resolve("cpu") == torch.device("cpu")
    for wrong in ("gpu7", f"cuda:{torch.cuda.device_count()}"):
        with pytest.raises(ConfigError, match="device"):
            devices.resolve(wrong)


def test_glibc_takes_the_settings_and_others_are_left_alone():
    # Page faults themselves can not be held by a test: the system may reclaim pages meanwhile.
    assert devices.keep_freed_memory() == (platform.libc_ver()[0] == "glibc")
