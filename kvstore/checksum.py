"""CRC-32C, which the log and snapshots are checked by: the function of the package ``crc32c``.

Importing that package also reads the metadata of all that is installed, to know its own version. It takes as long as
everything else that opens a store. So its module in C is loaded without it, where it lies as expected.
"""

from __future__ import annotations

from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from typing import TYPE_CHECKING, Any

__all__ = ["crc32c"]


def _loaded() -> Any:
    package = PathFinder.find_spec("crc32c")
    inside = package.submodule_search_locations if package else None
    spec = PathFinder.find_spec("_crc32c", inside) if inside else None
    if spec is None or spec.loader is None:
        import crc32c

        return crc32c
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if TYPE_CHECKING:
    from crc32c import crc32c
else:
    crc32c = _loaded().crc32c
