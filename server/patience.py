"""How long those are kept waiting who knock again and again and may not come in, or come in and
break the rules each time.

Whoever is refused with a status, or closed for what it sent, may try again at once, and each
attempt costs a handshake: 0.3 ms of a processor. A thousand clients in a loop would take all of it.
Most of them wait for the answer before they try again; so an answer that comes late costs them
their time, and us nothing. Some offences are forgiven, one more every few seconds, so that a wrong
token or a bad day of one's program is told at once.

It is by name. Refused handshakes are on the account of the address; what closes a connection is on
that of the subject, or of the address if there is none. So a token that lets somebody in does not
wait for others behind the same address.

Pure; times are seconds that only go forward.
"""

from collections import OrderedDict

from plait.server.errors import ClientError, NotAllowed, PlaitError, Unauthorized
from plait.server.limits import Limits


class Patience:
    """What is left for each name that has offended lately."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """Offences that are still forgiven, and when that was so; who offended last at the end."""
        self.waiting = 0
        """Those that are kept waiting now."""

    def offended(self, name: str | None, now: float) -> None:
        """Count an offence; without a name it is nobody's."""
        if name:
            self._left[name] = max(0.0, self._now_left(name, now) - 1), now
            self._left.move_to_end(name)
            if len(self._left) > self._limits.addresses_max:
                self._left.popitem(last=False)

    def wait_seconds(self, name: str | None, now: float) -> float:
        """Return how long somebody has to wait for an answer: not at all, unless there were too
        many offences, or too many wait already.
        """
        if not name or self.waiting >= self._limits.offenders_waiting_max:
            return 0.0
        return 0.0 if self._now_left(name, now) >= 1 else self._limits.offender_seconds

    def _now_left(self, name: str, now: float) -> float:
        most = float(self._limits.offences_forgiven)
        left, at = self._left.get(name, (most, now))
        return min(most, left + (now - at) / self._limits.offence_seconds)


def is_offence(error: PlaitError) -> bool:
    """Whether a connection was closed for what the client did with it: not for its right, which
    ends by itself, and not for our sake.
    """
    return isinstance(error, ClientError) and not isinstance(error, Unauthorized | NotAllowed)
