"""Several good clients edit in one room, some of whose updates are lost on their way, while another
sends anything: it harms only itself.
"""

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from plait.server.wire import stand_ins
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.fuzz.frames import change_frame
from tests.fuzz.gathering import Gathering, run
from tests.support.authors import Author, text_of
from tests.support.frames import awareness, step1, step2, update
from tests.wire import fuzz_updates

GOOD = 3
BAD = GOOD
FIRST_CLIENT = 1_900_000_001
"""No update of the offender has these clients: Yjs has no defence against who steals an id."""

_genuine = st.sampled_from(fuzz_updates.corpus()[0])
_frames = st.one_of(
    st.builds(update, _genuine),
    st.builds(step2, _genuine),
    st.builds(step1, st.binary(max_size=12)),
    st.builds(
        lambda client, clock, state: awareness((client, clock, state)),
        st.integers(0, 5),
        st.integers(0, 5),
        st.sampled_from(("{}", "null", '{"a":1}', "{", " null ", '"')),
    ),
    st.binary(max_size=20),
)


def _changed(seed: int, frame: bytes) -> bytes:
    return change_frame(random.Random(seed), b"\x00" + frame)[1:]


_steps = st.one_of(
    st.tuples(st.just("type"), st.integers(0, GOOD - 1), st.text("abc", min_size=1, max_size=4)),
    st.tuples(st.just("delete"), st.integers(0, GOOD - 1), st.floats(0, 1)),
    st.tuples(st.just("lose"), st.integers(0, GOOD - 1), st.text("abc", min_size=1, max_size=4)),
    st.tuples(st.just("nonsense"), st.just(BAD), _frames),
    st.tuples(st.just("nonsense"), st.just(BAD), st.builds(_changed, st.integers(0), _frames)),
    st.tuples(st.sampled_from(("turn", "commit", "tick")), st.none(), st.none()),
    st.tuples(st.just("read"), st.integers(0, GOOD), st.none()),
)


class Story:
    """A gathering of good clients and an offender, told step by step."""

    def __init__(self) -> None:
        self.gathering = Gathering(GOOD + 1)
        self.authors = [Author(FIRST_CLIENT + number) for number in range(GOOD)]
        self._heard = [0] * GOOD

    async def step(self, what: str, who: int | None, how: Any) -> None:
        """Let something happen."""
        match what, who:
            case "type", int():
                await self.gathering.receive(who, update(self.authors[who].type(how)))
            case "lose", int():
                self.authors[who].type(how)
            case "delete", int():
                length = len(self.authors[who].text)
                if length:
                    at = int(how * (length - 1))
                    edit = self.authors[who].delete(at, at + 1)
                    await self.gathering.receive(who, update(edit))
            case "nonsense", int():
                await self.gathering.receive(who, how)
            case "read", int():
                self.read(who)
            case "tick", _:
                self.gathering.rig.clock.now += 1
                self.gathering.rig.room.tick()
            case _:
                await getattr(self.gathering, what)()

    def read(self, who: int) -> None:
        """Let a client read what it was sent."""
        guest = self.gathering.guests[who]
        guest.read()
        if who < GOOD:
            for each in guest.sent[self._heard[who] :]:
                # They are Yjs, which reads what pycrdt can't.
                self.authors[who].hear(stand_ins.hide(each, fuzz_updates.MARK))
            self._heard[who] = len(guest.sent)

    async def end(self) -> None:
        """Check that nobody but the offender has noticed anything."""
        await self.gathering.end()
        for who, author in enumerate(self.authors):
            assert self.gathering.guests[who].code is None
            await self.gathering.receive(who, step2(author.state()))
            await self.gathering.commit()
        for who, author in enumerate(self.authors):
            await self.gathering.receive(who, YWEBSOCKET.sync_step1(author.doc.get_state()))
            await self.gathering.commit()
            self.read(who)
        state = self.gathering.rig.room.document.encode()
        texts = {str(author.text) for author in self.authors}
        assert texts == {text_of(stand_ins.hide(state, fuzz_updates.MARK))}


@settings(derandomize=True, database=None, max_examples=500)
@given(st.lists(_steps, min_size=5, max_size=40))
def test_only_the_offender_is_closed_and_all_others_are_the_same(
    steps: list[tuple[str, int | None, Any]],
) -> None:
    async def tell() -> None:
        story = Story()
        for each in steps:
            await story.step(*each)
        await story.end()

    run(tell())
