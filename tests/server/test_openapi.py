"""The description is valid, and says neither more nor less than what is served and documented."""

import re
from pathlib import Path
from time import process_time
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from openapi_spec_validator import OpenAPIV31SpecValidator
from starlette.routing import Route

from plait.server import __version__, errors, rest, rights
from plait.server.api import operations
from plait.server.auth import principal
from plait.server.counters import kind_of
from plait.server.errors import PlaitError
from plait.server.openapi import HEALTH
from tests.support.rest import DESCRIPTION, serving

DOCUMENTATION = Path(__file__).resolve().parents[2] / "docs" / "api.md"

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def described() -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, methods in DESCRIPTION["paths"].items()
        for method in methods
        if method != "parameters"
    }


def test_it_is_valid_openapi() -> None:
    OpenAPIV31SpecValidator(DESCRIPTION).validate()
    assert DESCRIPTION["info"]["version"] == __version__


async def test_it_is_served() -> None:
    async with serving() as (_, client):
        assert (await client.get("/api/openapi.json")).json() == DESCRIPTION


async def test_each_path_knows_exactly_the_methods_that_are_described() -> None:
    async with serving() as (_, client):
        for path in DESCRIPTION["paths"]:
            raw = path.replace("{name}", "unknown")
            known = {method for method, each in described() if each == path}
            known |= {"HEAD"} & {"HEAD" for method in known if method == "GET"}
            for method in METHODS:
                if not path.startswith("/api/"):
                    continue  # Starlette answers there, without JSON.
                response = await client.request(method, raw)
                assert (response.status_code != 405) is (method in known), (method, path)
                if response.status_code == 405:
                    assert set(response.headers["allow"].split(", ")) == known


async def test_every_route_that_is_not_a_page_is_described() -> None:
    async with serving() as (plait, _):
        routes = {route.path for route in plait.asgi.routes if isinstance(route, Route)}
        pages = {"/", "/favicon.ico", "/static/{name:path}"}
        assert routes - pages - {"/metrics"} == {each.path for each in HEALTH}
    assert described() == {(each.method, each.path) for each in [*operations(), *HEALTH]}


async def test_health_is_as_described() -> None:
    async with serving() as (plait, client):
        assert (await client.get("/healthz")).json() == {"status": "alive"}
        assert (await client.get("/readyz")).json()["status"] == "ready"
        await plait.drain()
        response = await client.get("/readyz")
        assert response.status_code == 503 and response.json()["reason"]


def test_each_operation_has_a_name_of_its_own_and_a_summary() -> None:
    names = [each.name for each in [*operations(), *HEALTH]]
    assert len(set(names)) == len(names)
    assert all(each.summary and not each.summary.endswith(".") for each in operations())


def examples() -> list[Any]:
    return [
        pytest.param(content, id=f"{operation['operationId']} {status}")
        for methods in DESCRIPTION["paths"].values()
        for method, operation in methods.items()
        if method != "parameters"
        for status, answer in operation["responses"].items()
        for content in answer.get("content", {}).values()
        if "example" in content
    ]


@pytest.mark.parametrize("content", examples())
def test_examples_fit_their_schemas(content: Any) -> None:
    schema = {**content["schema"], "components": DESCRIPTION["components"]}
    Draft202012Validator(schema).validate(content["example"])


def test_a_value_of_another_type_than_its_root_does_not_fit() -> None:
    schema = {"$ref": "#/components/schemas/Root", "components": DESCRIPTION["components"]}
    validator = Draft202012Validator(schema)
    assert validator.is_valid({"type": "text", "value": "x"})
    assert validator.is_valid({"type": "unknown", "value": None})
    for kind, value in (("text", 1), ("map", []), ("array", {}), ("xml", None), ("other", "x")):
        assert not validator.is_valid({"type": kind, "value": value})


# Bugs of schemas, which were found by fuzzing


