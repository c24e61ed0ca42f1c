"""etcd's own tests, written in Go, run against ``kvstore serve``, and beside that against a real etcd.

    python -m kvstore.tools.lab.etcd_suites SUITE [--backend=sqlite] [--only=REGEX] [--logs=FOLDER]

SUITE: ``clientv3`` (clientv3/integration), ``integration`` (its tests of API v3), or ``e2e`` (etcdctl and curl). Needs
Go, etcd and etcdctl on PATH, and etcd's source with what it is built of: on Debian, the packages golang-go,
golang-etcd-server-dev, etcd-server, etcd-client (SUITE_GOPATH names another place).

The tests bring their server along, in their own process. So a copy of the source is changed: a member is a process
(remote_server.go), and all members of a cluster are one server. What fails is tried again with a real etcd in the same
harness: many tests are of clusters and fail on any one server. What is left, ``only here``, is ours. FOLDER gets what
each test has said.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

GOPATH = Path(os.environ.get("SUITE_GOPATH", "/usr/share/gocode"))
ETCD = Path("src/go.etcd.io/etcd")
PACKAGES = {"clientv3": "clientv3/integration", "integration": "integration", "e2e": "tests/e2e"}
WANTED = {
    "clientv3": "",
    "integration": "V3|Lock|Elect|Barrier|Queue|STM|Mutex",
    "e2e": "^Test(V3|CtlV3|EtcdUnix)",
}
"""The tests of a suite that are about API v3."""
READY = "ready to serve client requests"
TEST_SECONDS = 100

OURS = """#!/bin/sh
exec {python} -m kvstore.tools.main serve --etcd-version=3.4 {backend} "$@"
"""
THEIRS = """#!{python}
import os, socket, sys
with socket.create_server(("127.0.0.1", 0)) as free:
    peer = f"http://127.0.0.1:{{free.getsockname()[1]}}"
