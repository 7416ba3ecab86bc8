"""`plait serve` tells an application what happens to documents, and what it could not tell before
it was killed it tells after its next start.
"""

import pytest
from standardwebhooks import Webhook

from tests.e2e.conftest import OpenServer
from tests.support.authors import Author
from tests.support.deadlines import eventually
from tests.support.frames import UPDATE, update
from tests.support.peer import peer
from tests.support.receiver import HookReceiver
from tests.support.server import refused

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ALL = "created,changed,deleted,undeleted,connected,disconnected"


def options(hook: HookReceiver, events: str = ALL) -> tuple[str, ...]:
    return (
        *("--webhook-url", hook.url, "--webhook-secret", SECRET, "--webhook-events", events),
        *("--webhook-quiet-seconds", "0.2"),
    )


async def test_what_happens_to_a_document_is_told(open_server: OpenServer) -> None:
    async with HookReceiver() as hook:
        server = await open_server(*options(hook))
        async with peer(server.ws_url, "team/notes") as writer:
            await writer.greeted()
            await writer.send(update(Author(1).type("hello")))
            await writer.expect(UPDATE)
            await eventually(lambda: ("team/notes", "changed") in hook.accepted)
        await eventually(lambda: ("team/notes", "disconnected") in hook.accepted)
        assert sorted(kind for _, kind in hook.accepted) == [
            *("changed", "connected", "created", "disconnected")
        ]
        for heard in hook.heard:
            Webhook(SECRET).verify(heard.body, heard.headers)
        await server.stop()
    assert SECRET not in server.stderr and "s3cret" not in server.stderr


async def test_what_could_not_be_told_is_told_after_the_next_start(open_server: OpenServer) -> None:
    async with HookReceiver() as hook:
        await hook.stop()
        server = await open_server(*options(hook, "created,changed"))
        async with peer(server.ws_url, "a") as writer:
            await writer.greeted()
            typed = update(Author(1).type("hello"))
            await writer.send(typed)
            await writer.hear(typed)  # It is stored.
        await server.kill()
        await hook.start()
        await server.start()
        # What the killed server had in hand comes after its lease, a minute at most.
        await eventually(lambda: len(hook.accepted) == 2, "both events", 180)
        assert hook.accepted == [("a", "created"), ("a", "changed")]
        await server.stop()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--webhook-url", "https://app.example.org/"), "webhook_url needs a webhook_secret"),
        (("--webhook-url", "app", "--webhook-secret", SECRET), "webhook_url has to be a URL"),
        (
            ("--webhook-url", "https://app/", "--webhook-secret", SECRET, "--webhook-events", "x"),
            "webhook_events: 'x' is none of",
        ),
    ],
)
def test_settings_that_can_not_be_used_end_the_start(given: tuple[str, ...], said: str) -> None:
    assert said in refused(*given)
