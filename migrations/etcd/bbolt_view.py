"""Single pages of a bbolt file for a person to look at, and all that is wrong with the whole file, line by line.

Works on damaged files too: ``check`` goes as far as the tree can be followed, and says what stopped it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kvstore.backend import packed_hint
from kvstore.errors import KVStoreError, NotAStore

from . import rows
from .bbolt_check import check
from .bbolt_loose import KINDS, LooseFile
from .bbolt_page import BRANCH, FREELIST, HEADER, LEAF, META, Header, Page, PageError, branch_children
from .etcd_file import EtcdFile

_FREE_IDS_SHOWN = 1000


def look(path: Path) -> dict[str, Any]:
    """What the file is: page size, metas, counts of pages by kind, its checksum, and what is wrong (``problems``)."""
    with LooseFile(path) as file:
        if not file.metas and not file.has_own_numbers():
            raise NotAStore(f"{path} is not a bbolt file{packed_hint(path)}", path)
        found = _facts(file)
    problems: list[str] = found["problems"]
    try:
        with EtcdFile(path) as sound:
            problems += [str(damage) for damage in check(sound.file)]
            found["etcdctl_hash"] = f"{sound.status()['hash']:x}"
            found["revision"] = sound.revision
            found["hash_kv"] = sound.hash_kv().hash
    except KVStoreError as error:
        if str(error) not in problems:
            problems.append(str(error))
    return found


def _facts(file: LooseFile) -> dict[str, Any]:
    kinds = Counter(_kind(file, number) for number in range(file.first_page, file.pages))
    problems = [f"meta page {number} is damaged" for number in (0, 1) if number not in file.metas]
    if file.first_page:
        problems.append(f"pages 0 to {file.first_page - 1} are missing: the file has lost its beginning")
    elif file.zero:
        problems.append(f"{file.zero} bytes that are not of it stand before the first page")
    if file.pages < file.high_water:
        problems.append(f"the file ends after page {file.pages - 1} of {file.high_water}")
    hash_state = (
        "matches" if file.trailer_holds() else "DOES NOT MATCH" if file.has_trailer else "NONE, NOT CHECKED"
    )
    if file.has_trailer and hash_state != "matches":
        problems.append("the SHA-256 at the end is not that of the file")
    metas = {
        f"meta {number}": f"transaction {meta.txid}, root page {meta.root}"
        for number, meta in file.metas.items()
    }
    return {
        "page_size": file.page_size,
        "pages": file.pages - file.first_page,
        "sha256_at_the_end": hash_state,
        **metas,
        **{f"{kind} pages": count for kind, count in sorted(kinds.items())},
        "problems": problems,
    }


def _kind(file: LooseFile, number: int) -> str:
    header = file.header(number)
    if header is None or header.page_id != number:
        return "other"
    return KINDS.get(header.flags, "other")


def page(path: Path, number: int) -> dict[str, Any]:
    """One page: its header, and what is in it. Raises ``NotAStore`` if the file does not have it."""
    with LooseFile(path) as file:
        header = file.header(number)
        if header is None:
            raise NotAStore(f"{path} has pages {file.first_page} to {file.pages - 1}, not {number}", path)
        start, end, problem = file.extent(number, header)
        found: dict[str, Any] = {
            "page": number,
            "offset": start,
            "says_it_is": header.page_id,
            "kind": KINDS.get(header.flags, f"unknown ({header.flags:#x})"),
            "elements": header.elements,
            "overflow_pages": header.overflow,
            "problem": problem
            or ("" if header.page_id == number else "it carries the number of another page"),
        }
        found["rows"] = list(_rows(file, header, start, end))
        return found


def _rows(file: LooseFile, header: Header, start: int, end: int) -> Iterator[dict[str, Any]]:
    if header.flags == LEAF:
        for span in file.elements(start, end, header.elements):
            kind = "bucket" if span.is_bucket else "row"
            yield {"key": _name(span.key), "bytes": span.value_end - span.value_start, "is": kind}
    elif header.flags == BRANCH:
        try:
            keys, children = branch_children(file.data, Page(start, end, header.elements, False))
        except PageError as error:
            yield {"key": "", "problem": error.reason}
            return
        for key, child in zip(keys, children, strict=True):
            yield {"key": _name(key), "page": child}
    elif header.flags == FREELIST:
        count = min(header.elements, (end - start - HEADER.size) // 8, _FREE_IDS_SHOWN)
        for at in range(start + HEADER.size, start + HEADER.size + 8 * count, 8):
            yield {"key": "free", "page": int.from_bytes(file.data[at : at + 8], "little")}
    elif header.flags == META:
        for number, meta in file.metas.items():
            if start == file.zero + number * file.page_size:
                for name in ("page_size", "root", "freelist", "high_water", "txid"):
                    yield {"key": name, "bytes": getattr(meta, name)}


def _name(key: bytes) -> str:
    """A key of the bucket of keys as its revision, any other as text or hexadecimal."""
    try:
        main, sub, is_tombstone = rows.decode_revision(key)
        return f"revision {main}.{sub}{' (delete)' if is_tombstone else ''}"
    except rows.RowError:
        text = key.decode("utf-8", "replace")
        return text if text.isprintable() and "\ufffd" not in text else key.hex()
