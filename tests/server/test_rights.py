"""REST for rights: nobody gives away more than they have; what is taken away is gone at once."""

import json
import logging
from typing import Any

import httpx
import pytest

from plait.persistence import Record
from plait.server.app import Plait
from plait.server.auth.principal import Access
from plait.server.errors import Unauthorized
from tests.server.auth.parts import SECRET
from tests.server.auth.test_guard import Holder
from tests.support.rest import error, path, put, serving
from tests.support.rights import admin, bearer, token

SETTINGS: dict[str, Any] = {"token_secret": (SECRET,)}


def can(docs: str, access: str, **more: Any) -> dict[str, str]:
    """Return the header of Ann, who may do so much."""
    return bearer(token([{"docs": docs, "access": access, **more}], aud=None))


ROOT = bearer(admin(aud=None))


def grant(docs: str, access: str = "read", **more: Any) -> dict[str, Any]:
    return {"docs": docs, "access": access, **more}


async def enter(plait: Plait, given: str, document: str) -> Holder:
    """Hold a pass, as a socket does."""
    principal = await plait.guard.verifiers.principal(_credential(given), document)
    held = plait.guard.let_in(principal, document)
    held.holder = holder = Holder()
    return holder


def _credential(given: str) -> Any:
    from plait.server.auth.credentials import Credential

    return Credential(given, "header")


# Tokens


async def test_a_token_lets_in_whom_it_is_for() -> None:
    async with serving(**SETTINGS) as (plait, client):
        body = {"sub": "bob", "name": "Bob", "color": "#123456", "expires_in": 60}
        response = await client.post(
            "/api/tokens", json={**body, "grants": [grant("a", "write")]}, headers=ROOT
        )
        assert response.status_code == 201 and response.headers["cache-control"] == "no-store"
        told = response.json()
        principal = await plait.guard.verifiers.principal(_credential(told["token"]), None)
        assert (principal.subject, principal.name, principal.color) == ("bob", "Bob", "#123456")
        assert principal.token_id == told["id"]
        now = plait.guard.wall()
        assert principal.access_to("a", now) is Access.WRITE
        assert 59 < told["expires"] - now <= 60


@pytest.mark.parametrize(
    ("mine", "given", "fine"),
    [
        (grant("notes/*", "admin"), grant("notes/*", "admin"), True),
        (grant("notes/*", "admin"), grant("notes/a", "write"), True),
        (grant("notes/*", "admin"), grant("notes/*/b*"), True),
        (grant("notes/*", "admin"), grant("*"), False),
        (grant("notes/*", "admin"), grant("note*"), False),
        (grant("notes/*", "admin"), grant("notes"), False),
        (grant("notes/*", "admin"), grant("other"), False),
        (grant("notes/*", "write"), grant("notes/a"), False),
        (grant("notes/*", "read"), grant("notes/a"), False),
        (grant("a\\*", "admin"), grant("a\\*"), True),
        (grant("a\\*", "admin"), grant("a*"), False),
        (grant("*", "admin"), grant("*", "admin"), True),
    ],
)
async def test_nobody_gives_more_than_they_have(mine: Any, given: Any, fine: bool) -> None:
    headers = bearer(token([mine], aud=None))
    async with serving(**SETTINGS) as (_, client):
        for where, body in (
            ("/api/tokens", {"sub": "bob", "grants": [given]}),
            ("/api/keys", {"subject": "bob", "grants": [given], "expires_in": 60}),
        ):
            response = await client.post(where, json=body, headers=headers)
            assert response.status_code == (201 if fine else 403), response.text
            body["grants"] = [given, grant("far/away")]
            response = await client.post(where, json=body, headers=headers)
            assert response.status_code == (201 if mine["docs"] == "*" else 403)


