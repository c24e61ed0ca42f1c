"""Kill a writing store again and again, and compare what is left with what it had acknowledged.

    python -m kvstore.tools.lab.crashloop [--cycles 50] [--backend lmdb] [--seed N] [--first-run 0] [--dir DIR]

    cycle    fork a writer (crashloop_writer), SIGKILL it at a random moment, open what it left, compare
             (crashloop_history). Some are killed while they are still recovering from the last kill; some
             comparisons open the store read-only, so that the next writer finds it as the kill left it.
    run      RUN_CYCLES cycles on one directory; at its end a deep verification of everything in it

The seed and the number of the run determine which steps each worker draws and when it is killed; threads race, so a run
does not repeat itself exactly. Many cycles may be done in pieces: each continues with the run that the last one named.
A broken promise keeps the directory, and ends the loop with exit code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import kvstore
from kvstore.verification import verify

from .crashloop_history import Ack, BrokenPromise, Heard, History, Row, Step
from .crashloop_writer import LIMITS, Writer

RUN_CYCLES = 25
LIFE_SECONDS_MAX = 0.15
PATIENCE_SECONDS = 60.0
"""A writer that is silent for this long hangs."""
OPENED = b'{"done":"open"}'


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="kvstore.tools.lab.crashloop", description=__doc__.splitlines()[0])
    parser.add_argument("--cycles", type=int, default=50, help="kills per backend")
    parser.add_argument("--backend", action="append", choices=["lmdb", "sqlite"], help="default: both")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument(
        "--first-run", type=int, default=0, help=f"a run has {RUN_CYCLES} cycles; begin with this one"
    )
    parser.add_argument("--dir", help="where the stores are made (default: a temporary directory)")
    chosen = parser.parse_args(arguments)
    for backend in chosen.backend or ["lmdb", "sqlite"]:
        print(
            f"{backend}: {chosen.cycles} cycles, seed {chosen.seed} from run {chosen.first_run} on",
            flush=True,
        )
        began = time.monotonic()
        figures: Counter[str] = Counter()
        try:
            loop(backend, chosen.cycles, chosen.seed, chosen.dir, figures, chosen.first_run)
        except BrokenPromise as broken:
            print(f"{backend}: BROKEN PROMISE: {broken}", *getattr(broken, "__notes__", ()), sep="\n  ")
            return 1
        next_run = chosen.first_run + -(-chosen.cycles // RUN_CYCLES)
        print(
            f"{backend}: {describe(figures)}; {time.monotonic() - began:.0f} s; next run {next_run}",
            flush=True,
        )
    return 0


def describe(figures: Counter[str]) -> str:
    return ", ".join(f"{count:,} {what}" for what, count in figures.items())


def loop(
    backend: str, cycles: int, seed: int, parent: str | None, figures: Counter[str], first_run: int = 0
) -> None:
    """Run this many cycles, counted in ``figures``. Raises ``BrokenPromise``."""
    for run, first in enumerate(range(0, cycles, RUN_CYCLES), first_run):
        folder = Path(tempfile.mkdtemp(prefix="kvstore-crashloop-", dir=parent))
        life = Run(folder / "store", backend, f"{seed} {run}", figures)
        try:
            for _ in range(min(RUN_CYCLES, cycles - first)):
                life.cycle()
            life.finish()
        except Exception as error:
            broken = error if isinstance(error, BrokenPromise) else BrokenPromise(traceback.format_exc())
            broken.add_note(f"run {run}, life {life.life}, seed {seed}; kept: {folder}")
            raise broken from error
        shutil.rmtree(folder)
        if run % 20 == 19:
            print(f"  {describe(figures)}; next run {run + 1}", flush=True)


class Run:
    """One directory and everything that is known about it."""

    def __init__(self, directory: Path, backend: str, seed: str, figures: Counter[str]) -> None:
        self._directory = directory
        self._backend = backend
        self._chance = random.Random(seed)
        self._figures = figures
        self._history = History()
        self._heard = Heard()
        self.life = 0

    def cycle(self) -> None:
        """One life, and mostly a look at what it left."""
        self.life += 1
        chance = self._chance
        is_early = chance.random() < 0.3  # mostly killed while it opens the store
        self._hear(self._live(chance.random() * LIFE_SECONDS_MAX, from_open=not is_early))
        self._figures["cycles"] += 1
        if chance.random() < 0.8:
            has_log = any(self._directory.glob("wal/*.wal"))  # else killed while it made the store
            self._check(read_only=chance.random() < 0.5 and has_log)

    def finish(self) -> None:
        self._check(read_only=False)
        report = verify(self._directory, deep=True)
        if not report.ok:
            raise BrokenPromise("verify: " + "; ".join(map(str, report.findings[:5])))
        self._figures["deep verifications"] += 1

    # --- a life ----------------------------------------------------------------------------

    def _live(self, seconds: float, *, from_open: bool) -> bytes:
        """Fork a writer and kill it after ``seconds`` (from its start, or from opening). Returns all its output."""
        since = max(self._history.revision, *self._heard.told, 1) + 1
        seed = self._chance.getrandbits(32)
        ours, theirs = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(ours)
            self._be_writer(seed, since, theirs)
        os.close(theirs)
        try:
            said = b""
            while from_open and OPENED not in said:
                some = _read_until(ours, time.monotonic() + PATIENCE_SECONDS, one_is_enough=True)
                said += some
                if not some:
                    break
            said += _read_until(ours, time.monotonic() + seconds)
            os.kill(child, signal.SIGKILL)
            return said + _read_until(ours, None)
        finally:
            os.waitpid(child, 0)
            os.close(ours)

    def _be_writer(self, seed: int, since: int, pipe: int) -> NoReturn:
        try:
            Writer(str(self._directory), self._backend, self.life, seed, since, pipe).run()
        except BaseException:
            os.write(pipe, json.dumps({"failed": traceback.format_exc()[-3000:]}).encode() + b"\n")
        finally:
            os._exit(1)

    def _hear(self, said: bytes) -> None:
        pending: dict[int, Any] = {}
        for line in said.splitlines(keepends=True):
            if line.endswith(b"\n"):  # the last line may have been cut
                self._take(json.loads(line), pending)

    def _take(self, message: dict[str, Any], pending: dict[int, Any]) -> None:
        heard = self._heard
        match message:
            case {"step": [name, do, keys, size, lease]}:
                heard.steps[name] = Step(name, do, tuple(keys), size, lease)
            case {"ack": [name, revision, wrote]}:
                heard.acks[name] = Ack(revision, wrote)
                self._figures["acknowledged writes"] += 1
            case {"event": [revision, key, row]}:
                pending.setdefault(revision, []).append((key.encode(), Row(*row) if row else None))
            case {"told": _}:
                heard.told.update(pending)
                pending.clear()
            case {"compacting": revision}:
                heard.compacting.append(revision)
            case {"compacted": revision}:
                heard.compacted = max(heard.compacted, revision)
            case {"done": what}:
                self._figures[f"times {what}"] += 1
            case {"failed": trace}:
                raise BrokenPromise(f"the writer failed: {trace}")

    # --- what it left ------------------------------------------------------------------------

    def _check(self, *, read_only: bool) -> None:
        with self._open(read_only) as store:
            self._figures["unacknowledged that survived"] += self._history.check(store, self._heard)
        self._figures["checks"] += 1
        self._heard = Heard()

    def _open(self, read_only: bool) -> kvstore.Store:
        options = {**LIMITS, "background": False}
        if read_only:
            try:
                return kvstore.open(self._directory, self._backend, read_only=True, **options)
            except kvstore.ReadOnly:  # SQLite: a journal has to be rolled back first
                self._figures["refused to look read-only"] += 1
        return kvstore.open(self._directory, self._backend, **options)


def _read_until(pipe: int, deadline: float | None, *, one_is_enough: bool = False) -> bytes:
    """What comes out of the pipe until ``deadline``, or until its end."""
    said = bytearray()
    while True:
        patience = PATIENCE_SECONDS if deadline is None else deadline - time.monotonic()
        if deadline is not None and patience <= 0:
            return bytes(said)
        if not select.select([pipe], [], [], patience)[0]:
            if deadline is None:
                raise BrokenPromise("a killed writer does not end")
            return bytes(said)
        some = os.read(pipe, 1 << 16)
        said += some
        if not some or one_is_enough:
            return bytes(said)


if __name__ == "__main__":
    sys.exit(main())
