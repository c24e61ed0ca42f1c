"""What a store does while it is crashed: each workload takes a ``Session``. Add one for each new feature."""

from __future__ import annotations

from kvstore import ops
from tests.harness.crash_points.explorer import Session, Workload


def puts(session: Session) -> None:
    """Puts of several sizes, over several segments of the log, with a checkpoint on the way."""
    for number in range(12):
        session.put(b"k%d" % (number % 5), b"v" * (37 * number))
        if number == 7:
            session.checkpoint()
    session.close()


def transactions(session: Session) -> None:
    """Transactions and deletes of many keys, each of them one revision."""
    session.txn(*(ops.put(b"t%d" % number, b"v" * 200) for number in range(5)))
    session.delete(prefix=b"t")
    session.checkpoint()
    session.txn(ops.put(b"a", b"1"), ops.delete(prefix=b"t"), ops.put(b"b", b"2"))
    session.txn(ops.txn(success=[ops.put(b"a", b"3")]), ops.delete(b"b"))
    session.delete(b"a")
    session.checkpoint()
    session.checkpoint()


def leases(session: Session) -> None:
    """Leases granted, attached, taken over, revoked; some of it before a checkpoint."""
    session.grant(7)
    session.put(b"with lease", b"1", lease=7)
    session.grant(-8)
    session.checkpoint()
    session.put(b"with lease", b"2", lease=-8)
    session.put(b"another", b"3", lease=-8)
    session.revoke(7)
    session.revoke(-8)
    session.checkpoint()


def carried(session: Session) -> None:
    """Rows that the store only carries, written, replaced and deleted, before and after a checkpoint."""
    session.carry(b"a", b"1")
    session.put(b"k", b"1")
    session.carry(b"b", b"")
    session.checkpoint()
    session.carry(b"a", b"2" * 700)
    session.carry(b"b", None)
    session.put(b"k", b"2")
    session.checkpoint()
    session.carry(b"a", None)
    session.reopen()
    session.carry(b"b", b"3")


def reopening(session: Session) -> None:
    """Closing and opening, with and without something to replay."""
    session.put(b"a", b"1")
    session.reopen()
    session.put(b"b", b"2" * 1000)
    session.put(b"c", b"3" * 1000)
    session.reopen()
    session.reopen()
    session.put(b"a", b"4")


def compaction(session: Session) -> None:
    """Compactions, and what they leave behind, before and after a checkpoint."""
    for number in range(6):
        session.put(b"k", b"%d" % number)
    session.delete(b"k")
    session.compact(2)
    session.checkpoint()
    session.run(lambda store: store.engine.run_compaction())
    session.put(b"k", b"again")
    session.compact(0)
    session.run(lambda store: store.engine.run_compaction())
    session.close()


def releasing(session: Session) -> None:
    """Segments of the log are given up, so that the backend is the only one that has what was in them."""
    for number in range(4):
        for small in range(3):
            session.put(b"k%d" % small, b"%d" % number * 600)
        session.checkpoint()
        session.run(lambda store: store.engine.snapshots.release())
        session.put(b"after", b"%d" % number)
    session.reopen()


def snapshots(session: Session) -> None:
    """Snapshots beside writes, and segments that only they still need."""
    for number in range(3):
        for small in range(3):
            session.put(b"k%d" % small, b"%d" % number * 600)
        session.run(lambda store: store.snapshot())
        session.run(lambda store: store.engine.snapshots.release())
    session.put(b"after", b"1")


def defragmenting(session: Session) -> None:
    """The backend's file is replaced by a compact copy, between checkpoints."""
    for number in range(6):
        session.put(b"k%d" % (number % 2), b"%d" % number * 600)
    session.checkpoint()
    session.compact(0)
    session.run(lambda store: store.engine.run_compaction())
    session.put(b"pending", b"1")
    session.run(lambda store: store.defragment())
    session.put(b"after", b"2")
    session.checkpoint()
    session.run(lambda store: store.engine.snapshots.release())
    session.run(lambda store: store.defragment())
    session.put(b"after", b"3")


WORKLOADS: tuple[Workload, ...] = (
    puts,
    transactions,
    leases,
    carried,
    reopening,
    compaction,
    releasing,
    snapshots,
    defragmenting,
)
