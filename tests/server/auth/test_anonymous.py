"""Those without a token: which may come, and when somebody is taken to sit at this machine."""

from typing import Any

import pytest
from starlette.datastructures import Headers

from plait.server.auth.anonymous import LOCAL, anonymous_principal, local_principal
from plait.server.auth.principal import Access, Grant
from plait.server.errors import Unauthorized
from plait.server.settings import Settings

LOOPBACK_NAMES = ("localhost", "localhost:8000", "127.0.0.1:8000", "[::1]:8000", "app.localhost:80")


def test_nobody_is_let_in_without_the_setting() -> None:
    assert anonymous_principal(Settings()) is None


def test_they_have_the_right_that_the_settings_say() -> None:
    settings = Settings(
        allow_anonymous=True, anonymous_access="read", anonymous_docs=("public/*", "x")
    )
    somebody = anonymous_principal(settings)
    assert somebody is not None
    assert somebody.grants == (Grant("public/*", Access.READ), Grant("x", Access.READ))
    assert (somebody.subject, somebody.token_id) == ("", "")


def request_with(headers: dict[str, str]) -> dict[str, Any]:
    return {"headers": Headers(headers).raw}


@pytest.mark.parametrize("host", LOOPBACK_NAMES)
@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", None])
def test_this_machine_may_do_everything(peer: str | None, host: str) -> None:
    somebody = local_principal(peer, request_with({"Host": host}))
    assert somebody is LOCAL and somebody.access_to("anything", 0) is Access.ADMIN


@pytest.mark.parametrize("peer", ["192.0.2.1", "::ffff:192.0.2.1", "10.0.0.1", "testclient", ""])
def test_other_machines_may_not(peer: str) -> None:
    with pytest.raises(Unauthorized, match="only this machine.*--token-secret.*--allow-anonymous"):
        local_principal(peer, request_with({"Host": "localhost"}))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "192.0.2.1",
        "",
        "[",
        "0.0.0.0",
    ],
)
def test_a_page_whose_name_stands_for_this_machine_may_not(host: str) -> None:
    with pytest.raises(Unauthorized, match="only localhost.*--allow-anonymous") as caught:
        local_principal("127.0.0.1", request_with({"Host": host}))
    assert "evil" not in str(caught.value)


def test_a_request_without_a_host_may_not() -> None:
    with pytest.raises(Unauthorized, match="only localhost"):
        local_principal("127.0.0.1", request_with({}))


@pytest.mark.parametrize(
    "name", ["Forwarded", "Via", "X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP"]
)
def test_who_comes_through_a_proxy_may_not(name: str) -> None:
    with pytest.raises(Unauthorized, match=rf"proxy \({name.lower()}\).*--allow-anonymous"):
        local_principal("127.0.0.1", request_with({"Host": "localhost", name: "127.0.0.1"}))
