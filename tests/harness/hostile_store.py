"""A store whose keys and values try to be markup, or too much."""

from __future__ import annotations

import json

import kvstore
from kvstore.wire import bytes_field, int_field, varint

HOSTILE = [
    b"</script><script>document.body.dataset.hacked='1'</script>",
    b"<img src=x onerror=\"document.body.dataset.hacked='1'\">",
    b"\"'><svg onload=document.body.dataset.hacked=1>",
    b"javascript:document.body.dataset.hacked=1//#key=%3Cb%3E&find=x",
    b"{{7*7}}${7*7}",
    b"\xff\xfe\x00\x01",
    "snow ☃ \u2028 line".encode(),
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd".encode(),
    b"__proto__",
    b"constructor",
    b"/" * 300,
    b"long" * 1000 + b"1",
    b"long" * 1000 + b"2",
]
SIBLINGS = 1200


def deployment(replicas: int, image: str) -> bytes:
    """A Kubernetes Deployment as an API server stores it."""
    container = bytes_field(1, b"web") + bytes_field(2, image.encode())
    template = bytes_field(2, bytes_field(2, container))
    meta = bytes_field(1, b"web") + bytes_field(3, b"shop") + int_field(7, replicas)
    body = bytes_field(1, meta) + bytes_field(2, int_field(1, replicas) + bytes_field(3, template))
    type_meta = bytes_field(1, b"apps/v1") + bytes_field(2, b"Deployment")
    return b"k8s\0" + bytes_field(1, type_meta) + bytes_field(2, body)


def node_lease(seconds: int) -> bytes:
    """A Kubernetes Lease that a kubelet has renewed at a time."""
    time = bytes_field(4, int_field(1, seconds))
    entry = bytes_field(1, b"kubelet<b>") + bytes_field(2, b"Update") + time
    meta = bytes_field(1, b"node-1") + b"\x8a\x01%b%b" % (varint(len(entry)), entry)
    body = bytes_field(1, meta)
    type_meta = bytes_field(1, b"coordination.k8s.io/v1") + bytes_field(2, b"Lease")
    return b"k8s\0" + bytes_field(1, type_meta) + bytes_field(2, body)


def fill(store: kvstore.Store) -> None:
    """Ordinary keys, and the others."""
    store.put_many([(b"/many/key-%04d" % number, b"v") for number in range(SIBLINGS)])
    store.put_many(
        [(b"/registry/pods/ns%d/pod-%02d" % (number % 4, number), b"x" * number * 10) for number in range(40)]
    )
    for key in HOSTILE:
        store.put(key, key)
    for _ in range(5):
        store.put(b"hot", b"</script><b>bold</b>")
    for size in range(100):
        store.put(b"often", b"line\n" * size)
    store.put(b"gone", b"1")
    store.delete(b"gone")
    store.put(b"config", json.dumps({"name": "shop", "limits": {"cpu": 2, "id": 2**60}, "x": [1]}).encode())
    store.put(
        b"config", json.dumps({"x": [1], "limits": {"id": 2**60 + 1, "cpu": 2}, "name": "shop"}).encode()
    )
    store.put(b"/registry/deployments/shop/web", deployment(3, "web:1"))
    store.put(b"/registry/deployments/shop/web", deployment(5, "web:2"))
    store.put(b"/registry/leases/node-1", node_lease(1_770_000_000))
    store.put(b"/registry/leases/node-1", node_lease(1 << 61))
    store.put(b"big/json", json.dumps(["<b>&amp;"] * 100_000).encode()[: 1 << 20])
    store.put(b"big/bytes", bytes(range(256)) * 4096)
    store.put(b"big/text", b"a" * (1 << 20))
    store.put(b"big/text", b"a" * (1 << 20) + b"b")
