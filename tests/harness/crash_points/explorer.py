"""Every crash point of a workload: cut the power at each call, in many ways of losing; reopen; compare.

    workload(session)       session.put(...), session.txn(...), session.checkpoint(), session.reopen() ...
    explore(workload, ...)  runs it once, and at each of its moments makes the directories that a power cut could
                            leave, opens each, and holds it against the model

What must hold of each: it opens without help; every acknowledged write is there; the one in flight is there
whole or not at all; revision and compaction never go back; reads of the past and HashKV are the model's; the identity
is the same; it goes on working. A power cut during that recovery is one more crash of the same kind.

What is tried at a call depends on the seed and that call alone: a failure names it, and ``KVSTORE_CALL=number`` tries
it by itself; ``KVSTORE_KEEP=folder`` keeps what it left.
"""

from __future__ import annotations

import copy
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from kvstore import Store, ops, recovery
from kvstore.backend import find_backend
from kvstore.errors import KVStoreError, StorePoisoned
from kvstore.files import Disk
from kvstore.model import PutRequest, RowsRequest, TxnRequest
from kvstore.mvcc.schema import META_CARRIED
from kvstore.options import Options
from kvstore.recovery import open_engine
from kvstore.testing.crashes import CALL, fingerprint, kept
from kvstore.testing.disk_images import KEPT, LOST, Loss
from kvstore.testing.recording_disk import say_where_it_lies
from tests.harness.crash_points.disk import CrashingDisk, Files, Killed, recorded
from tests.harness.model import Model
from tests.harness.plain import changes_since, plain

OPTIONS = Options(
    background=False,
    wal_file_size=1500,
    max_wals=1,
    max_snapshots=2,
    snapshot_count=0,
    low_disk_bytes=0,
    clock=lambda: 1000.0,
)

Workload = Callable[["Session"], None]


class BrokenPromise(AssertionError):
    """A crash that the store did not survive as promised."""


@dataclass
class Figures:
    """What was tried."""

    calls: int = 0
    states: int = 0
    """Different directories that a power cut may leave, each opened and compared."""
    second_states: int = 0
    """Of those, the ones left by a second power cut, during recovery."""
    kills: int = 0

    def __str__(self) -> str:
        return (
            f"{self.calls:,} calls, {self.states:,} states left by a cut "
            f"({self.second_states:,} of them by a second one), {self.kills:,} kills, every promise kept"
        )

    def __iadd__(self, other: Figures) -> Figures:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        return self


# --- the workload's side ---------------------------------------------------------------------------


class Session:
    """A store and its model in step. ``model`` is what was acknowledged, ``trying`` includes what is in flight."""

    def __init__(self, disk: CrashingDisk, options: Options) -> None:
        self.disk = disk
        self.options = options
        self.model = Model()
        self.trying: Model | None = None
        self.identity: tuple[int, int] | None = None
        self.kills = 0
        self.open()

    def candidates(self) -> list[Model]:
        """The states that a crash at this moment may leave."""
        return [self.model] if self.trying is None else [self.model, self.trying]

    def put(self, key: bytes, value: bytes = b"", lease: int = 0) -> None:
        request = PutRequest(key, value, lease)
        self._do(lambda model: model.put(request), lambda store: store.engine.put(request))

    def delete(self, key: bytes | None = None, *, prefix: bytes | None = None) -> None:
        request = ops.delete(key, prefix=prefix)
        self._do(lambda model: model.delete(request), lambda store: store.engine.delete_range(request))

    def txn(self, *operations: Any) -> None:
        request = TxnRequest(success=operations)
        self._do(lambda model: model.txn(request), lambda store: store.engine.txn(request))

    def grant(self, lease: int) -> None:
        self._do(lambda model: model.grant(lease, 60), lambda store: store.grant_lease(60, lease))

    def revoke(self, lease: int) -> None:
        self._do(lambda model: model.revoke(lease), lambda store: store.revoke_lease(lease))

    def carry(self, name: bytes, value: bytes | None) -> None:
        """Set or delete a row that the store only carries."""
        rows = {META_CARRIED + name: value}

        def change(model: Model) -> None:
            model.carried |= {key: value for key, value in rows.items() if value is not None}
            for key in [key for key in rows if rows[key] is None]:
                model.carried.pop(key, None)

        self._do(change, lambda store: store.engine.ask(RowsRequest(lambda _: (rows, None))))

    def compact(self, back: int) -> None:
        revision = self.model.revision - back
        self._do(lambda model: model.compact(revision), lambda store: store.compact(revision))

    def run(self, action: Callable[[Store], Any]) -> None:
        """Something that moves data and changes nothing: a checkpoint, a snapshot, a defragmentation."""
        with self._surviving():
            action(self.store)

    def checkpoint(self) -> None:
        self.run(lambda store: store.checkpoint())

    def close(self) -> None:
        self.run(lambda store: store.close())

    def open(self) -> None:
        while True:
            try:
                self.store = Store(open_engine(self.disk.root, self.options, self.disk))
                break
            except Killed:
                self._restarted()
        identity = self.store.engine.cluster_id, self.store.engine.member_id
        if self.identity not in (None, identity):
            raise BrokenPromise(f"the identity was {self.identity} and is {identity}")
        self.identity = identity

    def reopen(self) -> None:
        kills = self.kills
        self.close()
        if self.kills == kills:  # else the next process has it open already
            self.open()

    def _do(self, change: Callable[[Model], Any], request: Callable[[Store], Any]) -> None:
        self.trying = advanced(self.model, change)
        with self._surviving():
            request(self.store)
            self.model = self.trying
        self.trying = None

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """Go on with a new process if this one is killed."""
        try:
            yield
        except (Killed, StorePoisoned):
            if not self.disk.is_dead:
                raise
            try:
                self.store.close()
            except (Killed, KVStoreError):
                pass
            self._restarted()
            self.open()
            self.model = matching(self.store, self.candidates())
            self.trying = None

    def _restarted(self) -> None:
        self.kills += 1
        self.disk.restart()


