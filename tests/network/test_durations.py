"""How long calls take: counted where that is wanted, and logged where it is too long."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal
from urllib.request import urlopen

import pytest

import kvstore
from kvstore.etcdpb.messages import etcdserverpb as pb
from kvstore.network.slowness import Slowness
from kvstore.served import ServeOptions
from tests.network.served_store import PUT, RANGE, get
from tests.network.wire import Wire


def put(key: bytes) -> bytes:
    message: bytes = pb.PutRequest(key=key).SerializeToString()
    return message


@pytest.mark.parametrize("metrics", ["basic", "extensive"])
def test_durations_are_counted_where_wanted(tmp_path: Path, metrics: Literal["basic", "extensive"]) -> None:
    """A histogram of each method, whose last bucket has all calls."""
    with (
        kvstore.open(tmp_path / "store") as store,
        kvstore.serve(store, "http://127.0.0.1:0", metrics=metrics) as server,
    ):
        host, _, port = server.endpoints[0].removeprefix("http://").partition(":")
        with Wire(host, int(port)) as wire:
            for _ in range(3):
                wire.call(RANGE, get(b"k"))
        text = urlopen(f"{server.endpoints[0]}/metrics", timeout=20).read().decode()
    labels = 'grpc_method="Range",grpc_service="etcdserverpb.KV",grpc_type="unary"'
    last = f'grpc_server_handling_seconds_bucket{{{labels},le="+Inf"}} 3'
    assert (last in text) == (metrics == "extensive")
    assert (f"grpc_server_handling_seconds_count{{{labels}}} 3" in text) == (metrics == "extensive")


def test_what_takes_too_long_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With its method and how long it took; at limits of 0 everything does."""
    caplog.set_level(logging.WARNING, "kvstore.network")
    with kvstore.open(tmp_path / "store") as store:
        slow: ServeOptions = {"warning_apply_seconds": 0.0, "warning_unary_request_seconds": 0.0}
        with kvstore.serve(store, "http://127.0.0.1:0", **slow) as server:
            host, _, port = server.endpoints[0].removeprefix("http://").partition(":")
            with Wire(host, int(port)) as wire:
                wire.call(PUT, put(b"k"))
    told = [record.getMessage() for record in caplog.records]
    assert any(line.startswith("a request took long: /etcdserverpb.KV/Put, ") for line in told)
    assert any(line.startswith("a write took long to be durable: ") for line in told)


def test_a_slow_disk_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """A line a second of each kind; the next one says how many there were meanwhile."""
    slow = Slowness("took long: %s")
    for number in range(1000):
        slow.note(0.5 + number / 1000, 7.0 + number / 2000, "Put, ")
    assert [record.getMessage() for record in caplog.records] == ["took long: Put, 0.500 s"]
    slow.note(0.25, 8.0, "Range, ")
    slow.note(0.125, 9.5)
    assert [record.getMessage() for record in caplog.records[1:]] == [
        "took long: Range, 0.250 s (999 more since the last line, up to 1.499 s)",
        "took long: 0.125 s",
    ]
