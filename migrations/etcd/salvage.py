"""What can be read of a cut or damaged bbolt file of etcd's: evidence for ``kvstore.salvage``.

    metas --root--> the tree, as far as it can be followed     facts CONSISTENT (CHECKSUM if the file's SHA-256 holds)
    every other page that is a leaf                            facts ALONE

A leaf counts as *whole* if it carries its own number, lies where its parents say (its first key is the one that its
branch names, all keys ascend and stay below the next), and every row in it is one that etcd writes: a revision as key,
a ``KeyValue`` in canonical encoding with that very revision. Then every fact of its range of revisions was read. Of
any other leaf the rows that decode are kept, each alone.

**Leaves outside the tree.** bbolt never overwrites a page in place: a commit writes the changed pages to free ones and
frees the old. So a file is full of old copies of leaves, and their headers look like those in use. etcd's rows are
keyed by revision and written once, so a row of an old copy is still what happened at that revision; what the copy
cannot know is what came after it. Two things may have: later rows of the same key, which stand at higher revisions and
are either found, or lie in a gap that is reported; and a compaction, which removed the row because a newer one (or a
delete) of the same key came before the compacted revision. The second leaves no trace in the row. Therefore such facts
count where every revision must be there anyway (above the compaction), or where the leaf that would tell was lost; in
a range that the tree still covers, a row that is not in the tree was removed, and stays removed. A page may also come
from a transaction that never committed. etcd applies only what the cluster has agreed on, and applies it again after
such a crash, at the same revisions: also these rows are what happened.

What is not taken from outside the tree: leases (one that was revoked would come to life and delete keys), users, roles
and permissions (a right that was withdrawn would be given again), members and alarms.

**Parts of old pages.** An old leaf with overflow pages may have lost some of them to younger pages. It ends for us
where something begins that looks like a page. Values with a whole sector of zeros are kept ALONE: the sector may
never have been written.

**Metas.** Each has a checksum. Their transactions differ by one; the higher is the newest commit. If one cannot
be read, or they are further apart, a newer commit may be lost, and no value can be called the newest.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

from kvstore.keyvalue import BadRow, decode_row, encode_key_value
from kvstore.salvage.evidence import Covered, Evidence, Fact, InFile, LeaseFound, Level, Revision

from . import rows
from .bbolt_loose import KINDS, LooseFile
from .bbolt_page import (
    BRANCH,
    BUCKET,
    FIRST_DATA_PAGE,
    HEADER,
    LEAF,
    Header,
    Meta,
    Page,
    PageError,
    Span,
    branch_children,
    leaf_spans,
    open_page,
)
from .bbolt_read import MAX_DEPTH
from .beside_keys import CARRIED_BUCKETS, carried_key, founded_by

T = TypeVar("T")

_SMALL = (*CARRIED_BUCKETS, rows.LEASE, rows.META)
_MARKS = (rows.SCHEDULED_COMPACT, rows.FINISHED_COMPACT)


@dataclass(frozen=True, slots=True)
class _Leaf:
    """A leaf of the tree: its rows, the bounds that its parents set, and what is wrong with it."""

    page_id: int
    spans: list[Span]
    low: bytes
    high: bytes | None
    problem: str


def read_database(path: Path) -> Evidence:
    """All that can be read of one file. Raises ``NotAStore`` only for what is no file, and ``StoreLocked``."""
    with LooseFile(path) as file:
        return _Reading(file).evidence()


class _Reading:
    def __init__(self, file: LooseFile) -> None:
        self.file = file
        self.found = Evidence(source=str(file.path), kind="etcd database file")
        self.reached = bytearray(file.pages)
        self.names: dict[bytes, bytes] = {}
        """Each key once, however many versions it has."""
        self.level = Level.CONSISTENT
        self.tail_is_known = False
        self.small: dict[bytes, list[tuple[bytes, bytes]]] = {}
        """Rows of the small buckets that were found in the tree."""
        self.whole: set[bytes] = set()
        """Small buckets of which every row was read."""
        self.old_marks: list[tuple[bytes, bytes]] = []
        """Rows of the bucket ``meta`` in old pages."""
        self.counts = dict.fromkeys(
            ("pages", "pages of the tree, whole", "pages of the tree, unreadable", "leaves outside the tree"),
            0,
        )

    def evidence(self) -> Evidence:
        """Read the file, once."""
        self._check_hash()
        meta = self._choose_meta()
        if meta is not None:
            self._read_tree(meta)
        if self.level < Level.CHECKSUM or self.found.unread:
            self._read_leaves_outside()
        self._read_small()
        self.counts["pages"] = self.file.pages - self.file.first_page
        self.found.figures = self.counts
        return self.found

    def _unread(self, text: str) -> None:
        self.found.unread.append(text)

    # --- the whole file ----------------------------------------------------------------------

    def _check_hash(self) -> None:
        file, warn = self.file, self.found.warnings.append
        if file.trailer_holds():
            self.level = Level.CHECKSUM
        elif file.has_trailer:
            warn(
                "the SHA-256 at the end of the snapshot does NOT match: no value below is covered by a checksum"
            )
            self._unread(
                "bytes that have changed: the SHA-256 of the file shows that there are some, not which"
            )
        else:
            warn(
                "NO HASH WAS CHECKED: the file has no SHA-256 at its end (a copy of member/snap/db never has one; a "
                "snapshot that was cut short has lost it), so no value below is covered by a checksum"
            )
        if file.first_page:
            self._unread(f"pages 0 to {file.first_page - 1}: the file has lost its beginning")
        if file.pages < file.high_water:
            missing = file.high_water - file.pages
            self._unread(
                f"pages {file.pages} to {file.high_water - 1}: {missing} pages, the file ends before them"
            )

    def _choose_meta(self) -> Meta | None:
        """The newest meta whose root can be read."""
        metas = sorted(self.file.metas.values(), key=lambda meta: -meta.txid)
        for number in (0, 1):
            if number not in self.file.metas:
                self._unread(f"meta page {number} is damaged: a newer commit than the other's may be lost")
        apart = len(metas) == 2 and metas[0].txid - metas[1].txid != 1
        if apart:
            self._unread(
                f"the meta pages are of transactions {metas[0].txid} and {metas[1].txid}: one is out of place"
            )
        for meta in metas:
            header = self.file.header(meta.root)
            if header is not None and header.page_id == meta.root and header.flags in (LEAF, BRANCH):
                self.tail_is_known = self.level == Level.CHECKSUM or (
                    len(metas) == 2 and not apart and meta is metas[0]
                )
                return meta
            self._unread(f"the root page {meta.root} of transaction {meta.txid}")
        return None

    # --- the tree ----------------------------------------------------------------------------

    def _read_tree(self, meta: Meta) -> None:
        for leaf in self._leaves(meta.root, "the root bucket"):
            for span in leaf.spans if not leaf.problem else ():
                if span.is_bucket and span.value_end - span.value_start >= BUCKET.size:
                    self._bucket(span)

    def _bucket(self, span: Span) -> None:
        root, _sequence = BUCKET.unpack_from(self.file.data, span.value_start)
        name = span.key.decode("utf-8", "backslashreplace")
        leaves = self._leaves(root, f"bucket {name}") if root else self._inline(span, name)
        if span.key == rows.KEY:
            for leaf in leaves:
                self._key_leaf(leaf)
        elif span.key in _SMALL:
            data, unread = self.file.data, len(self.found.unread)
            self.small[span.key] = [
                (each.key, data[each.value_start : each.value_end])
                for leaf in leaves
                if not leaf.problem
                for each in leaf.spans
            ]
            if len(self.found.unread) == unread:
                self.whole.add(span.key)

    def _inline(self, span: Span, name: str) -> Iterator[_Leaf]:
        start, end = span.value_start + BUCKET.size, span.value_end
        try:
            page = open_page(self.file.data, start, end, 0, 0)
            spans = list(leaf_spans(self.file.data, page))
        except PageError as error:
            self._unread(f"bucket {name}, inline: {error}")
            return
        yield _Leaf((start - self.file.zero) // self.file.page_size, spans, b"", None, "")

    def _leaves(self, root: int, what: str) -> Iterator[_Leaf]:
        """The leaves of a bucket, in order, as far as branches lead to them."""
        todo: list[tuple[int, bytes, bytes | None, int]] = [(root, b"", None, 0)]
        while todo:
            page_id, low, high, depth = todo.pop()
            problem, header = self._take(page_id, depth)
            if header is None:
                self._lost(what, page_id, problem)
                continue
            start, end, problem = self.file.extent(page_id, header)
            if header.flags == LEAF:
                leaf = self._leaf(page_id, header, (start, end), (low, high), problem)
                if leaf.problem:
                    self._lost(what, page_id, leaf.problem)
                else:
                    self.counts["pages of the tree, whole"] += 1 + header.overflow
                yield leaf
                continue
            try:
                keys, children = branch_children(self.file.data, Page(start, end, header.elements, False))
                if problem or not keys or keys[0] < low or (high is not None and keys[-1] >= high):
                    raise PageError(problem or "its keys lie outside its parent's bounds", start)
            except PageError as error:
                self._lost(what, page_id, error.reason)
                continue
            self.counts["pages of the tree, whole"] += 1 + header.overflow
            bounds = [low, *keys[1:]] if not low else keys
            ends = [*keys[1:], high]
            below = zip(children, bounds, ends, strict=True)
            todo += [(child, first, end_key, depth + 1) for child, first, end_key in below][::-1]

    def _take(self, page_id: int, depth: int) -> tuple[str, Header | None]:
        """The header of a leaf or branch that is visited for the first time; else what is wrong."""
        header = self.file.header(page_id) if page_id >= FIRST_DATA_PAGE else None
        if header is None:
            return "the file does not have it", None
        if header.page_id != page_id or header.flags not in (LEAF, BRANCH):
            kind = KINDS.get(header.flags, f"{header.flags:#x}")
            return f"it says that it is page {header.page_id} ({kind})", None
        if depth > MAX_DEPTH or self.reached[page_id]:
            return "the tree leads to it more than once", None
        for each in range(page_id, min(page_id + header.overflow + 1, len(self.reached))):
            self.reached[each] = 1
        return "", header

    def _lost(self, what: str, page_id: int, problem: str) -> None:
        self.counts["pages of the tree, unreadable"] += 1
        self._unread(f"page {page_id} of {what}: {problem}")

    def _leaf(
        self,
        page_id: int,
        header: Header,
        place: tuple[int, int],
        bounds: tuple[bytes, bytes | None],
        problem: str,
    ) -> _Leaf:
        (start, end), (low, high) = place, bounds
        try:
            if problem:
                raise PageError(problem, start)
            if header.elements > (end - start - HEADER.size) // HEADER.size:
                raise PageError("it has no room for its elements", start)
            spans = list(leaf_spans(self.file.data, Page(start, end, header.elements, True)))
            keys = [span.key for span in spans]
            if any(key >= after for key, after in pairwise(keys)):
                raise PageError("its keys do not ascend", start)
            if low and (not keys or keys[0] != low):
                raise PageError("it does not begin with the key that its parent names", start)
            if keys and high is not None and keys[-1] >= high:
                raise PageError("its keys go on beyond the next leaf's", start)
        except PageError as error:
            return _Leaf(
                page_id, list(self.file.elements(start, end, header.elements)), low, high, error.reason
            )
        return _Leaf(page_id, spans, low, high, "")

    # --- the bucket of keys ------------------------------------------------------------------

    def _key_leaf(self, leaf: _Leaf) -> None:
        """The facts of a leaf, and the range of revisions that it covers."""
        level = Level.ALONE if leaf.problem else self.level
        bounds = _revision_at(leaf.low), None if leaf.high is None else _revision_at(leaf.high)
        start: Revision | None = bounds[0] if not leaf.problem else None
        if leaf.high is not None and bounds[1] is None:
            start = None
        last = start
        for span in leaf.spans:
            revision = _revision_at(span.key)
            fact = self._fact(span, leaf.page_id, level)
            if fact is not None:
                self.found.facts.append(fact)
                last = revision
                continue
            if not leaf.problem:
                self._unread(f"page {leaf.page_id}: {_row_name(span)} is not a row that etcd writes")
            if start is not None and revision is not None:
                self.found.covered.append(Covered(start, revision))
                start = last = (revision[0], revision[1] + 1)
            else:
                start = None
        if start is None:
            return
        if leaf.high is not None:
            self.found.covered.append(Covered(start, bounds[1]))
        elif self.tail_is_known:
            self.found.covered.append(Covered(start, None))
        elif last is not None:
            self.found.covered.append(Covered(start, (last[0], last[1] + 1)))

    def _fact(self, span: Span, page_id: int, level: Level) -> Fact | None:
        """A row, if it is one that etcd writes."""
        value = self.file.read(span.value_start, span.value_end)
        try:
            main, sub, is_tombstone = rows.decode_revision(span.key)
            key, create, mod, version, content, lease = decode_row(value)
        except (rows.RowError, BadRow):
            return None
        if not key or main < 1 or encode_key_value(key, create, mod, version, content, lease) != value:
            return None
        key, place = self.names.setdefault(key, key), sys.intern(f"page {page_id}")
        if is_tombstone:
            return (
                None
                if create or mod or version or content or lease
                else Fact((main, sub), key, None, level, place)
            )
        if mod != main or not 1 <= create <= mod or version < 1 or (version == 1) != (create == mod):
            return None
        if version > mod - create + 1:
            return None
        if level < Level.CHECKSUM and self.file.has_blank_sector(span.value_start, span.value_end):
            level = Level.ALONE
        kept = InFile(self.file, span.value_start, span.value_end)
        return Fact((main, sub), key, kept, level, place)

    # --- outside the tree --------------------------------------------------------------------

    def _read_leaves_outside(self) -> None:
        for page_id in range(FIRST_DATA_PAGE, self.file.pages):
            header = self.file.header(page_id)
            if header is None or self.reached[page_id] or header.flags != LEAF:
                continue
            start, end, _ = self.file.extent(page_id, header)
            spans = list(self.file.elements(start, end, header.elements))
            if spans:
                self.counts["leaves outside the tree"] += 1
                self._outside(page_id, spans)

    def _outside(self, page_id: int, spans: list[Span]) -> None:
        for span in spans:
            if span.is_bucket:
                self._old_bucket(page_id, span)
            elif span.key in _MARKS:
                self.old_marks.append((span.key, self.file.data[span.value_start : span.value_end]))
            elif (fact := self._fact(span, page_id, Level.ALONE)) is not None:
                self.found.facts.append(fact)

    def _old_bucket(self, page_id: int, span: Span) -> None:
        """An inline bucket in an old root page."""
        start, end = span.value_start + BUCKET.size, span.value_end
        if span.key not in (rows.KEY, rows.META) or end - start < HEADER.size:
            return
        header = Header(*HEADER.unpack_from(self.file.data, start))
        if header.page_id == 0 and header.flags == LEAF:
            self._outside(
                page_id,
                [each for each in self.file.elements(start, end, header.elements) if not each.is_bucket],
            )

    # --- besides keys ------------------------------------------------------------------------

    def _read_small(self) -> None:
        found = self.found
        marks = dict(self.small.get(rows.META, ()))
        if rows.META not in self.whole and found.facts:
            found.warnings.append(
                "the bucket meta could not be read: if the store was compacted, keys that had been deleted may be back"
            )
        both = [*marks.items(), *(self.old_marks if rows.META not in self.whole else ())]
        numbers = [_decoded(rows.decode_revision, value) for key, value in both if key in _MARKS]
        found.compacted = max((number[0] for number in numbers if number), default=-1)
        found.index = _decoded(rows.decode_u64, marks.get(rows.CONSISTENT_INDEX, b"")) or 0
        found.leases = list(self._leases())
        found.carried = [
            (carried_key(bucket, key), value)
            for bucket in CARRIED_BUCKETS
            for key, value in self.small.get(bucket, ())
        ]
        members = [_decoded(rows.decode_member, value) for _, value in self.small.get(rows.MEMBERS, ())]
        found.cluster_id, found.member_id, found.name = founded_by(member for member in members if member)
        if found.facts and not {rows.AUTH, rows.AUTH_USERS, rows.AUTH_ROLES} <= self.whole:
            found.warnings.append(
                "users and roles could not all be read: check them before the new store is served to anybody"
            )

    def _leases(self) -> Iterator[LeaseFound]:
        if rows.LEASE not in self.whole and self.found.facts:
            self._unread("leases: some or all")
        for key, value in self.small.get(rows.LEASE, ()):
            try:
                lease = rows.decode_lease(key, value)
            except rows.RowError as error:
                self._unread(f"a lease: {error}")
                continue
            granted = lease.granted_ttl_seconds
            yield LeaseFound(lease.id, granted, lease.remaining_ttl_seconds or granted)


def _decoded(decode: Callable[[bytes], T], value: bytes) -> T | None:
    try:
        return decode(value)
    except rows.RowError:
        return None


def _revision_at(key: bytes) -> Revision | None:
    if not key:
        return 0, 0
    try:
        main, sub, _ = rows.decode_revision(key)
    except rows.RowError:
        return None
    return main, sub


def _row_name(span: Span) -> str:
    revision = _revision_at(span.key)
    return "a row without a revision" if revision is None else f"revision {revision[0]}.{revision[1]}"
