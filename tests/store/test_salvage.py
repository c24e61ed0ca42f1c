"""Salvage of damaged stores of ours: everything that is kept was once written, and nothing wrong is called sure."""

import random
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import kvstore
from kvstore.errors import NotAStore
from kvstore.layout import DataDir, segments
from kvstore.recognition import backend_of
from kvstore.salvage import Level, Salvaged, salvage
from kvstore.verification import verify
from tests.etcd.file_damage import OF_PAGES, WITHIN, Damage, flipped_bits, wrong_metas
from tests.harness.command_line import run

PAGE = 4096


@dataclass(frozen=True)
class Written:
    """A closed store, and what was put into it."""

    path: Path
    backend: str
    ever: frozenset[tuple[bytes, bytes]]
    now: dict[bytes, bytes]


@dataclass(frozen=True)
class Grown:
    """A backend's file by itself, and what was put into its store."""

    backend: str
    data: bytes
    earlier: bytes
    ever: frozenset[tuple[bytes, bytes]]
    now: dict[bytes, bytes]


@pytest.fixture(scope="module", params=["lmdb", "sqlite"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """A store of some hundred changes: small values, values longer than a page, deletes, a compaction."""
    path = tmp_path_factory.mktemp("written") / "store"
    draw, ever = random.Random(7), set()
    with kvstore.open(path, backend=request.param, durability="off") as store:
        for number in range(600):
            key = b"/k/%03d" % draw.randrange(120)
            if draw.random() < 0.1:
                store.delete(key)
                continue
            value = b"%s at %d " % (key, number) * draw.choice([1, 5, 20, 20, 600])
            store.put(key, value)
            ever.add((key, value))
            if number == 300:
                store.compact(store.revision - 50)
        store.snapshot()
        now = {kv.key: kv.value for kv in store.scan(prefix=b"")}
    return Written(path, request.param, frozenset(ever), now)


@pytest.fixture
def broken(written: Written, tmp_path: Path) -> Iterator[Path]:
    """A copy to damage."""
    yield shutil.copytree(written.path, tmp_path / "broken")


def content(data_dir: Path) -> dict[bytes, bytes]:
    kind = backend_of(DataDir.at(data_dir))
    assert kind is not None
    with kvstore.open(data_dir, backend=kind.name, read_only=True) as store:
        return {kv.key: kv.value for kv in store.scan(prefix=b"")}


def check(found: Salvaged, new: Path, written: Written) -> dict[bytes, bytes]:
    """What is sure is as it was; what is small enough for one page was once written; the new store is sound."""
    kept = content(new)
    for key, value in kept.items():
        assert not found.sure(key) or written.now.get(key) == value
        assert (key, value) in written.ever or (
            len(value) > PAGE // 4 and found.levels[key][0] == Level.ALONE
        )
    assert verify(new).ok
    return kept


def test_a_whole_store_is_whole_and_sure(written: Written, tmp_path: Path) -> None:
    """The log vouches for what it has; nothing is missing."""
    found = salvage(written.path, tmp_path / "new", backend=written.backend)
    assert found.is_complete
    assert check(found, tmp_path / "new", written) == written.now


def test_a_store_without_its_backend_comes_from_snapshots_and_log(
    written: Written, broken: Path, tmp_path: Path
) -> None:
    """The snapshot's SHA-256 covers its rows: all keys are sure."""
    DataDir.at(broken).db.unlink()
    found = salvage(broken, tmp_path / "new", backend=written.backend)
    assert check(found, tmp_path / "new", written) == written.now
    assert all(map(found.sure, written.now))


@pytest.mark.parametrize("what", ["cut", "zeros", "flips"])
def test_a_damaged_backend_gives_what_its_pages_hold(
    written: Written, broken: Path, tmp_path: Path, what: str
) -> None:
    """The backend's file alone, cut, or with a third of its pages erased, or with flipped bits."""
    db = DataDir.at(broken).db
    data, draw = bytearray(db.read_bytes()), random.Random(what)
    if what == "cut":
        del data[len(data) * 6 // 10 :]
    elif what == "zeros":
        for page in draw.sample(range(2, len(data) // PAGE), len(data) // PAGE // 3):
            data[page * PAGE : (page + 1) * PAGE] = bytes(PAGE)
    else:
        for _ in range(5):
            data[draw.randrange(2 * PAGE, len(data))] ^= 1 << draw.randrange(8)
    alone = tmp_path / "db"
    alone.write_bytes(data)
    found = salvage(alone, tmp_path / "new", backend=written.backend)
    kept = content(tmp_path / "new")
    assert kept and not any(map(found.sure, kept))
    if what != "flips":
        check(found, tmp_path / "new", written)


def test_a_hole_in_the_log_leaves_what_is_on_both_sides(
    written: Written, broken: Path, tmp_path: Path
) -> None:
    """Entries carry effects: those after the hole count, and keys that they wrote are sure."""
    directory = DataDir.at(broken)
    shutil.rmtree(directory.snap)
    directory.snap.mkdir()
    path = segments(directory.wal)[-1].path
    data = bytearray(path.read_bytes())
    end = len(bytes(data).rstrip(b"\0"))
    data[end // 2 : end // 2 + 64] = bytes(64)
    path.write_bytes(data)
    found = salvage(directory.wal, tmp_path / "new", backend=written.backend)
    kept = check(found, tmp_path / "new", written)
    assert any(map(found.sure, kept)) and found.may_be_older and not found.is_complete


def test_many_damages_of_a_whole_store(written: Written, tmp_path: Path) -> None:
    """Backend and log are hit at once, some thirty times."""
    for seed in range(30):
        check_random_damage(written, tmp_path / str(seed), seed)


@pytest.mark.soak
def test_hundreds_of_damages_of_a_whole_store(written: Written, tmp_path: Path) -> None:
    """The same for many more."""
    for seed in range(30, 600):
        check_random_damage(written, tmp_path / str(seed), seed)
        shutil.rmtree(tmp_path / str(seed))


def check_random_damage(written: Written, place: Path, seed: int) -> None:
    draw = random.Random(f"{written.backend} {seed}")
    broken = Path(shutil.copytree(written.path, place / "broken"))
    directory = DataDir.at(broken)
    for file in (
        directory.db,
        segments(directory.wal)[-1].path,
        *(each.path for each in directory.snapshots()),
    ):
        if draw.random() < 0.3:
            continue
        data = bytearray(file.read_bytes())
        end = len(bytes(data).rstrip(b"\0"))
        for _ in range(draw.choice([1, 3, 10])):
            at = draw.randrange(end)
            data[at : at + 512] = bytes(min(512, len(data) - at))
        file.write_bytes(data[: draw.randrange(end)] if draw.random() < 0.3 else data)
    try:
        found = salvage(broken, place / "new", backend=written.backend)
    except NotAStore:
        return
    for key, value in content(place / "new").items():
        assert not found.sure(key) or written.now.get(key) == value, key
    assert verify(place / "new").ok


def test_the_command_reports_and_makes_the_store(written: Written, broken: Path, tmp_path: Path) -> None:
    """Exit code 4 where something is missing, 0 where nothing is; without a target only the report."""
    assert run(tmp_path, "salvage", str(written.path)).code == 0
    DataDir.at(broken).db.unlink()
    done = run(
        tmp_path, "salvage", str(broken), str(tmp_path / "new"), "--backend", written.backend, "--keys"
    )
    assert done.code == 4 and b"the backend is missing" in done.out
    assert b"checksum" in done.out and b"/k/0" in done.out
    assert content(tmp_path / "new") == written.now
    done = run(tmp_path, "--json", "salvage", str(tmp_path / "nowhere"))
    assert done.code == 1 and done.err.startswith("Error:")


# --- generated damage ---------------------------------------------------------------------

KINDS = tuple(each for each in (*OF_PAGES, *WITHIN) if each is not wrong_metas)  # those are of bbolt


@pytest.fixture(scope="module", params=["lmdb", "sqlite"])
def grown(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Grown:
    """A backend's file of some hundred pages, and the same file when the store was younger."""
    path = tmp_path_factory.mktemp("grown") / "store"
    draw, ever = random.Random(11), set()
    for half in range(2):  # closed after each, so that the file itself has everything
        earlier = DataDir.at(path).db.read_bytes() if half else b""
        with kvstore.open(path, backend=request.param, durability="off", background=False) as store:
            for number in range(1500 * half, 1500 * (half + 1)):
                key = b"/k/%04d" % draw.randrange(700)
                if draw.random() < 0.1:
                    store.delete(key)
                    continue
                value = b"%s at %d " % (key, number) * draw.choice([1, 5, 20, 40])
                store.put(key, value)
                ever.add((key, value))
            now = {kv.key: kv.value for kv in store.scan(prefix=b"")}
    return Grown(request.param, DataDir.at(path).db.read_bytes(), earlier, frozenset(ever), now)


def check_generated_damage(grown: Grown, place: Path, damage: Damage, seed: int) -> None:
    """No checksum covers it: nothing is sure. What is kept was written; and some is, where a tenth is whole."""
    draw = random.Random(f"{damage.__name__} {seed}")
    data = damage(grown.data, grown.earlier, draw)
    whole = sum(
        data[at : at + PAGE] == grown.data[at : at + PAGE] and any(data[at : at + PAGE])
        for at in range(0, len(data), PAGE)
    )
    place.mkdir()
    (place / "db").write_bytes(data)
    try:
        found = salvage(place / "db", place / "new", backend=grown.backend)
    except NotAStore:
        assert whole * 10 < len(grown.data) // PAGE, "nothing, though a tenth of the pages is whole"
        return
    kept = content(place / "new")
    assert kept or whole * 10 < len(grown.data) // PAGE
    assert not any(map(found.sure, kept))
    if damage in OF_PAGES:
        assert {pair for pair in kept.items() if pair not in grown.ever} == set()
    assert verify(place / "new").ok
    shutil.rmtree(place)


def test_a_backend_that_has_lost_its_beginning_is_known_by_its_pages(grown: Grown, tmp_path: Path) -> None:
    """By itself or in its directory: the first pages are erased, and rows elsewhere are found."""
    store = tmp_path / "store" / "snap"
    store.mkdir(parents=True)
    for place in (tmp_path / "db", store / "db"):
        place.write_bytes(bytes(2 * PAGE) + grown.data[2 * PAGE :])
    (tmp_path / "store" / "wal").mkdir()
    for number, source in enumerate((tmp_path / "db", tmp_path / "store")):
        found = salvage(source, tmp_path / f"new-{number}", backend=grown.backend)
        kept = content(tmp_path / f"new-{number}")
        assert set(kept.items()) <= grown.ever and not any(map(found.sure, kept))
        assert len(kept.items() & grown.now.items()) > len(grown.now) * 0.9


@pytest.mark.parametrize("lost_bytes", [PAGE, 31 * PAGE, 31 * PAGE + 512])
def test_a_backend_whose_first_bytes_are_gone_is_known_by_its_pages(
    grown: Grown, tmp_path: Path, lost_bytes: int
) -> None:
    """Pages are not where their numbers say, or begin between them: what they hold is found, and is true."""
    (tmp_path / "db").write_bytes(grown.data[lost_bytes:])
    found = salvage(tmp_path / "db", tmp_path / "new", backend=grown.backend)
    kept = content(tmp_path / "new")
    assert set(kept.items()) <= grown.ever and not any(map(found.sure, kept))
    assert len(kept) > len(grown.now) / 2


@pytest.mark.parametrize("damage", KINDS)
def test_generated_damages_of_a_backend(grown: Grown, tmp_path: Path, damage: Damage) -> None:
    """A few of each kind."""
    for seed in range(3):
        check_generated_damage(grown, tmp_path / str(seed), damage, seed)


def test_a_file_whose_rows_are_not_found_by_their_keys_is_read_page_by_page(
    grown: Grown, tmp_path: Path
) -> None:
    """A bit of a key in LMDB's tree was flipped: a walk gives the row, and a look-up does not."""
    check_generated_damage(grown, tmp_path / "91", flipped_bits, 91)


@pytest.mark.soak
@pytest.mark.parametrize("damage", KINDS)
def test_hundreds_of_generated_damages_of_a_backend(grown: Grown, tmp_path: Path, damage: Damage) -> None:
    """The same for many more."""
    for seed in range(3, 103):
        check_generated_damage(grown, tmp_path / str(seed), damage, seed)
