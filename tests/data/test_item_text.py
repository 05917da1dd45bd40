"""HTML in texts of items, and the columns that make these texts."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalign.data.frames import from_frame
from modalign.data.item_text import default_columns, strip_html
from modalign.encoding.encode import encodable, item_texts, text_columns
from modalign.errors import ConfigError, UnknownName

PAIRS = pl.DataFrame(
    [(u, i) for u in range(6) for i in range(5)], schema=["user", "item"], orient="row"
)


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<p>A &amp; B</p>", "A & B"),
        ("one<br/>two<BR>three", "one\ntwo\nthree"),
        ("<ul>\n  <li>red</li>\n  <li>blue</li>\n</ul>", "red\nblue"),
        ("<tr><th>Colour</th><td>Red</td></tr><tr><td>a</td><td>b</td></tr>", "Colour: Red\na, b"),
        ("<dl><dt>Weight</dt><dd>3&nbsp;kg</dd></dl>", "Weight: 3 kg"),
        ("H<sub>2</sub>O and <b>bo</b>ld", "H2O and bold"),
        ("<style>p {a: b}</style><script>if (a<b) {}</script>x<!-- <p> -->y", "xy"),
        ('<a title="1 > 0" href=x>link</a>', "link"),
        ("<p don't>text</p>", "text"),
        ("<p\nclass=a>Hi\n there</p>", "Hi there"),
        ("&lt;p&gt;escaped &amp;amp; twice&lt;/p&gt;", "escaped & twice"),
        ("&#39;caf&eacute;&#x27; &#128512;", "'café' 😀"),
        ("cut off <a href='http", "cut off"),
        ("<p></p>", None),
        (None, None),
    ],
)
def test_html_becomes_text(page, text):
    # Beside another text, as the whole column must not be changed for one cell.
    assert strip_html(pl.Series([page, "a\n\nb"])).to_list() == [text, "a\n\nb"]


@pytest.mark.parametrize(
    "text", ["a < b > c", "<3", "AT&T; R&D", "Vec<T>", "<unknown> artist", "x &c.", "&nosuch;", ""]
)
def test_what_is_no_html_is_kept(text):
    assert strip_html(pl.Series([text])).to_list() == [text]


@settings(max_examples=300, deadline=None)
@given(st.text("<>&;/ pbi\"'=!-\n#1xé", max_size=40))
def test_no_tag_is_left_and_no_word_lost(text):
    found = strip_html(pl.Series([f"<div>{text}</div>word"]))[0]
    assert "word" in found or "<!--" in text or "<" in text
    assert "<div>" not in found
    assert "</p>" not in found


def test_long_broken_markup_takes_no_longer_than_other_text():
    for bad in ("<a ", "<!--", '<p "', "<script>", "&amp"):
        assert len(strip_html(pl.Series([bad * 100_000 + "&amp;"]))) == 1


def test_the_text_of_an_item_is_chosen_stored_and_encoded(tmp_path):
    items = pl.DataFrame(
        {
            "item": range(5),
            "prod_name": [f"Shirt {i}" for i in range(5)],
            "Brand": ["A"] * 5,
            "detail_desc": ["<p>Soft &amp; warm</p>"] * 5,
            "note": ["n"] * 5,
            "year": [2001, 2002, 2003, 2004, None],
        }
    )
    usual = from_frame(PAIRS, items=items)
    assert text_columns(usual) == ["title", "Brand", "description"]
    assert item_texts(usual, text_columns(usual))[0] == "Shirt 0. A. Soft & warm"
    assert any("HTML was removed from 5 of 5 cells" in one for one in usual.info["remarks"])
    made = from_frame(
        PAIRS, items=items, out=tmp_path / "d", text_columns=["prod_name", "note", "year"]
    )
    assert made.info["text_columns"] == ["title", "note", "year"]
    assert text_columns(made) == ["title", "note", "year"]
    assert item_texts(made, text_columns(made))[::4] == ["Shirt 0. n. 2001", "Shirt 4. n."]
    assert encodable(made) == ["text"]


def test_columns_that_cannot_make_a_text_are_refused():
    items = pl.DataFrame({"item": range(5), "name": ["x"] * 5, "parts": [[[1]]] * 5})
    with pytest.raises(UnknownName, match="title"):
        from_frame(PAIRS, items=items, text_columns=["nam"])
    with pytest.raises(ConfigError, match="parts"):
        from_frame(PAIRS, items=items, text_columns=["parts"])
    for names in ([], ["title", "title"]):
        with pytest.raises(ConfigError, match="once"):
            from_frame(PAIRS, items=items, text_columns=names)


def test_default_columns_are_in_a_fixed_order_whatever_their_case():
    schema = dict.fromkeys(["item_id", "Description", "CATEGORY", "Title", "x"], pl.String)
    assert default_columns(schema) == ["Title", "CATEGORY", "Description"]
    assert default_columns({"title": pl.Int64, "tags": pl.List(pl.String)}) == ["tags"]
