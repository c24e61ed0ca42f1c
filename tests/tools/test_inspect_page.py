"""The page that ``kvstore inspect … --html`` writes, as a text. (In a browser: test_inspect_in_a_browser.py.)"""

from __future__ import annotations

import json
import re
from pathlib import Path

from kvstore.tools.inspection.page import embed_json

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
