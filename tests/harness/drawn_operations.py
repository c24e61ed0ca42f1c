"""Random operations of concurrent clients, in the words of the checkers, and how a store is asked for them."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import kvstore
from kvstore import Store, ops
from kvstore.aio import AsyncStore
from tests.harness.checkers.store_model import Answer, Compare, Delete, Get, Put, Request, Txn
from tests.harness.watching import model_kv

KEYS = [b"a", b"b", b"c"]


def draw(chance: random.Random, name: str) -> Request:
    """A random request over few keys; every value is written once."""
    key, value = chance.choice(KEYS), name.encode()
    match chance.randrange(8):
        case 0 | 1 | 2:
            return Put(key, value)
        case 3:
            return Delete(key, chance.choice([None, b"c"]) if key < b"c" else None)
        case 4 | 5:
            return Get(key, chance.choice([None, b"\0"]))
        case _:
            compare = Compare(key, chance.choice(["version", "mod_revision"]), "==", chance.choice([0, 1, 2]))
            return Txn((compare,), (Put(key, value), Get(key)), (Get(key), Delete(chance.choice(KEYS))))


def as_op(request: Any) -> Any:
    match request:
        case Get(key, end):
            return ops.get(key, range_end=end)
        case Put(key, value):
            return ops.put(key, value)
        case Delete(key, end):
            return ops.delete(key, range_end=end)
    raise AssertionError(request)


def as_compare(compare: Compare) -> Any:
    target: Callable[[bytes], Any] = getattr(kvstore, compare.target)
    return target(compare.key) == compare.operand


def answer_to(response: Any, revision: int | None) -> Answer:
    """An answer of the store; those inside a transaction name no revision."""
    name = type(response).__name__
    if name == "RangeResponse":
        return Answer(revision, kvs=tuple(model_kv(kv) for kv in response.kvs))
    if name == "DeleteRangeResponse":
        return Answer(revision, deleted=response.deleted)
    if name == "TxnResponse":
        inner = tuple(answer_to(one, None) for one in response.responses)
        return Answer(revision, succeeded=response.succeeded, answers=inner)
    return Answer(revision)


def perform(store: Store, request: Request) -> Answer:
    match request:
        case Get(key, end):
            response: Any = store.range(key, end)
        case Put(key, value):
            response = store.put(key, value)
        case Delete(key, end):
            response = store.delete(key, end)
        case Txn(compare, success, failure):
            response = store.txn(map(as_compare, compare), map(as_op, success), map(as_op, failure))
    return answer_to(response, response.revision)


async def perform_async(store: AsyncStore, request: Request) -> Answer:
    match request:
        case Get(key, end):
            response: Any = await store.range(key, end)
        case Put(key, value):
            response = await store.put(key, value)
        case Delete(key, end):
            response = await store.delete(key, end)
        case Txn(compare, success, failure):
            response = await store.txn(map(as_compare, compare), map(as_op, success), map(as_op, failure))
    return answer_to(response, response.revision)
