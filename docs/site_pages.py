"""For mkdocs: pages of the site that lie outside docs/, and links to what is no page at all.

ARCHITECTURE.md, CHANGELOG.md …    pages, as they are
examples/**/*.py                   a page each, with the program
a link to any other file           its text: a reader of the site has no checkout
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

PROJECT = Path(__file__).resolve().parent.parent
PAGES = {
    f"{name}.md": f"{name.lower()}.md" for name in ("ARCHITECTURE", "CHANGELOG", "CONTRIBUTING", "SECURITY")
}
"""By the file's place in the project: the page's in the site."""
PROGRAMS = {
    str(path.relative_to(PROJECT)): f"{path.relative_to(PROJECT).with_suffix('')}.md"
    for path in sorted((PROJECT / "examples").rglob("*.py"))
}

_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)]*)?\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages that lie elsewhere."""
    from mkdocs.structure.files import File, InclusionLevel

    for place, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(PROJECT / place).read_text()))
    for place, uri in PROGRAMS.items():
        text = f"# {place}\n\n```python\n{(PROJECT / place).read_text()}```\n"
        page = File.generated(config, uri, content=text, inclusion=InclusionLevel.NOT_IN_NAV)
        files.append(page)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to pages of the site, seen from this one."""
    here = page.file.src_uri
    uris = {f"docs/{file.src_uri}": file.src_uri for file in files.documentation_pages()}
    uris |= PAGES | PROGRAMS | {"README.md": "index.md"}
    places = {uri: place for place, uri in (PAGES | PROGRAMS).items()}
    folder = os.path.dirname(places.get(here, f"docs/{here}"))

    def link(found: re.Match[str]) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        place = os.path.normpath(os.path.join(folder, target))
        if "://" in target or target.startswith("mailto:"):
            return found[0]
        if place in uris:
            return f"[{text}]({os.path.relpath(uris[place], os.path.dirname(here) or '.')}{anchor})"
        return text if (PROJECT / place).exists() else found[0]

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)
