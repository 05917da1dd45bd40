import pytest

from modalign.core import settings
from modalign.core.interfaces import MultimodalConfig, TrainedConfig
from modalign.errors import ConfigError


def test_assignments_read_numbers_lists_and_words():
    found = settings.parse_assignments(
        ["learning_rate=1e-3", "modalities=[text, image]", "missing=zero", "n=3", "on=true", "x="]
    )
    assert found == {
        "learning_rate": 0.001,
        "modalities": ["text", "image"],
        "missing": "zero",
        "n": 3,
        "on": True,
        "x": None,
    }


@pytest.mark.parametrize("text", ["learning_rate", "=3", "a=[1,"])
def test_a_malformed_assignment_is_told(text):
    with pytest.raises(ConfigError, match="Expected"):
        settings.parse_assignments([text])


def test_an_unknown_key_is_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean 'embedding_size'"):
        settings.build(TrainedConfig, {"embeding_size": 3}, "model x")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("embedding_size", 0, "greater than or equal to 1"),
        ("learning_rate", -1, "greater than 0"),
        ("learning_rate", "fast", "valid number"),
        ("optimizer", "sgd", "'adam' or 'adamw'"),
        ("missing", "guess", "'zero', 'mean'"),
        ("epochs", 1.5, "valid integer"),
    ],
)
def test_a_value_out_of_bounds_is_told_with_bounds_and_default(key, value, said):
    with pytest.raises(ConfigError, match=said) as caught:
        settings.build(MultimodalConfig, {key: value}, "model x")
    assert "its default is" in caught.value.fix
    assert repr(value) in caught.value.got


def test_yaml_file_and_its_mistakes(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("learning_rate: 1e-2\nepochs: 3\n")
    assert settings.read_yaml(path) == {"learning_rate": 0.01, "epochs": 3}
    path.write_text("")
    assert settings.read_yaml(path) == {}
    path.write_text("- 1\n- 2\n")
    with pytest.raises(ConfigError, match="got list"):
        settings.read_yaml(path)
    path.write_text("a: [1\nb: 2")
    with pytest.raises(ConfigError, match="line 2"):
        settings.read_yaml(path)
    with pytest.raises(ConfigError, match="No such file"):
        settings.read_yaml(tmp_path / "none.yaml")
