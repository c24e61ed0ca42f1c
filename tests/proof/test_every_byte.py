"""Every byte: files of a store cut anywhere and with any bit flipped.

Log, snapshots and manifests have checksums: a store opens to a prefix of what was acknowledged, or damage is
reported with its place; nothing is lost from the middle. The backend's file has none. There, whatever changes an
answer is found by ``verify --deep``, what breaks the structure by ``verify``, and healing brings everything back.
"""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from kvstore import Corruption, KVStoreError, layout, ops
from kvstore.snapshot.manifest import FOOTER_BYTES
from kvstore.snapshot.reader import read_info, verify
from kvstore.verification import verify as verify_store
from kvstore.wal.inspect import scan_segment
from tests import PROJECT
from tests.proof.flips import make_template, open_store, outcomes, page_kind, sample_bits

SEGMENT_BYTES = 400


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Thousands of recoveries have much to say."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


# --- the log --------------------------------------------------------------------------------------


@dataclass
class Killed:
    """A killed store, and what it had acknowledged: HashKV by revision."""

    path: Path
    backend: str
    hashes: dict[int, int]

    @property
    def newest(self) -> int:
        return max(self.hashes)


def killed(folder: Path, backend: str, *, checkpoint: bool) -> Killed:
    """Nine writes of several kinds in three segments; with ``checkpoint`` the backend has the first four."""
    with open_store(folder / "live", backend, wal_file_size=SEGMENT_BYTES, max_wals=0) as store:
        hashes = {1: store.hash_kv().hash}
        store.grant_lease(1000, 7)
        for number in range(8):
            if number == 4 and checkpoint:
                store.checkpoint()
            if number == 5:
                store.txn(success=[ops.put(b"t", b"1"), ops.delete(b"k1"), ops.put(b"k2", b"2", lease=7)])
            else:
                store.put(b"k%d" % (number % 3), b"value %d " % number * 4)
            hashes[store.revision] = store.hash_kv().hash
        shutil.copytree(folder / "live", folder / "killed")
    return Killed(folder / "killed", backend, hashes)


def opened_to(store: Killed, path: Path) -> str:
    """Open what is left: refused, with the place, or nothing of what was acknowledged is missing."""
    try:
        opened = open_store(path, store.backend, wal_file_size=SEGMENT_BYTES, max_wals=0)
    except Corruption as damage:
        assert damage.path.startswith(str(path)) and damage.offset >= 0, damage
        assert 1 <= damage.last_good_revision <= store.newest
        return "refused"
    with opened:
        assert opened.revision == store.newest
        assert opened.hash_kv().hash == store.hashes[store.newest]
        opened.put(b"goes on", b"")
    return "whole"


def changed_copy(store: Killed, scratch: Path, segment: Path, content: bytes) -> Path:
    path = scratch / "copy"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(store.path, path)
    (path / "wal" / segment.name).write_bytes(content)
    return path


def places(store: Killed) -> Iterator[tuple[Path, bytes, int]]:
    """(segment, its bytes, end of what is in it)."""
    for file in layout.segments(store.path / "wal"):
        *_, last = scan_segment(file.path)
        yield file.path, file.path.read_bytes(), last.offset + last.size_bytes


def flip_log(store: Killed, scratch: Path, step: int) -> Counter[str]:
    """Every ``step``th bit of every segment, also some of the zeros behind the end."""
    figures: Counter[str] = Counter()
    for segment, content, end in places(store):
        for bit in range(0, min(end + 32, len(content)) * 8, step):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            outcome = opened_to(store, changed_copy(store, scratch, segment, bytes(changed)))
            assert outcome == "whole" or bit < end * 8, bit
            figures[outcome] += 1
    return figures


