"""REST: what each call does, and what each wrong one is told. Every answer is compared with the
OpenAPI document on the way (`tests.support.rest`).
"""

import asyncio
from typing import Any

import pytest
from pycrdt import Array, Doc, Map

from plait.persistence import Update
from plait.server import api, listing
from plait.server.errors import DocumentBroken
from plait.server.hub import Hub
from plait.server.room import Room
from plait.server.rooms import Rooms
from plait.server.updates import merge
from plait.server.wire.messages import SyncUpdate
from plait.server.wire.ywebsocket import YWEBSOCKET
from tests.support import frames
from tests.support.authors import Author, text_of
from tests.support.rest import NOTHING, UPDATE, connect, error, path, put, serving

JSON = "application/json"


# The list


async def test_the_list_tells_of_each_document() -> None:
    async with serving() as (_, client):
        assert (await client.get("/api/docs")).json() == {"docs": [], "next": None}
        await put(client, "notes")
        await put(client, "a")
        first, second = (await client.get("/api/docs")).json()["docs"]
        assert (first["name"], second["name"]) == ("a", "notes")
        assert second["updates"] == 1 and second["bytes"] > 10
        assert second["created_ms"] == second["modified_ms"] > 1_700_000_000_000
        assert second["deleted_ms"] is None
        assert second["open"] is True and second["members"] == 0


@pytest.mark.parametrize("limit", [1, 7, 100, 249, 250, 251, 1000])
async def test_paging_has_no_gap_and_no_repeat(limit: int) -> None:
    names = sorted([f"n{number:03}" for number in range(240)] + [f"é😀{n}" for n in range(10)])
    async with serving() as (plait, client):
        update = Author(1).type("x")
        await plait.store.append([Update(name, update) for name in reversed(names)])
        seen: list[str] = []
        after = ""
        while after is not None:
            query = {"limit": str(limit), "after": after}
            page = (await client.get("/api/docs", params=query)).json()
            assert len(page["docs"]) <= limit
            seen += [each["name"] for each in page["docs"]]
            after = page["next"]
        assert seen == names


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 5, 6, 7, 8, 100])
async def test_open_rooms_that_are_not_stored_yet_take_their_place_in_the_list(limit: int) -> None:
    async with serving() as (plait, client):
        for name in ("b", "d", "f"):
            await put(client, name)
        connections = []
        for name in ("a", "c", "d", "e", "g"):
            async with plait.hub.room(name) as room:
                connections.append(connect(plait, room))
        async with plait.hub.room("nobody is here"):
            pass
        seen: list[Any] = []
        after: str | None = ""
        while after is not None:
            query = {"limit": str(limit), "after": after}
            page = (await client.get("/api/docs", params=query)).json()
            seen += page["docs"]
            after = page["next"]
        assert "".join(each["name"] for each in seen) == "abcdefg"
        assert seen[0] == {
            "name": "a",
            "bytes": 0,
            "updates": 0,
            "created_ms": None,
            "modified_ms": None,
            "deleted_ms": None,
            "members": 1,
            "open": True,
        }
        assert [each["members"] for each in seen] == [1, 0, 1, 1, 1, 0, 1]
        query = {"prefix": "c"}
        found = (await client.get("/api/docs", params=query)).json()["docs"]
        assert [each["name"] for each in found] == ["c"]
        for connection in connections:
            connection.lost()


async def test_a_prefix_selects() -> None:
    async with serving() as (_, client):
        for name in ("team/a", "team/b", "teams", "other"):
            await put(client, name)
        page = (await client.get("/api/docs", params={"prefix": "team/"})).json()
        assert [each["name"] for each in page["docs"]] == ["team/a", "team/b"]
        page = (await client.get("/api/docs?prefix=team&after=team/a&limit=1")).json()
        assert [each["name"] for each in page["docs"]] == ["team/b"]
        assert page["next"] == "team/b"


