"""etcd's command-line client, in sessions: what it says to us and to a real etcd is the same."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import kvstore
from tests.etcd import etcd_servers as real

pytestmark = pytest.mark.skipif(
    not (shutil.which("etcd") and shutil.which("etcdctl")), reason="no etcd and etcdctl on PATH"
)

KEYS = [
    *(f"put /s/{key} {value}" for key, value in [("b", "1"), ("a", "3"), ("c", "2"), ("b", "4")]),
    *(
        f"get --keys-only --prefix --sort-by={target} --order={order} /s/"
        for target in ("CREATE", "KEY", "MODIFY", "VALUE", "VERSION")
        for order in ("ASCEND", "DESCEND")
    ),
    "get --prefix --sort-by=NOPE /s/",
    "get --prefix --limit 2 --count-only /s/",
    "get --from-key /s/b",
    "get --hex /s/a /s/c",
    "del --prefix --prev-kv /s/a",
    "compact 5 --physical",
    "compact 4",
    "compact 99",
    "compact word",
    "get --rev 3 /s/b",
    "watch --rev 3 /s/b",
    "defrag",
    "lock l echo held",
    "lock l --ttl 5 false",
    "lock",
    "elect",
    "lease timetolive 77",
    "lease revoke 77",
    "lease keep-alive 77 --once",
    "check datascale --load nope",
]

USERS = [
    "user add alice:pw",
    "user add alice:pw",
    "user add bob --no-password",
    "user list",
    "role add r",
    "role add r",
    "role grant-permission r read /a /b",
    "role grant-permission r --prefix=true readwrite /p/",
    "role grant-permission r --from-key=true write /z",
    "role grant-permission r nonsense /a",
    "role grant-permission none read /a",
    "role get r",
    "role get none",
    "user grant-role alice r",
    "user grant-role alice none",
    "user get alice --detail",
    "auth enable",
    "user add root:pw",
    "auth enable",
    "user grant-role root root",
    "auth enable",
    "get /a",
    *(
        f"--user {login} {command}"
        for login, command in [
            ("alice:pw", "get /a"),
            ("alice:pw", "get /b"),
            ("alice:pw", "put /p/x 1"),
            ("alice:pw", "get --prefix /p/"),
            ("alice:pw", "put /q 1"),
            ("alice:pw", "lock /p/l echo held"),
            ("alice:pw", "lock /q echo held"),
            ("alice:pw", "user list"),
            ("alice:pw", "user get alice"),
            ("alice:pw", "role get r"),
            ("alice:pw", "compact 2"),
            ("alice:pw", "defrag"),
            ("alice:pw", "auth disable"),
            ("alice:wrong", "get /a"),
            ("nobody:pw", "get /a"),
            ("root:pw", "role revoke-permission r /a /b"),
            ("root:pw", "role revoke-permission r /a /b"),
            ("alice:pw", "get /a"),
            ("root:pw", "user revoke-role alice r"),
            ("root:pw", "user revoke-role alice r"),
            ("root:pw", "role delete r"),
            ("root:pw", "role delete r"),
            ("root:pw", "user delete alice"),
            ("root:pw", "user delete alice"),
            ("root:pw", "user delete root"),
            ("root:pw", "auth disable"),
        ]
    ),
    "user delete root",
    "role delete root",
    "auth disable",
    "user list",
    "role list",
]

TYPED = [
    ("txn -i", 'mod("/t/a") > "0"\n\nput /t/a 1\n\nput /t/a 2\n\n'),
    ("txn -i", 'value("/t/a") = "2"\n\nget /t/ --prefix\nput /t/b 1\n\nput /t/b 2\n\n'),
    ("txn", 'ver("/t/none") = "0"\n\nget /t/ --prefix\ndel /t/b\n\n\n'),
    ("txn", "nonsense\n\n"),
    ("watch -i", "nonsense\n"),
    ("get /t/ --prefix", ""),
]


@contextmanager
def both(folder: Path) -> Iterator[tuple[str, str]]:
    """Where a store of ours is served as an etcd of the release of the real one; both are empty."""
    with (
        kvstore.open(folder / "store") as store,
        kvstore.serve(store, "http://127.0.0.1:0", etcd_version=real.RELEASE) as server,
        real.etcd(folder / "etcd", folder / "log") as theirs,
    ):
        (ours,) = server.endpoints
        yield ours, theirs.endpoint


PATIENTLY = ("--command-timeout", f"{real.PATIENCE_SECONDS}s")
"""A password alone takes etcd a second where many want the processor."""


def etcdctl(url: str, command: str, typed: str = "") -> tuple[int, list[str]]:
    """Its exit code and what it prints, with what is drawn or measured taken out."""
    words = ["etcdctl", "--endpoints", url, *PATIENTLY, *command.split()]
    ran = subprocess.run(
        words, env=real.ENVIRONMENT, input=typed, capture_output=True, text=True, timeout=120, check=False
    )
    said = [line for line in (ran.stdout + ran.stderr).splitlines() if not line.startswith("{")]
    return ran.returncode, [
        re.sub(r"[\da-f]{14,16}|took \S+", "-", line.replace(url, "URL")) for line in said
    ]


@pytest.mark.parametrize("session", [KEYS, USERS], ids=["keys", "users"])
def test_a_session_of_etcdctl_is_the_same(tmp_path: Path, session: list[str]) -> None:
    """Command by command: exit code and output."""
    with both(tmp_path) as (ours, theirs):
        for command in session:
            assert etcdctl(ours, command) == etcdctl(theirs, command), command


def test_what_is_typed_into_etcdctl_is_answered_the_same(tmp_path: Path) -> None:
    """Transactions, and what it does not understand."""
    with both(tmp_path) as (ours, theirs):
        for command, typed in TYPED:
            assert etcdctl(ours, command, typed) == etcdctl(theirs, command, typed), typed


def test_an_interactive_watch_is_the_same(tmp_path: Path) -> None:
    """Two watches and a request for progress on one connection, and then events of both."""
    with both(tmp_path) as (ours, theirs):
        assert _watched(ours) == _watched(theirs)


def _watched(url: str) -> list[str]:
    command = ["etcdctl", "--endpoints", url, "watch", "-i"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=real.ENVIRONMENT, stdin=pipe, stdout=pipe, text=True) as watching:
        assert watching.stdin is not None
        assert watching.stdout is not None
        watching.stdin.write("watch w\nwatch x --prefix --prev-kv\nprogress\n")
        watching.stdin.flush()
        said = [watching.stdout.readline() for _ in range(2)]  # each watch hears of the progress: both stand
        events = []
        for change, lines in [("put w 1", 3), ("put x9 2", 3), ("put x9 3", 5), ("del w", 3)]:
            etcdctl(url, change)
            events += [watching.stdout.readline() for _ in range(lines)]
        watching.kill()
    return said + events


@pytest.mark.parametrize("direction", ["to etcd", "from etcd"])
def test_a_mirror_follows(tmp_path: Path, direction: str) -> None:
    """``etcdctl make-mirror`` between ours and a real one: what was there, what comes, and what goes."""
    with both(tmp_path) as (ours, theirs):
        source, target = (ours, theirs) if direction == "to etcd" else (theirs, ours)
        etcdctl(source, "put m/old 1")
        command = ["etcdctl", "--endpoints", source, "make-mirror", target.removeprefix("http://")]
        with open(os.devnull, "wb") as nowhere:
            mirror = subprocess.Popen([*command, "--prefix", "m/"], env=real.ENVIRONMENT, stdout=nowhere)
        try:
            _until(target, "get m/old", 2)
            etcdctl(source, "put m/gone 1")
            etcdctl(source, "txn", "\nput m/x 1\nput m/y 2\n\n\n")
            etcdctl(source, "del m/gone")
            etcdctl(source, "put m/last 1")
            _until(target, "get m/last", 2)
            assert etcdctl(target, "get m/ --prefix") == etcdctl(source, "get m/ --prefix")
        finally:
            mirror.kill()
            mirror.wait()


def _until(url: str, command: str, lines: int) -> None:
    """Wait for the command to print so many lines."""
    deadline = time.monotonic() + real.PATIENCE_SECONDS
    while len(etcdctl(url, command)[1]) < lines:
        assert time.monotonic() < deadline, command
        time.sleep(0.05)
