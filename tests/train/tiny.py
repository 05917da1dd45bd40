"""A model and data small enough to train by hand; imported by the tests of this folder."""

import torch
from torch import nn

from modalign.core.interfaces import OptimizerSettings, Phase, Recommender, TrainedConfig
from modalign.core.view import TrainView


def tiny_view(n_users=30, n_items=20, n=200, seed=0):
    rng = torch.Generator().manual_seed(seed)
    keys = torch.randperm(n_users * n_items, generator=rng)[:n].sort().values
    return TrainView(n_users, n_items, keys // n_items, keys % n_items)


class Tiny(Recommender):
    """Dot products with a hinge that is redrawn: touches every hook."""

    needs = ("negatives",)
    resamples = True

    def __init__(self, config, view, two_phases=False):
        super().__init__(config, view)
        self.user = nn.Parameter(torch.randn(view.n_users, config.embedding_size))
        self.item = nn.Parameter(torch.randn(view.n_items, config.embedding_size))
        self.register_buffer("noise", torch.zeros(()), persistent=False)
        self.two_phases = two_phases
        self.calls = []

    def phases(self):
        settings = OptimizerSettings(0.01, 0.1, "adamw", decay=0.9)
        if not self.two_phases:
            return [Phase("main", [self.user, self.item], settings)]
        return [Phase("users", [self.user], settings), Phase("items", [self.item], settings, 2)]

    def loss(self, batch, phase="main"):
        u = self.user[batch.users]
        margin = (u * (self.item[batch.positives] - self.item[batch.negatives])).sum(1)
        return {
            "rank": nn.functional.softplus(-margin + self.noise).mean(),
            "l2": 0.01 * u.pow(2).mean(),
        }

    def on_epoch(self, epoch, rng):
        self.noise.copy_(torch.rand((), generator=rng))

    def after_step(self, step, batch, rng):
        self.noise.copy_(torch.rand((), generator=rng))

    def tables(self):
        return self.user, self.item


def tiny_model(view, two_phases=False):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return Tiny(TrainedConfig(embedding_size=8), view, two_phases)
