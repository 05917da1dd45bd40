"""The optimizer with its moments made beforehand, against torch's own."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from modalign.core.interfaces import OptimizerSettings, Phase
from modalign.train import optim


@pytest.mark.parametrize(
    ("kind", "cls"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_it_steps_as_torchs_does_and_needs_no_memory_for_it(kind, cls):
    settings = OptimizerSettings(learning_rate=0.1, weight_decay=0.01, kind=kind, betas=(0.8, 0.9))
    mine, theirs = (
        [nn.Parameter(torch.arange(6.0).view(2, 3)), nn.Parameter(torch.ones(4))] for _ in range(2)
    )
    ours = optim.build(Phase("main", mine, settings))
    other = cls(theirs, lr=0.1, weight_decay=0.01, betas=(0.8, 0.9), fused=True)
    moments = [ours.state[one][name] for one in mine for name in ("exp_avg", "exp_avg_sq")]
    for step in range(5):
        for params, optimizer in ((mine, ours), (theirs, other)):
            optimizer.zero_grad()
            first, second = params
            (first.square().sum() * (step + 1) + second.sin().sum()).backward()
            optimizer.step()
        assert_close(mine, theirs, rtol=0, atol=0)
    after = [ours.state[one][name] for one in mine for name in ("exp_avg", "exp_avg_sq")]
    assert [one.data_ptr() for one in moments] == [one.data_ptr() for one in after]
    assert ours.param_groups[0]["fused"]
