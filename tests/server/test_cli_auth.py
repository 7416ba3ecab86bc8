"""`plait token` and `plait key`, on stores that nobody serves."""

import asyncio
import json
import os
import re
import shlex
import time
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any

import jwt
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from plait.persistence import Record, open_store
from plait.server import cli
from tests.support.deadlines import DEADLINE_SECONDS
from tests.support.server import PlaitProcess

SECRET = "a-secret-of-more-than-thirty-two-characters"
OTHER = "another-secret-of-more-than-thirty-two-characters"


ROOT = Path(__file__).resolve().parents[2]


class Plait:
    """Runs commands with settings of the environment, and remembers what the last one said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.out = self.err = ""
        self._capsys = capsys

    def __call__(self, *arguments: str) -> int:
        code = cli.main(arguments)
        self.out, self.err = self._capsys.readouterr()
        return code

    def line(self, *arguments: str) -> str:
        """Run a command that has to go well; return the one line that it prints."""
        assert self(*arguments) == 0, self.err
        (line,) = self.out.splitlines()
        return line

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Return what a command tells in JSON."""
        assert self(*arguments, "--json") == code, self.err
        return json.loads(self.out)

    def token(self, *more: str) -> str:
        """Return a token of Ann's for her notes."""
        grants = more or ("--docs", "notes/*", "--access", "write")
        return self.line("token", "create", "--subject", "ann", *grants)

    def key(self, *more: str) -> str:
        """Return a key of a robot's for all documents."""
        return self.line(
            "key", "create", "--subject", "robot", "--docs", "*", "--access", "admin", *more
        )

    def make_store(self, folder: Path) -> None:
        """Make the store, with a document."""
        (folder / "hello").write_bytes(b"\1\1\1\0\4\1\4text\5Hello\0")
        assert self("docs", "import", "hello", str(folder / "hello")) == 0


@pytest.fixture
def plait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Plait:
    for name in list(os.environ):
        if name.startswith("PLAIT_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PLAIT_TOKEN_SECRET", SECRET)
    made = Plait(capsys)
    made.make_store(tmp_path)
    return made


# Secrets and tokens


def test_a_new_secret_can_be_used(plait: Plait, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = plait.line("token", "secret")
    assert secret != plait.json("token", "secret")["secret"]
    monkeypatch.setenv("PLAIT_TOKEN_SECRET", secret)
    assert plait("token", "inspect", plait.token()) == 0


def test_a_token_says_what_was_asked_for(plait: Plait) -> None:
    told = plait.json(
        *("token", "create", "--subject", "ann", "--name", "Ann", "--color", "#1b746c"),
        *("--docs", "notes/*", "--docs", "todo", "--access", "write"),
        *("--docs", "public", "--access", "read", "--expires", "30m"),
    )
    claims = jwt.decode(told["token"], SECRET, ["HS256"])
    assert abs(claims["iat"] - time.time()) < 60
    assert claims["exp"] - claims["iat"] == 30 * 60
    assert {name: claims[name] for name in ("sub", "name", "color", "jti", "grants")} == {
        "sub": "ann",
        "name": "Ann",
        "color": "#1b746c",
        "jti": told["id"],
        "grants": [
            {"docs": "notes/*", "access": "write"},
            {"docs": "todo", "access": "write"},
            {"docs": "public", "access": "read"},
        ],
    }
    assert told["grants"] == claims["grants"]
    other = jwt.decode(plait.token(), SECRET, ["HS256"])
    assert other["jti"] != told["id"]
    assert other["exp"] - other["iat"] == 60 * 60, "an hour, if nothing is said"


def test_a_token_is_for_this_server(plait: Plait, tmp_path: Path) -> None:
    config = tmp_path / "plait.toml"
    config.write_text(
        'jwt_issuer = "https://app.example.org"\njwt_audience = "plait"\njwt_grants = "rights"\n'
    )
    token = plait.line(
        *("token", "create", "--subject", "ann", "--docs", "x", "--access", "read"),
        *("--config", str(config)),
    )
    claims = jwt.decode(token, SECRET, ["HS256"], audience="plait")
    assert claims["iss"] == "https://app.example.org"
    assert claims["rights"] == [{"docs": "x", "access": "read"}]
    assert plait("token", "inspect", token, "--config", str(config)) == 0
    assert plait("token", "inspect", token) == cli.FAILED
    assert "aud" in plait.err + plait.out


def test_the_first_of_several_secrets_signs(plait: Plait, monkeypatch: pytest.MonkeyPatch) -> None:
    old = plait.token()
    monkeypatch.setenv("PLAIT_TOKEN_SECRET", f"{OTHER} {SECRET}")
    jwt.decode(plait.token(), OTHER, ["HS256"])
    monkeypatch.setenv("PLAIT_TOKEN_SECRET", OTHER)
    assert plait("token", "inspect", old) == cli.FAILED


def test_without_a_secret_it_is_said_how_to_make_one(
    plait: Plait, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("token", "create", "--subject", "ann", "--docs", "x", "--access", "read")
    monkeypatch.delenv("PLAIT_TOKEN_SECRET")
    assert plait(*arguments) == cli.MISUSED
    assert "plait token secret" in plait.err and plait.out == ""
    monkeypatch.setenv("PLAIT_TOKEN_SECRET", "short")
    assert plait(*arguments) == cli.MISUSED
    assert "32 characters" in plait.err and "short" not in plait.err.split()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--docs", "a", "--access", "read", "--docs", "b"), "--docs b needs an --access"),
        (("--access", "read", "--access", "write", "--docs", "b"), "no --docs before it"),
        (("--docs", "a\\b", "--access", "read"), "backslash"),
        (("--docs", "", "--access", "read"), "pattern"),
        (("--docs", "a", "--access", "read", "--color", "red"), "color"),
        (("--docs", "a", "--access", "read", "--name", "a\nb"), "name"),
        (("--docs", "a", "--access", "read", "--subject", ""), "--subject"),
    ],
)
def test_what_can_not_be_meant_is_misuse(plait: Plait, options: tuple[str, ...], said: str) -> None:
    assert plait("token", "create", "--subject", "ann", *options) == cli.MISUSED
    assert said in plait.err and plait.out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ("token", "create", "--docs", "a", "--access", "read"),
        ("token", "create", "--subject", "ann"),
        ("token", "create", "--subject", "a", "--docs", "a", "--access", "own"),
        ("token", "create", "--subject", "a", "--docs", "a", "--access", "read", "--expires", "1"),
        ("token", "create", "--subject", "a", "--docs", "a", "--access", "read", "--expires", "0s"),
        ("token", "revoke", "--subject", "ann", "--access", "write"),
        ("key", "create", "--subject", "a", "--docs", "a", "--access", "read", "--color", "#fff"),
    ],
)
def test_what_is_not_understood_is_misuse(plait: Plait, arguments: tuple[str, ...]) -> None:
    with pytest.raises(SystemExit) as exit:
        cli.main(arguments)
    assert exit.value.code == cli.MISUSED


