"""How finely the sweeps over crashes cut."""

from __future__ import annotations

import pytest

torn_writes = pytest.mark.parametrize("most_sectors", [2, pytest.param(12, marks=pytest.mark.soak)])
"""For sweeps with ``every_crash`` or ``every_failure`` over what is not about sectors: in how many places the writes
of each call are torn. Few of each kind by default, where a workload has many calls; the soak tries more."""
