"""Revisions, versions and time: what the store means. Knows no files.

Read in this order: ``schema`` (what is in the backend), ``state`` (what is in memory above it, and reads at a
revision), ``plan`` (how a write is decided), ``effects`` (how the decision is written down),
``checkpoint`` (how it reaches the backend).
"""
