"""The synthetic shop against its own law: what it hides, what it shows, and that it repeats."""

import io
import re

import numpy as np
import polars as pl
import pytest
from PIL import Image

from modalign.data import synthetic
from modalign.data.synthetic import drawing, phrases
from modalign.data.synthetic.drawing import pattern_masks
from modalign.data.synthetic.shapes import DRAWINGS, smooth
from modalign.data.synthetic.texts import write_texts
from modalign.data.synthetic.world import (
    CATEGORIES,
    FAMILIES,
    PARTS,
    TEXTUAL,
    VISUAL,
    make_world,
    sample_interactions,
)
from modalign.errors import ConfigError


@pytest.fixture(scope="module")
def world():
    return make_world(seed=1)


@pytest.fixture(scope="module")
def bought(world):
    return sample_interactions(world)


def small(seed=1, **options):
    return synthetic.generate(seed, n_users=30, n_items=60, mean_per_user=8, **options)


# --- the law of the world -----------------------------------------------------------------


def mutual_information(a, b):
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    joint = table / table.sum()
    expected = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    inside = joint > 0
    return float((joint[inside] * np.log(joint[inside] / expected[inside])).sum())


@pytest.mark.parametrize("look", VISUAL)
@pytest.mark.parametrize("word", [*TEXTUAL, "category"])
def test_looks_say_nothing_of_words(world, look, word):
    a, b = world.codes[look][:, 0], world.codes[word][:, 0]
    rng = np.random.default_rng(0)
    shuffled = [mutual_information(a, rng.permutation(b)) for _ in range(199)]
    # 15 pairs are looked at, and each may be among the rarest by chance: hence far in the tail.
    assert mutual_information(a, b) <= 1.25 * max(shuffled)


def test_the_independence_check_sees_dependence(world):
    category, material = world.codes["category"][:, 0], world.codes["material"][:, 0]
    rng = np.random.default_rng(0)
    shuffled = [mutual_information(category, rng.permutation(material)) for _ in range(99)]
    assert mutual_information(category, material) > 2 * max(shuffled)


def test_an_item_has_two_different_qualities_and_a_material_its_category_knows(world):
    assert (world.codes["quality"][:, 0] != world.codes["quality"][:, 1]).all()
    for category, material in np.hstack([world.codes["category"], world.codes["material"]]):
        assert FAMILIES[material] in phrases.MATERIALS[CATEGORIES[category]]


def test_utilities_are_the_sum_of_their_parts(world):
    users = np.array([5, 0, 700])
    parts = sum(world.utilities(users, (part,)) for part in PARTS)
    np.testing.assert_allclose(world.utilities(users), parts, atol=1e-10)
    np.testing.assert_allclose(world.utilities(users[1:2]), parts[1:2], atol=1e-10)


def test_tastes_have_the_strength_that_the_weights_say(world):
    users = np.arange(50)
    deviation = world.utilities(users, ("visual",)).std(axis=1)
    np.testing.assert_allclose(deviation, world.strength * world.weights[users, 0], rtol=1e-9)
    np.testing.assert_allclose((world.weights**2).sum(axis=1), 1)


def test_utilities_against_a_slow_loop(world):
    """z of the formula, one user, one item at a time."""
    user = 3
    raw = np.zeros(world.n_items)
    emphasis = {"material": 1.2, "occasion": 0.8, "quality": 0.6, "brand": 1.0}
    for item in range(world.n_items):
        for name, weight in emphasis.items():
            for code in world.codes[name][item]:
                raw[item] += weight * world.tastes[name][user, code]
    z = (raw - raw.mean()) / raw.std()
    expected = world.strength * world.weights[user, 1] * z
    np.testing.assert_allclose(world.utilities(np.array([user]), ("textual",))[0], expected)


# --- purchases ----------------------------------------------------------------------------


