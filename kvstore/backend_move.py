"""``kvstore.offline.backend_move`` under the name that it had first, for programs that import it."""

from kvstore.offline.backend_move import move_backend

__all__ = ["move_backend"]