async def test_nobody_gives_for_longer_than_they_have() -> None:
    async with serving(**SETTINGS) as (plait, client):
        now = plait.guard.wall()
        headers = can("*", "admin", until=now + 100)
        for body, fine in (
            ({"expires_in": 50}, True),
            ({"expires_in": 3600}, False),
            ({}, False),
            ({"expires_in": 3600, "grants": [grant("a", until=now + 99)]}, True),
            ({"expires_in": 3600, "grants": [grant("a", until=now + 101)]}, False),
        ):
            body = {"sub": "bob", "grants": [grant("a")], **body}
            response = await client.post("/api/tokens", json=body, headers=headers)
            assert response.status_code == (201 if fine else 403), body
        forever = {"subject": "bob", "grants": [grant("a")]}
        assert error(await client.post("/api/keys", json=forever, headers=headers), 403)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"grants": [grant("a")]}, "sub"),
        ({"sub": "", "grants": [grant("a")]}, "sub"),
        ({"sub": 7, "grants": [grant("a")]}, "sub"),
        ({"sub": "bob"}, "list"),
        ({"sub": "bob", "grants": []}, "has to be one"),
        ({"sub": "bob", "grants": [grant("a", "own")]}, "read, write or admin"),
        ({"sub": "bob", "grants": [grant("a\\")]}, "backslash"),
        ({"sub": "bob", "grants": [grant("a")], "expires_in": 0}, "above 0"),
        ({"sub": "bob", "grants": [grant("a")], "expires_in": True}, "above 0"),
        ({"sub": "bob", "grants": [grant("a")], "expires_in": "60"}, "above 0"),
        ({"sub": "bob", "grants": [grant("a")], "expires_in": 1e9}, "at most"),
        ({"sub": "bob", "grants": [grant("a")], "admin": True}, "admin"),
        ({"sub": "bob", "grants": [grant("a")], "color": "red"}, "color"),
    ],
)
async def test_a_wish_that_makes_no_sense_is_refused(body: Any, words: str) -> None:
    async with serving(**SETTINGS) as (_, client):
        told = error(await client.post("/api/tokens", json=body, headers=ROOT), 400)
        assert words in told["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b'"x"', b"\xff", b"[" * 100_000])
async def test_a_body_that_is_no_object_is_refused(body: bytes) -> None:
    async with serving(**SETTINGS) as (_, client):
        headers = {**ROOT, "content-type": "application/json"}
        status = 413 if len(body) > 64 << 10 else 400
        assert error(await client.post("/api/tokens", content=body, headers=headers), status)
        assert error(await client.post("/api/tokens", content=b"{}", headers=ROOT), 415)


async def test_without_a_secret_there_are_no_tokens_to_give() -> None:
    async with serving() as (_, client):
        body = {"sub": "bob", "grants": [grant("a")]}
        told = error(await client.post("/api/tokens", json=body), 409)
        assert told["code"] == "no_secret" and "token_secret" in told["message"]


# Revocations


async def test_a_revocation_that_cannot_be_read_hides_no_others_and_can_be_removed() -> None:
    """One record that somebody wrote by hand made the whole list an error."""
    async with serving(**SETTINGS) as (plait, client):
        await plait.records.keep(Record("revocation", "0", "not JSON", 1))
        made = await client.post("/api/revocations", json={"subject": "ann"}, headers=ROOT)
        listed = (await client.get("/api/revocations", headers=ROOT)).json()
        assert listed == {"revocations": [made.json()], "next": None}
        gone = await client.delete("/api/revocations?id=0", headers=ROOT)
        assert gone.status_code == 204


async def test_what_is_taken_away_is_gone_and_comes_back() -> None:
    async with serving(**SETTINGS) as (plait, client):
        await put_as_root(client, "a")
        ann = token([grant("*", "write")], aud=None, jti="t1")
        holder = await enter(plait, ann, "a")
        body = {"subject": "ann", "access": "read", "reason": "on holiday"}
        response = await client.post("/api/revocations", json=body, headers=ROOT)
        told = response.json()
        assert (told["subject"], told["access"], told["by"]) == ("ann", "read", "root")
        assert holder.told == ["read"], "before the answer"
        assert (await client.get(path("a"), headers=bearer(ann))).status_code == 200
        update = await client.post(
            path("a", "/updates"), content=b"\x00\x00", headers={**bearer(ann), **UPDATE}
        )
        assert error(update, 403)
        listed = (await client.get("/api/revocations", headers=ROOT)).json()
        assert listed == {"revocations": [told], "next": None}
        gone = await client.delete(f"/api/revocations?id={told['id']}", headers=ROOT)
        assert gone.status_code == 204
        assert holder.told == ["read", "write"]
        again = await client.delete(f"/api/revocations?id={told['id']}", headers=ROOT)
        assert error(again, 404)["code"] == "no_such_right"


UPDATE = {"content-type": "application/octet-stream"}


async def put_as_root(client: httpx.AsyncClient, name: str) -> None:
    client.headers.update(ROOT)
    await put(client, name)
    del client.headers["authorization"]


@pytest.mark.parametrize(
    ("mine", "body", "fine"),
    [
        (grant("notes/*", "admin"), {"docs": "notes/a"}, True),
        (grant("notes/*", "admin"), {"docs": "notes/*", "subject": "bob"}, True),
        (grant("notes/*", "admin"), {"docs": "*", "subject": "bob"}, False),
        (grant("notes/*", "admin"), {"docs": "other"}, False),
        (grant("notes/*", "admin"), {"subject": "bob"}, False),
        (grant("notes/*", "admin"), {"token": "t"}, False),
        (grant("notes/*", "write"), {"docs": "notes/a"}, False),
        (grant("*", "admin"), {"subject": "bob"}, True),
        (grant("*", "admin"), {"token": "t"}, True),
        (grant("*", "read"), {"subject": "bob"}, False),
    ],
)
async def test_who_may_take_rights_away_and_give_them_back(
    mine: Any, body: Any, fine: bool
) -> None:
    headers = bearer(token([mine], aud=None, sub="carol", jti="c"))
    async with serving(**SETTINGS) as (_, client):
        response = await client.post("/api/revocations", json=body, headers=headers)
        assert response.status_code == (201 if fine else 403), response.text
        made = await client.post("/api/revocations", json=body, headers=ROOT)
        gone = await client.delete(f"/api/revocations?id={made.json()['id']}", headers=headers)
        assert gone.status_code == (204 if fine else 403)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"reason": "none"},
        {"subject": "bob", "access": "write"},
        {"subject": "bob", "access": None},
        {"subject": 7},
        {"subject": ""},
        {"docs": "a\\b"},
        {"docs": "a", "expires_in": -1},
        {"docs": "a", "who": "bob"},
        {"subject": "\ud800"},
    ],
)
async def test_a_revocation_that_makes_no_sense_is_refused(body: Any) -> None:
    async with serving(**SETTINGS) as (_, client):
        headers = {**ROOT, "content-type": "application/json"}
        content = json.dumps(body).encode()
        assert error(await client.post("/api/revocations", content=content, headers=headers), 400)
        assert (await client.get("/api/revocations", headers=ROOT)).json()["revocations"] == []


