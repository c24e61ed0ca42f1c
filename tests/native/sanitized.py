"""A plugin for pytest (``-p tests.native.sanitized``): the part in C as ``make sanitize`` has built it.

It is loaded before kvstore is imported, in the place of what is installed.
"""

import sys
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

NAME = "kvstore._native"
(BUILT,) = Path("build/sanitized/kvstore").glob("_native.*.so")

_loader = ExtensionFileLoader(NAME, str(BUILT))
_spec = spec_from_loader(NAME, _loader)
assert _spec is not None
sys.modules[NAME] = module_from_spec(_spec)
_loader.exec_module(sys.modules[NAME])


def pytest_report_header() -> str:
    """Says what is tested."""
    return f"kvstore._native: {BUILT}"
