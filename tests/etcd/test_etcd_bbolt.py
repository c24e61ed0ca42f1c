"""bbolt files: what is written is read back, and no damage ends in anything but a typed error."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kvstore.migrations.etcd import bbolt_page
from kvstore.migrations.etcd.bbolt_check import check
from kvstore.migrations.etcd.bbolt_page import (
    BRANCH,
    HEADER,
    LEAF,
    LEAF_ELEMENT,
    NO_FREELIST,
    Meta,
    encode_meta,
)
from kvstore.migrations.etcd.bbolt_read import BboltFile, Bucket
from kvstore.migrations.etcd.bbolt_write import write_bbolt
from kvstore.migrations.etcd.etcd_file import EtcdFile

from kvstore.errors import Corruption, DiskFull, KVStoreError, NotAStore, TooNew
from kvstore.files import OSDisk

Rows = dict[bytes, bytes]


def write(
    path: Path, buckets: dict[bytes, Rows], page_size: int = 512, fill: float = 0.9, trailer: bool = True
) -> Path:
    write_bbolt(
        path,
        [(name, sorted(rows.items())) for name, rows in buckets.items()],
        page_size=page_size,
        fill=fill,
        trailer=trailer,
    )
    return path


def many_rows(count: int, value_bytes: int = 20) -> Rows:
    return {b"%08d" % number: bytes(value_bytes) for number in range(0, 2 * count, 2)}


def open_bucket(file: BboltFile, name: bytes) -> Bucket:
    bucket = file.bucket(name)
    assert bucket is not None
    return bucket


# --- round trips ------------------------------------------------------------------------------

KEYS = st.one_of(
    st.binary(min_size=1, max_size=8),
    st.binary(min_size=1, max_size=3).map(lambda tail: b"\xff" * 600 + tail),
    st.integers(0, 3).map(lambda number: b"%d" % number * 3000),
)
VALUES = st.one_of(st.binary(max_size=12), st.integers(0, 2000).map(bytes))
BUCKETS = st.dictionaries(
    st.binary(min_size=1, max_size=6), st.dictionaries(KEYS, VALUES, max_size=60), max_size=4
)


@settings(max_examples=60)
@given(
    buckets=BUCKETS,
    page_size=st.sampled_from([512, 1024, 4096, 65536]),
    fill=st.floats(0.1, 1.0),
    ends=st.tuples(KEYS, KEYS),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory,
    buckets: dict[bytes, Rows],
    page_size: int,
    fill: float,
    ends: tuple[bytes, bytes],
) -> None:
    """Any buckets, page size and fill: gets, scans of ranges both ways, checks and hash all hold."""
    path = write(tmp_path_factory.mktemp("bbolt") / "db", buckets, page_size, fill)
    with BboltFile(path) as file:
        assert file.buckets() == sorted(buckets)
        assert file.verify_hash()
        assert list(check(file)) == []
        for name, rows in buckets.items():
            bucket = open_bucket(file, name)
            assert dict(bucket.scan()) == rows
            assert [key for key, _ in bucket.scan()] == sorted(rows)
            assert [key for key, _ in bucket.scan(reverse=True)] == sorted(rows, reverse=True)
            start, end = min(ends), max(ends)
            inside = sorted(key for key in rows if start <= key < end)
            assert [key for key, _ in bucket.scan(start, end)] == inside
            assert [key for key, _ in bucket.scan(start, end, reverse=True)] == inside[::-1]
            assert all(bucket.get(key) == value for key, value in rows.items())
            assert bucket.get(end + b"\0nothing") is None
        assert file.bucket(b"no such bucket") is None


def test_a_deep_tree_is_seeked_not_scanned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny pages make five levels; a get in it visits one page of each."""
    path = write(tmp_path / "db", {b"key": many_rows(20_000)})
    with BboltFile(path) as file:
        assert list(check(file)) == []
        bucket = open_bucket(file, b"key")
        visited: list[int] = []
        page_of = file.page

        def counted(page_id: int) -> bbolt_page.Page:
            visited.append(page_id)
            return page_of(page_id)

        monkeypatch.setattr(file, "page", counted)
        assert bucket.get(b"%08d" % 20_000) == bytes(20)
        assert 3 <= len(visited) <= 6
        assert bucket.get(b"%08d" % 20_001) is None


