"""The page that ``kvstore inspect … --html`` writes, in a real headless browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.tools.inspected_page import page_in

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
if BROWSER is None:
    pytest.skip("no Chromium on PATH", allow_module_level=True)
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --hide-scrollbars"
).split()


def browse(page: Path, profile: Path, script: str = "") -> str:
    """The document after the page has run in a browser, with ``script`` run at its end."""
    if script:
        text = page.read_text()
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        page = page.with_name("scripted.html")
        page.write_text(text.replace("</body>", f"<script>{{{script}}}</script></body>"))
    command = [str(BROWSER), *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=5000", "--dump-dom"]
    run = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    return run.stdout


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return page_in(tmp_path)


def test_the_page_shows_the_store_and_runs_under_its_policy(page: Path, tmp_path: Path) -> None:
    """Header, tree, size map, growth, top list and a key's timeline are drawn; the policy's hashes fit."""
    document = browse(page, tmp_path / "profile")
    assert 'data-ready="true"' in document
    assert "&lt;title&gt;&amp;amp; a store" in document
    for part in (
        "registry/",
        "Size by prefix",
        "Growth over revisions",
        "Most changed",
        "polyline",
        "circle",
    ):
        assert part in document


def test_hostile_keys_are_shown_and_do_nothing(page: Path, tmp_path: Path) -> None:
    """Keys full of markup appear as text; none of it runs, with the policy or without it."""
    for script in ("", "document.getElementById('search').value=''"):
        document = browse(page, tmp_path / "profile", script)
        assert 'data-hacked="1"' not in document
        assert 'data-ready="true"' in document
        shown = document.split("<main>")[1].split('<script type="application/json"')[0]
        assert (
            "<img" not in shown
            and "<script" not in shown
            and "onload=alert" not in re.sub("&[a-z]+;", "", "")
        )
        assert "&lt;img src=x" in shown


def test_a_click_opens_a_prefix_and_a_key(page: Path, tmp_path: Path) -> None:
    """A prefix unfolds and becomes the map; a key shows its versions; the search finds keys."""
    script = """
      const rows = () => [...document.querySelectorAll('#tree .row')];
      const named = (name) => rows().find((row) => row.querySelector('.name').textContent === name);
      named('hot').click();
      document.body.dataset.versions = document.querySelectorAll('#versions tbody tr').length;
      document.body.dataset.value = document.querySelector('#key pre').textContent;
      named('/').click();
      named('registry/pods/').click();
      document.body.dataset.below = rows().filter((row) => row.textContent.includes('ns')).length;
      const search = document.getElementById('search');
      search.value = 'pod-3';
      search.dispatchEvent(new Event('input'));
      document.body.dataset.found = rows().length;
      rows()[0].click();
      document.body.dataset.name = document.getElementById('key-name').textContent;
    """
    document = browse(page, tmp_path / "profile", script)
    found = dict(re.findall(r'data-(\w+)="([^"]*)"', re.search(r"<body[^>]*>", document)[0]))  # type: ignore[index]  # found or fails
    assert found["versions"] == "5"
    assert found["value"] == "&lt;/script&gt;&lt;b&gt;bold&lt;/b&gt;"
    assert found["below"] == "4"
    assert found["found"] == "10"
    assert found["name"] == "/registry/pods/ns0/pod-32"