def test_nobody_buys_the_same_thing_twice(world, bought):
    users, items, times = bought
    assert len(np.unique(users * world.n_items + items)) == len(users)
    assert (np.diff(users) >= 0).all()
    assert (np.diff(times)[np.diff(users) == 0] >= 0).all()


def test_activity_and_popularity_have_a_long_tail(world, bought):
    users, items, _ = bought
    per_user, per_item = np.bincount(users), np.bincount(items, minlength=world.n_items)
    assert 10 < per_user.mean() < 12
    assert per_user.min() >= 5
    head = np.sort(per_item)[::-1][: world.n_items // 10].sum() / per_item.sum()
    assert 0.15 < head < 0.5
    assert (per_item < 5).mean() < 0.25


def test_purchases_follow_the_softmax():
    """One user, many worlds of one draw: frequencies are those of softmax(s)."""
    world = make_world(seed=3, n_users=1, n_items=24, strength=1.0)
    utilities = world.utilities(np.zeros(40_000, dtype=np.int64))
    rng = np.random.default_rng(0)
    many = (utilities + rng.gumbel(size=utilities.shape)).argmax(axis=1)
    chance = np.exp(utilities[0]) / np.exp(utilities[0]).sum()
    np.testing.assert_allclose(np.bincount(many, minlength=24) / len(many), chance, atol=0.01)
    clones = make_world(seed=3, n_users=4000, n_items=24, strength=0.0)
    _, items, _ = sample_interactions(clones, mean_per_user=5)
    popular = np.corrcoef(np.bincount(items, minlength=24), clones.popularity)[0, 1]
    assert popular > 0.95


def oracle_recall(world, bought, parts, k=20):
    """Recall@k where a random fifth is hidden, the rest masked, and the tastes are known."""
    users, items, _ = bought
    hidden = np.random.default_rng(0).random(len(users)) < 0.2
    scores = world.utilities(np.arange(world.n_users), parts)
    scores[users[~hidden], items[~hidden]] = -np.inf
    top = np.argpartition(-scores, k, axis=1)[:, :k]
    found = (top[users[hidden]] == items[hidden, None]).any(axis=1)
    truth = np.bincount(users[hidden], minlength=world.n_users)
    hits = np.bincount(users[hidden], weights=found, minlength=world.n_users)
    return (hits[truth > 0] / truth[truth > 0]).mean()


def test_each_modality_has_its_share_of_what_can_be_won(world, bought):
    recall = {
        parts: oracle_recall(world, bought, parts)
        for parts in [
            ("popularity",),
            ("popularity", "category"),
            ("popularity", "category", "visual"),
            ("popularity", "category", "textual"),
            PARTS,
        ]
    }
    nothing, category, visual, textual, everything = recall.values()
    assert nothing < 0.15
    assert everything > 3 * nothing
    assert nothing < category < min(visual, textual)
    assert everything > 1.3 * max(visual, textual)
    assert 0.7 < visual / textual < 1.4


# --- texts --------------------------------------------------------------------------------

FORBIDDEN = (
    r"red|tomato|orange|mustard|yellow|green|forest|sky|blue|navy|plum|purple|violet|blush|pink|"
    r"charcoal|gr[ae]y|black|white|colou?r\w*|dark|bright|plain|strip\w*|dot\w*|check\w*|floral|"
    r"zigzag|pattern\w*|print\w*|round\w*|angular|square\w*|curv\w*|hexagon\w*|shape\w*"
)


def test_no_text_tells_what_only_pictures_show(world):
    for text in write_texts(world):
        assert not re.search(rf"\b({FORBIDDEN})\b", f"{text.title} {text.description}", re.I)


def test_texts_tell_their_textual_attributes(world):
    for item, text in enumerate(write_texts(world)):
        value = {name: world.values(name)[codes[item, 0]] for name, codes in world.codes.items()}
        title, description = text.title.lower(), text.description
        materials = phrases.MATERIALS[value["category"]][value["material"]]
        assert any(material.lower() in title for material in materials)
        assert any(noun.lower() in title for noun in phrases.NOUNS[value["category"]])
        assert any(short in title for short in phrases.OCCASIONS[value["occasion"]][0])
        assert any(long in description for long in phrases.OCCASIONS[value["occasion"]][1:])
        for code in world.codes["quality"][item]:
            quality = world.values("quality")[code]
            assert any(long in description for long in phrases.QUALITIES[quality][1:])


def test_texts_are_varied_clean_and_long_enough(world):
    texts = write_texts(world)
    assert len({text.description for text in texts}) == len(texts)
    for text in texts:
        assert not re.search(r"[{}]|  |None|\ba [aeio]\w|\ban [^aeiou]", text.description)
        assert not re.search(r"[{}]|  |None|\ba [aeio]\w|\ban [^aeiou]", text.title)
        assert text.title[0].isupper()
        assert 80 < len(text.description) < 400


# --- pictures -----------------------------------------------------------------------------


def test_every_category_has_a_drawing_and_every_text_its_words():
    assert set(DRAWINGS) == set(phrases.NOUNS) == set(CATEGORIES)
    assert set(FAMILIES) == {f for families in phrases.MATERIALS.values() for f in families}


@pytest.mark.parametrize("shape", VISUAL["shape"])
@pytest.mark.parametrize("category", CATEGORIES)
def test_products_fill_the_frame_and_stay_inside(category, shape):
    points = np.concatenate([part.points for part in DRAWINGS[category](shape == "round")])
    assert points.min() > -0.02
    assert points.max() < 1.02
    assert np.prod(np.ptp(points, axis=0)) > 0.35


def test_palette_and_pattern_outweigh_what_means_nothing():
    def middle(look, seed):
        picture = np.asarray(drawing.draw(drawing.Look(*look), np.random.default_rng(seed)))
        return picture[40:88, 40:88].reshape(-1, 3).astype(float)

    plain = [middle(("T-shirt", "sky", "plain", "round"), seed) for seed in range(8)]
    red = [middle(("T-shirt", "tomato", "plain", "round"), seed) for seed in range(8)]
    checks = [middle(("T-shirt", "sky", "checks", "round"), seed) for seed in range(8)]
    means = np.array([[one.mean(axis=0) for one in kind] for kind in (plain, red)])
    within = np.ptp(means, axis=1).max()
    assert np.abs(means[0].mean(axis=0) - means[1].mean(axis=0)).max() > 3 * within
    assert min(c.std(axis=0).max() for c in checks) > 3 * max(p.std(axis=0).max() for p in plain)


@pytest.mark.slow
def test_pictures_tell_their_palette_by_plain_colour_statistics():
    """A nearest-mean rule on the frame's middle names palettes that it has not fitted."""
    world = make_world(seed=5, n_users=1, n_items=200)
    middle = np.stack(
        [
            np.asarray(drawing.draw_item(world, i))[32:96, 32:96].reshape(-1, 3)
            for i in range(world.n_items)
        ]
    )
    # The colour most unlike grey says more of the palette than the mean, which patterns wash out.
    spread = np.ptp(middle.astype(float), axis=2)
    seen = np.quantile(middle, [0.1, 0.3, 0.5], axis=1).transpose(1, 0, 2).reshape(len(middle), -1)
    seen = np.hstack([seen, np.quantile(spread, [0.5, 0.8], axis=1).T])
    palette = world.codes["palette"][:, 0]
    means = np.stack([seen[:100][palette[:100] == p].mean(axis=0) for p in range(8)])
    guess = np.linalg.norm(seen[100:, None] - means, axis=2).argmin(axis=1)
    assert (guess == palette[100:]).mean() > 0.5  # chance is 0.125


@pytest.mark.parametrize("pattern", VISUAL["pattern"])
def test_pattern_masks_do_not_overlap_and_leave_the_base(pattern):
    for variant in range(6):
        light, dark = (np.asarray(m) > 0 for m in pattern_masks(pattern, variant, 200))
        assert not (light & dark).any()
        assert (light | dark).mean() < 0.8
        assert (light.mean() > 0.1) == (pattern != "plain")


def test_cutting_corners_keeps_inside_the_polygon_and_its_centre():
    square = np.array([(0, 0), (1, 0), (1, 1), (0, 1)], dtype=float)
    curve = smooth(square, 5)
    assert curve.min() >= 0
    assert curve.max() <= 1
    np.testing.assert_allclose(curve.mean(axis=0), 0.5)
    # The limit is the quadratic B-spline, whose curve through an edge's middle touches it.
    np.testing.assert_allclose(curve[:, 1].min(), 0, atol=1e-12)


# --- the table and the folder -------------------------------------------------------------


@pytest.mark.slow
def test_same_seed_same_bytes_and_another_seed_another_shop():
    first, again, other = small(1), small(1), small(2)
    assert first.items.equals(again.items)
    assert first.interactions.collect().equals(again.interactions.collect())
    assert not first.interactions.collect().equals(other.interactions.collect())
    for column in ("title", "description", "picture"):
        kept = [raw.items[column].to_list() for raw in (first, other)]
        assert sum(a == b for a, b in zip(*kept, strict=True)) < 6


def test_a_picture_does_not_depend_on_the_size_of_the_shop_around_it():
    """Drawing is seeded per item, so pictures may be drawn in any order or in part."""
    world = make_world(seed=4, n_users=1, n_items=5)
    picture = drawing.encode(drawing.draw_item(world, 3))
    drawing.draw_item(world, 0)
    assert drawing.encode(drawing.draw_item(world, 3)) == picture


@pytest.mark.slow
def test_it_says_that_it_is_synthetic(tmp_path):
    raw = synthetic.write(tmp_path / "shop", seed=1, n_users=12, n_items=40, mean_per_user=6)
    assert raw.name == "synthetic-shop"
    assert raw.info["synthetic"] is True
    assert "invented" in (tmp_path / "shop" / "README.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_what_goes_missing_is_null_and_counted():
    raw = small(no_picture=0.1, no_description=0.05)
    assert raw.items["picture"].null_count() == 6
    assert raw.items["description"].null_count() == 3
    assert raw.items["title"].null_count() == 0
    everything = small(no_picture=0, no_description=0)
    assert everything.items.null_count().sum_horizontal().item() == 0


@pytest.mark.slow
def test_written_folder_is_what_generate_returns(tmp_path):
    folder = tmp_path / "shop"
    written = synthetic.write(folder, seed=1, n_users=30, n_items=60, mean_per_user=8)
    made = small(1)
    assert written.items.drop("image").equals(made.items.drop("picture"))
    assert pl.read_csv(folder / "interactions.csv").equals(made.interactions.collect())
    table = pl.read_csv(folder / "items.csv")
    assert table["title"].to_list() == made.items["title"].to_list()
    for path, picture in zip(written.items["image"], made.items["picture"], strict=True):
        assert (path is None) == (picture is None)
        if path is not None:
            assert (folder / path).read_bytes() == picture
    assert written.items["image"].null_count() == 2
    image = Image.open(io.BytesIO(made.items["picture"].drop_nulls()[0]))
    assert image.size == (drawing.SIZE, drawing.SIZE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"n_users": 0}, "n_users"),
        ({"n_items": 0}, "n_items"),
        ({"mean_per_user": 4}, "mean_per_user"),
        ({"mean_per_user": 900}, "mean_per_user"),
        ({"no_picture": 1.5}, "no_picture"),
        ({"no_description": -0.1}, "no_description"),
    ],
)
def test_what_is_out_of_bounds_is_refused(options, said):
    with pytest.raises(ConfigError, match=said):
        synthetic.generate(pictures=False, **options)


@pytest.mark.parametrize("strength", [-1.0, float("nan"), float("inf")])
def test_strength_out_of_bounds_is_refused(strength):
    with pytest.raises(ConfigError, match="strength"):
        make_world(strength=strength)
