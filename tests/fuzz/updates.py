"""Targets: updates and state vectors, and what they do in pycrdt and in a document."""

import random
from collections import defaultdict
from collections.abc import Sequence
from functools import cache

from pycrdt import Doc

from plait.server.document import Applied, Document
from plait.server.errors import DecodeError, DocumentBroken, LimitReached, UpdateRefused
from plait.server.folding import same
from plait.server.limits import Limits
from plait.server.wire import stand_ins, surrogates
from plait.server.wire.slices import slice_state
from plait.server.wire.state_vector import decode_state_vector, encode_state_vector
from plait.server.wire.structs import Struct, read_deletes, read_structs, sections
from plait.server.wire.update import JSON, TYPE, XML_HOOK, Id, _walk, inspect, typed
from tests.fuzz.bytes_of import change_update, in_parts, join, split
from tests.fuzz.target import Finding, Target, expect
from tests.support.units import Unit, units_of
from tests.wire import fuzz_updates
from tests.wire.test_fuzz_updates import WAITING

NOTHING = b"\x00\x00"
LIMITS = Limits(nested_types_max=50, any_depth_max=20)

# A document is thrown away for these, and made anew from what was before.
BREAKS = ("wait for one another",)


# An update, and a document of pycrdt


def update(data: bytes) -> str:
    """Inspect an update, and apply it to a state as a server does; take it apart."""
    state, changed = (*split(data), b"", b"")[:2]
    for each in (state, changed):
        take_apart(each)
    try:
        fits = fuzz_updates.attempt(NOTHING, state) == "applied"
    except UpdateRefused:
        fits = False
    if fits:  # Pairs that it cuts itself are torn when it comes in.
        _, state = fuzz_updates.without_torn_pairs(Doc(), NOTHING, state)
    outcome = fuzz_updates.attempt(state if fits else NOTHING, changed)
    if outcome not in ("applied", "refused", "not ready", WAITING):
        raise Finding(outcome)
    return outcome


def take_apart(data: bytes) -> None:
    """Check that all who read an update understand it alike."""
    try:
        shape = inspect(data)
    except UpdateRefused:
        return
    short = typed(data)
    expect(short is None or short == _walk(data, 512), "the short cut sees another shape")
    found, position = sections(data)
    structs = list(read_structs(data))
    expect(sum(each.structs for each in found) == len(structs), "sections count other structs")
    ends = {each.client: each.clock + each.length for each in structs}
    for client, _, end in shape.runs:
        expect(end <= ends.get(client, -1), "a run ends behind its structs")
    read_deletes(data, position)
    hidden = stand_ins.hide(data, fuzz_updates.MARK)
    expect(inspect(hidden).lossless or not shape.lossless, "a stand-in needs another one")
    expect(inspect(hidden).runs == shape.runs, "stand-ins change clocks")
    expect(hidden is data or not shape.lossless, "there are stand-ins for nothing")
    shown = stand_ins.show(hidden, fuzz_updates.MARK)
    # Several values of a Yjs beta come back as several structs, and a name in its shortest form.
    if not any(each.kind == JSON or is_hook(data, each) for each in structs):
        expect(shown == data, "what was hidden does not come back")
    expect(stand_ins.hide(shown, fuzz_updates.MARK) == hidden, "what was hidden comes back changed")
    pairs = surrogates.pairs(data)
    torn = surrogates.rewrite(data, pairs)
    expect(not surrogates.pairs(torn), "a torn pair is whole")
    expect(inspect(torn).runs == shape.runs, "tearing pairs changes clocks")


def is_hook(data: bytes, struct: Struct) -> bool:
    """Whether a struct is a Y.XmlHook."""
    return struct.kind == TYPE and data[struct.content] == XML_HOOK


@cache
def corpus() -> list[tuple[bytes, bytes]]:
    """Return genuine (state, update): the update alone, and with the state that it fits best."""
    updates, states = fuzz_updates.corpus()
    pairs = []
    for place, each in enumerate(updates):
        following = (other for other in updates[place:] if other in states)
        pairs += [(NOTHING, each), (next(following, NOTHING), each)]
    return pairs


# A whole document


def alike(one: Document, other: Document) -> bool:
    """Return whether two documents are the same once they have been loaded.

    Of what no client writes, a document that is loaded may make something else than one to which
    it comes bit by bit: it puts a struct elsewhere whose right neighbour is left of its left one.
    No server shows that place to anybody: it hands out the structs, which are the same.
    """
    return same(one, other) or units(loaded_twice(one)) == units(loaded_twice(other))


def loaded_twice(made: Document) -> Document:
    """Return a document that was loaded twice, after which all is deleted that will be."""
    for _ in range(2):
        again = Document(LIMITS)
        again.apply(made.encode())
        made = again
    return made


def units(made: Document) -> dict[Id, Unit]:
    """Return what each clock of a document stands for, however they are put into structs."""
    return units_of(made.encode())


