"""``kvstore.offline.backend_move`` under its former name, for programs that still import it."""

from kvstore.offline.backend_move import move_backend

__all__ = ["move_backend"]
