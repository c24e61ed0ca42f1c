"""Arguments that mean something else than they say: refused by name, and nothing is written."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import kvstore
import kvstore.recipes
from kvstore import BadArgument, Compare
from kvstore.options import _BOUNDS, BadOption, Options
from kvstore.store import Store

INTERNAL = ("rstrip", "replace()", "no attribute", "not supported between", "unsupported operand")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with kvstore.open(tmp_path / "data", "memory", background=False) as store:
        for number in range(10):
            store.put(b"n", b"%d" % number)
        yield store


version, value = kvstore.version, kvstore.value
put, get, delete = kvstore.ops.put, kvstore.ops.get, kvstore.ops.delete

# --- expressions -----------------------------------------------------------------------------------

EXPRESSIONS: list[Callable[[], Any]] = [
    lambda: 20 < version(b"n") < 50,
    lambda: version(b"n") == 1 == 1,
    lambda: (version(b"n") == 99) and (version(b"n") == 10),
    lambda: (version(b"n") == 99) or (version(b"n") == 10),
    lambda: not (version(b"n") == 99),  # noqa: SIM201  # the mistake that is meant, here and below
    lambda: version(b"n") and version(b"m"),  # type: ignore[unreachable]  # they see it too
    lambda: version(b"n") in (1, 2),
    lambda: version(b"n") >= 5,
    lambda: version(b"n") <= 5,
    lambda: 5 <= version(b"n"),  # noqa: SIM300
    lambda: version(b"n") == version(b"m"),
    lambda: version(b"n") == True,  # noqa: E712
    lambda: version(b"n") == 1.0,
    lambda: version(b"n") == b"1",
    lambda: value(b"n") == "text",
    lambda: value(b"n") == 1,
    lambda: put(b"a") and put(b"b"),
    lambda: get(b"a") or put(b"b"),  # type: ignore[unreachable]
    lambda: not delete(b"a"),
    lambda: kvstore.ops.txn() and put(b"b"),
    lambda: any([version(b"n") == 1]),
]


@pytest.mark.parametrize("number", range(len(EXPRESSIONS)))
def test_an_expression_that_would_drop_a_part_is_refused(number: int) -> None:
    """Chained, negated and combined compares and ops raise while they are written, and say what to write."""
    with pytest.raises(TypeError) as refused:
        EXPRESSIONS[number]()
    assert not any(text in str(refused.value) for text in INTERNAL)


TRANSACTIONS: list[Callable[[Any], Any]] = [
    lambda store: store.txn(compare=[version(b"n")]),
    lambda store: store.txn(compare=version(b"n") == 10),
    lambda store: store.txn(compare=version(b"n")),
    lambda store: store.txn(compare=[(version(b"n") == 1) == True]),  # type: ignore[comparison-overlap]  # noqa: E712
    lambda store: store.txn(compare=[(version(b"n") == 1) + (version(b"n") == 2)]),
    lambda store: store.txn(success=put(b"a")),
    lambda store: store.txn(failure=get(b"a")),
    lambda store: store.txn(success=kvstore.ops.txn()),
    lambda store: store.txn(success=[version(b"n") == 10]),
    lambda store: store.txn(success=[b"a"]),
]


@pytest.mark.parametrize("number", range(len(TRANSACTIONS)))
def test_what_is_no_list_of_compares_or_ops_is_refused(store: Store, number: int) -> None:
    """A compare without operator, a single op without its list: a TypeError, and nothing was written."""
    with pytest.raises(TypeError) as refused:
        TRANSACTIONS[number](store)
    assert not any(text in str(refused.value) for text in INTERNAL)
    assert store.revision == 11


def test_compares_in_a_list_hold_together(store: Store) -> None:
    """What the refusal says to write: each condition by itself, all of which must hold."""
    assert store.txn(compare=[version(b"n") > 5, version(b"n") < 20]).succeeded
    assert not store.txn(compare=[version(b"n") > 20, version(b"n") < 50]).succeeded
    assert Compare(b"n") == Compare(b"n")


# --- numbers ---------------------------------------------------------------------------------------

NUMBERS: dict[str, Callable[[Store, Any], Any]] = {
    "revision of get": lambda store, bad: store.get(b"n", revision=bad),
    "revision of range": lambda store, bad: store.range(b"n", revision=bad),
    "limit of range": lambda store, bad: store.range(prefix=b"", limit=bad),
    "min_mod_revision of range": lambda store, bad: store.range(prefix=b"", min_mod_revision=bad),
    "max_mod_revision of range": lambda store, bad: store.range(prefix=b"", max_mod_revision=bad),
    "min_create_revision of range": lambda store, bad: store.range(prefix=b"", min_create_revision=bad),
    "max_create_revision of range": lambda store, bad: store.range(prefix=b"", max_create_revision=bad),
    "revision of scan": lambda store, bad: store.scan(prefix=b"", revision=bad),
    "page_rows of scan": lambda store, bad: store.scan(prefix=b"", page_rows=bad),
    "revision of at": lambda store, bad: store.at(bad),
    "since of history": lambda store, bad: store.history(b"n", since=bad),
    "until of history": lambda store, bad: store.history(b"n", until=bad),
    "older of diff": lambda store, bad: store.diff(bad, 5),
    "newer of diff": lambda store, bad: store.diff(5, bad),
    "revision of hash_kv": lambda store, bad: store.hash_kv(bad),
    "revision of compact": lambda store, bad: store.compact(bad),
    "revision of compaction_estimate": lambda store, bad: store.compaction_estimate(bad),
    "start_revision of watch": lambda store, bad: store.watch(b"n", start_revision=bad),
    "revision of an op": lambda store, bad: get(b"n", revision=bad),
    "limit of an op": lambda store, bad: get(b"n", limit=bad),
    "ttl of put": lambda store, bad: store.put(b"t", ttl=bad),
    "ttl of grant_lease": lambda store, bad: store.grant_lease(bad),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_a_number_that_means_nothing_is_refused_by_name(store: Store, what: str) -> None:
    """Negative ones are a BadArgument, texts and truths a TypeError; the message names the argument."""
    name = what.split(maxsplit=1)[0]
    for bad in (-1, -5, -(1 << 63), -(1 << 70)):
        with pytest.raises(BadArgument, match=name) as refused:
            NUMBERS[what](store, bad)
        assert isinstance(refused.value, kvstore.RequestError) and str(bad) in str(refused.value)
    for wrong in ("1", True, b"1"):
        with pytest.raises(TypeError, match=name):
            NUMBERS[what](store, wrong)
    assert store.revision == 11


def test_zero_is_refused_where_it_stands_for_nothing(store: Store) -> None:
    """There is no revision 0 to look at, and a key that lives no time is none."""
    for call in (
        lambda: store.at(0),
        lambda: store.diff(0, 5),
        lambda: store.put(b"t", ttl=0),
        lambda: store.grant_lease(0),
    ):
        with pytest.raises(BadArgument, match=r"at least|more than 0"):
            call()
    assert store.get(b"n", revision=0) == store.get(b"n")


@pytest.mark.parametrize(
    "ttl",
    [
        -0.5,
        math.nan,
        math.inf,
        -math.inf,
        timedelta(0),
        timedelta(-1),
    ],
    ids=str,
)
def test_a_time_that_is_none_is_refused(store: Store, ttl: Any) -> None:
    """A time to live is finite, and more than nothing."""
    for call in (lambda: store.put(b"t", ttl=ttl), lambda: store.grant_lease(ttl)):
        with pytest.raises(BadArgument, match="ttl"):
            call()
    assert store.get(b"t") is None and store.leases() == ()


@pytest.mark.parametrize("ttl", [90, 90.0, timedelta(minutes=1, seconds=30)], ids=repr)
def test_whole_seconds_mean_what_they_say(store: Store, ttl: Any) -> None:
    """As an int, a float or a timedelta."""
    store.put(b"t", ttl=ttl)
    kv = store.get(b"t")
    assert kv is not None and store.lease_time_to_live(kv.lease).granted_ttl == 90
    assert store.grant_lease(ttl).ttl == 90


def test_a_ttl_beyond_every_lease_is_refused(store: Store) -> None:
    """As etcd does, also where it comes as a float."""
    for ttl in (9_000_000_001, 1e300, 1 << 80):
        with pytest.raises((kvstore.LeaseTTLTooLarge, BadArgument)):
            store.put(b"t", ttl=ttl)
    assert store.put(b"t").revision == 12


def test_an_id_that_is_no_number_is_refused_by_name(store: Store) -> None:
    """A lease is named by the ``id`` of the answer, not by the answer."""
    granted: Any = store.grant_lease(60)
    for call in (
        lambda: store.put(b"k", lease=granted),
        lambda: store.revoke_lease(granted),
        lambda: store.keep_alive(granted),
        lambda: store.lease_time_to_live(granted),
        lambda: store.grant_lease(60, granted),
    ):
        with pytest.raises(TypeError, match="lease"):
            call()
    with pytest.raises(BadArgument, match="lease must fit into 64 bits"):
        store.revoke_lease(1 << 64)


# --- keys ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad", ["a", 5, bytearray(b"a"), memoryview(b"a")], ids=["text", "number", "bytearray", "memoryview"]
)
def test_what_is_not_bytes_is_refused_by_name(store: Store, bad: Any) -> None:
    """As key, range_end or prefix of any call."""
    calls: list[tuple[str, Callable[[], Any]]] = [
        ("key", lambda: store.get(bad)),
        ("key", lambda: store.get(bad, revision=2)),
        ("key", lambda: store.history(bad)),
        ("key", lambda: bad in store),
    ]
    takers: tuple[Callable[..., Any], ...] = (
        store.range,
        store.scan,
        store.count,
        store.delete,
        store.watch,
        lambda *a, **k: store.diff(2, 3, **(dict(zip(("key", "range_end"), a, strict=False)) | k)),
        lambda key=None, range_end=None, **k: get(key, range_end=range_end, **k),
        lambda key=None, range_end=None, **k: delete(key, range_end=range_end, **k),
        lambda key=None, range_end=None, **k: version(key, range_end=range_end, **k),
    )
    for taker in takers:
        calls.append(("key", partial(taker, bad)))
        calls.append(("range_end", partial(taker, b"a", bad)))
        calls.append(("prefix", partial(taker, prefix=bad)))
    for name, call in calls:
        with pytest.raises(TypeError, match=f"{name} must be bytes"):
            call()


def test_an_empty_key_is_refused_everywhere(store: Store) -> None:
    """Also where it would find nothing without a word."""
    for call in (
        lambda: store.get(b""),
        lambda: store.range(b""),
        lambda: store.scan(b""),
        lambda: store.history(b""),
        lambda: store.watch(b""),
        lambda: store.diff(2, 3, key=b""),
        lambda: store.delete(b""),
        lambda: store.put(b""),
    ):
        with pytest.raises(kvstore.EmptyKey):
            call()


def test_the_asynchronous_face_refuses_the_same(tmp_path: Path) -> None:
    """Nothing is planned for it either."""

    async def main() -> None:
        async with kvstore.open_async(tmp_path / "data", "memory", background=False) as store:
            for call in (
                lambda: store.put(b"t", ttl=-1),
                lambda: store.put(b"t", ttl=math.nan),
                lambda: store.grant_lease(-5),
                lambda: store.get(b"t", revision=-1),
                lambda: store.range(b"t", revision=-1),
                lambda: store.compact(-1),
                lambda: store.hash_kv(-1),
            ):
                with pytest.raises(BadArgument):
                    await call()
            with pytest.raises(BadArgument):
                store.watch(b"t", start_revision=-1)
            assert store.revision == 1

    asyncio.run(main())


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", _BOUNDS)
def test_every_number_has_bounds_that_are_named(name: str) -> None:
    """Beyond either end, and what is no number: refused with the option, the limit and what was given."""
    options: Any = Options
    least, most = _BOUNDS[name]
    for bad in (least - 1, most * 2 + 1, math.nan, math.inf):
        with pytest.raises(BadOption, match=f"^{name} must be between .* not {bad}"):
            options(**{name: bad})
    for wrong in (True, "x", None, b"1"):
        with pytest.raises(BadOption, match=name):
            options(**{name: wrong})


def test_every_option_that_is_a_number_is_bounded() -> None:
    """A new one without bounds is noticed here."""
    numbers = {field.name for field in fields(Options) if type(field.default) in (int, float)}
    assert numbers == set(_BOUNDS)


@pytest.mark.parametrize(
    "text", ["\u00b2", "\u0663", "-1", "1 0", "ten", "9" * 30, "1e3", "\u0663m", "99999999h", ""]
)
def test_a_retention_that_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    """Digits are ASCII, and a period or a number of revisions has an end; opening again works."""
    for mode in ("periodic", "revision"):
        with pytest.raises(BadOption, match="auto_compaction_retention"):
            kvstore.open(tmp_path / "data", auto_compaction_mode=mode, auto_compaction_retention=text)
    kvstore.open(tmp_path / "data").close()


def test_an_option_of_another_type_is_refused() -> None:
    """A truth is no number, a number is no folder."""
    for bad in ({"max_wals": True}, {"wal_dir": 5}, {"name": 1.5}, {"read_only": 1}, {"metrics": "perhaps"}):
        with pytest.raises(BadOption, match=next(iter(bad))):
            Options.load(bad)
    assert Options.load({"auto_compaction_retention": 1}).auto_compaction_retention == "1"


@pytest.mark.parametrize("url", ["unix:///run/kv.sock", "etcd://h1:2379,h2", "https://h1"])
def test_a_url_is_not_taken_for_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    """Told what opens it, and no directory of that name is made."""
    monkeypatch.chdir(tmp_path)
    for shared in (False, True):
        with pytest.raises(kvstore.BadArgument, match=r"use kvstore\.connect"):
            kvstore.open(url, shared=shared)
    assert not list(tmp_path.iterdir())


# --- whatever else can be given wrongly --------------------------------------------------------------

untyped: Any = kvstore

MISTAKES: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a txn of a number": (
        lambda store: store.txn(compare=5),
        r"compare is a list: write compare=\[...\].*not 5",
    ),
    "a txn of nothing": (lambda store: store.txn(success=None), "success is a list"),
    "a txn of bytes": (lambda store: store.txn(success=b"key"), "success is a list"),
    "put_many of a number": (lambda store: store.put_many(5), "items must be a mapping, or pairs .*, not 5"),
    "put_many of keys": (
        lambda store: store.put_many([b"abc"]),
        "items must be a mapping.*b'abc' is no pair",
    ),
    "a ticket that is none": (lambda store: store.wait(5), "ticket must be what put_nowait returned, not 5"),
    "the name of an alarm": (
        lambda store: store.disarm("NOSPACE"),
        r"alarm must be one of store.alarms\(\), not",
    ),
    "a callback that is none": (
        lambda store: store.watch(b"k", callback=5),
        "callback must be a function, not 5",
    ),
    "progress to nowhere": (lambda store: store.compact(3, progress=5), "progress must be a function, not 5"),
    "progress of a defragmentation": (
        lambda store: store.defragment(progress="p"),
        "progress must be a function",
    ),
    "a number for a path": (lambda store: store.snapshot(5), r"path must be a str or a path.*, not 5"),
    "bytes for a path": (lambda store: store.snapshot(b"x"), "path must be a str or a path"),
    "opening a number": (
        lambda _: untyped.open(5),
        r"data_dir must be a str or a path \(os.PathLike\), not 5",
    ),
    "opening nothing": (lambda _: untyped.open(None), "data_dir must be a str or a path"),
    "a snapshot of nothing": (lambda _: untyped.open_snapshot(None), "path must be a str or a path"),
    "a restore to nothing": (lambda _: untyped.restore("a", None), "data_dir must be a str or a path"),
    "verifying a number": (lambda _: untyped.verify(5), "path must be a str or a path"),
    "doctoring a number": (lambda _: untyped.doctor(5), "data_dir must be a str or a path"),
    "serving a path": (
        lambda _: untyped.serve("data", "http://127.0.0.1:0"),
        "store must be an open kvstore.Store",
    ),
    "serving at a number": (
        lambda store: untyped.serve(store, 5),
        "urls must be a str, or a list of them, not 5",
    ),
    "a session on a path": (
        lambda _: untyped.recipes.Session("data", ttl=5),
        "store must be a kvstore.Store or AsyncStore",
    ),
    "a queue on a path": (
        lambda _: untyped.recipes.Queue("data", b"q"),
        "store must be a kvstore.Store or AsyncStore",
    ),
    "a timeout in words": (
        lambda store: store.watch(b"k").get(timeout="1"),
        r"timeout must be seconds .*, not '1'",
    ),
    "a watch of a number": (
        lambda store: store.watch_stream().create(5),
        "request must be a kvstore.WatchRequest",
    ),
    "metrics of a number": (lambda _: untyped.metrics.collector(5), "collector takes open stores, not 5"),
    "a lock without a session": (
        lambda store: untyped.recipes.Lock(store, b"l"),
        "session must be a kvstore.recipes",
    ),
    "a claim in words": (
        lambda store: untyped.recipes.Barrier(store, b"b").wait(timeout="1"),
        r"timeout must be seconds .*, not '1'",
    ),
    "a dead job by text": (
        lambda store: untyped.recipes.Queue(store, b"q").revive("x"),
        "ident must be bytes",
    ),
    "a transaction of nothing": (
        lambda store: untyped.recipes.transact(store, None),
        "fn must be a function",
    ),
    "a session that tells a number": (
        lambda store: untyped.recipes.Session(store, ttl=5, on_lost=5),
        "on_lost must be a function, not 5",
    ),
    "a value that nobody makes": (
        lambda store: untyped.MapView(store, "m/").get_or_put("k", "value"),
        "make must be a function, not 'value'",
    ),
    "a change that is none": (
        lambda store: untyped.MapView(store, "m/").modify("k", "value"),
        "change must be a function, not 'value'",
    ),
    "a namespace of a path": (
        lambda _: untyped.recipes.Namespace("data", b"n/"),
        "store must be a kvstore.Store, not",
    ),
}


@pytest.mark.parametrize("what", MISTAKES)
def test_what_is_of_the_wrong_kind_is_refused_by_name(store: Store, what: str) -> None:
    """The message names the argument and says what it should be, not which line of ours stumbled over it."""
    call, text = MISTAKES[what]
    with pytest.raises(TypeError, match=text) as refused:
        call(store)
    assert not any(text in str(refused.value) for text in INTERNAL)
    assert store.revision == 11


def test_what_no_machine_has_is_refused_by_name(store: Store, tmp_path: Path) -> None:
    """A limit of more than 64 bits, a path with a null byte, a clock that is no function."""
    for call, text in (
        (lambda: store.scan(prefix=b"", limit=1 << 63), "limit must fit into 64 bits"),
        (lambda: store.scan(prefix=b"", page_rows=1 << 63), "page_rows must fit into 64 bits"),
        (lambda: store.get(b"n", revision=1 << 64), "revision must fit into 64 bits"),
        (lambda: kvstore.open(f"{tmp_path}/a\0b"), "data_dir must not hold a null byte"),
        (
            lambda: untyped.open(tmp_path / "c", clock=5),
            "clock must be a function that returns seconds, not 5",
        ),
    ):
        with pytest.raises(ValueError, match=text) as refused:
            call()
        assert isinstance(refused.value, kvstore.KVStoreError)
