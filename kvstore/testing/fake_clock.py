"""A clock that stands still until it is advanced."""


class FakeClock:
    """Pass it as the option ``clock``."""

    def __init__(self, now_seconds: float = 1_000_000.0) -> None:
        self.now_seconds = now_seconds

    def __call__(self) -> float:
        return self.now_seconds

    def advance(self, seconds: float) -> None:
        self.now_seconds += seconds
