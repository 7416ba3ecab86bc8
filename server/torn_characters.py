"""Bring back characters beyond U+FFFF that an edit has cut in half (`plait.server.revert`).

pycrdt can't cut them (`plait.server.wire.surrogates`), and Yjs has replaced both halves for good.
So pycrdt is given for each of them two characters that occur nowhere else, which it can cut. What
it inserts anew has new ids, so only these tell what they stand for.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pycrdt

from plait.server.appearance import texts
from plait.server.wire.lib0 import read_var_uint, var_bytes
from plait.server.wire.structs import Struct, read_structs, replace_parts
from plait.server.wire.update import STRING, Id

_PRIVATE_USE = range(0xE000, 0xF900)
_TORN = "\ufffd"

Part = tuple[int, int, bytes]
"""The start and the end of some bytes in an update, and what to write there."""


class TornCharacters:
    """Two characters that pycrdt can cut, for each of the characters that are cut.

    Args:
        state: where they are whole.
        places: (client, clock) of the first half of each.
    """

    def __init__(self, state: bytes, places: Iterable[Id]) -> None:
        self._places = set(places)
        self._high: dict[str, str] = {}
        self._low = ""
        if not self._places:
            return
        texts = [(each, _text(state, each)) for each in read_structs(state) if each.kind == STRING]
        used = set("".join(text for _, text in texts))
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in used)
        self._low = next(free, "")
        for struct, text in texts:
            for clock, character in _clocked(text, struct.clock):
                if (struct.client, clock) in self._places and character not in self._high:
                    # When there is none left, the character stays torn.
                    self._high[character] = next(free, _TORN)

    def put_in(self, state: bytes) -> bytes:
        """Return the state, or a later one, with stand-ins."""
        if not self._places:
            return state
        parts: list[Part] = []
        for struct in read_structs(state):
            if struct.kind == STRING:
                text = _text(state, struct)
                if not text.isascii():
                    changed = self._replaced(text, struct)
                    parts.append((struct.content, struct.end, var_bytes(changed.encode())))
        return replace_parts(state, parts)

    def make_whole(self, doc: "pycrdt.Doc[Any]") -> None:
        """Insert each character between the stand-ins of its halves, and delete those."""
        characters = {high: character for character, high in self._high.items() if high != _TORN}
        with doc.transaction():
            for text in texts(doc) if characters else ():
                # From the end, since places are counted from the start.
                for place, high, format in reversed(self._whole_in(text, characters)):
                    between = place + len(high.encode())
                    text.insert(between, characters[high], format)
                    after = between + len(characters[high].encode())
                    del text[after : after + len(self._low.encode())]
                    del text[place:between]

    def take_out(self, update: bytes) -> bytes:
        """Return an update with U+FFFD for each stand-in that is left: half a character, in Yjs."""
        if not self._high:
            return update
        halves = str.maketrans(dict.fromkeys([*self._high.values(), self._low], _TORN))
        parts: list[Part] = []
        for struct in read_structs(update):
            if struct.kind == STRING:
                text = _text(update, struct)
                changed = text.translate(halves)
                if changed != text:
                    parts.append((struct.content, struct.end, var_bytes(changed.encode())))
        return replace_parts(update, parts)

    def _whole_in(
        self, text: "pycrdt.Text | pycrdt.XmlText", characters: Mapping[str, str]
    ) -> list[tuple[int, str, dict[str, Any] | None]]:
        """Return where both halves of characters stand, in bytes of UTF-8, the first of both, and
        its format.
        """
        found = []
        position = 0
        previous = ""
        for content, format in text.diff():
            if not isinstance(content, str):
                position, previous = position + 1, ""
                continue
            for character in content:
                if character == self._low and previous in characters:
                    found.append((position - len(previous.encode()), previous, format))
                position, previous = position + len(character.encode()), character
        return found

    def _replaced(self, text: str, struct: Struct) -> str:
        return "".join(
            self._high[character] + self._low
            if (struct.client, clock) in self._places and character in self._high
            else character
            for clock, character in _clocked(text, struct.clock)
        )


def _text(update: bytes, struct: Struct) -> str:
    size, start = read_var_uint(update, struct.content)
    return update[start : start + size].decode()


def _clocked(text: str, clock: int) -> Iterable[tuple[int, str]]:
    """Return each character with its clock; those beyond U+FFFF take two."""
    for character in text:
        yield clock, character
        clock += 2 if character > "\uffff" else 1