def advanced(model: Model, change: Callable[[Model], Any]) -> Model:
    """A copy of the model after a change."""
    after = copy.copy(model)
    after.states, after.changes, after.leases = list(model.states), list(model.changes), dict(model.leases)
    after.carried = dict(model.carried)
    change(after)
    return after


# --- the crash's side ------------------------------------------------------------------------------


@dataclass
class Explorer:
    """Tries the crashes of one run. ``thorough``: every commit of the backend, more random losses, and every
    second crash; otherwise a few of each."""

    scratch: Path
    options: Options
    thorough: bool = False
    seed: int = 1
    depth: int = 1
    figures: Figures = field(default_factory=Figures)
    _seen: set[tuple[Any, ...]] = field(default_factory=set)
    """The states that were checked, each with what it was compared with."""
    _seen_again: set[tuple[Any, ...]] = field(default_factory=set)
    """Those in whose recovery the power was cut."""
    _is_broken: bool = False
    """A promise was broken; the workload is closed now, which makes more calls."""

    def run(self, workload: Workload, kill_at: frozenset[int] = frozenset()) -> Figures:
        """Run the workload once, with a crash at each of its moments, and one after its end."""
        session: Session | None = None

        def on_moment(call: str) -> None:
            if self._is_broken or CALL not in (0, len(disk.calls)):
                return
            chance = random.Random(f"{self.seed}/{len(disk.calls)}")
            candidates = session.candidates() if session is not None else [Model()]
            identity = session.identity if session is not None else None
            self._crash(disk, call, candidates, identity, chance)

        disk = CrashingDisk(self.scratch / "run", on_moment, kill_at)
        with recording(disk, self.options):
            session = Session.__new__(Session)
            session.model, session.trying, session.identity = Model(), None, None
            Session.__init__(session, disk, self.options)
            try:
                workload(session)
                on_moment("the end")
            finally:
                disk.spare()
                session.store.close()
        self.figures.calls += len(disk.calls)
        self.figures.kills += session.kills
        return self.figures

    def _crash(
        self,
        disk: CrashingDisk,
        call: str,
        candidates: list[Model],
        identity: tuple[int, int] | None,
        chance: random.Random,
    ) -> None:
        if "sync_dir snap" in disk.calls[:-1]:
            disk.images.is_entry_durable = True
        for loss, (image, files) in self._ways(disk, chance):
            left = self._left(disk, loss, files)
            is_cut_again = self.depth == 1 and (self.thorough or chance.random() < 0.03)
            where = f"power cut at call {len(disk.calls)} ({call}), {loss}, {image}"
            try:
                with kept(left, f"call-{len(disk.calls)}"):
                    self._check(left, where, candidates, identity, is_cut_again=is_cut_again)
            except BaseException:
                self._is_broken = True
                raise
            finally:
                shutil.rmtree(left, ignore_errors=True)

    def _ways(
        self, disk: CrashingDisk, chance: random.Random
    ) -> Iterator[tuple[Loss, tuple[str, Files] | tuple[str, None]]]:
        if self.options.backend == "memory":
            choices: list[Any] = [("no files of its own", None)]
        else:
            choices = disk.images.choices(chance, all_commits=self.thorough)
        if self.thorough:
            losses = disk.losses(chances=3, most_sectors=6)
            yield from ((loss, choice) for loss in losses for choice in choices)
        else:
            losses = [KEPT, LOST, *chance.sample(disk.losses(chances=2, most_sectors=4), k=1)]
            yield from ((loss, choices[0]) for loss in losses)
            yield from ((losses[number % 2], choice) for number, choice in enumerate(choices[1:]))

    def _left(self, disk: CrashingDisk, loss: Loss, files: Files | None) -> Path:
        left = disk.materialise(self.scratch / f"left-{self.depth}", loss)
        snap = left / "snap"
        if files is not None and snap.is_dir():
            for path in snap.iterdir():
                if path.name in ("db", "db-wal", "db-shm", "db-lock"):
                    path.unlink()
            for name, content in files.items():
                (snap / name).write_bytes(content)
        say_where_it_lies(left)
        return left

    def _check(
        self,
        left: Path,
        where: str,
        candidates: list[Model],
        identity: tuple[int, int] | None,
        *,
        is_cut_again: bool,
    ) -> None:
        """Check a state, unless the same one was. ``is_cut_again``: cut the power in its recovery as well."""
        state = (fingerprint(left), identity, *map(id_of, candidates))
        again = self.scratch / "again"
        try:
            if is_cut_again and state not in self._seen_again:
                self._seen_again.add(state)
                shutil.copytree(left, again)
                say_where_it_lies(again)
            if state not in self._seen:
                self._seen.add(state)
                self.figures.states += 1
                check_recovery(left, self.options, candidates, identity)
            if again.exists():
                self._crash_again(again, candidates, identity)
        except BrokenPromise as broken:
            broken.add_note(where)
            raise
        finally:
            shutil.rmtree(again, ignore_errors=True)

    def _crash_again(self, start: Path, candidates: list[Model], identity: tuple[int, int] | None) -> None:
        """Cut the power at every call of the recovery too."""
        inner = Explorer(self.scratch / "second", self.options, False, self.seed, depth=2)
        chance = random.Random(self.seed)
        disk = CrashingDisk(
            start,
            lambda call: inner._crash(disk, f"recovery: {call}", candidates, identity, chance),
            frozenset(),
        )
        inner.scratch.mkdir(exist_ok=True)
        with recording(disk, self.options):
            open_engine(start, self.options, disk).close()
        self.figures.states += inner.figures.states
        self.figures.second_states += inner.figures.states