name = next(word for word in sys.argv if word.startswith("--name=")).removeprefix("--name=")
urls = [f"--listen-peer-urls={{peer}}", f"--initial-advertise-peer-urls={{peer}}"]
os.execvp("etcd", ["etcd", *sys.argv[1:], *urls, f"--initial-cluster={{name}}={{peer}}"])
"""

Changes = dict[str, list[tuple[str, str]]]
"""Of a file: (regular expression, what stands there instead); each must be found."""

MEMBERS: Changes = {
    "integration/cluster.go": [
        (r"\ts +\*etcdserver\.EtcdServer\n", "\ts *remoteServer\n\tleader *member\n\tsockaddr string\n"),
        (
            r"(\tgrpcServerOpts +\[\]grpc.ServerOption\n)",
            r"\1\tkeepalive struct{MinTime, Interval, Timeout time.Duration}\n",
        ),
        (
            r"(\tm\.grpcServerOpts = \[\]grpc\.ServerOption\{\}\n)",
            r"\1\tm.keepalive.MinTime = mcfg.grpcKeepAliveMinTime\n"
            r"\tm.keepalive.Interval = mcfg.grpcKeepAliveInterval\n\tm.keepalive.Timeout = mcfg.grpcKeepAliveTimeout\n",
        ),
        (r"(\tl, err := transport\.NewUnixListener\(m\.grpcAddr\)\n)", r"\tm.sockaddr = m.grpcAddr\n\1"),
        (
            r"(?s)\tvar err error\n\tif m\.s, err = etcdserver\.NewServer.*?"
            r"(?=\tlg\.Info\(\n\t\t\"launched a member\")",
            "\ts, err := startRemote(m)\n\tif err != nil {\n\t\treturn err\n\t}\n\tm.s = s\n",
        ),
        (r"(?s)func \(m \*member\) WaitStarted.*?\n}\n", "func (m *member) WaitStarted(t testing.TB) {}\n"),
        (r"\tm\.raftHandler\.(?:Pause|Resume)\(\)\n", ""),
        (r"(?s)\tif m\.serverClient != nil \{.*?\n\t\}\n", ""),
        (r"(?s)\tif m\.grpcServer != nil \{\n\t\tm\.grpcServer\.Stop.*?\n\t\}\n", ""),
        (r"(\tc\.Members = ms\n)", r"\1\tfor _, m := range ms {\n\t\tm.leader = ms[0]\n\t}\n"),
        (
            r"\terrc := make\(chan error\)\n\tfor _, m := range c\.Members \{",
            "\terrc := make(chan error, len(c.Members))\n\terrc <- c.Members[0].Launch()\n"
            "\tfor _, m := range c.Members[1:] {",
        ),
        (
            r"\tc\.waitMembersMatch\(t, c\.HTTPMembers\(\)\)\n\tc\.waitVersion\(\)\n\}\n\nfunc \(c \*cluster\) URL",
            "}\n\nfunc (c *cluster) URL",
        ),
        (r"(?s)(func \(c \*cluster\) waitLeader\(.*?\) int \{\n).*?\n}\n", r"\1\treturn 0\n}\n"),
        (
            r'\t"(?:crypto/tls|log|net/http/httptest|\S+/etcdhttp|\S+/v2http|\S+/v3client|\S+/v3election|\S+/v3lock'
            r'|\S+/api/v3rpc|\S+/pkg/tlsutil|\S+/cmux)"\n',
            "",
        ),
    ],
    "integration/bridge.go": [(r"(if oerr != nil \{\n\t\t\tinc\.Close\(\)\n\t\t\t)return", r"\1continue")],
}
PROCESSES: Changes = {
    "tests/e2e/etcd_process.go": [
        (r"etcdServerReadyLines = .*", f'etcdServerReadyLines = []string{{"{READY}"}}')
    ],
    "tests/e2e/cluster_test.go": [(r"(func newEtcdProcessCluster\(.*\{\n)", r"\1\tcfg.clusterSize = 1\n")],
}


def main() -> None:
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("suite", choices=PACKAGES)
    parser.add_argument("--backend", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--logs", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        logs = asked.logs or Path(folder)
        logs.mkdir(parents=True, exist_ok=True)
        run(Path(folder), logs, asked.suite, asked.backend, asked.only)


def run(folder: Path, logs: Path, suite: str, backend: str, only: str) -> None:
    source = copied(folder, PROCESSES if suite == "e2e" else MEMBERS)
    tests = built(folder, source / PACKAGES[suite])
    ours, theirs = servers(folder, source, backend)
    if suite == "e2e":
        theirs = program("etcd")  # these tests give each member all that it needs
    names = [name for name in listed(tests) if re.search(WANTED[suite], name) and re.search(only, name)]
    passed, on_neither, only_here = 0, [], []
    for name in names:
        if passes(tests, source / PACKAGES[suite], name, ours, logs):
            passed += 1
        elif not passes(tests, source / PACKAGES[suite], name, theirs, logs):
            on_neither.append(name)
        else:
            only_here.append(name)
            print(f"only here: {name}", flush=True)
    print(
        f"{suite}: {passed} of {len(names)} passed; {len(on_neither)} fail on one etcd, too: {', '.join(on_neither)}"
    )
    sys.exit(bool(only_here))


def copied(folder: Path, changes: Changes) -> Path:
    source = folder / ETCD
    shutil.copytree(GOPATH / ETCD, source)
    for file, edits in changes.items():
        text = (source / file).read_text()
        for wanted, instead in edits:
            text, count = re.subn(wanted, instead, text)
            if not count:
                sys.exit(f"{file} has nothing like {wanted!r}: is it of etcd 3.4?")
        (source / file).write_text(text)
    if changes is MEMBERS:
        shutil.copy(Path(__file__).with_name("remote_server.go"), source / "integration")
    return source


def built(folder: Path, package: Path) -> Path:
    tests = folder / "tests"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": f"{folder}:{GOPATH}"}
    subprocess.run(["go", "test", "-c", "-o", str(tests), "."], cwd=package, env=environment, check=True)
    return tests


def servers(folder: Path, source: Path, backend: str) -> tuple[Path, Path]:
    """The programs that are run as etcd: ours, and etcd itself."""
    ours, theirs = folder / "ours", folder / "theirs"
    ours.write_text(OURS.format(python=sys.executable, backend=f"--backend={backend}" if backend else ""))
    theirs.write_text(THEIRS.format(python=sys.executable))
    for server in (ours, theirs):
        server.chmod(0o755)
    (source / "bin").mkdir(exist_ok=True)
    etcd = source / "bin" / "etcd"
    etcd.write_text('#!/bin/sh\nexec "$SUITE_SERVER" "$@"\n')
    etcd.chmod(0o755)
    (source / "bin" / "etcdctl").symlink_to(program("etcdctl"))
    return ours, theirs


def program(name: str) -> Path:
    return Path(shutil.which(name) or sys.exit(f"no {name} on PATH"))


def listed(tests: Path) -> list[str]:
    found = subprocess.run(
        [tests, "-test.list", "."], cwd=tests.parent, stdout=subprocess.PIPE, text=True, check=True
    )
    return [name for name in found.stdout.split() if name.startswith("Test")]


def passes(tests: Path, package: Path, name: str, server: Path, logs: Path) -> bool:
    """Each in a process of its own: what one leaves behind is none of the next one's business."""
    log = logs / f"{name}.{server.name}.log"
    environment = {**os.environ, "SUITE_SERVER": str(server), "SUITE_LOG": str(log.with_suffix(".server"))}
    command = [str(tests), "-test.run", f"^{name}$", "-test.timeout", f"{TEST_SECONDS}s", "-test.v"]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command,
            cwd=package,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as process,
    ):
        code = process.wait()
    kill_those_with(log)
    return code == 0


def kill_those_with(log: Path) -> None:
    """What a test has left running, which may be in sessions of its own: a server would keep its port."""
    mark = os.fsencode(f"SUITE_LOG={log.with_suffix('.server')}")
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (process / "environ").read_bytes().split(b"\0"):
                os.kill(int(process.name), signal.SIGKILL)
        except OSError:
            pass  # it has ended, or is somebody else's


if __name__ == "__main__":
    main()
