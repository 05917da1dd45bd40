import numpy as np
import pytest
from PIL import Image

from modalign.encoding.encode import encode
from modalign.encoding.encoders.encoder import UnreadableInput, make_encoder
from modalign.encoding.encoders.image import read_picture

pytest.importorskip("efficientnet_lite_pytorch", reason="wants the extra `encoders`")


@pytest.mark.slow
def test_efficientnet_rows_presence_and_broken_pictures(shop):
    out, report = encode(shop, "image")
    image = out.modalities["image"]
    assert image.dim == 1280
    assert image.present.tolist() == [True, True, False, True, False, True, True, True]
    assert report.corrupt == (
        ("i4", "not a picture of JPEG, PNG, WEBP, GIF or BMP (images/i4.png)"),
    )
    encoder = make_encoder(None, "image")
    alone = encoder.encode([shop.image_path(5)])[0]
    np.testing.assert_allclose(image.features[5], alone, atol=2e-5)


@pytest.mark.slow
def test_a_transformers_vision_model_with_its_own_preprocessing(tmp_path):
    # Oracle: the model called by hand on the processor's pixels.
    import torch
    import transformers
    from transformers import ViTConfig, ViTModel

    size = {"height": 32, "width": 32}
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8,
        image_size=32, patch_size=8,
    )  # fmt: skip
    model = ViTModel(config).eval()
    model.save_pretrained(tmp_path)
    # Version 5.5 renamed the processor that works on pillow images.
    processor_class = getattr(transformers, "ViTImageProcessorPil", transformers.ViTImageProcessor)
    processor = processor_class(size=size)
    processor.save_pretrained(tmp_path)
    picture = Image.linear_gradient("L").convert("RGB")
    encoder = make_encoder(f"hf:{tmp_path}", "image")
    pixels = processor(images=[picture], return_tensors="pt")["pixel_values"]
    with torch.inference_mode():
        expected = model(pixels).last_hidden_state.mean(dim=1).numpy()
    np.testing.assert_allclose(encoder.encode([picture]), expected, atol=1e-6)
    assert encoder.dim == 16


def test_unreadable_pictures(tmp_path):
    whole, cut = tmp_path / "whole.jpg", tmp_path / "cut.jpg"
    Image.radial_gradient("L").save(whole)
    cut.write_bytes(whole.read_bytes()[:500])
    with pytest.raises(UnreadableInput, match="broken picture"):
        read_picture(cut)
    with pytest.raises(UnreadableInput, match="no such file"):
        read_picture(tmp_path / "none.jpg")


def test_transparent_parts_are_white():
    assert read_picture(Image.new("RGBA", (2, 2), (9, 9, 9, 0))).getpixel((0, 0)) == (255, 255, 255)
