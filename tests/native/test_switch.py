"""``KVSTORE_IMPL`` chooses, and what was chosen can be seen."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import kvstore
from kvstore import implementation
from kvstore.observe.doctor import diagnose
from tests import PROJECT
from tests.native.both import module, needs_native

TELL = "import kvstore; print(kvstore.__impl__, type(kvstore.KeyValue.from_row).__name__)"


def run(value: str | None, code: str = TELL) -> subprocess.CompletedProcess[str]:
    """A new process with that value of the variable (None: without it)."""
    environment = {name: each for name, each in os.environ.items() if name != implementation.VARIABLE}
    if value is not None:
        environment[implementation.VARIABLE] = value
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )


def test_python_can_always_be_asked_for() -> None:
    """C is not even loaded."""
    code = f"{TELL}; import sys; print('kvstore._native' in sys.modules)"
    assert run("python", code).stdout.split() == ["python", "function", "False"]


@needs_native
@pytest.mark.parametrize("value", ["native", "", None])
def test_c_is_used_where_it_is_built(value: str | None) -> None:
    """Asked for, or not asked at all."""
    assert run(value).stdout.split() == ["native", "builtin_function_or_method"]


def test_c_that_is_not_there_is_refused_with_the_remedy() -> None:
    """Only where it was asked for; otherwise Python does its work."""
    absent = f"import sys; sys.modules['kvstore._native'] = None; {TELL}"
    assert run(None, absent).stdout.split() == ["python", "function"]
    done = run("native", absent)
    assert done.returncode
    assert "ImportError: KVSTORE_IMPL is 'native', but kvstore._native cannot be loaded" in done.stderr
    assert "install a C compiler" in done.stderr


def test_any_other_value_is_refused() -> None:
    """Both that there are are named."""
    done = run("fast")
    assert done.returncode
    assert "ImportError: KVSTORE_IMPL is 'fast'; it may be 'python', 'native', or left out" in done.stderr


def test_what_is_used_is_told(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """By the package, by ``kvstore doctor``, and in pytest's header."""
    assert (
        kvstore.__impl__ == implementation.name == os.environ.get(implementation.VARIABLE, kvstore.__impl__)
    )
    assert {fact.name: fact.value for fact in diagnose(tmp_path)}["implementation"] == implementation.name
    headers = request.config.hook.pytest_report_header(config=request.config, start_path=tmp_path)
    assert f"kvstore: {implementation.name} implementation" in headers


def test_c_is_what_pytest_runs_where_it_is_built_and_nothing_is_said() -> None:
    """So that the suite tests what is installed."""
    if os.environ.get(implementation.VARIABLE):
        pytest.skip("it was said")
    assert (kvstore.__impl__ == implementation.NATIVE) is (module is not None)


def test_no_format_depends_on_the_headers_it_was_built_with() -> None:
    """One built by Python 3.13 is loaded by 3.11, too, where a "#" in a format would fail."""
    sources = sorted((PROJECT / "kvstore" / "native").glob("*.c"))
    assert sources
    formats = [found for file in sources for found in re.findall(r'"[^"\n]*[syz]#[^"\n]*"', file.read_text())]
    assert formats == []
