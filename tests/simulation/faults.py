"""How badly a simulated world behaves, drawn from its seed; and a source of chance for each part,
so that one part's draws do not depend on the order in which others draw theirs.
"""

import random
from dataclasses import dataclass, fields, replace


class Chance:
    """Random numbers for the parts of one world."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def of(self, part: str) -> random.Random:
        """Return the numbers of a part, the same for the same seed and name."""
        return random.Random(f"{self._seed}/{part}")


@dataclass(frozen=True)
class Gaps:
    """Probabilities of what makes documents incomplete, and tells two things of one struct."""

    losing: float = 0.0
    """An update is lost on its way from an editor to the server."""
    half_known: float = 0.0
    """An editor has parts of what somebody wrote who is not there."""
    hearsay: float = 0.0
    """Times a second that an editor hears of them from elsewhere, and not by the server."""
    returning: float = 0.0
    """Everything of them comes in the end, after the world has healed; otherwise, never."""
    reused: float = 0.0
    """An editor has the client id of another one, if there is one node: others do not tell each
    other which of two was stored first.
    """

    @classmethod
    def drawn(cls, chance: random.Random) -> "Gaps":
        """Return faults of all kinds, each of them absent in most worlds."""
        worst = {"losing": 0.3, "half_known": 1.0, "hearsay": 1.0, "returning": 1.0, "reused": 1.0}
        drawn = {
            each.name: worst[each.name] * chance.random()
            for each in fields(cls)
            if chance.random() < 0.4
        }
        return cls(**drawn)

    def calm(self) -> "Gaps":
        """Return the same world when it behaves: what is lost stays so."""
        return replace(self, losing=0.0, hearsay=0.0)


@dataclass(frozen=True)
class Faults:
    """Probabilities, and means of delays in seconds."""

    lose: float = 0.0
    """A message of the relay is lost, silently."""
    double: float = 0.0
    reorder: float = 0.0
    """It may be overtaken."""
    relay_delay: float = 0.001
    relay_cuts: float = 0.0
    """Times a second that a node loses the relay for a while."""
    link_delay: float = 0.01
    link_cuts: float = 0.0
    """Times a second that a client loses its connection."""
    store_delay: float = 0.005
    store_fails: float = 0.0
    """A commit fails, half of the time after it was made."""
    load_delay: float = 0.01
    crashes: float = 0.0
    """Times a second that a node is killed."""
    stops: float = 0.0
    """Times a second that a node is stopped in an orderly way."""

    @classmethod
    def drawn(cls, chance: random.Random) -> "Faults":
        """Return faults of all kinds, each of them absent in half of all worlds."""
        worst = {
            "lose": 0.2,
            "double": 0.2,
            "reorder": 0.3,
            "relay_delay": 0.2,
            "relay_cuts": 0.2,
            "link_delay": 0.3,
            "link_cuts": 0.3,
            "store_delay": 0.3,
            "store_fails": 0.3,
            "load_delay": 0.5,
            "crashes": 0.15,
            "stops": 0.1,
        }
        drawn = {
            each.name: worst[each.name] * chance.random() ** 2
            for each in fields(cls)
            if chance.random() < 0.5
        }
        return cls(**drawn)

    def calm(self) -> "Faults":
        """Return the same world when it behaves."""
        return Faults(
            relay_delay=self.relay_delay, link_delay=self.link_delay, store_delay=self.store_delay
        )