async def test_a_long_list_comes_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.server.rights.PAGE_MAX", 2)
    async with serving(**SETTINGS) as (_, client):
        ids = set()
        for number in range(5):
            body: Any = {"subject": f"s{number}"}
            made = await client.post("/api/revocations", json=body, headers=ROOT)
            ids.add(made.json()["id"])
            body = {"subject": f"s{number}", "grants": [grant("a")]}
            await client.post("/api/keys", json=body, headers=ROOT)
        for where, name in (("/api/revocations", "revocations"), ("/api/keys", "keys")):
            found: list[Any] = []
            after: str | None = ""
            while after is not None:
                part = (await client.get(f"{where}?after={after}", headers=ROOT)).json()
                found += part[name]
                after = part["next"]
            assert len(found) == 5
            assert {each["subject"] for each in found} == {f"s{n}" for n in range(5)}
            assert [each["id"] for each in found] == sorted(each["id"] for each in found)
            assert name == "keys" or {each["id"] for each in found} == ids


async def test_too_many_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait.server.rights.REVOCATIONS_MAX", 1)
    async with serving(**SETTINGS) as (_, client):
        body = {"subject": "bob"}
        made = await client.post("/api/revocations", json=body, headers=ROOT)
        assert error(await client.post("/api/revocations", json=body, headers=ROOT), 400)
        await client.delete(f"/api/revocations?id={made.json()['id']}", headers=ROOT)
        again = await client.post("/api/revocations", json=body, headers=ROOT)
        assert again.status_code == 201


