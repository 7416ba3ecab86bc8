"""What a socket holds from its handshake to its end, and how it gets another token."""

import asyncio
from collections.abc import Coroutine
from typing import Any

from plait.server.admission import Admission
from plait.server.auth.principal import Principal
from plait.server.connection import Connection
from plait.server.errors import AuthUnavailable
from plait.server.limits import Limits
from plait.server.visit import BUSY, Visit
from plait.server.wire.ywebsocket import YWEBSOCKET, auth_denied
from tests.server.auth.test_guard import Rig as GuardRig
from tests.server.auth.test_guard import can, connection
from tests.support.deadlines import eventually
from tests.support.rooms import Rig as RoomRig


class Slow:
    """A verifier that answers when it may."""

    name = "slow"
    counts_seconds = 0.0
    per_document = False

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.known: dict[str, Principal | Exception] = {}
        self.asked = 0

    async def verify(self, token: str, document: str | None) -> Principal | None:
        self.asked += 1
        await self.gate.wait()
        found = self.known.get(token)
        if isinstance(found, Exception):
            raise found
        return found

    async def close(self) -> None:
        """Nothing is held."""


class Come:
    """A socket of Ann's that is open."""

    def __init__(self, guard: GuardRig, bearer: str) -> None:
        self.guard = guard
        self.bearer = bearer
        self.admission = Admission(Limits())
        self.tasks: list[asyncio.Task[None]] = []
        self.room = RoomRig()

    async def open(self) -> "Come":
        principal = await self.guard.guard.identify(connection(self.bearer), "x")
        self.held = self.guard.guard.let_in(principal, "x")
        ticket = self.admission.enter("192.0.2.1", self.held.who)
        self.visit = Visit(ticket, self.held, self.spawn)
        room = self.room
        self.socket = Connection(
            room.limits, lambda: None, room.clock.monotonic, visitor=self.visit
        )
        self.socket.join(room.room, YWEBSOCKET)
        self.visit.attach(self.socket)
        self.frames()
        return self

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self.tasks.append(asyncio.create_task(work))
        return self.tasks[-1]

    def frames(self) -> list[bytes]:
        found = []
        while (frame := self.socket.take()) is not None:
            found.append(frame)
        return found

    async def say(self, token: str) -> list[bytes]:
        """Send a token; return what is answered."""
        self.socket.receive(auth_denied(token))
        await asyncio.gather(*self.tasks)
        return self.frames()


WRITES, READS = (YWEBSOCKET.permission(writes=writes) for writes in (True, False))


async def test_a_new_token_is_answered_with_what_it_allows() -> None:
    come = await Come(GuardRig(), can(("x", "write"))).open()
    assert await come.say(can(("x", "write"), jti="t2")) == [WRITES]
    assert READS in await come.say(can(("x", "read")))
    assert not come.visit.may_write
    (answer,) = await come.say("garbage")
    assert answer.startswith(b"\x02\x00") and b"not valid here" in answer
    assert come.socket.closing is None


async def test_one_token_is_verified_at_a_time() -> None:
    slow = Slow()
    guard = GuardRig(slow)
    slow.known["first"] = slow.known["second"] = Principal(
        "ann", (await _ann(can(("x", "write")))).grants, token_id="t"
    )
    slow.gate.set()
    come = await Come(guard, "first").open()
    slow.gate.clear()
    asked = slow.asked
    come.socket.receive(auth_denied("second"))
    await eventually(lambda: slow.asked == asked + 1)
    for _ in range(100):
        come.socket.receive(auth_denied("second"))
    assert come.frames() == [auth_denied(BUSY)] * 100
    assert slow.asked == asked + 1 and len(come.tasks) == 1
    slow.gate.set()
    await asyncio.gather(*come.tasks)
    assert come.frames() == [WRITES]


async def _ann(bearer: str) -> Principal:
    return await GuardRig().guard.identify(connection(bearer), "x")


async def test_who_cannot_be_asked_and_a_mistake_of_ours_are_told() -> None:
    slow = Slow()
    slow.gate.set()
    ann = await _ann(can(("x", "write")))
    slow.known |= {"ann": ann, "away": AuthUnavailable("try again"), "bug": ValueError("secret")}
    come = await Come(GuardRig(slow), "ann").open()
    assert await come.say("away") == [auth_denied("try again")]
    (answer,) = await come.say("bug")
    assert b"the server failed" in answer and b"secret" not in answer
    assert come.visit.may_write


async def test_a_socket_that_is_gone_is_renewed_no_more() -> None:
    slow = Slow()
    slow.gate.set()
    guard = GuardRig(slow)
    slow.known["ann"] = await _ann(can(("x", "write")))
    come = await Come(guard, "ann").open()
    slow.gate.clear()
    come.socket.receive(auth_denied("ann"))
    asked = slow.asked
    await eventually(lambda: slow.asked == asked + 1)
    come.socket.lost()
    come.visit.release()
    come.visit.release()
    assert come.admission.open == 0
    slow.gate.set()
    await asyncio.gather(*come.tasks, return_exceptions=True)
    assert not guard.guard._by_subject and not guard.guard._passes


async def test_a_right_that_ended_while_the_room_was_opened_closes_the_socket() -> None:
    guard = GuardRig()
    come = Come(guard, can(("x", "write")))
    principal = await guard.guard.identify(connection(come.bearer), "x")
    held = guard.guard.let_in(principal, "x")
    await guard.revoke(subject="ann")
    visit = Visit(come.admission.enter(None), held, come.spawn)
    socket = Connection(Limits(), lambda: None, lambda: 0.0, visitor=visit)
    visit.attach(socket)
    assert socket.closing is not None and socket.closing.code == 4401


async def test_a_revocation_closes_the_socket_and_frees_what_it_held() -> None:
    guard = GuardRig()
    come = await Come(guard, can(("x", "write"))).open()
    await guard.revoke(subject="ann")
    assert come.socket.closing is not None and come.socket.closing.code == 4401
    assert not come.room.room.members
    come.visit.release()
    assert come.admission.open == 0 and not guard.guard._passes
