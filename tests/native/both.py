"""Calling a function in Python and in C, and telling what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from importlib import import_module
from typing import Any

import pytest

from kvstore import implementation
from kvstore.etcdpb import requests, responses
from kvstore.mvcc import (  # what they mark is among the references
    checkpoint,
    effects,
    overlay,
    puts,
    validate,
)
from kvstore.network import grpc
from kvstore.network.http2 import frames
from kvstore.network.remote import answers, encoding
from kvstore.wal import format as wal_format

MARKED = (
    answers,
    checkpoint,
    effects,
    encoding,
    frames,
    grpc,
    overlay,
    puts,
    requests,
    responses,
    validate,
    wal_format,
)

try:
    module: Any = import_module("kvstore._native")
except ImportError:
    module = None

needs_native = pytest.mark.skipif(module is None, reason="kvstore._native is not built here")


def in_python(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = implementation.references[name]
    return found


def in_c(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = module.bind(name, in_python(name))
    return found


def outcome(function: Callable[..., Any], arguments: Sequence[Any] = ()) -> Any:
    """What it answers or raises, and what has become of its arguments, in a form that can be compared."""
    given = [each if isinstance(each, memoryview) else deepcopy(each) for each in arguments]
    try:
        answer = told(function(*given))
    except Exception as error:
        answer = type(error), str(error)
    return answer, told(given) if given else None


def told(value: Any) -> Any:
    """The value with the types of everything in it: True is not 1, and a tuple no list."""
    if isinstance(value, (list, tuple)):
        return type(value), [told(each) for each in value]
    if isinstance(value, dict):
        return dict, [(told(key), told(each)) for key, each in value.items()]
    return type(value), value