async def test_a_page_is_whole_whatever_part_of_the_names_is_looked_at_together(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listing, "BATCH", 3)
    stored = [f"{letter}{n}" for letter in "acg" for n in range(4)]
    shown = [f"{letter}{n}" for letter in "bcdh" for n in range(5)]
    async with serving() as (plait, client):
        await plait.store.append([Update(name, Author(1).type("x")) for name in stored])
        connections = []
        for name in shown:
            async with plait.hub.room(name) as room:
                connections.append(connect(plait, room))
        for number in range(20):
            async with plait.hub.room(f"b{number}"):
                pass
        for prefix, after in (("", ""), ("b", ""), ("", "b3"), ("c", "b"), ("c", "c2"), ("x", "")):
            query = {"prefix": prefix, "after": after}
            docs = (await client.get("/api/docs", params=query)).json()["docs"]
            assert [each["name"] for each in docs] == [
                name
                for name in sorted({*stored, *shown})
                if name.startswith(prefix) and name > after
            ]


@pytest.mark.parametrize("limit", [10, 100])
async def test_who_asks_costs_what_is_answered_and_not_what_is_open(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each row of a list once made a dict of all rooms: 1,000 rows with 10,000 open rooms kept
    every editor waiting for four seconds.
    """
    looked_at: list[str] = []
    open_room = Hub.open_room

    def counted(hub: Hub, name: str) -> Room | None:
        looked_at.append(name)
        return open_room(hub, name)

    def walk(rooms: Rooms) -> None:
        raise AssertionError("all rooms are walked through")

    async with serving() as (plait, client):
        names = [f"{number:03}" for number in range(120)]
        await plait.store.append([Update(name, Author(1).type("x")) for name in names])
        for name in names:
            async with plait.hub.room(name):
                pass
        monkeypatch.setattr(Hub, "open_room", counted)
        with monkeypatch.context() as patched:
            patched.setattr(Rooms, "all", walk)
            page = (await client.get("/api/docs", params={"limit": str(limit)})).json()
            assert looked_at == [each["name"] for each in page["docs"]] == names[:limit]
            assert (await client.get(path("007"))).json()["open"] is True
            assert set(looked_at[limit:]) == {"007"}
            assert (await client.get("/readyz")).json()["rooms"] == len(names)
            assert b"plait_rooms 120.0" in await plait.metrics.text()
            await plait.hub.tick()
            await plait.hub.follow()


async def test_deleted_documents_have_a_list_of_their_own() -> None:
    async with serving() as (_, client):
        await put(client, "kept")
        await put(client, "gone")
        await client.delete("/api/docs/gone")
        assert [each["name"] for each in (await client.get("/api/docs")).json()["docs"]] == ["kept"]
        (gone,) = (await client.get("/api/docs?deleted=true")).json()["docs"]
        assert gone["name"] == "gone" and gone["deleted_ms"] >= gone["created_ms"]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=", "limit=1_0", "limit=٣"]
    + ["deleted=maybe", "deleted=1", "unknown=1", "prefix=a&Limit=3"],
)
async def test_a_query_that_means_nothing_is_refused(query: str) -> None:
    async with serving() as (_, client):
        told = error(await client.get(f"/api/docs?{query}"), 400)
        assert told["code"] == "bad_request" and told["retry"] is False
        assert query.rpartition("&")[2].partition("=")[0] in told["message"]


# Reading


async def test_the_state_is_one_update() -> None:
    async with serving() as (_, client):
        await put(client, "notes", "Grüße 😀")
        response = await client.get("/api/docs/notes/state")
        assert response.headers["content-type"] == "application/octet-stream"
        assert response.headers["cache-control"] == "no-cache"
        assert text_of(response.content) == "Grüße 😀"


async def test_the_state_as_json() -> None:
    doc: Doc[Any] = Doc()
    doc["map"] = Map({"whole": 3, "bytes": b"\x00", "inner": Map({"x": None})})
    doc["array"] = Array(["é", 2.5, True])
    async with serving() as (_, client):
        await client.put("/api/docs/a%2Fb", content=doc.get_update(), headers=UPDATE)
        response = await client.get("/api/docs/a%2Fb/state", headers={"accept": JSON})
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {
            "name": "a/b",
            "roots": {
                "array": {"type": "array", "value": ["é", 2.5, True]},
                "map": {
                    "type": "map",
                    "value": {"whole": 3, "bytes": {"$bytes": "AA=="}, "inner": {"x": None}},
                },
            },
        }


def endless(state: bytes) -> bytes:
    """Stand for a document that takes too long; whoever has had enough kills the process."""
    while True:
        pass


async def test_a_document_that_takes_too_long_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "CONTENT_SECONDS", 0.1)
    monkeypatch.setattr(api, "roots_as_json", endless)
    async with serving() as (_, client):
        await put(client, "notes")
        told = error(await client.get("/api/docs/notes/state?format=json"), 500)
        assert told["code"] == "document_broken" and "octet-stream" in told["message"]


async def test_a_document_that_can_not_be_encoded_is_read_from_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serving() as (plait, client):
        await put(client, "notes", "from the log")

        def fails(state_vector: bytes) -> bytes:
            raise DocumentBroken("pycrdt failed")

        async with plait.hub.room("notes") as room:
            monkeypatch.setattr(room.document, "missing", fails)
            response = await client.get("/api/docs/notes/state")
            assert text_of(response.content) == "from the log"


# Changing


async def test_an_update_creates_changes_and_is_known_the_second_time() -> None:
    author = Author(1)
    async with serving() as (_, client):
        for text, changed in (("Hello", True), (", world", True)):
            update = author.type(text)
            for expected in (changed, False):
                response = await client.post(
                    "/api/docs/notes/updates", content=update, headers=UPDATE
                )
                assert response.json() == {"changed": expected}
        state = await client.get("/api/docs/notes/state")
        assert text_of(state.content) == "Hello, world"
        assert (await client.get("/api/docs/notes")).json()["updates"] == 2


async def test_an_update_is_answered_when_it_is_stored() -> None:
    async with serving() as (plait, client):
        await client.post("/api/docs/notes/updates", content=Author(1).type("x"), headers=UPDATE)
        assert len(await plait.store.log("notes")) == 1


BEFORE = Author(9)
BEFORE.type("first")
LOST = BEFORE.type("second")
"""It builds on what nobody has been sent."""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "empty"),
        (b"\x00", "ends too early"),
        (b"not an update", "."),
        (Author(1).type("x") + b"\x00", "length"),
        (LOST, "client 9, clocks 0 to 4"),
    ],
)
async def test_an_update_that_is_none_is_refused(body: bytes, message: str) -> None:
    async with serving() as (plait, client):
        response = await client.post("/api/docs/notes/updates", content=body, headers=UPDATE)
        told = error(response, 422)
        assert told["code"] == "update_refused" and message in told["message"]
        assert await plait.store.info("notes") is None
        assert (await client.get("/api/docs/notes")).status_code == 404


@pytest.mark.parametrize("create", [True, False])
async def test_a_state_with_gaps_comes_in_without_what_builds_on_them(create: bool) -> None:
    state = merge([Author(1).type("own"), LOST])
    left = {"bytes": len(LOST), "missing": [{"client": 9, "first": 0, "end": 5}]}
    async with serving() as (plait, client):
        if create:
            response = await client.put("/api/docs/notes", content=state, headers=UPDATE)
            assert response.status_code == 201
        else:
            response = await client.post("/api/docs/notes/updates", content=state, headers=UPDATE)
            assert response.json()["changed"]
        assert response.json()["left"] == left
        stored = (await client.get("/api/docs/notes/state")).content
        assert text_of(stored) == "own"
        again = await client.post("/api/docs/notes/updates", content=state, headers=UPDATE)
        assert again.json() == {"changed": False, "left": left}
        whole = await client.put(
            "/api/docs/notes?merge=true", content=BEFORE.state(), headers=UPDATE
        )
        assert whole.json() == {"changed": True}


async def test_what_another_author_shadows_is_told() -> None:
    async with serving() as (plait, client):
        hello, world = Author(7).type("hello"), Author(7).type("world")
        await client.post("/api/docs/notes/updates", content=hello, headers=UPDATE)
        response = await client.post("/api/docs/notes/updates", content=world, headers=UPDATE)
        shadowed = [{"client": 7, "first": 0, "end": 5}]
        assert response.json() == {"changed": False, "shadowed": shadowed}
        again = await client.post("/api/docs/notes/updates", content=hello, headers=UPDATE)
        assert again.json() == {"changed": False}


async def test_an_update_by_rest_reaches_who_is_connected() -> None:
    async with serving() as (plait, client):
        async with plait.hub.room("notes") as room:
            connection = connect(plait, room)
            while connection.take() is not None:
                pass
            update = Author(1).type("Hello")
            await client.post("/api/docs/notes/updates", content=update, headers=UPDATE)
            frame = connection.take()
            assert frame is not None
            assert frames.parse(frame) == frames.Frame(frames.UPDATE, update)
            assert (await client.get("/api/docs/notes")).json()["members"] == 1
            connection.lost()


async def test_what_is_typed_is_read_by_rest() -> None:
    async with serving() as (plait, client), plait.hub.room("notes") as room:
        connection = connect(plait, room)
        assert (await client.get("/api/docs/notes/state")).content == NOTHING
        connection.receive(YWEBSOCKET.sync_update(Author(1).type("typed")))
        assert text_of((await client.get("/api/docs/notes/state")).content) == "typed"
        connection.lost()


# Importing


async def test_import_creates_and_tells_what() -> None:
    author = Author(1)
    author.type("Hello")
    async with serving() as (_, client):
        response = await client.put("/api/docs/notes", content=author.state(), headers=UPDATE)
        assert response.status_code == 201
        assert response.json()["name"] == "notes" and response.json()["updates"] == 1


@pytest.mark.parametrize("query", ["", "?merge=true"])
@pytest.mark.parametrize("body", [b"", NOTHING, b"\x80\x00\x00"])
async def test_import_of_nothing_is_refused(body: bytes, query: str) -> None:
    async with serving() as (plait, client):
        response = await client.put(f"/api/docs/notes{query}", content=body, headers=UPDATE)
        told = error(response, 422)
        assert told["code"] == "update_refused" and "nothing in the update" in told["message"]
        assert await plait.store.info("notes") is None


async def test_import_refuses_what_is_there_unless_it_is_to_merge() -> None:
    other = Author(2)
    other.type("other")
    async with serving() as (_, client):
        await put(client, "notes", "one")
        response = await client.put("/api/docs/notes", content=other.state(), headers=UPDATE)
        assert error(response, 409)["code"] == "document_in_the_way"
        assert text_of((await client.get("/api/docs/notes/state")).content) == "one"
        for expected in (True, False):
            response = await client.put(
                "/api/docs/notes?merge=true", content=other.state(), headers=UPDATE
            )
            assert response.status_code == 200 and response.json() == {"changed": expected}
        merged = text_of((await client.get("/api/docs/notes/state")).content)
        assert sorted(merged) == sorted("oneother")
        response = await client.put("/api/docs/new?merge=true", content=other.state())
        assert response.status_code == 201


async def test_of_two_who_import_at_once_one_succeeds() -> None:
    states = [Author(number).type(f"by {number}") for number in range(1, 6)]
    async with serving() as (_, client):
        responses = await asyncio.gather(
            *(client.put("/api/docs/notes", content=state, headers=UPDATE) for state in states)
        )
        assert sorted(each.status_code for each in responses) == [201, 409, 409, 409, 409]
        (winner,) = (n for n, each in enumerate(responses, 1) if each.status_code == 201)
        state = await client.get("/api/docs/notes/state")
        assert text_of(state.content) == f"by {winner}"


async def test_import_into_a_room_that_is_open_depends_on_whether_it_is_empty() -> None:
    async with serving() as (plait, client):
        async with plait.hub.room("empty") as empty, plait.hub.room("typed in") as typed_in:
            connections = [connect(plait, empty), connect(plait, typed_in)]
            connections[1].receive(YWEBSOCKET.sync_update(Author(1).type("typed")))
            state = Author(2).type("imported")
            response = await client.put(path("typed in"), content=state, headers=UPDATE)
            assert error(response, 409)["code"] == "document_in_the_way"
            response = await client.put(path("empty"), content=state, headers=UPDATE)
            assert response.status_code == 201
            decoded = []
            while (frame := connections[0].take()) is not None:
                decoded.append(YWEBSOCKET.decode(frame))
            assert SyncUpdate(state) in decoded
            for connection in connections:
                connection.lost()


# Deleting


async def test_deleting_closes_its_members_and_hides_it() -> None:
    async with serving() as (plait, client):
        await put(client, "notes")
        async with plait.hub.room("notes") as room:
            connection = connect(plait, room)
            assert (await client.delete("/api/docs/notes")).status_code == 204
            assert connection.closing is not None and connection.closing.code == 4404
        update = Author(2).type("x")
        for method, raw in (
            ("GET", "/api/docs/notes"),
            ("GET", "/api/docs/notes/state"),
            ("GET", "/api/docs/notes/state?format=json"),
            ("PUT", "/api/docs/notes"),
            ("PUT", "/api/docs/notes?merge=true"),
            ("POST", "/api/docs/notes/updates"),
            ("DELETE", "/api/docs/notes"),
        ):
            response = await client.request(method, raw, content=update, headers=UPDATE)
            assert error(response, 410)["code"] == "document_gone"


async def test_undelete_brings_it_back() -> None:
    async with serving() as (_, client):
        await put(client, "notes", "kept")
        await client.delete("/api/docs/notes")
        response = await client.post("/api/docs/notes/undelete")
        assert response.status_code == 200 and response.json()["deleted_ms"] is None
        assert text_of((await client.get("/api/docs/notes/state")).content) == "kept"
        response = await client.post("/api/docs/notes/undelete")
        assert error(response, 404)["code"] == "document_unknown"


@pytest.mark.parametrize("deleted_before", [False, True])
async def test_purge_forgets(deleted_before: bool) -> None:
    async with serving() as (plait, client):
        await put(client, "notes")
        if deleted_before:
            await client.delete("/api/docs/notes")
        assert (await client.delete("/api/docs/notes?purge=true")).status_code == 204
        assert await plait.store.info("notes") is None
        for raw in ("/api/docs/notes", "/api/docs/notes?purge=true"):
            assert error(await client.delete(raw), 404)["code"] == "document_unknown"
        assert (await client.post("/api/docs/notes/undelete")).status_code == 404
        await put(client, "notes", "anew")


async def test_a_document_that_is_open_and_not_stored_can_be_deleted() -> None:
    async with serving() as (plait, client), plait.hub.room("notes") as room:
        connection = connect(plait, room)
        assert (await client.delete("/api/docs/notes")).status_code == 204
        assert connection.closing is not None and connection.closing.code == 4404
        assert error(await client.get("/api/docs/notes"), 404)


@pytest.mark.parametrize("with_writer", [False, True])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("purge", [False, True])
async def test_what_is_typed_and_not_stored_yet_does_not_bring_it_back(
    with_writer: bool, stored: bool, purge: bool
) -> None:
    # So long that the writer still holds what was typed.
    async with serving(commit_ms=1000.0) as (plait, client):
        author = Author(1)
        async with plait.hub.room("notes") as room:
            if stored:
                await room.apply(author.type("one"))
            connection = connect(plait, room)
            connection.receive(YWEBSOCKET.sync_update(author.type("two")))
            if with_writer:
                room.flush()
            response = await client.delete(f"/api/docs/notes?purge={str(purge).lower()}")
            assert response.status_code == 204
            room.flush()
        await plait.writer.flush()
        assert (await client.get("/api/docs")).json()["docs"] == []
        assert (await plait.store.info("notes") is None) is purge
