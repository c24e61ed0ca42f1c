"""An etcd database as a store: HashKV, compaction, leases, members and the odd rows of real files."""

from collections.abc import Iterable
from pathlib import Path

import pytest
from kvstore.migrations.etcd import bbolt_search, messages, rows
from kvstore.migrations.etcd.bbolt_write import write_bbolt
from kvstore.migrations.etcd.etcd_file import EtcdFile
from kvstore.migrations.etcd.rows import KeyValueRow, Lease, Member, encode_key_value, encode_revision

from kvstore.errors import Compacted, Corruption, FutureRevision, NotAStore

Encoded = dict[bytes, bytes]


class Written:
    """An etcd store's rows, made by its rules, one revision at a time."""

    def __init__(self, keeps_tombstone_at_compaction: bool = True) -> None:
        self.revision = 1
        self.compact_revision = -1
        self.rows: list[KeyValueRow] = []
        self.newest: dict[bytes, KeyValueRow] = {}
        self.keeps_tombstone = keeps_tombstone_at_compaction

    def put(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self.revision += 1
        old = self.newest.get(key)
        created, version = (old.create_revision, old.version + 1) if old else (self.revision, 1)
        row = KeyValueRow(self.revision, 0, False, key, value, created, self.revision, version, lease)
        self.newest[key] = row
        self.rows.append(row)

    def delete(self, *keys: bytes) -> None:
        self.revision += 1
        for sub, key in enumerate(keys):
            del self.newest[key]
            self.rows.append(KeyValueRow(self.revision, sub, True, key, b"", 0, 0, 0, 0))

    def compact(self, revision: int) -> None:
        self.compact_revision = revision
        newest = {row.key: row for row in self.rows if row.main <= revision}
        self.rows = [
            row
            for row in self.rows
            if row.main > revision
            or (
                newest[row.key] is row
                and (not row.is_tombstone or (self.keeps_tombstone and row.main == revision))
            )
        ]

    def meta(self) -> Encoded:
        if self.compact_revision < 0:
            return {}
        mark = encode_revision(self.compact_revision)
        return {rows.SCHEDULED_COMPACT: mark, rows.FINISHED_COMPACT: mark}

    def save(self, path: Path, **buckets: Encoded) -> EtcdFile:
        return store(path, self.rows, **{"meta": self.meta(), **buckets})


def store(path: Path, key_rows: Iterable[KeyValueRow], **buckets: Encoded) -> EtcdFile:
    others = [(name.encode(), sorted(content.items())) for name, content in buckets.items()]
    write_bbolt(path, [(rows.KEY, map(encode_key_value, key_rows)), *others])
    return EtcdFile(path)


# --- HashKV -----------------------------------------------------------------------------------


def picked_key(number: int) -> bytes:
    if number % 142 == 30:
        return b"zenek"
    if number % 71 == 30:
        return b"xavery"
    return [b"alice", b"bob", b"celine", b"dominik", b"eve", b"frederica", b"gorge"][number % 7]


AT_THE_MIDDLE = [
    (4082599214, -1, 35),
    (2279933401, 35, 106),
    (3284231217, 106, 177),
    (126286495, 177, 248),
    (900108730, 248, 319),
    (2475485232, 319, 390),
    (1226296507, 390, 461),
    (2503661030, 461, 532),
    (4155130747, 532, 603),
    (106915399, 603, 674),
    (406914006, 674, 745),
    (1882211381, 745, 816),
    (806177088, 816, 887),
    (664311366, 887, 958),
    (1496914449, 958, 1029),
    (2434525091, 1029, 1100),
    (3988652253, 1100, 1171),
    (1122462288, 1171, 1242),
    (724436716, 1242, 1883),
]
AT_THE_END = {
    73: (1913897190, -1, 73),
    145: (224860069, 73, 145),
    217: (1565167519, 145, 217),
    2508: (2017735779, 1297, 2508),
}


def test_hash_kv_gives_etcds_own_numbers(tmp_path: Path) -> None:
    """The hashes that etcd's tests expect, each after one more round of puts and a compaction."""
    written = Written()
    found = []
    for base in range(0, 1210, 71):
        for number in range(base, base + 72):
            written.put(picked_key(number), b"%d" % number)
        with written.save(tmp_path / "db") as file:
            found.append(tuple(file.hash_kv(base + 35)))
        written.compact(base + 35)
    base += 71
    for number in range(base, base + 1211):
        written.put(picked_key(number), b"%d" % number)
    with written.save(tmp_path / "db") as file:
        found.append(tuple(file.hash_kv(base + 605)))
    assert found == AT_THE_MIDDLE


def test_hash_kv_at_the_newest_revision_gives_etcds_own_numbers(tmp_path: Path) -> None:
    """The same data, each time hashed and compacted at the revision just written."""
    written = Written()
    found = {}
    for base in range(0, 1210, 71):
        for number in range(base, base + 72):
            written.put(picked_key(number), b"%d" % number)
        with written.save(tmp_path / "db") as file:
            found[written.revision] = tuple(file.hash_kv())
        written.compact(written.revision)
    base += 71
    for number in range(base, base + 1211):
        written.put(picked_key(number), b"%d" % number)
    with written.save(tmp_path / "db") as file:
        found[written.revision] = tuple(file.hash_kv())
    assert {revision: found[revision] for revision in AT_THE_END} == AT_THE_END


def test_hash_kv_is_the_same_with_and_without_the_tombstone_at_the_compaction(tmp_path: Path) -> None:
    """Old servers delete the tombstone that new ones keep; both hash the same at each readable revision."""
    files = []
    for keeps in (True, False):
        written = Written(keeps_tombstone_at_compaction=keeps)
        for number in range(10):
            written.put(b"k%d" % (number % 3), b"%d" % number)
        written.delete(b"k1", b"k2")
        written.compact(written.revision)
        written.put(b"k1", b"back")
        written.put(b"k0", b"again")
        files.append(written.save(tmp_path / f"{keeps}.db"))
    new, old = files
    with new, old:
        assert len(list(new.rows())) == len(list(old.rows())) + 2
        for revision in range(new.compact_revision, new.revision + 1):
            assert new.hash_kv(revision) == old.hash_kv(revision)
        assert [each.key for each in new.live()] == [each.key for each in old.live()] == [b"k0", b"k1"]


def test_rows_that_were_overtaken_after_the_compaction_are_not_hashed(tmp_path: Path) -> None:
    """A row at or below the compact revision counts only while it is its key's newest at the revision."""
    written = Written()
    written.put(b"a", b"1")
    written.put(b"b", b"1")
    written.compact(3)
    written.put(b"a", b"2")
    with written.save(tmp_path / "db") as file:
        only_b = store(tmp_path / "same", file.rows(3), meta=written.meta())
        with only_b:
            assert file.hash_kv(4) == only_b.hash_kv(4)
        assert file.hash_kv(3) != file.hash_kv(4)


def test_revisions_that_cannot_be_hashed(tmp_path: Path) -> None:
    """Below the compaction, at it for servers before 3.4.34, and in the future: refused."""
    written = Written()
    for number in range(5):
        written.put(b"k", b"%d" % number)
    written.compact(4)
    with written.save(tmp_path / "db") as file:
        for revision, error in ((3, Compacted), (7, FutureRevision)):
            with pytest.raises(error):
                file.hash_kv(revision)
        with pytest.raises(Compacted):
            file.hash_kv(4, before_3_4_34=True)
        assert file.hash_kv(4).revision == 4
        assert file.hash_kv() == file.hash_kv(6)


# --- revisions --------------------------------------------------------------------------------


def test_an_empty_store(tmp_path: Path) -> None:
    """A store that was never written to is at revision 1 and was never compacted."""
    with store(tmp_path / "db", []) as file:
        assert (file.revision, file.compact_revision) == (1, -1)
        assert (list(file.live()), list(file.rows()), file.get(b"a")) == ([], [], None)
        assert (file.leases(), file.members(), file.users()) == ([], [], [])


def test_an_unfinished_compaction_counts(tmp_path: Path) -> None:
    """Rows that a scheduled compaction has not removed yet cannot be read any more."""
    written = Written()
    for number in range(6):
        written.put(b"k", b"%d" % number)
    meta = {rows.SCHEDULED_COMPACT: encode_revision(5), rows.FINISHED_COMPACT: encode_revision(2)}
    with store(tmp_path / "db", written.rows, meta=meta) as file:
        assert (file.finished_compact_revision, file.scheduled_compact_revision) == (2, 5)
        with pytest.raises(Compacted) as refused:
            file.get(b"k", 4)
        assert refused.value.compact_revision == 5
        found = file.get(b"k", 5)
        assert found is not None and found.value == b"3"


def test_the_revision_survives_the_removal_of_the_newest_tombstone(tmp_path: Path) -> None:
    """Where compaction removed the newest rows, its own revision is the store's."""
    written = Written(keeps_tombstone_at_compaction=False)
    written.put(b"k", b"1")
    written.delete(b"k")
    written.compact(3)
    with written.save(tmp_path / "db") as file:
        assert list(file.rows()) == []
        assert file.revision == 3


def test_ranges_at_revisions(tmp_path: Path) -> None:
    """One key, a range, and everything from a key on, now and in the past."""
    written = Written()
    for key in (b"a", b"b", b"ba", b"c"):
        written.put(key, b"1")
    written.delete(b"b", b"c")
    with written.save(tmp_path / "db") as file:
        assert [row.key for row in file.live(5, b"b", b"c")] == [b"b", b"ba"]
        assert [row.key for row in file.live(0, b"b", b"c")] == [b"ba"]
        assert [row.key for row in file.live(5, b"b", None)] == [b"b"]
        assert [row.key for row in file.live(5, b"b")] == [b"b", b"ba", b"c"]
        assert file.get(b"b") is None
        assert [(row.main, row.is_tombstone) for row in file.history(b"c")] == [(5, False), (6, True)]


@pytest.mark.parametrize("chunk_bytes", [777, 1 << 20])
def test_a_key_is_found_wherever_it_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    """Lookups agree with a walk over all rows: over chunk borders, overflow pages, and look-alikes in values."""
    monkeypatch.setattr(bbolt_search, "_CHUNK_BYTES", chunk_bytes)
    written = Written()
    for number in range(700):
        look_alike = rows.encoded_key(b"key%d" % (number % 31))
        written.put(b"key%d" % (number % 37), look_alike * (1 + number % 5) + bytes(number * 977 % 9000))
    written.delete(b"key3", b"key5")
    with written.save(tmp_path / "db") as file:
        everything = list(file.rows())
        for key in (b"key0", b"key3", b"key31", b"key36", b"key4", b"key", b"absent"):
            mine = [row for row in everything if row.key == key]
            assert file.history(key) == mine
            for revision in (2, 40, 350, 701, 702):
                past = [row for row in mine if row.main <= revision]
                expected = past[-1] if past and not past[-1].is_tombstone else None
                assert file.get(key, revision) == expected


def test_the_row_of_a_bumped_revision_is_no_key(tmp_path: Path) -> None:
    """A restore with a bumped revision leaves an empty row: it moves the revision and is no key."""
    bumped = encode_revision(1_000_000)
    with store(tmp_path / "db", [], meta={rows.SCHEDULED_COMPACT: bumped}) as file:
        assert file.revision == 1_000_000
    write_bbolt(
        tmp_path / "db", [(rows.KEY, [(bumped, b"")]), (rows.META, [(rows.SCHEDULED_COMPACT, bumped)])]
    )
    with EtcdFile(tmp_path / "db") as file:
        assert (file.revision, list(file.live())) == (1_000_000, [])


# --- beside the keys ----------------------------------------------------------------------------


def test_leases_know_their_keys(tmp_path: Path) -> None:
    """A key belongs to the lease of its last put; a lease id may be negative; unknown ones attach nothing."""
    written = Written()
    written.put(b"a", b"1", lease=-5)
    written.put(b"b", b"1", lease=-5)
    written.put(b"b", b"2")
    written.put(b"c", b"1", lease=7)
    written.put(b"d", b"1", lease=999)
    leases = dict(map(rows.encode_lease, [Lease(-5, 60), Lease(7, 30, 12), Lease(8, 9_000_000_000)]))
    with written.save(tmp_path / "db", lease=leases) as file:
        assert file.leases() == [
            Lease(-5, 60, 0, (b"a",)),
            Lease(7, 30, 12, (b"c",)),
            Lease(8, 9_000_000_000),
        ]


def test_members_alarms_users_and_roles(tmp_path: Path) -> None:
    """What stands beside the keys is decoded, names that are no UTF-8 included."""
    member = Member(0xE8963C61D3D9530B, "m\u00f8", ("http://a:2380",), ("http://a:2379",), True)
    user = messages.User(name=b"u\xff", password=b"$2a$", roles=[b"r"], options={"no_password": True})
    role = messages.Role(name=b"r", keyPermission=[{"permType": 2, "key": b"a", "range_end": b"b"}])
    alarm = messages.AlarmMember(memberID=member.id, alarm=1)
    with store(
        tmp_path / "db",
        [],
        members=dict([rows.encode_member(member)]),
        members_removed={b"ff": rows.REMOVED},
        authUsers={b"u\xff": user.SerializeToString()},
        authRoles={b"r": role.SerializeToString()},
        alarm={alarm.SerializeToString(): b""},
        auth={rows.AUTH_ENABLED: b"\x01", rows.AUTH_REVISION: rows.encode_u64(4)},
        cluster={rows.CLUSTER_VERSION: b"3.6.0"},
        meta={rows.STORAGE_VERSION: b"3.6.0", rows.TERM: rows.encode_u64(3)},
    ) as file:
        assert file.members() == [member]
        assert file.removed_members() == [0xFF]
        assert file.users() == [rows.User(b"u\xff", b"$2a$", (b"r",), True)]
        assert file.roles() == [rows.Role(b"r", (rows.Permission("READWRITE", b"a", b"b"),))]
        assert file.alarms() == [rows.Alarm(member.id, "NOSPACE")]
        assert (file.auth_enabled, file.auth_revision) == (True, 4)
        assert (file.cluster_version, file.storage_version, file.term) == ("3.6.0", "3.6.0", 3)


def test_a_password_is_not_printed() -> None:
    """A user's hash does not get into logs through its repr."""
    assert "secret" not in repr(rows.User(b"u", b"secret"))


def test_encoded_rows_are_etcds_own(samples: Path) -> None:
    """Rows decoded from a server's file and encoded again are its bytes."""
    with EtcdFile(samples / "tiny-3.5.30" / "snapshot.db") as file:
        key_bucket, lease_bucket = file.file.bucket(rows.KEY), file.file.bucket(rows.LEASE)
        member_bucket = file.file.bucket(rows.MEMBERS)
        assert key_bucket and lease_bucket and member_bucket
        assert [encode_key_value(row) for row in file.rows()] == list(key_bucket.scan())
        assert [rows.encode_lease(lease) for lease in file.leases()] == list(lease_bucket.scan())
        assert [rows.encode_member(member) for member in file.members()] == list(member_bucket.scan())


# --- what is no store ---------------------------------------------------------------------------


def test_a_bbolt_file_of_others_is_not_ours(tmp_path: Path) -> None:
    """A bbolt file without etcd's buckets is told apart from a damaged store."""
    write_bbolt(tmp_path / "db", [(b"other", [])])
    with pytest.raises(NotAStore):
        EtcdFile(tmp_path / "db")


@pytest.mark.parametrize(
    ("bucket", "row"),
    [
        (rows.KEY, (b"short", b"")),
        (rows.KEY, (encode_revision(1) + b"x", b"")),
        (rows.KEY, (b"\xff" * 8 + b"_" + bytes(8), b"")),
        (rows.KEY, (encode_revision(2).replace(b"_", b"-"), b"")),
        (rows.KEY, (encode_revision(2), b"\xff\xff")),
        (rows.META, (rows.SCHEDULED_COMPACT, b"1")),
        (rows.LEASE, (bytes(8), b"\xff\xff")),
        (rows.LEASE, (bytes(7) + b"\x01", b"\x08\x02")),
        (rows.MEMBERS, (b"1", b"[]")),
        (rows.MEMBERS, (b"1", b"[" * 100_000)),
        (rows.MEMBERS_REMOVED, (b"not hex", b"removed")),
        (rows.ALARM, (b"\xff", b"")),
        (rows.AUTH_USERS, (b"u", b"\xff")),
        (rows.AUTH_ROLES, (b"r", b"\xff")),
    ],
)
def test_rows_that_are_not_etcds_are_damage(tmp_path: Path, bucket: bytes, row: tuple[bytes, bytes]) -> None:
    """A row that is not what its bucket holds ends in Corruption naming the file."""
    key_rows = [row] if bucket == rows.KEY else []
    write_bbolt(tmp_path / "db", [(rows.KEY, key_rows), *([] if key_rows else [(bucket, [row])])])
    with EtcdFile(tmp_path / "db") as file, pytest.raises(Corruption) as found:
        list(file.rows())
        list(file.live())
        _ = file.revision, file.leases(), file.members(), file.removed_members()
        _ = file.alarms(), file.users(), file.roles()
    assert found.value.path == str(tmp_path / "db")