def test_rows_out_of_order_leave_nothing_behind(tmp_path: Path) -> None:
    """Unsorted, doubled, empty and oversized keys are refused, and no file remains."""
    too_long = b"x" * (bbolt_page.MAX_KEY_BYTES + 1)
    for rows in ([(b"b", b""), (b"a", b"")], [(b"a", b""), (b"a", b"")], [(b"", b"")], [(too_long, b"")]):
        with pytest.raises(ValueError, match=r"ascend|empty|too long"):
            write_bbolt(tmp_path / "db", [(b"key", rows)])
    with pytest.raises(ValueError, match="twice"):
        write_bbolt(tmp_path / "db", [(b"key", []), (b"key", [])])
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_keeps_the_old_file(tmp_path: Path) -> None:
    """A write that fails leaves the file of before, and no temporary one."""

    class FullDisk(OSDisk):
        def sync_dir(self, path: object) -> None:
            raise AssertionError("reached only after the rename")

        def rename(self, source: object, target: object) -> None:
            raise DiskFull

    path = write(tmp_path / "db", {b"key": {b"old": b"1"}})
    with pytest.raises(DiskFull):
        write_bbolt(path, [(b"key", [(b"new", b"2")])], disk=FullDisk())
    assert [each.name for each in tmp_path.iterdir()] == ["db"]
    with BboltFile(path) as file:
        assert open_bucket(file, b"key").get(b"old") == b"1"


def test_an_inline_bucket_is_read(tmp_path: Path) -> None:
    """A bucket that lies in its parent's value is read like any other, and damage in it is found."""
    inline_page = bbolt_page.encode_leaf(0, [(b"a", b"1"), (b"b", b"22")], 0, 1)
    value = struct.pack("<QQ", 0, 0) + inline_page
    root = bbolt_page.encode_leaf(2, [(b"inner", value)], bbolt_page.BUCKET_FLAG, 1024)
    path = write_pages(tmp_path / "db", [root], root_page=2)
    with BboltFile(path) as file:
        assert dict(open_bucket(file, b"inner").scan()) == {b"a": b"1", b"b": b"22"}
        assert open_bucket(file, b"inner").get(b"b") == b"22"
        assert list(check(file)) == []
    cut = bbolt_page.encode_leaf(2, [(b"inner", value[:-2])], bbolt_page.BUCKET_FLAG, 1024)
    with BboltFile(write_pages(tmp_path / "cut", [cut], root_page=2)) as file:
        with pytest.raises(Corruption):
            list(open_bucket(file, b"inner").scan())
        assert list(check(file)) != []


def write_pages(
    path: Path, pages: list[bytes], root_page: int = 2, page_size: int = 1024, freelist: int = NO_FREELIST
) -> Path:
    """A file of hand-made pages, from page 2 on."""
    body = b"".join(pages)
    high_water = 2 + len(body) // page_size
    metas = [encode_meta(Meta(page_size, root_page, 0, freelist, high_water, 2 - at), at) for at in (0, 1)]
    path.write_bytes(b"".join(metas) + body)
    return path


# --- metas ------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [1024, 4096, 16384])
@pytest.mark.parametrize("broken", [0, 1])
def test_one_good_meta_is_enough(tmp_path: Path, page_size: int, broken: int) -> None:
    """With either meta page destroyed the other one opens the file, whatever its page size."""
    path = write(tmp_path / "db", {b"key": {b"a": b"1"}}, page_size)
    data = bytearray(path.read_bytes())
    data[broken * page_size : (broken + 1) * page_size] = bytes(page_size)
    path.write_bytes(data)
    with BboltFile(path) as file:
        assert file.meta.txid == (1 if broken == 0 else 2)
        assert open_bucket(file, b"key").get(b"a") == b"1"


def test_the_newer_meta_wins_on_either_page(tmp_path: Path) -> None:
    """The higher transaction id decides, not the page it stands on."""
    path = write(tmp_path / "db", {b"key": {b"a": b"1"}}, 1024)
    with BboltFile(path) as file:
        meta = file.meta
    newer = Meta(meta.page_size, meta.root, 0, NO_FREELIST, meta.high_water, 9)
    data = bytearray(path.read_bytes())
    data[1024:2048] = encode_meta(newer, 1)
    path.write_bytes(data)
    with BboltFile(path) as file:
        assert file.meta.txid == 9


