"""What all REST calls have in common: paths, methods, origins, bodies, and how trouble is told."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from plait.persistence import StoreCorrupt, StoreUnavailable, Update
from plait.server import api, rest
from plait.server.app import Plait
from tests.support.authors import Author, text_of
from tests.support.rest import NOTHING, UPDATE, error, path, put, serving
from tests.support.stores import FaultyStore

# Names


@pytest.mark.parametrize(
    "name",
    [
        "a/b/c",
        "a b",
        "100%",
        "%2F",
        "ключ/世界 😀",
        "file:json/notebook.ipynb",
        "?x=1#y",
        "+",
        "state",
    ]
    + ["openapi.json", "x" * 1024],
)
async def test_any_name_is_one_segment_of_the_path(name: str) -> None:
    async with serving() as (_, client):
        await put(client, name, "text")
        shown = await client.get(path(name))
        assert shown.json()["name"] == name
        listed = (await client.get("/api/docs")).json()["docs"]
        assert [each["name"] for each in listed] == [name]
        state = await client.get(path(name, "/state"))
        assert text_of(state.content) == "text"
        assert "/" not in state.headers["content-disposition"]
        as_json = await client.get(path(name, "/state?format=json"))
        assert as_json.json()["name"] == name
        posted = await client.post(path(name, "/updates"), content=NOTHING, headers=UPDATE)
        assert posted.json() == {"changed": False}
        assert (await client.delete(path(name))).status_code == 204
        assert (await client.post(path(name, "/undelete"))).json()["name"] == name


async def test_what_is_created_is_where_it_says() -> None:
    async with serving() as (_, client):
        author = Author(1)
        author.type("x")
        response = await client.put(path("a/b é"), content=author.state(), headers=UPDATE)
        assert response.headers["location"] == "/api/docs/a%2Fb%20%C3%A9"
        assert (await client.get(response.headers["location"])).json() == response.json()


@pytest.mark.parametrize(
    ("raw", "status", "code", "message"),
    [
        ("/api/docs/a/b/c", 404, "no_such_path", "%2F"),
        ("/api/docs/a/b", 404, "no_such_path", "%2F"),
        ("/api/docs/", 404, "no_such_path", "openapi.json"),
        ("/api/docs//state", 404, "no_such_path", "%2F"),
        ("/api", 404, "no_such_path", "openapi.json"),
        ("/api/", 404, "no_such_path", "openapi.json"),
        ("/api/nothing", 404, "no_such_path", "openapi.json"),
        ("/api%2Fdocs", 404, "no_such_path", "openapi.json"),
        ("/api/docs/%20", 400, "bad_room_name", "name"),
        ("/api/docs/%00", 400, "bad_room_name", "control"),
        ("/api/docs/%FF", 400, "bad_room_name", "UTF-8"),
        ("/api/docs/%ED%A0%80", 400, "bad_room_name", "UTF-8"),
        ("/api/docs/" + "x" * 1025, 400, "bad_room_name", "1024"),
        ("/api/docs/unknown", 404, "document_unknown", "no document"),
        ("/api/docs/unknown/state", 404, "document_unknown", "no document"),
    ],
)
async def test_a_path_that_leads_nowhere(raw: str, status: int, code: str, message: str) -> None:
    async with serving() as (plait, client):
        told = error(await client.get(raw), status)
        assert told["code"] == code and message in told["message"] and told["retry"] is False
        assert not plait.hub.rooms(), "asking for a document does not open it"


@pytest.mark.parametrize("raw", [b"/api/docs/%", b"/api/docs/%zz", b"/api/docs/a%2"])
async def test_a_path_that_is_not_percent_encoded(raw: bytes) -> None:
    """httpx would encode it, so the application is called as an HTTP server would."""
    async with serving() as (plait, _):
        told = await bare_get(plait, raw)
        assert told["status"] == 400 and b"%25" in told["body"]


async def test_a_path_below_a_prefix_and_without_its_raw_form() -> None:
    async with serving() as (plait, client):
        await put(client, "a b")
        raw = b"/below/api/docs/a%20b"
        told = await bare_get(plait, raw, root_path="/below", path="/below/api/docs/a b")
        assert told["status"] == 200
        told = await bare_get(plait, None, path="/api/docs/a b")
        assert told["status"] == 200 and json.loads(told["body"])["name"] == "a b"


async def bare_get(
    plait: Plait, raw: bytes | None, *, path: str | None = None, root_path: str = ""
) -> dict[str, Any]:
    answer: dict[str, Any] = {"body": b""}
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path or (raw or b"").decode(),
        "root_path": root_path,
        "query_string": b"",
        "headers": [(b"host", b"localhost")],
    }
    if raw is not None:
        scope["raw_path"] = raw

    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    async def send(message: Any) -> None:
        answer["status"] = message.get("status", answer.get("status"))
        answer["body"] += message.get("body", b"")

    await plait.asgi(scope, receive, send)
    return answer


# Methods and origins


@pytest.mark.parametrize(
    ("method", "raw", "allowed"),
    [
        ("POST", "/api/docs", "GET, HEAD"),
        ("PATCH", "/api/docs/x", "GET, PUT, DELETE, HEAD"),
        ("OPTIONS", "/api/docs/x", "GET, PUT, DELETE, HEAD"),
        ("HEAD", "/api/docs/x/updates", "POST"),
        ("GET", "/api/docs/x/undelete", "POST"),
        ("DELETE", "/api/openapi.json", "GET, HEAD"),
    ],
)
async def test_a_method_that_a_path_does_not_know(method: str, raw: str, allowed: str) -> None:
    async with serving() as (_, client):
        response = await client.request(method, raw)
        assert response.status_code == 405
        assert response.headers["allow"] == allowed
        if method != "HEAD":
            told = error(response, 405)
            assert told["code"] == "method_not_allowed" and method in told["message"]


async def test_head_tells_what_get_would() -> None:
    async with serving() as (_, client):
        await put(client, "notes")
        for raw in ("/api/docs", "/api/docs/notes", "/api/docs/notes/state"):
            got, head = await client.get(raw), await client.head(raw)
            assert head.status_code == 200 and head.content == b""
            assert head.headers == got.headers


FOREIGN = {"origin": "https://elsewhere.example"}


async def test_pages_of_other_origins_may_only_read_the_description() -> None:
    async with serving() as (_, client):
        await put(client, "notes")
        for operation in api.operations():
            raw = operation.path.replace("{name}", "notes")
            response = await client.request(
                operation.method, raw, headers={**UPDATE, **FOREIGN}, content=NOTHING
            )
            if operation.path == "/api/openapi.json":
                assert response.status_code == 200
            else:
                assert error(response, 403)["code"] == "not_allowed"
        assert (await client.get("/api/docs/notes")).status_code == 200


async def test_pages_of_this_server_and_those_that_were_allowed_may_do_everything() -> None:
    settings = {"allow_origin": ("https://app.example",), "allow_anonymous": True}
    async with serving(**settings) as (_, client):
        for origin in ("http://plait.test", "https://app.example"):
            response = await client.post(
                "/api/docs/notes/updates",
                content=NOTHING,
                headers={**UPDATE, "origin": origin, "host": "plait.test"},
            )
            assert response.status_code == 200


@pytest.mark.parametrize(
    "media_type",
    ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/plain", "a/b"],
)
async def test_what_a_form_can_send_is_refused(media_type: str) -> None:
    async with serving() as (_, client):
        response = await client.post(
            "/api/docs/notes/updates",
            content=Author(1).type("x"),
            headers={"content-type": media_type},
        )
        told = error(response, 415)
        assert told["code"] == "unsupported_media_type"
        assert "application/octet-stream" in told["message"]


async def test_a_media_type_may_have_parameters_or_be_left_out_but_not_be_compressed() -> None:
    async with serving() as (_, client):
        update = Author(1).type("x")
        headers = {"content-type": "Application/Octet-Stream; v=1"}
        for given in (headers, {}):
            response = await client.post("/api/docs/n/updates", content=update, headers=given)
            assert response.status_code == 200
        headers = {**UPDATE, "content-encoding": "gzip"}
        response = await client.post("/api/docs/n/updates", content=update, headers=headers)
        assert "Content-Encoding" in error(response, 415)["message"]


# Bodies


async def test_a_body_above_the_limit_is_refused_by_its_header() -> None:
    async with serving(message_mb=1) as (_, client):
        response = await client.post(
            "/api/docs/notes/updates", content=bytes((1 << 20) + 1), headers=UPDATE
        )
        told = error(response, 413)
        assert told["code"] == "message_too_big" and "1048576" in told["message"]


async def test_a_body_above_the_limit_is_refused_while_it_arrives() -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1 << 18)

    async with serving(message_mb=1) as (_, client):
        response = await client.put("/api/docs/notes", content=endless(), headers=UPDATE)
        assert error(response, 413)["code"] == "message_too_big"
        assert taken == 5


async def test_a_body_of_exactly_the_limit_is_read() -> None:
    async with serving(message_mb=1) as (_, client):
        response = await client.post(
            "/api/docs/notes/updates", content=bytes(1 << 20), headers=UPDATE
        )
        assert error(response, 422)


async def test_a_length_that_is_no_number_is_refused() -> None:
    async with serving() as (_, client):
        headers = {**UPDATE, "content-length": "many"}
        response = await client.post("/api/docs/n/updates", content=NOTHING, headers=headers)
        assert error(response, 400)["code"] == "bad_request"


async def test_a_body_that_never_ends_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "BODY_SECONDS", 0.01)

    async def stuck() -> AsyncIterator[bytes]:
        yield b"\x00"
        await asyncio.Event().wait()

    async with serving() as (_, client):
        response = await client.post("/api/docs/n/updates", content=stuck(), headers=UPDATE)
        told = error(response, 408)
        assert told["code"] == "body_too_slow" and told["retry"] is True


async def test_bodies_take_only_so_much_memory_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rest, "BODIES", 1)
    held, go_on = asyncio.Event(), asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield bytes(600_000)
        held.set()
        await go_on.wait()

    async with serving(message_mb=1) as (_, client), asyncio.TaskGroup() as tasks:
        raw = "/api/docs/n/updates"
        first = tasks.create_task(client.post(raw, content=half(), headers=UPDATE))
        too_many = bytes(600_000)
        await held.wait()
        response = await client.post(raw, content=too_many, headers=UPDATE)
        assert error(response, 503)["code"] == "busy"
        assert response.headers["retry-after"] == "5"
        go_on.set()
        assert (await first).status_code == 422
        response = await client.post(raw, content=too_many, headers=UPDATE)
        assert error(response, 422), "the memory is free again"


async def test_a_client_that_goes_away_within_its_body_is_nobodys_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as (plait, _):
        messages = [
            {"type": "http.request", "body": b"\x01", "more_body": True},
            {"type": "http.disconnect"},
        ]
        sent: list[Any] = []

        async def receive() -> Any:
            return messages.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/api/docs/n/updates",
            "raw_path": b"/api/docs/n/updates",
            "query_string": b"",
            "headers": [(b"host", b"localhost")],
        }
        await plait.asgi(scope, receive, send)
        assert sent[0]["status"] == 400
        assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


# Trouble


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> FaultyStore:
    """The store of the next node."""
    store = FaultyStore()
    monkeypatch.setattr("plait.server.app.open_store", lambda url, **options: store)
    return store


async def test_a_store_that_is_away_is_told_with_the_time_to_come_back(
    faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def info(document: str) -> None:
        raise StoreUnavailable("can't open /secret/plait.db", document=document)

    async with serving() as (_, client):
        monkeypatch.setattr(faulty, "info", info)
        response = await client.get("/api/docs/notes")
        told = error(response, 503)
        assert told == {
            "code": "store_away",
            "message": "the store can't be used now; try again",
            "retry": True,
        }
        assert response.headers["retry-after"] == "5"


async def test_a_document_that_can_not_be_loaded_now(faulty: FaultyStore) -> None:
    async with serving() as (_, client):
        await faulty.append([Update("notes", Author(1).type("x"))])
        faulty.away = True
        response = await client.get("/api/docs/notes/state")
        assert error(response, 503)["code"] == "room_unavailable"
        faulty.away = False
        assert text_of((await client.get("/api/docs/notes/state")).content) == "x"


async def test_an_update_that_is_not_stored_in_time_is_not_confirmed(
    faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as (_, client):
        await put(client, "notes")
        monkeypatch.setattr(api, "COMMIT_SECONDS", 0.01)
        faulty.away = True
        update = Author(2).type("x")
        response = await client.post("/api/docs/notes/updates", content=update, headers=UPDATE)
        told = error(response, 503)
        assert told["code"] == "busy" and "send it again" in told["message"]
        faulty.away = False


async def test_no_update_is_taken_while_too_much_is_unsaved(
    faulty: FaultyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving() as (plait, client):
        monkeypatch.setattr(plait.writer.unsaved, "full", True)
        update = Author(2).type("x")
        response = await client.post("/api/docs/notes/updates", content=update, headers=UPDATE)
        assert error(response, 503)["code"] == "busy"
        assert not plait.writer.unsaved_updates


@pytest.mark.parametrize(
    ("raised", "code"),
    [
        (StoreCorrupt("page 7 of /secret/plait.db"), "store_failed"),
        (RuntimeError("/secret"), "server_failed"),
    ],
)
async def test_what_fails_inside_is_logged_and_not_told(
    faulty: FaultyStore,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raised: Exception,
    code: str,
) -> None:
    async def documents(**_: Any) -> None:
        raise raised

    async with serving() as (_, client):
        monkeypatch.setattr(faulty, "documents", documents)
        response = await client.get("/api/docs")
        told = error(response, 500)
        assert told["code"] == code
        assert "secret" not in response.text and "log" in told["message"]
        assert "secret" in caplog.text


async def test_a_server_that_stops_says_so() -> None:
    async with serving() as (plait, client):
        await put(client, "notes")
        await plait.drain()
        response = await client.get("/api/docs/notes/state")
        assert error(response, 503)["code"] == "server_stopping"
