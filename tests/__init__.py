"""The proof, by area: see README.md."""

from pathlib import Path

PROJECT = Path(__file__).parents[1]
"""The project's root folder."""