def test_a_single_access_may_come_first(plait: Plait) -> None:
    token = plait.token("--access", "read", "--docs", "a", "--docs", "b")
    assert jwt.decode(token, SECRET, ["HS256"])["grants"] == [
        {"docs": "a", "access": "read"},
        {"docs": "b", "access": "read"},
    ]


# Looking at them


def test_a_token_is_explained(plait: Plait, monkeypatch: pytest.MonkeyPatch) -> None:
    token = plait.token()
    assert plait("token", "inspect", token, "--document", "notes/1") == 0
    lines = dict(line.split(maxsplit=1) for line in plait.out.splitlines())
    assert lines["Subject"] == "ann"
    assert lines["Grants"] == "write on notes/*"
    assert lines["Issued"].endswith(("just now", "ago"))
    assert lines["Expires"].endswith("in 60 minutes")
    assert lines["Here"] == "write on notes/1"
    assert lines["Accepted"] == "by jwt"
    monkeypatch.setattr("sys.stdin", TextIOWrapper(BytesIO(f"{token}\n".encode())))
    told = plait.json("token", "inspect", "-", "--document", "todo")
    assert told["accepted"] and told["refusal"] is None
    assert told["token"]["subject"] == "ann"
    assert told["document"] == {"name": "todo", "access": "none"}


def test_it_is_said_why_a_token_is_refused(plait: Plait) -> None:
    now = int(time.time())
    claims = {"sub": "ann", "iat": now - 90_000, "exp": now - 3 * 3600, "grants": []}
    told = plait.json("token", "inspect", jwt.encode(claims, SECRET, "HS256"), code=1)
    assert not told["accepted"]
    assert "expired" in told["refusal"] and "(jwt)" in told["refusal"]
    assert told["token"]["subject"] == "ann", "what it says is told all the same"
    claims["exp"] = now + 60
    assert plait("token", "inspect", jwt.encode(claims, OTHER, "HS256")) == cli.FAILED
    assert "Refused    the token is not valid here\n" in plait.out
    assert plait("token", "inspect", "nonsense") == cli.FAILED
    assert plait.out == "Refused    the token is not valid here\n"
    assert plait("token", "inspect", " ") == cli.MISUSED


