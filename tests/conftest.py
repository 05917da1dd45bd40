"""Settings of all tests."""

import os
import sys
from pathlib import Path

from hypothesis import settings

# Helpers of several folders, such as `oracles`, stand beside this file.
sys.path.insert(0, str(Path(__file__).parent))

# A shared or busy machine is no fault of the code under test; and what CI says of a change is
# to be the same when it is asked again. Elsewhere every run draws new examples.
settings.register_profile("modalign", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("modalign")
