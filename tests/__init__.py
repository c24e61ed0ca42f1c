"""The proof, by area: see README.md."""

import os
from pathlib import Path

PROJECT = Path(__file__).parents[1]
"""The project's root folder."""

# Before kvstore is imported: every test runs with its invariants.
os.environ.setdefault("KVSTORE_VERIFY", "1")
