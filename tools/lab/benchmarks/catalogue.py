"""All rows: importing the modules that hold them registers them, in this order."""

from __future__ import annotations

from . import rows_write  # isort: skip
from . import rows_read  # isort: skip
from . import rows_open  # isort: skip
from . import rows_watch  # isort: skip
from . import rows_upkeep  # isort: skip
from . import rows_life  # isort: skip
from . import rows_growth  # isort: skip
from . import rows_wire  # isort: skip
from .contest import ROWS

__all__ = [
    "ROWS",
    "rows_growth",
    "rows_life",
    "rows_open",
    "rows_read",
    "rows_upkeep",
    "rows_watch",
    "rows_wire",
    "rows_write",
]
