"""Pictures from anywhere: what is opened, how large it may be, and how it is read."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from modalign.data import pictures
from modalign.data.pictures import UnreadablePicture, decoded, refusal


def test_postscript_is_never_opened_whatever_its_name(tmp_path, monkeypatch):
    # `Image.open` without a list of formats would read this and start an external interpreter.
    from PIL import EpsImagePlugin

    def started(*_):
        raise AssertionError("an interpreter was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", started)
    for name in ("a.jpg", "a.eps", "a.png"):
        path = tmp_path / name
        path.write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n%%EOF\n"
        )
        with Image.open(path) as picture:
            assert picture.format == "EPS"
        with pytest.raises(UnreadablePicture, match="not a picture of JPEG, PNG"):
            decoded(path)


@pytest.mark.parametrize("name", ["TIFF", "ICO", "PPM", "PDF", "TGA"])
def test_only_the_listed_formats_are_opened(tmp_path, name):
    Image.new("RGB", (8, 8), "red").save(tmp_path / "a.png", name)
    assert refusal(tmp_path / "a.png") == "not a picture of JPEG, PNG, WEBP, GIF or BMP"


@pytest.mark.parametrize("name", pictures.FORMATS)
def test_a_picture_is_read_by_its_content_not_its_ending(tmp_path, name):
    Image.new("RGB", (8, 8), (250, 0, 0)).save(tmp_path / "a.gif", name)
    assert refusal(tmp_path / "a.gif") is None
    red, green, _ = decoded(tmp_path / "a.gif").getpixel((4, 4))
    assert red > 240
    assert green < 10


def _png(width, height, bits, colour):
    def chunk(kind, data):
        code = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", code)

    row = b"\0" + bytes(width * bits * {0: 1, 3: 1, 6: 4}[colour] // 8)
    packed = zlib.compressobj(9)
    rows = b"".join(packed.compress(row) for _ in range(height)) + packed.flush()
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_small_file_of_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    path.write_bytes(_png(10_000, 5_001, 8, 0))
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UnreadablePicture, match="more than 50,000,000 pixels"):
        decoded(path)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process as Linux counts")
def test_the_largest_picture_takes_bounded_memory(tmp_path):
    # Transparent, 12 million pixels: 16 bytes a pixel are 192 MB.
    import subprocess

    (tmp_path / "a.png").write_bytes(_png(4_000, 3_000, 8, 6))
    code = (
        "import resource; from modalign.data.pictures import decoded\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"decoded({str(tmp_path / 'a.png')!r})\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert int(out) * 1024 < 17 * 12_000_000


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_the_camera_is_applied(tmp_path, orientation):
    # Oracle: Pillow's own.
    from PIL import ImageOps

    pixels = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(pixels)
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(tmp_path / "a.png", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(np.asarray(decoded(tmp_path / "a.png")), np.asarray(expected))


def test_damaged_exif_data_say_nothing(tmp_path):
    picture = Image.new("RGB", (6, 4))
    picture.save(tmp_path / "a.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert decoded(tmp_path / "a.jpg").size == (6, 4)


def test_grey_of_16_bits_is_scaled_not_cut_off(tmp_path):
    grey = np.array([[0, 257, 25_700, 65_535]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    assert np.asarray(decoded(tmp_path / "a.png"))[0, :, 0].tolist() == [0, 1, 100, 255]
    held = io.BytesIO()
    Image.fromarray(grey).save(held, "png", transparency=257)
    assert np.asarray(decoded(held))[0, :, 0].tolist() == [0, 255, 100, 255]


def test_a_pipe_is_not_waited_for(tmp_path):
    import os

    os.mkfifo(tmp_path / "a.jpg")
    assert refusal(tmp_path / "a.jpg") == "no such file"


def test_transparent_parts_are_white_and_half_transparent_ones_mixed():
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 51))
    assert [decoded(clear).getpixel((x, 0))[0] for x in (0, 1)] == [255, 204]