def cut_log(store: Killed, scratch: Path, step: int) -> Counter[str]:
    """Every segment cut after every ``step``th byte."""
    figures: Counter[str] = Counter()
    segments = layout.segments(store.path / "wal")
    for segment, content, end in places(store):
        is_last = segment == segments[-1].path
        starts = [found.offset for found in scan_segment(segment) if found.batch is not None]
        for at in range(0, min(end + 32, len(content)), step):
            path = changed_copy(store, scratch, segment, content[:at])
            figures[_cut_outcome(store, path, is_last, starts, at)] += 1
    return figures


def _cut_outcome(store: Killed, path: Path, is_last: bool, starts: list[int], at: int) -> str:
    """A file that is cut in the last segment is a prefix of what was written, and opens to a prefix."""
    try:
        opened = open_store(path, store.backend, wal_file_size=SEGMENT_BYTES, max_wals=0)
    except Corruption as damage:
        assert damage.path.startswith(str(path)) and damage.offset >= 0, damage
        return "refused"
    with opened:
        lost = sum(start >= at for start in starts) + any(start < at for start in starts)
        assert opened.hash_kv().hash == store.hashes[opened.revision]
        assert opened.revision == store.newest or (is_last and opened.revision >= store.newest - lost)
        return "whole" if opened.revision == store.newest else "a prefix"


@pytest.mark.parametrize("checkpoint", (False, True), ids=("all in the log", "half in the backend"))
def test_flipped_bits_of_the_log(scratch: Path, checkpoint: bool) -> None:
    """No bit of the log can be flipped so that something is lost from the middle, or answered wrongly."""
    store = killed(scratch, "sqlite" if checkpoint else "memory", checkpoint=checkpoint)
    figures = flip_log(store, scratch, 19)
    assert figures["refused"] > 20 and figures.total() > 300


def test_cuts_of_the_log(scratch: Path) -> None:
    """Cut at any byte: the last segment opens to a prefix, any other is missed."""
    store = killed(scratch, "memory", checkpoint=False)
    figures = cut_log(store, scratch, 3)
    assert figures["refused"] > 20 and figures["a prefix"] > 20


