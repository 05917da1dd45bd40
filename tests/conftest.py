"""Settings of all tests."""

import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings

# Helpers of several folders, such as `oracles`, stand beside this file.
sys.path.insert(0, str(Path(__file__).parent))

# A shared or busy machine is no fault of the code under test; and what CI says of a change is
# to be the same when it is asked again. Elsewhere every run draws new examples.
settings.register_profile("modalign", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("modalign")

# No test reads or writes the user's own cache of encoded rows.
os.environ["MODALIGN_CACHE"] = tempfile.mkdtemp(prefix="modalign-cache-")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A cache of encoded rows for each test; it is created when a row is written."""
    name = f"cache-{os.urandom(6).hex()}"
    monkeypatch.setenv("MODALIGN_CACHE", str(tmp_path_factory.getbasetemp() / name))