def test_not_ours_too_new_and_damaged_are_told_apart(tmp_path: Path) -> None:
    """No magic is "not ours", a whole meta of a later version "too new", a broken checksum "damaged"."""
    path = write(tmp_path / "db", {b"key": {}}, 1024)
    good = path.read_bytes()

    def opened(change: Callable[[bytearray], None]) -> None:
        data = bytearray(good)
        change(data)
        path.write_bytes(data)
        BboltFile(path).close()

    def no_magic(data: bytearray) -> None:
        data[:2048] = b"?" * 2048

    def later_version(data: bytearray) -> None:
        for start in (16, 1040):
            body = data[start : start + 4] + struct.pack("<I", 3) + data[start + 8 : start + 56]
            data[start : start + 64] = body + struct.pack("<Q", bbolt_page.fnv1a(bytes(body)))

    def flipped(data: bytearray) -> None:
        data[40] ^= 1
        data[1064] ^= 1

    def cut(data: bytearray) -> None:
        del data[-1100:]

    for change, error in (
        (no_magic, NotAStore),
        (later_version, TooNew),
        (flipped, Corruption),
        (cut, Corruption),
    ):
        with pytest.raises(error):
            opened(change)


def test_no_trailer_is_not_a_wrong_trailer(tmp_path: Path) -> None:
    """A file without SHA-256 says so; one whose bytes changed since is damaged."""
    without = write(tmp_path / "without", {b"key": many_rows(50)}, trailer=False)
    with BboltFile(without) as file:
        assert file.verify_hash() is False
    path = write(tmp_path / "with", {b"key": many_rows(50)})
    data = bytearray(path.read_bytes())
    data[-100] ^= 0x10
    path.write_bytes(data)
    with BboltFile(path) as file, pytest.raises(Corruption, match="SHA-256"):
        file.verify_hash()


# --- hostile files ------------------------------------------------------------------------------


def use_all_of_it(path: Path) -> None:
    """Every way of reading a file; each may end in a typed error only."""

    def tried(what: Callable[[], object]) -> None:
        try:
            what()
        except KVStoreError:
            pass

    try:
        file = BboltFile(path)
    except KVStoreError:
        return
    with file:
        tried(lambda: list(check(file)))
        tried(file.status_hash)
        tried(file.verify_hash)
        tried(lambda: [dict(bucket.scan()) for name in file.buckets() if (bucket := file.bucket(name))])
        tried(lambda: [list(b.scan(b"2", b"5", True)) for name in file.buckets() if (b := file.bucket(name))])
    try:
        store = EtcdFile(path)
    except KVStoreError:
        return
    with store:
        for what in (
            lambda: store.revision,
            lambda: list(store.live()),
            lambda: store.get(b"k1"),
            lambda: store.history(b"k1"),
            store.hash_kv,
            store.leases,
            store.members,
            store.alarms,
            store.users,
            store.roles,
            store.status,
            lambda: store.conf_state,
        ):
            tried(what)


def leaf(page_id: int, *keys: bytes) -> bytes:
    return bbolt_page.encode_leaf(page_id, [(key, b"v") for key in keys], 0, 1024)


def branch(page_id: int, *children: tuple[bytes, int]) -> bytes:
    return bbolt_page.encode_branch(page_id, list(children), 1024)


def root_leaf(page_id: int, bucket_root: int) -> bytes:
    value = struct.pack("<QQ", bucket_root, 0)
    return bbolt_page.encode_leaf(page_id, [(b"key", value)], bbolt_page.BUCKET_FLAG, 1024)


def ladder(levels: int) -> list[bytes]:
    """Each branch names the next page twice: 2 ** levels ways down."""
    pages = [branch(3 + at, (b"a", 4 + at), (b"b", 4 + at)) for at in range(levels)]
    return [root_leaf(2, 3), *pages, leaf(3 + levels, b"a")]


def with_element(page: bytes, *numbers: int) -> bytes:
    return page[: HEADER.size] + LEAF_ELEMENT.pack(*numbers) + page[HEADER.size + LEAF_ELEMENT.size :]


