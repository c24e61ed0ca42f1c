"""Parsers of bytes from outside: only typed errors, no hang, no memory out of a length field."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kvstore
from kvstore.errors import KVStoreError
from kvstore.wire import bytes_field, int_field
from tests.proof.fuzz_seeds import SEEDS, a_store, seeds
from tests.proof.fuzz_targets import CORPUS, TARGETS

EXAMPLES = 150
CHANGES = 150

NUMBERS = st.sampled_from([0, 1, 7, 127, 128, 1 << 31, (1 << 63) - 1, 1 << 63, (1 << 64) - 1]) | st.integers(
    0, (1 << 64) - 1
)


def messages(depth: int = 2) -> st.SearchStrategy[bytes]:
    """Protobuf messages with any fields."""
    inner = st.binary(max_size=20) if depth == 0 else st.binary(max_size=20) | messages(depth - 1)
    field = st.builds(int_field, st.integers(1, 12), NUMBERS) | st.builds(
        bytes_field, st.integers(1, 12), inner
    )
    return st.lists(field, max_size=6).map(b"".join)


WORDS = st.sampled_from(
    b"put get del mod( value( lease( \"a\" '\\x' --prefix --lease= --limit= --rev= -- = != < > \n \n\n ) 0 -1 9".split(
        b" "
    )
)
TEXTS = st.lists(WORDS | st.binary(max_size=3), max_size=12).map(b" ".join)
NAMES = st.sampled_from([name.encode() for name in kvstore.Options.__dataclass_fields__])
SETTINGS = st.builds(
    lambda name, text: name + b"=" + text,
    NAMES,
    st.sampled_from([b"", b"-1", b"nan", b"inf", b"1e999", b"0x10", b"10m", b"1h1m", b"9" * 5000])
    | st.binary(max_size=8),
)
ANY = st.one_of(st.binary(max_size=200), messages(), TEXTS, SETTINGS)


@pytest.mark.parametrize("name", TARGETS)
def test_any_bytes_give_an_answer_or_a_typed_error(name: str) -> None:
    """Random bytes, random messages and random words never get an untyped error out of a parser."""

    @settings(max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
    @given(ANY)
    @example(b"")
    @example(b"\xff" * 64)
    @example(b"\0" * 64)
    def feed(data: bytes) -> None:
        TARGETS[name](data)

    feed()


def corpus() -> list[tuple[str, Path]]:
    return [(path.parent.name, path) for path in sorted(CORPUS.glob("*/*"))]


@pytest.mark.parametrize(
    ("name", "path"), corpus(), ids=lambda value: value.name if isinstance(value, Path) else value
)
def test_cases_that_were_found_stay_found(name: str, path: Path) -> None:
    """Every file of the corpus gives an answer or a typed error."""
    TARGETS[name](path.read_bytes())


# --- changed files ----------------------------------------------------------------------------------


def changed(data: bytes, chance: random.Random) -> bytes:
    """One to three changes: a flipped bit, other bytes, a huge length, a cut, a doubled piece."""
    made = bytearray(data)
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(made) or 1)
        match chance.randrange(6):
            case 0 if made:
                made[at] ^= 1 << chance.randrange(8)
            case 1:
                made[at : at + 4] = chance.randbytes(4)
            case 2:
                made[at : at + 8] = chance.choice([b"\xff" * 8, b"\0" * 8, (1 << 40).to_bytes(8, "little")])
            case 3:
                del made[at:]
            case 4:
                made[at:at] = made[at : at + 40]
            case 5:
                del made[at : at + chance.randrange(1, 40)]
    return bytes(made)


def outcome(call: Callable[[], object]) -> str:
    try:
        call()
    except KVStoreError as error:
        return type(error).__name__
    return "fine"


@pytest.mark.parametrize("name", SEEDS)
def test_a_changed_good_input_is_read_or_refused(name: str) -> None:
    """Seeded changes to what each parser is made for: an answer or a typed error."""
    chance = random.Random(name)
    good = seeds(name)
    for seed in good:
        TARGETS[name](seed)
    for _ in range(CHANGES):
        TARGETS[name](changed(chance.choice(good), chance))


def test_a_changed_store_opens_or_is_refused(tmp_path: Path) -> None:
    """Seeded changes to the log of a store: it opens with what was written before, or a typed error says why not."""
    store = a_store(tmp_path)
    for path in (store / "snap").iterdir():
        path.unlink()
    segment = next((store / "wal").iterdir())
    good, size_bytes = segment.read_bytes().rstrip(b"\0"), segment.stat().st_size
    chance, seen = random.Random(6), set()
    for _ in range(150):
        segment.write_bytes(changed(good, chance).ljust(size_bytes, b"\0"))
        seen.add(outcome(lambda: kvstore.open(store, "memory", background=False).close()))
        for broken in store.rglob("*.broken*"):
            broken.unlink()
    assert seen <= {"fine", "Corruption", "NotAStore", "TooNew", "WrongStore"}
    assert {"fine", "Corruption"} <= seen


BACKEND_CASES = """
import random, sys
from pathlib import Path
import kvstore
from kvstore.errors import KVStoreError
from tests.proof.test_fuzz import changed
good, seed = Path(sys.argv[1]).read_bytes(), int(sys.argv[2])
chance = random.Random(seed)
for number in range(60):
    data = changed(good, chance)
    path = Path(sys.argv[1]).with_name("changed.snap")
    path.write_bytes(data)
    try:
        with kvstore.open_snapshot(path) as snapshot:
            list(snapshot.scan(prefix=b""))
    except KVStoreError:
        pass
    path.unlink()
"""


@pytest.mark.parametrize("backend", ["lmdb", "sqlite"])
def test_a_changed_snapshot_does_not_end_the_process(tmp_path: Path, backend: str, project: Path) -> None:
    """A snapshot that LMDB or SQLite would map or read is refused or read, nothing crashes, no file is left."""
    with kvstore.open(tmp_path / "store", backend) as store:
        for number in range(300):
            store.put(b"k%d" % number, b"v" * 50)
        store.snapshot(tmp_path / "copy.snap")
    command = [sys.executable, "-c", BACKEND_CASES, str(tmp_path / "copy.snap"), "3"]
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = os.environ | {"TMPDIR": str(temporary)}
    done = subprocess.run(
        command, env=environment, cwd=project, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, f"exit {done.returncode}: {done.stderr[-3000:]}"
    assert list(temporary.iterdir()) == []
