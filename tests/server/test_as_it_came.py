"""What comes out of a document is what went in: real Yjs sees every key in its place, whichever way
it went.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from plait.persistence import LoggedUpdate, Snapshot, Stored
from plait.server.document import Document
from plait.server.folding import fold_rows, fold_snapshot, read
from plait.server.limits import Limits
from plait.server.revert import reverting_update
from plait.server.updates import difference, merge
from plait.server.wire import places
from plait.server.wire.structs import join_garbage, read_deletes, sections
from tests.support.node import run_node
from tests.support.rest import UPDATE, path, serving
from tests.wire.recorded import histories

LIMITS = Limits()

SHOWN = """
import fs from 'fs'
import * as Y from 'yjs'
// Keys of a Y.Map have no order, keys of objects have.
const map = type => Object.fromEntries([...type.entries()].sort().map(([k, v]) => [k, show(v)]))
const show = value => {
  if (value instanceof Y.XmlHook) return { hook: value.hookName, has: map(value) }
  if (value instanceof Y.Map) return map(value)
  if (value instanceof Y.XmlElement) {
    const attributes = Object.entries(value.getAttributes()).sort()
    return [value.nodeName, attributes.map(show), value.toArray().map(show)]
  }
  if (value instanceof Y.Text) return value.toDelta().map(show)
  if (value instanceof Y.AbstractType) return value.toArray().map(show)
  if (Object.is(value, -0)) return 'negative zero'
  if (value instanceof Uint8Array) return [...value]
  if (Array.isArray(value)) return value.map(show)
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, show(v)]))
  }
  return value
}
const shown = JSON.parse(fs.readFileSync(0)).map(updates => {
  const doc = new Y.Doc()
  updates.forEach(update => Y.applyUpdate(doc, Buffer.from(update, 'hex')))
  const roots = [doc.getText('t'), doc.getArray('a'), doc.getMap('m'), doc.getXmlFragment('x')]
  return JSON.stringify([roots.map(show), [...Y.encodeStateVector(doc)]])
})
console.log(JSON.stringify(shown))
"""


def shown_by_yjs(cases: list[list[bytes]]) -> list[str]:
    given = json.dumps([[update.hex() for update in case] for case in cases])
    shown: list[str] = json.loads(run_node(SHOWN, stdin=given.encode()))
    return shown


def stored(updates: list[bytes], snapshot: Snapshot | None = None) -> Stored:
    rows = [LoggedUpdate(seq, "a", update, "", 0) for seq, update in enumerate(updates, 1)]
    return Stored("a", snapshot=snapshot, updates=tuple(rows))


def loaded(*updates: bytes) -> Document:
    made = Document(LIMITS)
    for update in updates:
        made.apply(update)
    return made


def ways(updates: list[bytes]) -> Iterator[list[bytes]]:
    """Return what a client is given that sees all of the updates, whichever way they went."""
    half = updates[: len(updates) // 2]
    yield [loaded(*updates).encode()]
    behind = loaded(*half)
    yield [*half, loaded(*updates).missing(behind.state_vector())]
    yield [merge(updates)]
    yield [*half, difference(merge(updates), behind.state_vector())]
    yield [fold_rows(stored(updates).updates).update]
    snapshot = fold_snapshot(stored(half), LIMITS, 0)
    assert snapshot is not None
    again = fold_snapshot(stored(updates, snapshot), LIMITS, 0)
    assert again is not None
    yield list(again.slices)
    document, waiting = read(stored([], again), LIMITS)
    assert not waiting
    yield [document.encode()]


@pytest.mark.parametrize("seed", [1, 2])
def test_every_key_is_in_its_place(seed: int) -> None:
    cases: list[list[bytes]] = []
    for history in histories("odd", seed=seed, count=12, edits=40):
        updates = [bytes.fromhex(update) for update in history["updates"]]
        cases += [updates, *ways(updates)]
    shown = shown_by_yjs(cases)
    size = len(cases) // 12
    for number in range(0, len(cases), size):
        assert shown[number : number + size] == [shown[number]] * size, number
    assert '"id":10000000000000000000,' in "".join(shown) and "ud83d" in "".join(shown)


@pytest.mark.parametrize("kind", ["odd", "rich"])
def test_an_unchanged_document_has_the_same_bytes_after_each_load(kind: str) -> None:
    for history in histories(kind, seed=5, count=25, edits=50):
        updates = [bytes.fromhex(update) for update in history["updates"]]
        state = loaded(*updates).encode()
        assert all(loaded(*updates).encode() == state for _ in range(2))
        snapshot = fold_snapshot(stored(updates), LIMITS, 0)
        assert snapshot is not None
        # Garbage is joined when a document is loaded.
        assert read(stored([], snapshot), LIMITS)[0].encode() == join_garbage(state)
        assert loaded(state).encode() == join_garbage(state)
        _, position = sections(state)
        clients = list(read_deletes(state, position))
        assert clients == sorted(clients, reverse=True), "as Yjs writes them"


def test_a_snapshot_of_an_earlier_version_keeps_its_order_from_now_on() -> None:
    """It does not say that it is lossy, since objects were not."""
    update = bytes.fromhex("010107002801016d016f01760301627d0101617d020163770178" + "00")
    snapshot = fold_snapshot(stored([update]), LIMITS, 0)
    assert snapshot is not None and snapshot.lossy and snapshot.slices == (update,)
    assert snapshot.places is not None and places.is_current(snapshot.places)
    old = replace(snapshot, lossy=False, places=snapshot.places[1:])
    for _ in range(10):
        document, _ = read(stored([], old), LIMITS)
        assert document.lossy and document.encode() == update


def test_a_revert_brings_every_key_back_to_its_place() -> None:
    """Values, formats and embeds that were deleted since are inserted anew."""
    for history in histories("odd", seed=9, count=8, edits=40):
        updates = [bytes.fromhex(update) for update in history["updates"]]
        old, present = loaded(*updates[: len(updates) // 2]), loaded(*updates)
        update = reverting_update(present.encode(), old.encode(), LIMITS)
        present.apply(update)
        after, before = shown_by_yjs([[present.encode()], [old.encode()]])
        assert json.loads(after)[0] == json.loads(before)[0]
        assert after[: after.rindex("],[")] == before[: before.rindex("],[")]


ODD = """
import * as Y from 'yjs'
const d = new Y.Doc()
const text = d.getText('t')
text.insert(0, 'x', { link: { title: '\\u{1f680}'[0], href: 'y' } })
text.insertEmbed(0, { id: 1e19 })
let deep = 1
for (let i = 0; i < 190; i++) deep = { deep }
text.insertEmbed(0, deep)
d.getMap('m').set('o', { b: 1, a: 2, c: 3, d: 4 })
d.getXmlFragment('x').insert(0, [new Y.XmlHook('hook')])
console.log(Buffer.from(Y.encodeStateAsUpdate(d)).toString('hex'))
"""


async def test_what_yjs_writes_is_taken_and_known_again_after_a_restart(tmp_path: Path) -> None:
    state = bytes.fromhex(run_node(ODD))
    raw, as_json = path("a", "/state"), path("a", "/state?format=json")
    etags: dict[str, str] = {}
    bodies = set()
    for restart in range(3):
        async with serving(store=f"sqlite:///{tmp_path}/s.db") as (_, client):
            if not restart:
                assert (await client.put(path("a"), content=state, headers=UPDATE)).is_success
                etags = {each: (await client.get(each)).headers["etag"] for each in (raw, as_json)}
            assert (await client.get(raw)).content == state
            bodies.add((await client.get(as_json)).content)
            for each, etag in etags.items():
                again = await client.get(each, headers={"if-none-match": etag})
                assert again.status_code == 304
    assert len(bodies) == 1 and b'{"o":{"b":1,"a":2,"c":3,"d":4}}' in bodies.pop()
