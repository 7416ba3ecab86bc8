"""Clients without a network: they type, and hand out the updates."""

from typing import Any

from pycrdt import Array, Doc, Map, Text


class Author:
    """Somebody who edits a document of their own. Unrealistic: it is pycrdt, not Yjs."""

    def __init__(self, client_id: int) -> None:
        self.doc: Doc[Any] = Doc(client_id=client_id)
        self.text: Text = self.doc.get("text", type=Text)
        self.map: Map[Any] = self.doc.get("map", type=Map)
        self.array: Array[Any] = self.doc.get("array", type=Array)
        self._updates: list[bytes] = []
        self._subscription = self.doc.observe(lambda event: self._updates.append(event.update))

    def type(self, text: str) -> bytes:
        """Append to the text; return the update."""
        self.text += text
        return self.take()

    def delete(self, start: int, end: int) -> bytes:
        """Delete a part of the text; return the update."""
        del self.text[start:end]
        return self.take()

    def take(self) -> bytes:
        """Return the update of the one change that was made since."""
        (update,) = self._updates
        self._updates.clear()
        return update

    def hear(self, update: bytes) -> None:
        """Take in somebody else's update."""
        self.doc.apply_update(update)
        self._updates.clear()

    def state(self) -> bytes:
        """Return the whole state as one update."""
        return self.doc.get_update()


def text_of(update: bytes) -> str:
    """Return the text in a state."""
    doc: Doc[Text] = Doc()
    doc.apply_update(update)
    return str(doc.get("text", type=Text))
