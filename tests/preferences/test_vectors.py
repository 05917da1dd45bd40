from dataclasses import replace

import numpy as np
import pytest

from modalign.errors import ConfigError, DataError, UnknownName
from modalign.features.history import history_mean
from modalign.preferences.side import training_side
from modalign.preferences.vectors import HistoryMean, Random


def test_the_history_mean_is_that_of_the_features(library):
    side = training_side(library)
    features, present = HistoryMean("image").vectors(side)
    wanted = history_mean(
        library.modalities["image"], library.train.users, library.train.items, library.n_users
    )
    np.testing.assert_array_equal(features, wanted.features)
    np.testing.assert_array_equal(present, wanted.present)
    np.testing.assert_array_equal(
        HistoryMean().vectors(side)[0], HistoryMean("text").vectors(side)[0]
    )
    assert HistoryMean().provenance(side) != HistoryMean("image").provenance(side)


def test_what_is_averaged_must_be_there(library):
    with pytest.raises(UnknownName, match=r"'imag'.*did you mean 'image'"):
        HistoryMean("imag").vectors(training_side(library))
    bare = replace(library, modalities={})
    with pytest.raises(DataError, match="modalign encode"):
        HistoryMean().vectors(training_side(bare))


def test_random_numbers_are_the_seeds_and_only_for_users_in_training(library):
    side = training_side(library)
    features, present = Random(dim=5, seed=1).vectors(side)
    assert features.shape == (library.n_users, 5)
    np.testing.assert_array_equal(np.flatnonzero(present), side.active)
    np.testing.assert_allclose(np.linalg.norm(features[present], axis=1), 1, rtol=1e-6)
    assert not features[~present].any()
    np.testing.assert_array_equal(features, Random(dim=5, seed=1).vectors(side)[0])
    assert (features[present] != Random(dim=5, seed=2).vectors(side)[0][present]).all()
    with pytest.raises(ConfigError, match="dim of provider random"):
        Random(dim=0)