def test_a_token_of_strangers_can_not_steer_the_terminal(plait: Plait) -> None:
    claims = {
        "sub": "ann\x9b2J",
        "exp": time.time() + 60,
        "grants": [{"docs": "\x9b", "access": "read"}],
    }
    assert plait("token", "inspect", jwt.encode(claims, OTHER, "HS256")) == cli.FAILED
    assert "\x9b" not in plait.out and "\\x9b" in plait.out


def test_nobody_is_asked_unless_that_is_wanted(
    plait: Plait, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_AUTH_URL", "http://127.0.0.1:9/nobody-listens-here")
    monkeypatch.setenv("PLAIT_AUTH_TIMEOUT_SECONDS", "1")
    assert plait("token", "inspect", plait.token()) == 0
    assert plait("token", "inspect", "a session of the application") == cli.FAILED
    assert "auth_url" in plait.err and "--online" in plait.err
    assert "not valid here" in plait.out
    assert plait("token", "inspect", "a session of the application", "--online") == cli.FAILED
    assert "can't be told now" in plait.out and "--online" not in plait.err


def test_no_store_is_needed_to_look_at_a_token(plait: Plait, tmp_path: Path) -> None:
    token = plait.token()
    assert plait("token", "inspect", token, "--store", "sqlite:///elsewhere.db") == 0
    assert "elsewhere.db" in plait.err
    assert not (tmp_path / "elsewhere.db").exists()
    assert plait("token", "inspect", token, "--store", "memory://") == 0


# Taking rights away


def test_rights_of_a_subject_are_taken_away_and_given_back(plait: Plait) -> None:
    token = plait.token()
    told = plait.json("token", "revoke", "--subject", "ann", "--reason", "left the company")
    assert (told["subject"], told["token"], told["docs"]) == ("ann", None, None)
    assert told["access"] == "none" and told["until"] is None
    seen = plait.json("token", "inspect", token, code=1)
    assert [each["id"] for each in seen["revocations"]] == [told["id"]]
    assert "taken away" in seen["refusal"]
    assert [each["id"] for each in plait.json("token", "revocations")] == [told["id"]]
    assert plait("token", "revocations") == 0
    assert "left the company" in plait.out
    assert plait("token", "restore", told["id"]) == 0
    assert plait("token", "inspect", token) == 0
    assert plait.json("token", "revocations") == []
    assert plait("token", "restore", told["id"]) == cli.FAILED
    assert "plait token revocations" in plait.err


def test_a_token_is_revoked_by_itself_and_by_its_id(plait: Plait) -> None:
    one, two, three = plait.token(), plait.token(), plait.token()
    id = jwt.decode(two, SECRET, ["HS256"])["jti"]
    assert plait.json("token", "revoke", "--token", one)["token"] != id
    assert plait.json("token", "revoke", "--token", id)["token"] == id
    assert plait("token", "inspect", one) == cli.FAILED
    assert plait("token", "inspect", two) == cli.FAILED
    assert plait("token", "inspect", three) == 0


def test_a_token_without_an_id_is_revoked_by_its_digest(plait: Plait) -> None:
    claims = {"sub": "ann", "exp": time.time() + 600, "grants": []}
    token = jwt.encode(claims, SECRET, "HS256")
    assert plait("token", "inspect", token) == 0
    assert plait.json("token", "revoke", "--token", token)["token"].startswith("sha256:")
    assert plait("token", "inspect", token) == cli.FAILED


def test_the_right_on_some_documents_is_reduced(plait: Plait) -> None:
    token = plait.token("--docs", "*", "--access", "write")
    revoke = ("token", "revoke", "--document", "notes/*", "--access", "read", "--expires", "7d")
    assert plait(*revoke) == 0
    assert "all rights but read on notes/*" in plait.out

    def right(name: str) -> str:
        return str(plait.json("token", "inspect", token, "--document", name)["document"]["access"])

    assert (right("notes/1"), right("todo")) == ("read", "write")


def test_rights_of_everybody_on_everything_are_not_taken_by_mistake(plait: Plait) -> None:
    assert plait("token", "revoke") == cli.MISUSED
    assert "name a subject" in plait.err
    assert plait("token", "revoke", "--document", "a\\b") == cli.MISUSED
    assert plait.json("token", "revocations") == []


def test_a_revocation_that_has_ended_is_not_listed(plait: Plait) -> None:
    async def put() -> None:
        store = open_store("sqlite:///plait.db")
        await store.open()
        value = {"subject": "ann", "token": None, "docs": None, "access": "none", "before": 1.0}
        await store.put_record(Record("revocation", "0" * 12, json.dumps(value), 1, 2))
        await store.close()

    asyncio.run(put())
    assert plait.json("token", "revocations") == []


# API keys


def test_a_key_is_made_shown_once_and_deleted(plait: Plait, tmp_path: Path) -> None:
    key = plait.key("--name", "Robot")
    assert "shown once" in plait.err
    id, secret = key.split("_", 2)[1:]
    assert secret not in "".join(
        path.read_bytes().decode("latin1") for path in tmp_path.iterdir() if path.is_file()
    )
    (listed,) = plait.json("key", "list")
    assert listed["id"] == id and listed["subject"] == "robot" and listed["name"] == "Robot"
    assert listed["grants"] == [{"docs": "*", "access": "admin"}] and listed["expires"] is None
    assert plait("key", "list") == 0
    assert "robot (Robot): admin on *" in plait.out and secret not in plait.out
    assert plait("token", "inspect", key) == 0
    assert plait.out.endswith("Accepted   by keys\n")
    assert plait("key", "delete", id) == 0
    assert plait("token", "inspect", key) == cli.FAILED
    assert plait("key", "delete", id) == cli.FAILED
    assert "plait key list" in plait.err


def test_a_key_ends_if_that_is_wanted(plait: Plait) -> None:
    told = plait.json(
        *("key", "create", "--subject", "robot", "--docs", "x", "--access", "read"),
        *("--expires", "7d"),
    )
    assert told["key"].startswith(f"plait_{told['id']}_")
    (listed,) = plait.json("key", "list")
    assert listed["expires"] == told["expires"] is not None
    assert plait("key", "list") == 0
    assert "in 7 days" in plait.out


def test_a_key_is_revoked_like_a_token(plait: Plait) -> None:
    key = plait.key()
    assert plait.json("token", "revoke", "--token", key)["token"] == key.split("_")[1]
    assert plait("token", "inspect", key) == cli.FAILED
    assert "Taken away" in plait.out


# The audit log


def test_what_is_done_is_in_the_audit_log(
    plait: Plait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLAIT_AUDIT_LOG", str(tmp_path / "audit.jsonl"))
    token, key = plait.token(), plait.key()
    revoked = plait.json("token", "revoke", "--token", token)["id"]
    assert plait("token", "restore", revoked) == 0
    assert plait("key", "delete", key.split("_")[1]) == 0
    text = (tmp_path / "audit.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    assert [each["event"] for each in events] == [
        "token.created",
        "key.created",
        "revocation.created",
        "revocation.removed",
        "key.deleted",
    ]
    assert {each["by"] for each in events} == {"command line"}
    assert token not in text and key.split("_", 2)[2] not in text and SECRET not in text


COMMANDS = (
    *("token secret", "token create", "token inspect", "token revoke", "token revocations"),
    *("token restore", "key create", "key list", "key delete"),
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, shown in (
        (["--help"], f"\n  {command} "),
        ([*command.split(), "--help"], f"usage: plait {command} "),
    ):
        with pytest.raises(SystemExit) as exit:
            cli.main(arguments)
        assert exit.value.code == 0
        assert shown in capsys.readouterr().out


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=str
)
def test_commands_in_the_documentation_are_understood(page: Path) -> None:
    blocks = re.findall(
        r"^ *```(?:sh|console)\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL
    )
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    commands = [line.strip().removeprefix("$ ") for line in lines]
    for command in (each for each in commands if each.startswith("plait ")):
        words = shlex.split(command, comments=True)
        ends = [at for at, word in enumerate(words) if word[0] in "|<>&;"]
        assert cli._parser().parse_args(words[1 : min(ends, default=None)]).run, command


# A server that runs


async def test_a_server_obeys(
    plait: Plait, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with PlaitProcess(tmp_path / "server", "--token-secret", SECRET) as server:
        monkeypatch.setenv("PLAIT_STORE", server.store_url)

        async def run(*arguments: str) -> str:
            assert await asyncio.to_thread(plait, *arguments) == 0, plait.err
            return plait.out.strip()

        async def closed_by(token: str, *arguments: str) -> int:
            """Return the code with which a command closes a connection."""
            headers = {"authorization": f"Bearer {token}"}
            async with connect(f"{server.ws_url}/ws/notes", additional_headers=headers) as socket:
                await socket.recv()
                await run(*arguments)
                with pytest.raises(ConnectionClosed) as ended:
                    while True:
                        await asyncio.wait_for(socket.recv(), DEADLINE_SECONDS)
                assert ended.value.rcvd is not None
                return ended.value.rcvd.code

        docs = ("--docs", "notes", "--access", "write")
        token = await run("token", "create", "--subject", "ann", *docs)
        key = await run("key", "create", "--subject", "robot", *docs)
        for held, command in (
            (token, ("token", "revoke", "--subject", "ann")),
            (key, ("key", "delete", key.split("_")[1])),
        ):
            assert await closed_by(held, *command) == 4401
        await server.stop()
