"""What a caller may ask of a state: a difference, a form, and nothing if it has it already."""

import base64
from typing import Any
from urllib.parse import quote

import pytest
from pycrdt import Doc

from tests.support.authors import Author, text_of
from tests.support.rest import UPDATE, error, path, put, serving

JSON = "application/json"


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("notes", "attachment; filename=\"notes.yjs\"; filename*=UTF-8''notes.yjs"),
        ('a/b\u2028"c"', "attachment; filename=\"a_b_c.yjs\"; filename*=UTF-8''a_b_c.yjs"),
        ("../.etc", "attachment; filename=\"etc.yjs\"; filename*=UTF-8''etc.yjs"),
        ("ü", "attachment; filename=\"_.yjs\"; filename*=UTF-8''%C3%BC.yjs"),
        ("//", "attachment; filename=\"document.yjs\"; filename*=UTF-8''document.yjs"),
    ],
)
async def test_a_file_name_is_proposed_that_harms_nothing(name: str, header: str) -> None:
    async with serving() as (_, client):
        await put(client, name)
        response = await client.get(path(name, "/state"))
        assert response.headers["content-disposition"] == header


async def test_an_etag_saves_sending_the_state_again() -> None:
    async with serving() as (_, client):
        await put(client, "notes", "one")
        raw = "/api/docs/notes/state"
        first = await client.get(raw)
        etag = first.headers["etag"]
        for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
            again = await client.get(raw, headers={"if-none-match": given})
            assert again.status_code == 304 and again.headers["etag"] == etag
        as_json = await client.get(raw, headers={"if-none-match": etag, "accept": JSON})
        assert as_json.status_code == 200
        headers = {"if-none-match": as_json.headers["etag"], "accept": JSON}
        assert (await client.get(raw, headers=headers)).status_code == 304

        # A deletion leaves the state vector as it is; the content is another all the same.
        author = Author(2)
        author.hear(first.content)
        update = author.delete(0, 1)
        await client.post("/api/docs/notes/updates", content=update, headers=UPDATE)
        changed = await client.get(raw, headers={"if-none-match": etag})
        assert changed.status_code == 200 and text_of(changed.content) == "ne"


@pytest.mark.parametrize(
    "encode",
    [base64.b64encode, base64.urlsafe_b64encode, lambda b: base64.b64encode(b).strip(b"=")],
)
async def test_a_state_vector_asks_for_the_difference(encode: Any) -> None:
    author = Author(0xFFFFFB)  # its state vector has + and / in base64
    async with serving() as (_, client):
        content = author.type("Hello")
        await client.post("/api/docs/notes/updates", content=content, headers=UPDATE)
        vector = author.doc.get_state()
        reader: Doc[Any] = Doc()
        reader.apply_update(author.state())
        more = author.type(", world")
        await client.post("/api/docs/notes/updates", content=more, headers=UPDATE)

        encoded = encode(vector).decode()
        for raw in (quote(encoded, safe=""), encoded.replace("=", "%3D")):
            response = await client.get(f"/api/docs/notes/state?state_vector={raw}")
            assert b"world" in response.content and b"Hello" not in response.content
        reader.apply_update(response.content)
        assert text_of(reader.get_update()) == "Hello, world"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("state_vector=!!", "bad_request"),
        ("state_vector=é", "bad_request"),
        ("state_vector=A", "bad_request"),
        ("state_vector=gA", "decode_error"),
        ("state_vector=AQECAw", "decode_error"),
        ("format=xml", "bad_request"),
        ("state_vector=AQEC&format=json", "bad_request"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(query: str, code: str) -> None:
    async with serving() as (_, client):
        await put(client, "notes")
        assert error(await client.get(f"/api/docs/notes/state?{query}"), 400)["code"] == code


@pytest.mark.parametrize(
    ("accept", "query", "json_wanted"),
    [
        ("*/*", "", False),
        ("text/html,application/xhtml+xml,*/*;q=0.8", "", False),
        ("application/json, text/plain, */*", "", True),
        ("application/octet-stream;q=0.5, application/json;q=0.9", "", True),
        ("application/octet-stream, application/json", "", False),
        ("application/json;q=0", "", False),
        ("application/json;q=nonsense", "", False),
        ("application/json", "?format=update", False),
        ("*/*", "?format=json", True),
    ],
)
async def test_accept_and_format_decide(accept: str, query: str, json_wanted: bool) -> None:
    async with serving() as (_, client):
        await put(client, "notes")
        response = await client.get(f"/api/docs/notes/state{query}", headers={"accept": accept})
        assert (response.headers["content-type"] == "application/json") is json_wanted
        assert response.headers["vary"] == "accept"
