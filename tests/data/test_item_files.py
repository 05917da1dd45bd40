"""Files of items: found by id, never from outside of a folder, counted where they are not taken."""

from pathlib import Path

import polars as pl
import pytest
from PIL import Image

import modalign
from modalign.data.item_files import existing, find, place, stored, within
from modalign.data.prepare import prepare
from modalign.data.sources.flat_table import read


def picture(path: Path, colour: str = "red") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4), colour).save(path, "png")
    return path


def test_sub_folders_are_searched_and_what_is_not_taken_is_counted(tmp_path):
    root = tmp_path / "pictures"
    picture(root / "010" / "0108775015.jpg")
    picture(root / "011" / "0118458003.jpg")
    picture(root / "012" / "0108775015.png")
    picture(root / ".hidden.png")
    picture(tmp_path / "secret.png")
    (root / "notes.txt").write_text("")
    (root / "more.txt").write_text("")
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "gone.png").symlink_to(root / "nothing.png")
    (root / "folder").symlink_to(tmp_path)
    (root / "same.png").symlink_to(root / "010" / "0108775015.jpg")
    remarks: list[str] = []
    found = find(root, remarks=remarks)
    assert found["item_id"].to_list() == ["same", "0108775015", "0118458003"]
    assert set(remarks) == {
        "2 of the pictures not taken: ends in .txt (more.txt, notes.txt)",
        "1 of the pictures not taken: hidden files (.hidden.png)",
        "1 of the pictures not taken: outside of the folder (out.png)",
        "1 of the pictures not taken: no such file (gone.png)",
        "1 of the pictures not taken: symbolic links to folders (folder)",
        "1 of the pictures not taken: another file of the same item (012/0108775015.png)",
    }


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("../secret.png", "outside of the folder"),
        ("a/../../secret.png", "outside of the folder"),
        ("{root}/secret.png", "outside of the folder"),
        ("link.png", "outside of the folder"),
        ("linked/secret.png", "outside of the folder"),
        ("https://a.b/c.jpg", "an address of the web, which is not fetched"),
        ("none.png", "no such file"),
        ("a" * 5000, "no such file"),
        ("a\0b", "no such file"),
    ],
)
def test_a_column_of_paths_never_leads_out_of_the_folder_of_its_table(tmp_path, name, why):
    shop = tmp_path / "shop"
    picture(shop / "own.png")
    picture(tmp_path / "secret.png")
    (shop / "link.png").symlink_to(tmp_path / "secret.png")
    (shop / "linked").symlink_to(tmp_path)
    names = pl.Series("image", [name.format(root=tmp_path), "own.png", f"{shop}/own.png", "", None])
    remarks: list[str] = []
    own = str(shop / "own.png")
    assert within(names, shop, "image", remarks).to_list() == [None, own, own, None, None]
    assert len(remarks) == 1
    assert remarks[0].startswith(f"1 of the pictures not taken: {why}")


def test_import_takes_only_pictures_and_says_what_it_left(tmp_path):
    for name in ("1", "2", "3"):
        picture(tmp_path / "pictures" / f"{name}.png")
    picture(tmp_path / "pictures" / "99.png")
    (tmp_path / "pictures" / "4.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n{} loop\n")
    (tmp_path / "pictures" / "5.jpg").write_bytes(b"<svg/>")
    pairs = pl.DataFrame({"user": [u for u in range(6) for _ in range(6)], "item": [*range(6)] * 6})
    made = prepare(read(pairs, images=tmp_path / "pictures"), tmp_path / "shop", split="ratio")
    assert made.item_table["image"].is_not_null().to_list() == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    told = [one for one in made.info["remarks"] if "pictures" in one]
    assert told == [
        "2 of the pictures not taken: not a picture of JPEG, PNG, WEBP, GIF or BMP (4, 5)",
        "1 of the pictures not taken: of no item with interactions (99)",
    ]


def test_ids_of_any_length_and_script_are_stored_and_nothing_is_linked(tmp_path):
    ids = ["a/b", "..", "A", "a", "日本" * 300, "CON", "a\0b", "é", "e\u0301", " ", "%2e"]
    source = picture(tmp_path / "one.png")
    table = pl.DataFrame({"item_id": ids, "image": [str(source)] * len(ids)})
    placed = place(table, tmp_path / "out")
    files = [tmp_path / "out" / name for name in placed["image"]]
    assert len({path.name.lower() for path in files}) == len(ids)
    assert {path.parent for path in files} == {tmp_path / "out" / "images"}
    for path in files:
        assert path.read_bytes() == source.read_bytes()
        assert path.stat().st_nlink == 1
    again = place(table, tmp_path / "again")
    assert again.equals(placed)


def test_a_data_folder_does_not_lead_out_of_itself(tmp_path):
    picture(tmp_path / "secret.png")
    folder = tmp_path / "data"
    picture(folder / "images" / "a.png")
    (folder / "images" / "b.png").symlink_to(tmp_path / "secret.png")
    assert stored(folder, "images/a.png") == folder / "images" / "a.png"
    for name in ("../secret.png", "images/b.png", None, ""):
        assert stored(folder, name) is None
    assert stored(folder, str(tmp_path / "linked.png")) == tmp_path / "linked.png"


def test_sounds_and_videos_are_found_joined_and_stored(tmp_path):
    for kind, ending in (("audio", "mp3"), ("video", "mp4")):
        (tmp_path / kind).mkdir()
        for item in range(3):
            (tmp_path / kind / f"{item}.{ending}").write_text(f"{kind} {item}")
        (tmp_path / kind / "3.doc").write_text("")
    pairs = pl.DataFrame({"user": [u for u in range(6) for _ in range(6)], "item": [*range(6)] * 6})
    raw = read(pairs, audio=tmp_path / "audio", video=tmp_path / "video")
    made = prepare(raw, tmp_path / "shop", split="ratio")
    for kind, word in (("audio", "sounds"), ("video", "videos")):
        names = made.item_table[kind].to_list()
        assert [None if n is None else (tmp_path / "shop" / n).read_text() for n in names] == [
            *(f"{kind} {item}" for item in range(3)), None, None, None,
        ]  # fmt: skip
        assert f"1 of the {word} not taken: ends in .doc (3.doc)" in made.info["remarks"]
    copied = made.save(tmp_path / "copy")
    assert (tmp_path / "copy" / copied.item_table["audio"][0]).read_text() == "audio 0"


def test_the_table_names_sounds_by_its_column(tmp_path):
    (tmp_path / "sounds").mkdir()
    (tmp_path / "sounds" / "x.wav").write_text("x")
    (tmp_path / "items.csv").write_text("item_id,audio\n0,sounds/x.wav\n1,../y.wav\n")
    pairs = pl.DataFrame({"user": [0], "item": [0]})
    raw = read(pairs, items=tmp_path / "items.csv")
    assert raw.items["audio"].to_list() == [str(tmp_path / "sounds" / "x.wav"), None]


def test_a_folder_without_such_files_is_refused_with_what_is_there(tmp_path):
    (tmp_path / "a.txt").write_text("")
    with pytest.raises(modalign.errors.DataError, match=r"1 of the sounds not taken: ends in .txt"):
        read(pl.DataFrame({"user": [0], "item": [0]}), audio=tmp_path)


def test_a_missing_file_is_counted_with_its_item(tmp_path):
    table = pl.DataFrame({"item_id": ["a", "b"], "image": [None, str(tmp_path / "b.png")]})
    found, remarks = existing(table)
    assert found["image"].to_list() == [None, None]
    assert remarks == ["1 of the pictures not taken: no such file (b)"]
