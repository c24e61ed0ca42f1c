"""The page that ``kvstore inspect … --html`` writes, as a text. (In a browser: test_inspect_in_a_browser.py.)"""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from kvstore.tools.inspection import page

import kvstore
from kvstore.ui.document import embed_json
from kvstore.ui.shown import key_id, key_of, named, shown_value
from tests.tools.inspected_page import page_in


def test_data_in_a_page_cannot_end_its_script() -> None:
    """No markup survives in embedded data, and it is still the same JSON."""
    value = {"</script>": ["<!--", "&lt;", "]]>", "\u2028"]}
    text = embed_json(value)
    assert not set("<>&\u2028") & set(text)
    assert json.loads(text) == value


def test_a_page_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    """No address, no second file, and a policy that would forbid loading one."""
    text = re.sub(r'(?s)<script type="application/json".*?</script>', "", page_in(tmp_path).read_text())
    loaded = re.findall(r"""(?:src|href)\s*=|url\(|@import|fetch\(|XMLHttpRequest|import\(""", text)
    assert loaded == []
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {
        "http://www.w3.org/2000/svg"
    }  # a name, never fetched
    assert "default-src 'none'" in text


def test_a_caution_stands_above_all(tmp_path: Path) -> None:
    """As text."""
    with kvstore.open(tmp_path / "store") as store:
        text = "".join(page.render(store, "title", caution="not <checked>"))
    assert '<p class="caution" role="alert">not &lt;checked&gt;</p>' in text.partition("<main>")[0]


@given(st.lists(st.binary(min_size=1, max_size=40) | st.text(min_size=1).map(str.encode), unique=True))
@example(
    [b"\\x00", b"\x00", b"\\\\x00", "\u0100".encode(), b"\\u0100", b"x" * 1000, b"x" * 1001, b"x" * 1002]
)
def test_each_key_has_an_address_of_its_own(keys: list[bytes]) -> None:
    """In a saved page a name, or an id where names are cut; in a live one an id that leads back to the key."""
    assert len({tuple(named(key).items()) for key in keys}) == len(keys)
    assert len({json.dumps(named(key).get("id", named(key)["name"])) for key in keys}) == len(keys)
    assert [key_of(key_id(key)) for key in keys] == keys
    assert all(key_id(key).isascii() and not set(key_id(key)) & set('&=#<>"\\ ') for key in keys)


@given(st.binary() | st.text().map(str.encode))
def test_any_value_can_be_shown(value: bytes) -> None:
    """As JSON that says how much of it is left out."""
    shown = shown_value(value, 10)
    assert json.loads(json.dumps(shown)) == shown
    assert len(shown["text"]) <= 10
    assert shown["form"] in ("json", "yaml", "text", "bytes")
    assert ("cut" in shown) == (shown_value(value, 1 << 20)["text"] != shown["text"])


def test_values_beyond_what_a_page_can_hold_are_said_to_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of all values together the page has so many characters."""
    monkeypatch.setattr(page, "TEXTS_CHARS_MAX", 25)
    with kvstore.open(tmp_path / "store") as store:
        for number in range(4):
            store.put(b"%d" % number, b"0123456789")
        text = "".join(page.render(store, "title"))
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
    assert match is not None
    shown = [version for key in json.loads(match[1])["keys"] for version in key["versions"]]
    assert sorted(len(version["text"]) for version in shown) == [0, 5, 10, 10]
    assert [("cut" in version) for version in shown] == [len(version["text"]) < 10 for version in shown]
