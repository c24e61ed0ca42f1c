"""An etcd snapshot like that of a Kubernetes cluster, of any size: ``kvstore inspect`` is measured on it.

    python -m kvstore.tools.lab.kubernetes_like FILE [MEGABYTES]

    /registry/leases/…       small objects, renewed all the time       most of the revisions
    /registry/minions/…      large objects whose status is updated     most of the bytes
    /registry/pods/…         created, updated a few times, deleted
    /registry/events/…       created once, under a lease of an hour
    /registry/configmaps/…   written once; some are large
    /registry/example.com/…  custom objects, in JSON

Objects are protobuf in the envelope of an API server, with metadata and managed fields. The numbers are drawn from a
seed: the same size gives the same keys and values.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import kvstore
from kvstore.foreign import find_foreign
from kvstore.wire import bytes_field, int_field, varint

BEGAN_SECONDS = 1_770_000_000
SECONDS_PER_WRITE = 0.4
OBJECTS_PER_MEGABYTE = 12
COMPACTION_SHARE = 0.3
"""How much of the revisions is compacted: etcd keeps the last minutes."""


def write_snapshot(path: Path, megabytes: float, seed: int = 1) -> None:
    """Write a snapshot of about that size, in units of 10**6 bytes."""
    with (
        tempfile.TemporaryDirectory(dir=path.absolute().parent) as folder,
        kvstore.open(Path(folder) / "store", durability="off", quota_backend_bytes=16 << 30) as store,
    ):
        Cluster(store, random.Random(seed), megabytes).run()
        find_foreign("etcd").export_store(store, path)


class Cluster:
    """What writes to the store."""

    def __init__(self, store: kvstore.Store, chance: random.Random, megabytes: float) -> None:
        self._store = store
        self._chance = chance
        self._target_bytes = int(megabytes * 1_000_000)
        self._written_bytes = 0
        self._writes = 0
        self._pods: list[tuple[bytes, int]] = []
        self._nodes = max(3, int(megabytes * OBJECTS_PER_MEGABYTE / 60))
        self._event_lease = store.grant_lease(3600).id

    def run(self) -> None:
        steps: list[tuple[Callable[[], None], int]] = [
            (self._renew, 50),
            (self._report_status, 15),
            (self._create_pod, 8),
            (self._update_pod, 14),
            (self._delete_pod, 5),
            (self._event, 20),
            (self._config, 2),
            (self._custom, 4),
        ]
        drawn = [step for step, weight in steps for _ in range(weight)]
        while self._written_bytes < self._target_bytes:
            self._chance.choice(drawn)()
        self._store.compact(max(1, int(self._store.revision * COMPACTION_SHARE)), physical=True)

    # --- what happens in a cluster ---------------------------------------------------------

    def _renew(self) -> None:
        node = self._chance.randrange(self._nodes)
        spec = bytes_field(1, b"node-%04d" % node) + int_field(2, 40) + bytes_field(4, self._now())
        meta = self._meta(b"node-%04d" % node, b"kube-node-lease", b"kubelet", ("spec", "renewTime"))
        self._put(
            b"/registry/leases/kube-node-lease/node-%04d" % node,
            b"coordination.k8s.io/v1",
            b"Lease",
            meta,
            spec,
        )

    def _report_status(self) -> None:
        name = b"node-%04d" % self._chance.randrange(self._nodes)
        images = b"".join(
            bytes_field(
                8,
                bytes_field(1, b"registry.example.com/team/app-%d:v%d" % (n, n % 7)) + int_field(2, n << 20),
            )
            for n in range(60)
        )
        condition = bytes_field(1, b"Ready") + bytes_field(2, b"True") + bytes_field(3, self._now())
        status = bytes_field(4, condition) + images
        meta = self._meta(name, b"", b"kubelet", ("status", "conditions", "images"))
        self._put(b"/registry/minions/" + name, b"v1", b"Node", meta, b"", status)

    def _create_pod(self) -> None:
        number = self._writes
        namespace = b"team-%02d" % self._chance.randrange(30)
        name = b"app-%02d-%06x" % (number % 40, number)
        self._pods.append((b"%b/%b" % (namespace, name), 0))
        self._write_pod(namespace, name, b"kube-controller-manager", b"Pending")

    def _update_pod(self) -> None:
        if self._pods:
            namespace, _, name = self._chance.choice(self._pods)[0].partition(b"/")
            self._write_pod(namespace, name, b"kubelet", b"Running")

    def _delete_pod(self) -> None:
        if self._pods:
            place, _ = self._pods.pop(self._chance.randrange(len(self._pods)))
            self._store.delete(b"/registry/pods/" + place)
            self._writes += 1

    def _write_pod(self, namespace: bytes, name: bytes, manager: bytes, phase: bytes) -> None:
        variable = bytes_field(1, b"SETTING") + bytes_field(2, b"value of a setting " * 4)
        container = bytes_field(1, b"main") + bytes_field(2, b"registry.example.com/team/app:v3")
        container += b"".join(bytes_field(7, variable) for _ in range(12))
        spec = bytes_field(2, container) + bytes_field(3, b"Always") + bytes_field(10, b"node-0001")
        status = bytes_field(1, phase) + bytes_field(6, b"10.0.%d.%d" % (self._writes % 255, len(name)))
        meta = self._meta(name, namespace, manager, ("spec", "containers", "env"))
        self._put(b"/registry/pods/%b/%b" % (namespace, name), b"v1", b"Pod", meta, spec, status)

    def _event(self) -> None:
        name = b"app.%012x" % (self._writes * 7919)
        meta = self._meta(name, b"team-01", b"kubelet", ("message", "reason"))
        body = bytes_field(3, b"Pulled") + bytes_field(
            4, b"Container image was already present on the machine"
        )
        key = b"/registry/events/team-01/" + name
        self._store_value(key, _envelope(b"v1", b"Event", bytes_field(1, meta) + body), self._event_lease)

    def _config(self) -> None:
        name = b"config-%05d" % self._writes
        text = b"setting = value\n" * self._chance.choice((5, 50, 500, 5000))
        data = bytes_field(1, b"app.conf") + bytes_field(2, text)
        meta = self._meta(name, b"team-02", b"helm", ("data",))
        self._put(b"/registry/configmaps/team-02/" + name, b"v1", b"ConfigMap", meta, data)

    def _custom(self) -> None:
        name = f"thing-{self._chance.randrange(50):03}"
        value = {
            "apiVersion": "example.com/v1",
            "kind": "Thing",
            "metadata": {"name": name, "namespace": "team-03", "generation": self._writes},
            "spec": {"size": self._chance.randrange(100), "labels": ["a", "b", "c"]},
        }
        self._store_value(
            b"/registry/example.com/things/team-03/" + name.encode(), json.dumps(value).encode() + b"\n"
        )

    # --- objects ---------------------------------------------------------------------------

    def _now(self) -> bytes:
        return int_field(1, BEGAN_SECONDS + int(self._writes * SECONDS_PER_WRITE))

    def _meta(self, name: bytes, namespace: bytes, manager: bytes, owned: tuple[str, ...]) -> bytes:
        """``ObjectMeta``, with the managed fields of two managers."""
        fields = json.dumps({f"f:{part}": {f"f:{other}": {} for other in owned} for part in owned}).encode()
        began = int_field(1, BEGAN_SECONDS)
        managed = b"".join(
            b"\x8a\x01%b%b" % (varint(len(entry)), entry)
            for who, when in ((b"kube-apiserver", began), (manager, self._now()))
            for entry in (
                bytes_field(1, who)
                + bytes_field(2, b"Update")
                + bytes_field(3, b"v1")
                + bytes_field(4, when)
                + bytes_field(6, b"FieldsV1")
                + bytes_field(7, bytes_field(1, fields)),
            )
        )
        uid = b"%08x-0000-4000-8000-%012x" % (hash_of(name), hash_of(namespace))
        label = bytes_field(1, b"app") + bytes_field(2, name)
        return (
            bytes_field(1, name)
            + (bytes_field(3, namespace) if namespace else b"")
            + bytes_field(5, uid)
            + bytes_field(8, began)
            + bytes_field(11, label)
            + managed
        )

    def _put(
        self, key: bytes, version: bytes, kind: bytes, meta: bytes, spec: bytes, status: bytes = b""
    ) -> None:
        body = bytes_field(1, meta) + (bytes_field(2, spec) if spec else b"")
        self._store_value(key, _envelope(version, kind, body + (bytes_field(3, status) if status else b"")))

    def _store_value(self, key: bytes, value: bytes, lease: int = 0) -> None:
        self._store.put(key, value, lease=lease)
        self._writes += 1
        self._written_bytes += int((len(key) + len(value) + 60) / (1 - COMPACTION_SHARE / 2))


def hash_of(name: bytes) -> int:
    """A number that is the same in every process."""
    return sum(byte * pow(31, at, 1 << 32) for at, byte in enumerate(name)) & 0xFFFFFFFF


def _envelope(version: bytes, kind: bytes, body: bytes) -> bytes:
    type_meta = bytes_field(1, version) + bytes_field(2, kind)
    return (
        b"k8s\0"
        + bytes_field(1, type_meta)
        + bytes_field(2, body)
        + bytes_field(3, b"")
        + bytes_field(4, b"")
    )


if __name__ == "__main__":
    write_snapshot(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 36.0)
