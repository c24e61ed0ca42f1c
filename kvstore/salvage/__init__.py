"""Salvage: a new store from what can still be read of a cut or damaged one, and a report of what could not.

    source --readers--> evidence --judging--> what is true, and how sure --building--> new data directory

The source is only read. ``salvage`` is the one call; ``Salvaged`` is the report.
"""

from kvstore.salvage.evidence import Evidence, Fact, Level
from kvstore.salvage.report import Salvaged
from kvstore.salvage.run import salvage

__all__ = ["Evidence", "Fact", "Level", "Salvaged", "salvage"]
