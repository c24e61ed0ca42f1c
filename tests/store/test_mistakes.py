"""Mistakes that are easily made: the error names what is wrong, and what to write instead."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kvstore
from kvstore import Store

OF_A_STORE: dict[str, tuple[Callable[[Any], object], str]] = {
    "a number for a value": (
        lambda store: store.put(b"k", 5),
        "value must be bytes, not int: use a view with a codec",
    ),
    "text for a key": (lambda store: store.get("k"), 'use a view with a codec (kvstore.MapView), or b"…"'),
    "an answer for its revision": (lambda store: store.at(store.put(b"k")), "): give its .revision"),
    "an answer for its lease": (lambda store: store.put(b"k", lease=store.grant_lease(9)), "): give its .id"),
    "a second handle": (
        lambda store: kvstore.open(store.status().data_dir),
        f"is in use by process {os.getpid()} on ",
    ),
}


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with kvstore.open(tmp_path / "data") as store:
        yield store


@pytest.mark.parametrize("mistake", OF_A_STORE)
def test_a_wrong_argument_is_named_with_what_is_right(store: Store, mistake: str) -> None:
    make, text = OF_A_STORE[mistake]
    with pytest.raises((TypeError, kvstore.StoreLocked)) as caught:
        make(store)
    assert text in str(caught.value)


def test_a_locked_store_says_how_to_share_it(store: Store) -> None:
    """To who has it open, that it has; to another process, how both can use it."""
    directory = Path(store.status().data_dir)
    with pytest.raises(kvstore.StoreLocked, match="that is this process: use the handle that it has"):
        kvstore.open(directory)
    program = "import sys, kvstore; kvstore.open(sys.argv[1])"
    ended = subprocess.run(
        [sys.executable, "-c", program, directory], capture_output=True, text=True, check=False
    )
    assert (
        "StoreLocked" in ended.stderr and "read_only=True" in ended.stderr and "shared=True" in ended.stderr
    )


def test_a_handle_that_cannot_do_it_says_which_one_can(tmp_path: Path) -> None:
    """Read-only, closed, or none yet."""
    store = kvstore.open(tmp_path / "data")
    store.close()
    with pytest.raises(kvstore.StoreClosed, match="open it again"):
        store.get(b"k")
    with (
        kvstore.open(tmp_path / "data", read_only=True) as reader,
        pytest.raises(kvstore.ReadOnly, match="opened without read_only"),
    ):
        reader.put(b"k")


def test_a_directory_of_others_says_what_a_new_store_takes(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(
        kvstore.NotAStore, match=r"contains 'notes.txt'\): a new store takes an empty directory"
    ):
        kvstore.open(tmp_path)


def test_an_asynchronous_store_used_as_a_synchronous_one_says_so(tmp_path: Path) -> None:
    """Before it is open: a plain `with`, and a call."""
    opening: Any = kvstore.open_async(tmp_path / "data")
    with pytest.raises(TypeError, match="`async with`"), opening:
        pass
    with pytest.raises(AttributeError, match="no 'get': not open yet: write `async with`"):
        opening.get(b"k")
    assert not (tmp_path / "data").exists()


def test_a_prompt_completes_names_that_are_not_loaded_yet() -> None:
    """All public ones; and a misspelt one is answered with the right one."""
    program = "import kvstore; assert {*kvstore.__all__} <= {*dir(kvstore)}; kvstore.MapVeiw"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "Did you mean: 'MapView'?" in ended.stderr


def test_a_snapshot_is_not_written_over_a_folder(tmp_path: Path, store: Store) -> None:
    """Said before anything is copied."""
    folder = tmp_path / "backups"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="a snapshot is one file") as caught:
        store.snapshot(folder)
    assert caught.value.filename == str(folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["backups", "data"]