HOSTILE = {
    "a branch that is its own child": [root_leaf(2, 3), branch(3, (b"a", 3), (b"b", 3))],
    "two branches that are each other's child": [root_leaf(2, 3), branch(3, (b"a", 4)), branch(4, (b"a", 3))],
    "a bucket that is its own parent": [root_leaf(2, 2)],
    "twenty levels of doubled children": ladder(20),
    "more levels than any file has": ladder(60),
    "a child that does not exist": [root_leaf(2, 3), branch(3, (b"a", 1 << 60))],
    "a child that is a meta page": [root_leaf(2, 3), branch(3, (b"a", 0), (b"b", 1))],
    "a bucket's root that does not exist": [root_leaf(2, 77)],
    "a page that says it is another": [root_leaf(2, 3), leaf(9, b"a")],
    "more elements than fit": [root_leaf(2, 3), HEADER.pack(3, LEAF, 0xFFFF, 0) + bytes(1008)],
    "more overflow than the file has": [root_leaf(2, 3), HEADER.pack(3, LEAF, 1, 0xFFFFFFFF) + bytes(1008)],
    "an empty branch": [root_leaf(2, 3), HEADER.pack(3, BRANCH, 0, 0) + bytes(1008)],
    "flags of no page": [root_leaf(2, 3), HEADER.pack(3, 3, 1, 0) + bytes(1008)],
    "a key beyond its page": [root_leaf(2, 3), with_element(leaf(3, b"a"), 0, 0xFFFFFFFF, 1, 1)],
    "a value beyond its page": [root_leaf(2, 3), with_element(leaf(3, b"a"), 0, 16, 1, 0x7FFFFFFF)],
    "a key inside the elements": [root_leaf(2, 3), with_element(leaf(3, b"a"), 0, 0, 1, 1)],
    "an empty key": [root_leaf(2, 3), with_element(leaf(3, b"a"), 0, 16, 0, 1)],
    "a value that is two keys'": [root_leaf(2, 3), with_element(leaf(3, b"ba", b"c"), 0, 32, 2, 3)],
    "keys that descend": [root_leaf(2, 3), leaf(3, b"b", b"a")],
    "leaves that descend": [root_leaf(2, 3), branch(3, (b"a", 5), (b"b", 4)), leaf(4, b"a"), leaf(5, b"b")],
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tree_is_found_out(tmp_path: Path, name: str) -> None:
    """Cycles, lengths beyond the file and huge counts end in Corruption that names a byte of the file."""
    path = write_pages(tmp_path / "db", HOSTILE[name])
    with BboltFile(path) as file:
        assert list(check(file)) != []
        with pytest.raises(Corruption) as found:
            for bucket_name in file.buckets():
                nested(open_bucket(file, bucket_name))
        assert found.value.path == str(path)
    use_all_of_it(path)


def nested(bucket: Bucket, depth: int = 0) -> None:
    """Walk a bucket and, some way down, the buckets inside it."""
    if depth > 40:
        raise Corruption("buckets without end", bucket.file.path)
    for span in bucket.spans():
        if span.is_bucket:
            nested(bucket.sub_bucket(span), depth + 1)


@pytest.mark.parametrize(
    ("count", "ids"),
    [(1, [3]), (1, [1 << 50]), (2, [4, 4]), (0xFFFF, [1 << 60]), (0xFFFF, [1, 4]), (60000, [4]), (0, [])],
)
def test_a_freelist_that_lies_is_found_out(tmp_path: Path, count: int, ids: list[int]) -> None:
    """Free pages in use, named twice, not existing, more than fit, or missing from the list are findings."""
    pages = [root_leaf(2, 3), leaf(3, b"a"), bytes(1024)]
    whole = struct.pack(f"<{len(ids)}Q", *ids)
    pages.append((HEADER.pack(5, bbolt_page.FREELIST, count, 0) + whole).ljust(1024, b"\0"))
    path = write_pages(tmp_path / "db", pages, freelist=5)
    with BboltFile(path) as file:
        findings = list(check(file))
    is_honest = (count, ids) == (0xFFFF, [1, 4])
    assert bool(findings) != is_honest


def test_random_damage_ends_in_typed_errors(tmp_path: Path, samples: Path) -> None:
    """Flipped, overwritten and cut bytes of good files: whatever is read, only typed errors come out."""
    chance = random.Random(20)
    deep = write(tmp_path / "deep", {b"key": many_rows(400), b"meta": many_rows(3)})
    originals = [deep.read_bytes(), (samples / "tiny-3.5.30" / "snapshot.db").read_bytes()]
    path = tmp_path / "mutant"
    for round_number in range(600):
        data = bytearray(originals[round_number % len(originals)])
        for _change in range(chance.choice((1, 1, 2, 8))):
            at = chance.randrange(len(data))
            width = chance.choice((1, 2, 4, 8, 64))
            kind = chance.randrange(4)
            if kind == 0:
                data[at] ^= 1 << chance.randrange(8)
            elif kind == 1:
                data[at : at + width] = chance.randbytes(width)
            elif kind == 2:
                data[at : at + width] = chance.choice((b"\0", b"\xff")) * width
            else:
                source = chance.randrange(len(data))
                data[at : at + 64] = data[source : source + 64]
        path.write_bytes(data[: chance.choice((len(data), len(data), chance.randrange(len(data) + 1)))])
        use_all_of_it(path)
