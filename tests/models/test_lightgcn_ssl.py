"""MMSSL's parts plugged into other models: what they add, and what they leave alone."""

from __future__ import annotations

import torch

from modalign.core import seeds
from modalign.models._registry import get
from modalign.models.bpr import BPR, BPRConfig
from modalign.models.lightgcn import LightGCN, LightGCNConfig
from modalign.models.lightgcn_ssl import LightGCNSSL, LightGCNSSLConfig, SelfSupervised
from modalign.testing.harness import batches, score_all
from modalign.testing.toy import toy_dataset
from modalign.train.trainer import TrainOptions, fit

SPEC = get("lightgcn-ssl")
VIEW = toy_dataset().view()
SMALL = {"embedding_size": 8, "k": 3, "critic_hidden": 8}
OPTIONS = TrainOptions(seed=2, epochs=2, batch_size=64, device="cpu")


def made(**options) -> LightGCNSSL:
    with seeds.torch_seed(1):
        return LightGCNSSL(LightGCNSSLConfig(**{**SMALL, **options}), VIEW)


def test_scores_are_the_hosts() -> None:
    model = made()
    fit(model, VIEW, OPTIONS)
    scores = score_all(SPEC, model, VIEW)
    torch.testing.assert_close(scores, score_all(SPEC, model.host, VIEW), rtol=0, atol=0)


def test_without_either_part_it_trains_as_the_host_alone() -> None:
    model = made(**SPEC.variants["backbone"])
    alone = LightGCN(LightGCNConfig(embedding_size=8), VIEW)
    alone.load_state_dict(model.host.state_dict())
    for one in (model, alone):
        fit(one, VIEW, OPTIONS)
    assert torch.equal(model.host.embeddings, alone.embeddings)


def test_parts_are_added_by_name_and_the_contrast_reaches_the_host() -> None:
    batch = batches(SPEC, VIEW, 64)[0]
    for options, parts in (
        ({}, {"bpr", "reg", "contrast", "generator"}),
        (SPEC.variants["without-asl"], {"bpr", "reg", "contrast"}),
        ({"self_supervision": "autoencoder"}, {"bpr", "reg", "contrast", "autoencoder"}),
        ({"contrast_weight": 0.0}, {"bpr", "reg", "generator"}),
        ({"contrast_negatives": "full"}, {"bpr", "reg", "contrast", "generator"}),
    ):
        model = made(**options).train()
        model.on_epoch(0, seeds.torch_generator(0))
        assert set(model.loss(batch)) == parts
    model.loss(batch)["contrast"].backward()
    assert (model.host.embeddings.grad != 0).any()
    model.zero_grad()
    model.loss(batch)["generator"].backward()
    assert model.host.embeddings.grad is None


def test_a_host_of_plain_tables_learns_with_both_parts() -> None:
    with seeds.torch_seed(1):
        host = BPR(BPRConfig(embedding_size=8, reg=0.0), VIEW)
        model = SelfSupervised(LightGCNSSLConfig(**SMALL, learning_rate=0.02), VIEW, host)
    state = fit(model, VIEW, OPTIONS)
    assert state.history[1]["loss/bpr"] < state.history[0]["loss/bpr"]
    assert {"loss/contrast", "loss/generator", "loss/critic_penalty"} <= set(state.history[0])
    torch.testing.assert_close(
        score_all(SPEC, model, VIEW), score_all(SPEC, host, VIEW), rtol=0, atol=0
    )
