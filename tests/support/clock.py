"""A clock that a test turns."""


class FakeClock:
    """Both times that a room needs (`plait.server.room.Clock`)."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        """Return the time in seconds."""
        return self.now

    def wall_ms(self) -> int:
        """Return the time in milliseconds, as if the clock had started in 1970."""
        return int(self.now * 1000)
