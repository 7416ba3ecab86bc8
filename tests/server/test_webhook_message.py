"""What a message says, and that others' implementations verify it."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from plait.persistence import DocumentInfo, Event
from plait.server.errors import ConfigError
from plait.server.webhook_message import KINDS, Message, message, target
from tests.support.node import run_node

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
URL = "https://app.example.org/hooks?key=s3cret"
EVENT = Event("té'am/\u2028notes", "changed", 1_790_000_000_123, id=7)
INFO = DocumentInfo(EVENT.document, 1, 2, 3, 4, 5, 6, 7)


def test_a_message_is_verified_by_another_implementation() -> None:
    told = message("store", EVENT, INFO)
    headers = told.headers(target(URL, SECRET, KINDS).key, int(time.time()))
    assert Webhook(SECRET).verify(told.body, headers) == {
        "type": "document.changed",
        "timestamp": "2026-09-21T14:13:20.123Z",
        "data": {
            "document": EVENT.document,
            "created_ms": 1,
            "modified_ms": 2,
            "updates": 3,
            "log_bytes": 4,
        },
    }
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(told.body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(b"another").verify(told.body, headers)


def test_a_signature_is_what_the_libraries_expect() -> None:
    """A known answer, of the tests of the specification's libraries."""
    told = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')
    key = target(URL, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", KINDS).key
    signature = told.headers(key, 1614265330)["webhook-signature"]
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_may_be_text() -> None:
    secret = "correct horse battery staple"
    told = message("store", EVENT, INFO)
    headers = told.headers(target(URL, secret, KINDS).key, int(time.time()))
    Webhook(secret.encode()).verify(told.body, headers)


def test_an_id_stands_for_what_is_told() -> None:
    deleted = Event("a", "deleted", 5, id=7)
    id = message("store", deleted, None).id
    assert "." not in id
    assert id == message("store", Event("a", "deleted", 5, id=7, attempts=3), None).id
    assert id != message("another", deleted, None).id
    assert id != message("store", Event("a", "deleted", 5, id=8), None).id
    # A change that is told again, of a document that has changed since, is not the same.
    changed = message("store", EVENT, INFO).id
    later = DocumentInfo(EVENT.document, 1, 2, 4, 9, 5, 6, 7)
    assert changed == message("store", Event(EVENT.document, "changed", 1, id=9), INFO).id
    assert changed != message("store", EVENT, later).id


def test_what_is_told_of_each_kind() -> None:
    def data(event: Event, info: DocumentInfo | None = None) -> object:
        return json.loads(message("store", event, info).body)["data"]

    facts = {"created_ms": 1, "modified_ms": 2, "updates": 3, "log_bytes": 4}
    assert data(Event("a", "created", 1), INFO) == {"document": "a", **facts}
    assert data(Event("a", "created", 1)) == {"document": "a", **dict.fromkeys(facts)}
    assert data(Event("a", "deleted", 1)) == {"document": "a"}
    assert data(Event("a", "undeleted", 1)) == {"document": "a"}
    visit = Event("a", "connected", 1, '{"subject": "ann"}')
    assert data(visit) == {"document": "a", "subject": "ann"}


@pytest.mark.parametrize(
    ("url", "secret", "events", "said"),
    [
        ("app.example.org/hooks", SECRET, KINDS, "webhook_url has to be a URL"),
        ("ftp://app.example.org", SECRET, KINDS, "webhook_url has to be a URL"),
        ("https://", SECRET, KINDS, "webhook_url has to be a URL"),
        ("https://app:99999/", SECRET, KINDS, "webhook_url has to be a URL"),
        ("https://app.example.org/a b", SECRET, KINDS, "webhook_url has to be a URL"),
        ("https://ann:s3cret@app.example.org/", SECRET, KINDS, "can't hold a user"),
        (URL, "", KINDS, "webhook_url needs a webhook_secret"),
        (URL, "whsec_s3cret!!", KINDS, "is not base64"),
        (URL, "whsec_czNjcmV0", KINDS, "has 6 bytes"),
        (URL, "s3cret", KINDS, "has 6 bytes"),
        (URL, SECRET, (), "names no event"),
        (URL, SECRET, ("changed", "renamed"), "'renamed' is none of created, changed,"),
    ],
)
def test_what_can_not_be_used_is_refused(
    url: str, secret: str, events: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        target(url, secret, events)
    assert "s3cret" not in str(refused.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(target(URL, SECRET, KINDS))
    assert "s3cret" not in shown and "key=" not in shown
    assert target(URL, SECRET, KINDS).name == "https://app.example.org"


def shown(language: str) -> str:
    """Return the code in one language that docs/webhooks.md gives for verifying."""
    page = Path(__file__).parent.parent.parent / "docs" / "webhooks.md"
    return page.read_text().partition(f"```{language}\n")[2].partition("\n```")[0]


@pytest.mark.parametrize("secret", [SECRET, "correct horse battery staple"])
def test_the_python_of_the_documentation_verifies(secret: str) -> None:
    found: dict[str, Any] = {}
    exec(shown("python"), found)
    verify = found["verify"]
    told = message("store", EVENT, INFO)
    key = target(URL, secret, KINDS).key
    headers = told.headers(key, int(time.time()))
    assert verify(secret, headers, told.body)["data"]["document"] == EVENT.document
    for wrong in (
        (secret, headers, told.body + b" "),
        (SECRET[:-6] + "AAAA==", headers, told.body),
        (secret, told.headers(key, int(time.time()) - 301), told.body),
    ):
        with pytest.raises(ValueError):
            verify(*wrong)


@pytest.mark.parametrize("secret", [SECRET, "correct horse battery staple"])
def test_the_javascript_of_the_documentation_verifies(secret: str) -> None:
    told = message("store", EVENT, INFO)
    key = target(URL, secret, KINDS).key
    cases = [
        (secret, told.headers(key, int(time.time())), told.body.decode()),
        (secret, told.headers(key, int(time.time())), told.body.decode() + " "),
        (SECRET[:-6] + "AAAA==", told.headers(key, int(time.time())), told.body.decode()),
        (secret, told.headers(key, int(time.time()) - 301), told.body.decode()),
    ]
    script = f"""{shown("js")}
    const said = {json.dumps(cases)}.map(([secret, headers, body]) => {{
      try {{ return verify(secret, headers, Buffer.from(body)).data.document }}
      catch (error) {{ return error.message }}
    }});
    console.log(JSON.stringify(said));"""
    wrong = "not signed with our secret"
    assert json.loads(run_node(script)) == [EVENT.document, wrong, wrong, "too old"]
