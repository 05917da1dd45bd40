import json

import pytest
import torch
from asked_model import ignore

from modalign.errors import ConfigError
from modalign.preferences.language_model import LanguageModelProvider
from modalign.preferences.local_model import LocalTransformers
from modalign.preferences.provider import ModelAnswer, Refusal
from modalign.preferences.side import training_side

transformers = pytest.importorskip("transformers", reason="wants the extra `encoders`")

CHAT = "{% for m in messages %}<u> {{ m['content'] }} <a>{% endfor %}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of two layers with random weights that knows some forty words."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<pad>", "<end>", "<unk>", "<u>", "<a>", *(f"w{n}" for n in range(36))]
    plain = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, "<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokens = transformers.PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=len(words), n_positions=64, n_embd=16, n_layer=2, n_head=2,
        bos_token_id=1, eos_token_id=1, pad_token_id=0, initializer_range=0.8,
    )  # fmt: skip
    where = tmp_path_factory.mktemp("gpt")
    transformers.GPT2LMHeadModel(config).save_pretrained(where)
    tokens.save_pretrained(where)
    return where


PROMPTS = ["w1 w2 w3", "w4", "w5 w6 w7 w8 w9 w10", "w11 w12", "w13 w14 w15"]


def slow(folder, prompt, n):
    """The likeliest token, one after the other, without any cache."""
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.GPT2LMHeadModel.from_pretrained(folder).eval()
    ids = tokens(prompt)["input_ids"]
    said = []
    for _ in range(n):
        with torch.inference_mode():
            said.append(int(model(torch.tensor([ids + said])).logits[0, -1].argmax()))
        if said[-1] == model.config.eos_token_id:
            break
    return tokens.decode(said, skip_special_tokens=True)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.slow
def test_answers_are_the_likeliest_tokens(folder, batch_size):
    model = LocalTransformers(folder, batch_size=batch_size, max_tokens=6)
    got = dict(model.answers(PROMPTS))
    assert sorted(got) == list(range(len(PROMPTS)))
    for place, prompt in enumerate(PROMPTS):
        answer = got[place]
        assert isinstance(answer, ModelAnswer)
        assert answer.text == slow(folder, prompt, 6)
        assert answer.tokens_in == len(prompt.split())
    assert len({answer.text for answer in got.values()}) > 1


def test_a_chat_template_is_used_where_there_is_one(folder, tmp_path):
    tokens = transformers.AutoTokenizer.from_pretrained(folder)
    tokens.chat_template = CHAT
    tokens.save_pretrained(tmp_path)
    transformers.GPT2LMHeadModel.from_pretrained(folder).save_pretrained(tmp_path)
    (got,) = dict(LocalTransformers(tmp_path, max_tokens=5).answers(["w1 w2"])).values()
    assert got.text == slow(folder, "<u> w1 w2 <a>", 5)
    assert got.tokens_in == 4


def test_a_prompt_past_the_context_is_refused(folder):
    got = dict(LocalTransformers(folder, max_tokens=10).answers(["w1 " * 55, "w2"]))
    assert isinstance(got[1], ModelAnswer)
    assert got[0] == Refusal(
        "55 tokens of the prompt and 10 of its answer exceed the model's context of 64"
    )


def test_an_identity_is_that_of_the_weights(folder, tmp_path):
    one = LocalTransformers(folder, max_tokens=5).identity()
    assert one == LocalTransformers(folder, max_tokens=5).identity()
    assert str(folder) not in json.dumps(one)
    torch.manual_seed(1)
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    assert LocalTransformers(tmp_path, max_tokens=5).identity() != one


def test_users_of_a_data_set_are_described(folder, library, tmp_path):
    config = transformers.AutoConfig.from_pretrained(folder)
    config.n_positions = 400
    torch.manual_seed(2)
    transformers.GPT2LMHeadModel(config).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    side = training_side(library)
    model = LocalTransformers(tmp_path, max_tokens=3, batch_size=16)
    told = LanguageModelProvider(model, max_items=2).describe(side, ignore)
    assert told.failures == ()
    assert {told.sources[row] for row in side.active.tolist()} <= {"model", "template"}
    assert all(told.texts[row] for row in side.active.tolist())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size of provider local"),
        ({"max_tokens": 0}, "max_tokens of provider local"),
    ],
)
def test_options_out_of_their_bounds_are_told(options, words, folder):
    with pytest.raises(ConfigError, match=words):
        LocalTransformers(folder, **options)


def test_a_folder_without_a_model_is_told(tmp_path):
    with pytest.raises(ConfigError, match=r"has no config\.json"):
        LocalTransformers(tmp_path)
    with pytest.raises(ConfigError, match="is not a folder"):
        LocalTransformers(tmp_path / "none")
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ConfigError):
        LocalTransformers(tmp_path)
    (tmp_path / "config.json").write_text("{ not json")
    with pytest.raises(ConfigError):
        LocalTransformers(tmp_path)
