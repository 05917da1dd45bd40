"""Devices by name, and memory that stays with the process."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from modalign import devices
from modalign.errors import ConfigError

FAULTS = """
import resource, torch
from modalign import devices
if {keep}:
    assert devices.keep_freed_memory()
def step():
    a = torch.ones(1_500_000); b = torch.ones(1_500_000); del a, b
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10): step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_names():
    assert devices.resolve("cpu") == torch.device("cpu")
    for wrong in ("gpu7", f"cuda:{torch.cuda.device_count()}"):
        with pytest.raises(ConfigError, match="device"):
            devices.resolve(wrong)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_used_again_without_page_faults():
    run = subprocess.run(
        [sys.executable, "-c", FAULTS.format(keep=True)], capture_output=True, text=True, check=True
    )
    assert int(run.stdout) < 2_000  # 12 MB in pages of 4 KB, ten times over, are 29,000
