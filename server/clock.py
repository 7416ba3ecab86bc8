"""The times that rooms go by."""

import time


class SystemClock:
    """The machine's clocks."""

    monotonic = staticmethod(time.monotonic)
    """Return seconds that only go forward."""

    def wall_ms(self) -> int:
        """Return milliseconds since 1970."""
        return time.time_ns() // 1_000_000
