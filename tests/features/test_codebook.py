"""Bags of words as they are, and codebooks against a loop."""

import math

import numpy as np
import pytest

from modalign.core.modality import Modality
from modalign.errors import DataError
from modalign.features.codebook import codebook_bags, word_bags

RNG = np.random.default_rng(0)
CENTRES = np.float32([[5, 0, 0], [0, 5, 0], [0, 0, 5]])
GROUP = np.repeat(np.arange(3), 6)
ROWS = (CENTRES[GROUP] + 0.3 * RNG.normal(size=(18, 3))).astype(np.float32)
PRESENT = np.arange(18) != 7


def modality(features=ROWS, present=PRESENT):
    return Modality("image", np.where(present[:, None], features, 0).astype(np.float32), present)


def test_words_are_kept_and_missing_rows_are_empty():
    spoilt = Modality("text", np.abs(ROWS), PRESENT)
    bags = word_bags(spoilt)
    np.testing.assert_array_equal(bags.toarray()[PRESENT], np.abs(ROWS)[PRESENT])
    assert bags[[7]].nnz == 0
    with pytest.raises(DataError, match="of at least 0"):
        word_bags(modality(-np.abs(ROWS)))


def test_a_codebook_finds_the_groups_and_weighs_by_rarity():
    bags = codebook_bags(modality(), size=3, neighbours=1).toarray()
    word = bags.argmax(1)
    assert len({word[g == GROUP][0] for g in range(3)}) == 3
    assert all(len(set(word[(g == GROUP) & PRESENT])) == 1 for g in range(3))
    np.testing.assert_allclose(np.linalg.norm(bags[PRESENT], axis=1), 1, rtol=1e-6)
    assert not bags[7].any()


def test_soft_weights_item_by_item():
    bags = codebook_bags(modality(), size=3, neighbours=2, temperature=0.5).toarray()
    there = np.flatnonzero(PRESENT)
    unit = ROWS - ROWS[PRESENT].mean(0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    word = bags.argmax(1)
    # Centroids are the means of unit rows of a group.
    centres = np.stack([unit[there][word[there] == w].mean(0) for w in range(3)])
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    found = (bags > 0).sum(0)
    for item in there:
        best = np.argsort(-(centres @ unit[item]))[:2]
        weight = np.exp(centres[best] @ unit[item] / 0.5)
        weight = weight / weight.sum() * [math.log(18 / (1 + found[w])) + 1 for w in best]
        np.testing.assert_allclose(
            bags[item, best], weight / np.linalg.norm(weight), rtol=1e-4, atol=1e-5
        )


def test_a_shift_of_all_features_changes_no_codebook():
    here, there = (
        codebook_bags(modality(ROWS + np.float32(shift)), size=3, neighbours=2).toarray()
        for shift in (0, 20)
    )
    np.testing.assert_allclose(here, there, rtol=1e-3, atol=1e-4)
    bare = [
        codebook_bags(modality(ROWS + np.float32(shift)), 3, 2, centre=False) for shift in (0, 20)
    ]
    assert abs(bare[0] - bare[1]).max() > 0.1


def test_the_same_seed_gives_the_same_codebook_and_sizes_are_cut():
    one, two = (codebook_bags(modality(), size=4, neighbours=9).toarray() for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert codebook_bags(modality(), size=100).shape == (18, 17)
    with pytest.raises(DataError, match="no item with any"):
        codebook_bags(modality(present=np.zeros(18, bool)))


def test_a_bag_is_declared_and_never_guessed_from_the_numbers():
    # Average-pooled picture features have no negative number and many zeros.
    sparse = np.eye(18, 40, dtype=np.float32)
    dense = np.abs(np.random.default_rng(0).normal(size=(18, 40))).astype(np.float32)
    present = np.ones(18, bool)

    def made(features, **facts):
        return Modality("x", features, present, provenance=facts)

    assert made(dense, encoder="mine", bag=True).bag
    assert made(dense, encoder="words").bag  # a file written before encoders declared it
    assert not made(sparse, encoder="efficientnet-lite0", bag=False).bag
    assert not made(sparse, encoder="efficientnet-lite0").bag
    assert not made(sparse, file="image_feat.npy").bag
    assert not made(sparse).bag
