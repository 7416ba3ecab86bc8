"""API keys."""

import json
from dataclasses import replace
from math import inf

import pytest

from plait.persistence import Record, StoreUnavailable
from plait.persistence.memory import MemoryStore
from plait.server.auth.keys import KIND, ApiKeys, make_key, read_key
from plait.server.auth.principal import Access, BadGrant, Grant
from plait.server.errors import AuthUnavailable, BadRequest, Unauthorized
from tests.server.auth.parts import NOW

GRANT = Grant("notes/*", Access.ADMIN, NOW + 50)


async def kept(until: float = inf) -> tuple[MemoryStore, str, Record]:
    """Return a store with a key, the key, and its record."""
    store = MemoryStore()
    key, record = make_key("robot", "The robot", [GRANT], NOW, until)
    assert await store.put_record(record, new=True)
    return store, key, record


async def test_a_key_is_accepted() -> None:
    store, key, record = await kept()
    assert key == f"plait_{record.id}_{key.rpartition(record.id)[2][1:]}" and len(key) == 62
    principal = await ApiKeys(store, lambda: NOW).verify(key, None)
    assert principal is not None
    assert (principal.subject, principal.name, principal.grants) == ("robot", "The robot", (GRANT,))
    assert (principal.token_id, principal.issued, principal.until) == (record.id, NOW, inf)


async def test_the_secret_is_not_kept() -> None:
    store, key, record = await kept()
    secret = key[-43:]
    assert secret not in repr(record) and secret not in repr(await store.record(KIND, record.id))
    assert set(json.loads(record.value)) == {"hash", "subject", "name", "grants", "created"}


async def test_a_wrong_secret_and_an_unknown_id_are_told_the_same() -> None:
    store, key, record = await kept()
    wrong = key[:-1] + ("A" if key[-1] != "A" else "B")
    unknown = key.replace(record.id, "0" * 12)
    for other in (wrong, unknown):
        with pytest.raises(Unauthorized, match="^the API key is not valid$"):
            await ApiKeys(store, lambda: NOW).verify(other, None)


@pytest.mark.parametrize(
    "other", ["", "plait_", "plait_0_x", "a.b.c", "{key}x", "x{key}", "{key}\n"]
)
async def test_what_does_not_look_like_a_key_is_somebody_else_s(other: str) -> None:
    store, key, _ = await kept()
    assert await ApiKeys(store, lambda: NOW).verify(other.format(key=key), None) is None


async def test_a_key_ends() -> None:
    store, key, record = await kept(until=NOW + 10)
    principal = await ApiKeys(store, lambda: NOW + 9).verify(key, None)
    assert principal is not None and principal.until == NOW + 10
    with pytest.raises(Unauthorized, match="expired"):
        await ApiKeys(store, lambda: NOW + 10).verify(key, None)


async def test_so_does_its_record() -> None:
    store, key, record = await kept()
    await store.put_record(replace(record, until_ms=int(NOW * 1000) + 10_000))
    with pytest.raises(Unauthorized):
        await ApiKeys(store, lambda: NOW + 10).verify(key, None)


async def test_a_key_that_was_taken_back_is_not_valid() -> None:
    store, key, record = await kept()
    await store.remove_record(KIND, record.id)
    with pytest.raises(Unauthorized, match="not valid"):
        await ApiKeys(store, lambda: NOW).verify(key, None)


@pytest.mark.parametrize("change", [{"grants": "x"}, {"created": None}, {"subject": None, "x": 1}])
async def test_a_record_that_can_t_be_read_lets_nobody_in(change: dict[str, object]) -> None:
    store, key, record = await kept()
    value = json.loads(record.value)
    if change == {"created": None}:
        del value["created"]
    elif "subject" in change:
        del value["subject"]
    else:
        value |= change
    await store.put_record(replace(record, value=json.dumps(value)))
    with pytest.raises(Unauthorized, match="not valid"):
        await ApiKeys(store, lambda: NOW).verify(key, None)


@pytest.mark.parametrize("value", ["", "[]", "{}", '{"hash": 7}', '{"hash": "\\u00e9"}'])
async def test_a_record_without_a_hash_lets_nobody_in(value: str) -> None:
    store, key, record = await kept()
    await store.put_record(replace(record, value=value))
    with pytest.raises(Unauthorized, match="not valid"):
        await ApiKeys(store, lambda: NOW).verify(key, None)


async def test_without_the_store_nobody_knows() -> None:
    class Away:
        async def record(self, kind: str, id: str) -> Record | None:
            raise StoreUnavailable("gone")

    _, key, _ = await kept()
    with pytest.raises(AuthUnavailable, match="try again") as caught:
        await ApiKeys(Away(), lambda: NOW).verify(key, None)
    assert caught.value.status == 503


def test_a_key_is_checked_when_it_is_made() -> None:
    with pytest.raises(BadGrant, match="sub has to be text"):
        make_key("a\nb", "", [], NOW)


def test_a_key_tells_what_it_is_without_its_hash() -> None:
    _, record = make_key("robot", "", [GRANT], NOW, NOW + 5)
    told = read_key(record).as_json()
    assert told == {
        "id": record.id,
        "subject": "robot",
        "name": "",
        "grants": [{"docs": "notes/*", "access": "admin", "until": NOW + 50}],
        "created": NOW,
        "until": NOW + 5,
    }
    with pytest.raises(BadRequest, match="can't be read"):
        read_key(replace(record, value="7"))