async def test_documents_that_are_taken_from_everybody_can_be_given_back() -> None:
    async with serving(**SETTINGS) as (_, client):
        await put_as_root(client, "a")
        made = await client.post("/api/revocations", json={"docs": "*"}, headers=ROOT)
        assert error(await client.get(path("a"), headers=ROOT), 403)
        body = {"sub": "bob", "grants": [grant("a")]}
        assert error(await client.post("/api/tokens", json=body, headers=ROOT), 403)
        assert (await client.get("/api/keys", headers=ROOT)).status_code == 200
        await client.delete(f"/api/revocations?id={made.json()['id']}", headers=ROOT)
        assert (await client.get(path("a"), headers=ROOT)).status_code == 200


async def test_who_has_no_token_is_told_that_one_would_help() -> None:
    """It was told no, as if nothing could be done about it."""
    async with serving(**SETTINGS) as (_, client):
        body = {"sub": "bob", "grants": [grant("a")]}
        assert error(await client.post("/api/tokens", json=body), 401)
        assert error(await client.post("/api/revocations", json={"docs": "a"}), 401)
        assert error(await client.get("/api/keys"), 401)


async def test_where_nothing_is_configured_rights_can_be_taken_away_too() -> None:
    async with serving() as (_, client):
        made = await client.post("/api/revocations", json={"docs": "a"})
        assert made.status_code == 201
        assert error(await client.get(path("a")), 401), "a token might help"
        gone = await client.delete(f"/api/revocations?id={made.json()['id']}")
        assert gone.status_code == 204


# API keys


async def test_a_key_works_until_it_is_deleted() -> None:
    async with serving(**SETTINGS) as (plait, client):
        body = {"subject": "app", "name": "the wiki", "grants": [grant("*", "admin")]}
        response = await client.post("/api/keys", json=body, headers=ROOT)
        assert response.headers["cache-control"] == "no-store"
        told = response.json()
        key = told.pop("key")
        listed = await client.get("/api/keys", headers=bearer(key))
        assert listed.json() == {"keys": [told], "next": None}
        assert key.rpartition("_")[2] not in listed.text
        holder = await enter(plait, key, "a")
        gone = await client.delete(f"/api/keys?id={told['id']}", headers=ROOT)
        assert gone.status_code == 204
        assert len(holder.told) == 1 and holder.told[0].startswith("4401")
        assert error(await client.get("/api/keys", headers=bearer(key)), 401)
        again = await client.delete(f"/api/keys?id={told['id']}", headers=ROOT)
        assert error(again, 404)


async def test_a_key_ends_when_it_was_to() -> None:
    async with serving(**SETTINGS) as (plait, client):
        body = {"subject": "app", "grants": [grant("a")], "expires_in": 60}
        told = (await client.post("/api/keys", json=body, headers=ROOT)).json()
        now = plait.guard.wall()
        assert 59 < told["until"] - now <= 60
        plait.guard.wall = lambda: now + 61
        with pytest.raises(Unauthorized):
            await plait.guard._verified(_credential(told["key"]), "a")


@pytest.mark.parametrize("mine", [grant("notes/*", "admin"), grant("*", "write")])
async def test_keys_are_for_those_who_administer_everything(mine: Any) -> None:
    headers = bearer(token([mine], aud=None))
    async with serving(**SETTINGS) as (_, client):
        assert error(await client.get("/api/keys", headers=headers), 403)
        assert error(await client.delete("/api/keys?id=0123456789ab", headers=headers), 403)
        assert error(await client.get("/api/revocations", headers=headers), 403)


