"""What rests on a file whose hash nobody has checked says so, loudly, in text, in JSON and on the page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kvstore.tools.command import ExitCode

import kvstore
from kvstore.etcdpb.json import base64_text
from kvstore.foreign import find_foreign
from kvstore.snapshot import hash_state
from tests.harness.command_line import run

INSPECTIONS = (
    ("meta",),
    ("list",),
    ("get", "a"),
    ("history", "a"),
    ("diff", "2"),
    ("stats",),
    ("top",),
    ("leases",),
    ("users",),
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Snapshots of ours and of an etcd: as they were written, with a changed value, and without the hash."""
    folder = tmp_path_factory.mktemp("files")
    for backend in ("lmdb", "sqlite"):
        with kvstore.open(folder / backend, backend=backend) as store:
            store.put(b"a", b"first value", lease=store.grant_lease(600).id)
            store.put(b"a", b"second value")
            store.put(b"b", b"v", lease=store.grant_lease(600).id)
            store.snapshot(folder / f"{backend}.snap")
            if backend == "lmdb":
                find_foreign("etcd").export_store(store, folder / "etcd.snap")
    whole = (folder / "etcd.snap").read_bytes()
    (folder / "etcd-without.snap").write_bytes(whole[:-32])
    for name in ("lmdb", "sqlite", "etcd"):
        whole = (folder / f"{name}.snap").read_bytes()
        (folder / f"{name}-changed.snap").write_bytes(whole.replace(b"second value", b"second_value"))
    yield folder


def inspected(path: Path, *arguments: str) -> tuple[list[str], str, str]:
    """(the states in the lines of JSON, the text, what stood beside it)."""
    verb, *rest = arguments
    as_json = run(path, "--json", "inspect", verb, str(path), *rest)
    as_text = run(path, "inspect", verb, str(path), *rest)
    assert as_json.code == as_text.code == ExitCode.OK, as_json.err
    assert as_json.err == as_text.err
    lines = [json.loads(line) for line in as_json.out.splitlines()]
    return [line["hash_check"] for line in lines], as_text.out.decode(), as_text.err


@pytest.mark.parametrize("arguments", INSPECTIONS, ids=lambda arguments: arguments[0])
@pytest.mark.parametrize(
    ("name", "state", "caution"),
    [
        ("lmdb", "matches", ""),
        ("sqlite-changed", "does not match", "THE HASH DOES NOT MATCH"),
        ("etcd-without", "none", "NO HASH WAS CHECKED"),
    ],
)
def test_every_look_into_a_file_says_what_its_hash_says(
    files: Path, arguments: tuple[str, ...], name: str, state: str, caution: str
) -> None:
    """In each line of JSON; beside the text, and in those texts that are about the file itself."""
    states, text, beside = inspected(files / f"{name}.snap", *arguments)
    assert set(states) == {state}
    assert caution in beside and bool(beside) == bool(caution)
    if arguments[0] in ("meta", "stats"):
        assert f"hash_check\t{caution or 'matches'}" in text


def test_a_large_file_is_not_hashed_and_that_is_said(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking does not wait for it; ``verify`` is named, which does."""
    assert hash_state.hash_state(files / "lmdb.snap", bytes_max=10).caution.startswith(
        "THE HASH WAS NOT CHECKED"
    )
    assert hash_state.hash_state(files / "etcd-without.snap", bytes_max=10) is hash_state.HashState.NONE


def test_a_comparison_is_as_sure_as_the_worse_side(files: Path) -> None:
    """Either way round."""
    sides = str(files / "etcd.snap"), str(files / "etcd-without.snap")
    (files / "other").mkdir()
    with kvstore.open(files / "other") as store:
        store.put(b"c", b"only here")
        find_foreign("etcd").export_store(store, files / "other.snap")
    for one, other in ((sides[0], sides[1]), (sides[1], sides[0]), (sides[1], str(files / "other.snap"))):
        done = run(files, "--json", "inspect", "diff", one, other)
        assert "NO HASH WAS CHECKED" in done.err
        assert {json.loads(line)["hash_check"] for line in done.out.splitlines()} <= {"none"}
    assert base64_text(b"c") in done.out.decode()


def test_a_data_directory_of_ours_has_no_such_hash(files: Path) -> None:
    """Its log has checksums, and ``verify`` compares: nothing is said here."""
    done = run(files, "--json", "inspect", "meta", str(files / "lmdb"))
    assert "hash_check" not in json.loads(done.out) and done.err == ""


def test_the_page_has_it_on_top(files: Path, tmp_path: Path) -> None:
    """``--html``: above everything, and only where there is something to say."""
    for name, is_there in (("etcd", False), ("etcd-without", True)):
        done = run(
            files, "inspect", "stats", str(files / f"{name}.snap"), "--html", str(tmp_path / "page.html")
        )
        assert done.code == ExitCode.OK
        text = (tmp_path / "page.html").read_text()
        assert ('role="alert">NO HASH WAS CHECKED' in text) is is_there


def test_verify_and_status_do_not_call_a_file_sound_without_saying_it(files: Path) -> None:
    """A file without a hash passes the checks that are left, and both outputs say which one there was not."""
    for name, state in (("etcd", "matches"), ("lmdb", "matches"), ("etcd-without", "none")):
        path = str(files / f"{name}.snap")
        is_loud = state == "none"
        found = json.loads(run(files, "--json", "snapshot", "status", path).out)
        assert found["hash_check"] == state
        assert ("WARNING: NO HASH" in run(files, "snapshot", "status", path).out.decode()) is is_loud
        found = json.loads(run(files, "--json", "verify", path).out)
        assert found["ok"] and bool(found["cautions"]) is is_loud
        assert ("WARNING  NO HASH" in run(files, "verify", path).out.decode()) is is_loud
    for name in ("etcd-changed", "lmdb-changed", "sqlite-changed"):
        assert run(files, "verify", str(files / f"{name}.snap")).code == ExitCode.DAMAGED
