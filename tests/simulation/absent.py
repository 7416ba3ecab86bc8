"""People who are not there: others have parts of what they wrote, the rest may be lost for good."""

import random
from typing import Any

from pycrdt import Doc, Map, Text

FIRST_ID = 2000


def history(chance: random.Random, edits: int, first_id: int) -> list[bytes]:
    """Return the updates of two people who edited one document without a server, one an edit, in
    the order in which they were made.
    """
    docs: list[Doc[Any]] = [Doc(client_id=first_id + number) for number in range(2)]
    updates: list[bytes] = []
    subscriptions = [doc.observe(lambda event: updates.append(event.update)) for doc in docs]
    told: list[bytes] = []
    for _ in range(edits):
        doc = chance.choice(docs)
        text, values = doc.get("text", type=Text), doc.get("map", type=Map)
        what, length = chance.random(), len(text)
        updates.clear()
        if what < 0.2 and length:
            at = chance.randrange(length)
            del text[at : min(length, at + chance.randint(1, 4))]
        elif what < 0.4:
            values[chance.choice("xyz")] = chance.randint(2000, 3000)
        else:
            text.insert(chance.randint(0, length), chance.choice("stuv") * chance.randint(1, 6))
        (update,) = updates
        told.append(update)
        for other in docs:
            if other is not doc and chance.random() < 0.7:
                # All, or what comes next of this one would build upon what is missing here, too.
                for each in told:
                    other.apply_update(each)
    for doc, subscription in zip(docs, subscriptions, strict=True):
        doc.unobserve(subscription)
    return told


def parts(chance: random.Random, updates: list[bytes], share: float) -> list[bytes]:
    """Return those updates that somebody has."""
    return [update for update in updates if chance.random() < share]