# Lists show nothing that may not be read


@pytest.mark.parametrize(
    ("grants", "seen"),
    [
        ([], []),
        ([grant("nowhere")], []),
        ([grant("a/2")], ["a/2"]),
        ([grant("a/*"), grant("c/1")], ["a/1", "a/2", "a/3", "c/1"]),
        ([grant("a/*"), grant("a/1*"), grant("b/2")], ["a/1", "a/2", "a/3", "b/2"]),
        ([grant("*/2")], ["a/2", "b/2", "c/2"]),
        ([grant(f"{letter}/{number}") for letter in "abc" for number in range(1, 30)], None),
        ([grant("*")], None),
    ],
)
@pytest.mark.parametrize("batch", [1, 2, 500])
async def test_the_list_has_what_may_be_read_and_no_trace_of_others(
    grants: Any, seen: list[str] | None, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait.server.listing.BATCH", batch)
    names = [f"{letter}/{number}" for letter in "abc" for number in (1, 2, 3)]
    headers = bearer(token(grants, aud=None))
    async with serving(**SETTINGS) as (_, client):
        for name in names:
            await put_as_root(client, name)
        for limit in (1, 2, 3, 100):
            found: list[str] = []
            after: str | None = ""
            while after is not None:
                response = await client.get(
                    "/api/docs", params={"after": after, "limit": limit}, headers=headers
                )
                page = response.json()
                found += [each["name"] for each in page["docs"]]
                after = page["next"]
                assert after is None or after == found[-1]
                assert after is None or len(page["docs"]) == limit
            assert found == (names if seen is None else seen), limit
        response = await client.get("/api/docs", params={"prefix": "a/"}, headers=headers)
        assert [each["name"] for each in response.json()["docs"]] == [
            name for name in (names if seen is None else seen) if name.startswith("a/")
        ]


# The audit log


async def test_all_that_is_done_is_in_the_audit_log_and_no_secret(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(**SETTINGS) as (_, client):
        await put_as_root(client, "a")
        body: Any = {"sub": "bob", "grants": [grant("a")]}
        issued = (await client.post("/api/tokens", json=body, headers=ROOT)).json()
        body = {"subject": "app", "grants": [grant("a")]}
        made = (await client.post("/api/keys", json=body, headers=ROOT)).json()
        await client.delete(f"/api/keys?id={made['id']}", headers=ROOT)
        body = {"subject": "bob", "reason": "left"}
        revoked = (await client.post("/api/revocations", json=body, headers=ROOT)).json()
        await client.delete(f"/api/revocations?id={revoked['id']}", headers=ROOT)
        await client.get(path("a"))
        await client.get(path("a"), headers=bearer("garbage"))
        await client.delete(path("a"), headers=ROOT)
        await client.post(path("a", "/undelete"), headers=ROOT)
        await client.delete(path("a") + "?purge=true", headers=ROOT)
    lines = [json.loads(each.message) for each in caplog.records if each.name == "plait.audit"]
    events = [each["event"] for each in lines]
    assert events == [
        *("document.imported", "token.created", "key.created", "key.deleted"),
        *("revocation.created", "revocation.removed", "auth.refused", "auth.refused"),
        *("document.deleted", "document.undeleted", "document.purged"),
    ]
    by_event = {each["event"]: each for each in lines}
    assert by_event["token.created"]["token"] == issued["id"]
    assert by_event["token.created"]["of"] == "bob"
    assert by_event["key.created"]["id"] == made["id"]
    assert by_event["revocation.created"]["reason"] == "left"
    for event in ("token.created", "key.created", "key.deleted", "revocation.removed"):
        assert by_event[event]["by"] == "root"
    for secret in (issued["token"], made["key"], made["key"][-43:], "garbage", SECRET):
        assert secret not in caplog.text