def document(data: bytes) -> str:
    """Apply updates one after another; store, load, cut and encode what comes of it."""
    made, again = Document(LIMITS), Document(LIMITS)
    log: list[bytes] = []
    for part in split(data)[:12]:
        try:
            if made.apply_typed(part) is not None:
                log.append(part)
                continue
            applied, _, new, *_ = made.apply(part)
        except (UpdateRefused, LimitReached):
            continue
        except DocumentBroken as error:
            expect(any(each in str(error) for each in BREAKS), f"broken: {error}")
            return "broken"
        if applied is Applied.CHANGED:
            log.append(new)
    state = made.encode()
    for row in log:
        expect(again.apply(row)[0] is Applied.CHANGED, "a row of the log is not news")
    expect(alike(again, made), "the log makes another document")
    if not log:
        return "nothing"
    expect(again.apply(state)[0] is not Applied.PENDING, "its own state is not ready")
    expect(alike(again, made), "its own state changes a document")
    load(made, state)
    return "made"


def load(made: Document, state: bytes) -> None:
    """Load a state slice by slice, as a snapshot is loaded."""
    loaded = Document(LIMITS)
    for part in slice_state(state, 16):
        inspect(part)
        list(loaded.load_slice(part, lossy=True, astral=True, look=True))
    loaded.slices_loaded(made.types)
    expect(alike(loaded, made), "slices make another document")
    expect(loaded.clocks() == made.clocks(), "slices make other clocks")


@cache
def histories() -> Sequence[bytes]:
    """Return genuine sequences of updates."""
    sequences = [join(state, changed) for state, changed in corpus()]
    updates, states = fuzz_updates.corpus()
    begin = 0
    for place, each in enumerate(updates):
        if each in states:
            sequences.append(join(*updates[begin : place + 1][:12]))
            begin = place + 1
    return sequences


# State vectors and slices


@cache
def told() -> Document:
    """Return a document with much in it."""
    whole = Document(Limits())
    for state in fuzz_updates.corpus()[1]:
        try:
            whole.apply(state)
        except DocumentBroken as error:
            raise AssertionError("genuine states can't be in one document") from error
    return whole


def state_vector(data: bytes) -> str:
    """Ask a document for what a holder of a state vector misses."""
    whole = told()
    try:
        clocks = decode_state_vector(data)
    except DecodeError:
        return "refused"
    encoded = encode_state_vector(clocks)
    expect(decode_state_vector(encoded) == clocks, "a state vector is written wrongly")
    answer = whole.missing(data)
    if any(clocks.get(client, 0) < clock for client, clock in whole.clocks().items()):
        inspect(answer)
        return "answered"
    return "knows all"


def seeds_of_state_vectors() -> list[bytes]:
    """Return genuine state vectors, and one of a client who has a part."""
    whole = told()
    known = whole.clocks()
    parts = [{client: clock // 2 for client, clock in known.items()}, known, {}]
    return [encode_state_vector(each) for each in parts] + [
        encode_state_vector({client: clock}) for client, clock in list(known.items())[:10]
    ]


def slices(data: bytes) -> str:
    """Cut an update that was accepted, of any size, and put the slices together again."""
    size = data[0] if data else 1
    whole = data[1:]
    try:
        shape = inspect(whole, any_depth_max=LIMITS.any_depth_max)
    except UpdateRefused:
        return "refused"
    try:
        parts = slice_state(whole, size + 1)
    except ValueError:
        return "in no order"
    if parts == [whole]:
        return "small"
    structs = {
        (each.client, each.clock): whole[each.start : each.end] for each in read_structs(whole)
    }
    known: dict[int, int] = {}
    deletes: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for part in parts:
        for client, first, end in inspect(part).runs:
            expect(known.get(client, first) == first, "a slice leaves a gap")
            known[client] = end
        for each in read_structs(part):
            cut = structs.pop((each.client, each.clock), None)
            expect(cut == part[each.start : each.end], "a struct is another in its slice")
        for client, ranges in read_deletes(part, sections(part)[1]).items():
            deletes[client].extend(ranges)
    expect(not structs, "a struct is in no slice")
    deleted = read_deletes(whole, sections(whole)[1])
    expect(deletes == {c: r for c, r in deleted.items() if r}, "slices delete something else")
    expect(known == {client: end for client, _, end in shape.runs}, "slices end elsewhere")
    return "cut"


def change_slices(rng: random.Random, data: bytes) -> bytes:
    """Change the size or the update."""
    if rng.random() < 0.1:
        return bytes((rng.randrange(256),)) + data[1:]
    return data[:1] + change_update(rng, data[1:])


TARGETS = {
    "update": Target(
        update, lambda: [join(*each) for each in corpus()], in_parts(change_update), 2048
    ),
    "document": Target(document, histories, in_parts(change_update), 4096),
    "state_vector": Target(state_vector, seeds_of_state_vectors),
    "slices": Target(
        slices, lambda: [b"\x10" + each for each in fuzz_updates.corpus()[0]], change_slices, 2048
    ),
}
