"""What the load generator types are updates that Yjs applications could have sent."""

import pytest
from pycrdt import Doc, Text

from plait.server.typist import Typist, long_document
from plait.server.wire.update import inspect
from tests.support.authors import text_of


def test_keystrokes_are_appended() -> None:
    doc: Doc[Text] = Doc()
    ann, ben = Typist(1), Typist(1 << 23)
    for update in (ann.type(b"one "), ann.type(b"two "), ben.type(b"three "), ben.type(b"four")):
        inspect(update)
        doc.apply_update(update)
    assert text_of(doc.get_update()) in ("one two three four", "three fourone two ")


@pytest.mark.parametrize("edits", [0, 1, 2, 500, 20_000])
def test_a_long_document_is_whole(edits: int) -> None:
    document = long_document(edits)
    inspect(document)
    text = text_of(document)
    # Each keystroke wrote a letter or took one back.
    assert len(text) <= edits and (edits - len(text)) % 2 == 0
    assert edits < 500 or edits * 0.3 < len(text) < edits * 0.8


def test_a_long_document_depends_on_its_seed_alone() -> None:
    assert long_document(3_000) == long_document(3_000)
    assert long_document(3_000) != long_document(3_000, seed=2)