@pytest.mark.soak
@pytest.mark.parametrize("checkpoint", (False, True), ids=("all in the log", "half in the backend"))
@pytest.mark.parametrize("backend", ("lmdb", "sqlite", "memory"))
def test_every_bit_and_every_cut_of_the_log(
    scratch: Path, backend: str, checkpoint: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of them."""
    store = killed(scratch, backend, checkpoint=checkpoint)
    bits, cuts = flip_log(store, scratch, 1), cut_log(store, scratch, 1)
    with capsys.disabled():
        print(f"\n{backend}: bits of the log {dict(bits)}, cuts {dict(cuts)}")


# --- snapshots ------------------------------------------------------------------------------------


def damaged_snapshots(path: Path, step: int) -> Iterator[bytes]:
    """Bits of footer and manifest flipped, and of the copy in places; cut anywhere in them."""
    info = read_info(path)
    content = path.read_bytes()
    tail_at = info.backend_bytes
    far_apart = max(info.backend_bytes // 200, 1)
    bits = [*range(0, tail_at * 8, far_apart * 8 + 3), *range(tail_at * 8, len(content) * 8, step)]
    for bit in bits:
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)
    for length in (*range(0, tail_at, far_apart), *range(tail_at, len(content), max(step // 8, 1))):
        yield content[:length]


def check_snapshots(scratch: Path, backend: str, step: int) -> int:
    with open_store(scratch / "s", backend) as store:
        for number in range(60):
            store.put(b"k%d" % (number % 7), b"value %d" % number)
        snapshot = store.snapshot(scratch / "good").path
    tried = 0
    for content in damaged_snapshots(snapshot, step):
        bad = scratch / "bad"
        bad.write_bytes(content)
        with pytest.raises(KVStoreError) as raised:
            verify(bad)
        if len(content) == snapshot.stat().st_size and content[-FOOTER_BYTES:-20] == b"KVSN":
            assert isinstance(raised.value, Corruption) and raised.value.path == str(bad)
        tried += 1
    return tried


@pytest.mark.parametrize("backend", ("lmdb", "sqlite", "memory"))
def test_damaged_snapshots_are_refused(scratch: Path, backend: str) -> None:
    """Whatever bit is flipped and wherever it is cut: a typed error, and damage says where."""
    assert check_snapshots(scratch, backend, 7) > 500


@pytest.mark.soak
@pytest.mark.parametrize("backend", ("lmdb", "sqlite", "memory"))
def test_every_bit_of_a_manifest(scratch: Path, backend: str, capsys: pytest.CaptureFixture[str]) -> None:
    """All of them, and every cut."""
    tried = check_snapshots(scratch, backend, 1)
    with capsys.disabled():
        print(f"\n{backend}: {tried} damaged snapshots, all refused")


@pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
def test_a_damaged_snapshot_does_no_harm_to_its_store(scratch: Path, backend: str) -> None:
    """The store opens; verification names the file."""
    with open_store(scratch / "s", backend) as store:
        store.put(b"k", b"v")
        path = store.snapshot().path
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with open_store(scratch / "s", backend) as store:
        assert store.get(b"k") is not None
    assert [finding.path for finding in verify_store(scratch / "s").findings] == [str(path)]


# --- the backend ----------------------------------------------------------------------------------

FATAL = {"SIGSEGV", "SIGBUS", "SIGABRT"}


def flip_backend(scratch: Path, backend: str, count: int) -> Counter[tuple[str, str, str]]:
    """Flip ``count`` bits of each kind of page: (kind, answer, who found it) -> how many."""
    wanted = make_template(scratch / "template", backend)
    bits = sample_bits(scratch / "template", backend, count)
    command = [
        sys.executable,
        "-m",
        "tests.proof.flips",
        str(scratch / "template"),
        str(scratch),
        backend,
        wanted,
    ]
    ended = subprocess.run(
        [*command, *map(str, bits)], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    found = list(outcomes(ended.stdout))
    last = f"after bit {found[-1].bit}" if found else "at the first bit"
    assert ended.returncode == 0, f"verification or healing failed {last}: {ended.stderr[-2000:]}"
    data = (scratch / "template" / "snap" / "db").read_bytes()
    figures: Counter[tuple[str, str, str]] = Counter()
    for outcome in found:
        at = outcome.bit // 8 // 4096 * 4096
        who = "verify" if outcome.found else "verify --deep" if outcome.found_deep else "nobody"
        assert outcome.found <= outcome.found_deep
        assert outcome.answer == "same" or outcome.found_deep, outcome
        assert outcome.answer in {"same", "wrong", "refused"} | FATAL, outcome
        figures[page_kind(backend, data[at : at + 4096], at // 4096), outcome.answer, who] += 1
    return figures


@pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
def test_flipped_bits_of_a_backend_are_found_and_healed(scratch: Path, backend: str) -> None:
    """Whatever changes an answer, or ends the process that asks, is found by a verification, which survives it;
    healed, the store answers as before."""
    figures = flip_backend(scratch, backend, 12)
    assert sum(count for (_, _, who), count in figures.items() if who != "nobody") > 8


@pytest.mark.soak
@pytest.mark.parametrize("backend", ("lmdb", "sqlite"))
def test_many_flipped_bits_of_a_backend(
    scratch: Path, backend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """More of them, with figures: how they show, and who finds them."""
    figures = flip_backend(scratch, backend, 300)
    with capsys.disabled():
        print(
            f"\n{backend}: {figures.total()} flipped bits; {sum(_fatal(figures))} ended the process that asked"
        )
        for (kind, answer, who), count in sorted(figures.items()):
            print(f"  {kind:16} {answer:10} found by {who:14} {count}")


def _fatal(figures: Counter[tuple[str, str, str]]) -> Iterator[int]:
    for (_, answer, _), count in figures.items():
        if answer in FATAL:
            yield count