async def test_what_the_schema_calls_a_name_is_one_and_nothing_else() -> None:
    """It once said that a no-break space is, which was answered with 400."""
    schema = DESCRIPTION["components"]["parameters"]["Name"]["schema"]
    # The end of ECMA's `$` is the end, not also before a last newline.
    pattern = re.compile(schema["pattern"].removesuffix("$") + r"\Z")
    characters = [chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000]
    async with serving() as (plait, _):
        for each in characters:
            for name in (each, f" {each}\u3000", f"a{each}", f"{each}a"):
                try:
                    plait.hub.check_name(name)
                    is_name = True
                except errors.BadRoomName:
                    is_name = False
                assert bool(pattern.search(name)) is is_name, ascii(name)


ANY_PATTERN = st.lists(
    st.sampled_from(["*", "**", r"\*", r"\\", "\\", "a", "/", "\n", "ü", "😀", "\u2028"]),
    max_size=24,
).map("".join)


def is_pattern(docs: str) -> bool:
    try:
        return principal.check_pattern(docs) == docs
    except principal.BadGrant:
        return False


def wishes(docs: object) -> list[tuple[str, dict[str, Any]]]:
    """Return what is sent, by the name of its schema, with a pattern wherever one may be."""
    grants = [{"docs": docs, "access": "read"}]
    return [
        ("TokenWish", {"sub": "ann", "grants": grants}),
        ("KeyWish", {"subject": "ann", "grants": grants}),
        ("RevocationWish", {"docs": docs}),
    ]


VALIDATORS = {
    name: Draft202012Validator(
        {"$ref": f"#/components/schemas/{name}", "components": DESCRIPTION["components"]}
    )
    for name, _ in wishes("")
}


@example("0\\")
@example("a\\b")
@example("a\\\n")
@example("a\n")
@example("")
@example("a" * principal.PATTERN_MAX)
@example("😀" * (principal.PATTERN_MAX + 1))
@example("*a" * principal.ASTERISKS_MAX)
@example("*a" * principal.ASTERISKS_MAX + "**")
@given(ANY_PATTERN | st.text(max_size=8))
def test_what_the_schemas_call_a_pattern_is_one_and_nothing_else(docs: str) -> None:
    """They once said that any text is, so that `0\\` fitted them and was answered with 400."""
    for name, wish in wishes(docs):
        assert VALIDATORS[name].is_valid(wish) == is_pattern(docs), name


@pytest.mark.parametrize(
    "docs", ["*" * 1023 + "\\", "a" * 1023 + "\\", "*a" * 512, ("*" + "a" * 112) * 9]
)
def test_what_is_no_pattern_is_found_out_as_fast_as_it_is_read(docs: str) -> None:
    before = process_time()
    assert re.search(principal.PATTERN, docs) is None
    assert process_time() - before < 1


# The documentation


def test_each_operation_is_in_the_documentation_with_its_parameters() -> None:
    text = DOCUMENTATION.read_text()
    headings = set(re.findall(r"^### `([A-Z]+) (\S+)`", text, re.MULTILINE))
    assert headings == {(each.method, each.path) for each in operations()}
    for operation in operations():
        section = text.partition(f"### `{operation.method} {operation.path}`")[2]
        section = re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0]
        assert "curl " in section, operation.path
        for parameter in operation.parameters:
            assert f"`{parameter.name}`" in section, (operation.path, parameter.name)


def test_each_error_is_in_the_documentation_with_its_status() -> None:
    text = DOCUMENTATION.read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| (yes|no) \|", text, re.MULTILINE)
    told = {name: (int(status), retry == "yes") for name, status, retry in rows}
    assert told == {
        kind_of(kind): (kind.status, kind.retry)
        for module in (errors, rest, rights, principal)
        for kind in vars(module).values()
        if isinstance(kind, type)
        and issubclass(kind, PlaitError)
        and kind.__name__ not in NEVER_ANSWERED
    }


NEVER_ANSWERED = {"PlaitError", "ClientError", "TextRefused", "MalformedFrame", "ConfigError"}
"""The bases, errors of sockets, and one of the command line."""
