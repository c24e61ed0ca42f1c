"""Upkeep: what keeps a store small and safe while it is in use, in the background or when asked."""