@contextmanager
def recording(disk: CrashingDisk, options: Options) -> Iterator[None]:
    """While this lasts, stores opened in the disk's directory have a recorded backend."""

    def find_recorded(name: str) -> Any:
        return _for_directory(find_backend(name), recorded(find_backend(name), disk), Path(disk.root))

    with pytest.MonkeyPatch.context() as patch:
        if options.backend != "memory":
            patch.setattr(recovery, "find_backend", find_recorded)
        yield


def _for_directory(plain: Any, special: Any, root: Path) -> Any:
    """A backend class that opens ``special`` inside ``root`` and ``plain`` elsewhere."""

    class Chosen(plain):  # type: ignore[misc]  # the base is known only now
        @classmethod
        def open(cls, path: Path, tables: Any, **how: Any) -> Any:
            kind = special if root in Path(path).absolute().parents else plain
            return kind.open(path, tables, **how)

    return Chosen


# --- what must hold ----------------------------------------------------------------------------------


def check_recovery(
    left: Path, options: Options, candidates: list[Model], identity: tuple[int, int] | None
) -> None:
    """Open what a crash has left, compare, write on, and open it once more."""
    store = _open(left, options)
    try:
        found = matching(store, candidates)
        engine = store.engine
        if identity is not None and (engine.cluster_id, engine.member_id) != identity:
            raise BrokenPromise(f"the identity was {identity} and is {engine.cluster_id, engine.member_id}")
        found = advanced(found, lambda model: model.put(PutRequest(b"after the crash", b"x")))
        store.put(b"after the crash", b"x")
        matching(store, [found])
    finally:
        store.close()
    store = _open(left, options)
    try:
        matching(store, [found])
    finally:
        store.close()


def _open(left: Path, options: Options, disk: Disk | None = None) -> Store:
    try:
        return Store(open_engine(left, options, disk))
    except KVStoreError as error:
        raise BrokenPromise(f"it does not open: {error!r}") from error


def matching(store: Store, candidates: list[Model]) -> Model:
    """The model that the store agrees with."""
    carried = sorted(store.engine.carried.items())
    marks = store.revision, store.compact_revision, tuple(sorted(store.leases())), tuple(carried)
    for model in candidates:
        if marks == id_of(model):
            _compare(store, model)
            return model
    wanted = list(map(id_of, candidates))
    raise BrokenPromise(f"revision, compaction, leases and carried rows are {marks}; possible are {wanted}")


def _compare(store: Store, model: Model) -> None:
    first = max(model.compacted, 1)
    for revision in {first, (first + model.revision) // 2, model.revision}:
        rows = plain(list(store.scan(prefix=b"", revision=revision)))
        _equal(f"the keys at revision {revision}", rows, sorted(model.at(revision).values()))
        _equal(f"HashKV of {revision}", store.hash_kv(revision).hash, model.hash_kv(revision))
    changes = changes_since(store, max(model.compacted + 1, 1))
    _equal("the changes", changes, [change for change in model.changes if change[0] > model.compacted])
    for lease in model.leases:
        attached = sorted(key for key, kv in model.states[-1].items() if kv.lease == lease)
        _equal(f"the keys of lease {lease}", list(store.lease_time_to_live(lease, keys=True).keys), attached)


def _equal(what: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise BrokenPromise(f"{what}: {found!r}, not {wanted!r}")


def id_of(model: Model) -> tuple[Any, ...]:
    """What tells the model's states apart at a glance."""
    return (
        model.revision,
        model.compacted,
        tuple(sorted(model.leases)),
        tuple(sorted(model.carried.items())),
    )
