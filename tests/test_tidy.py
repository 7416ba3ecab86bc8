"""Rules for the source itself: who imports whom, what stays pure, how long things are."""

import ast
import tomllib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("persistence", "web", "server")
PREFIX = "plait."

# Lowest first. A module imports only from rows above its own; those in one row don't know each
# other. The name of a package stands for its __init__.
LAYERS = (
    # Pages: they know nothing of documents.
    "web web.pages",
    # Stores: the contract, then SQLite and PostgreSQL, then memory, then what opens one of them.
    "persistence.store persistence.ownership",
    "persistence.announcing persistence.unsaved",
    "persistence.compaction persistence.writer persistence.lock persistence.sqlite_errors",
    "persistence.postgres_address persistence.postgres_errors",
    "persistence.sqlite_connection persistence.postgres_connection",
    "persistence.schema persistence.files persistence.sqlite_check persistence.memory_records",
    "persistence.sqlite_records persistence.sqlite_outbox",
    "persistence.postgres_records persistence.postgres_outbox",
    "persistence.sqlite_read persistence.sqlite_write persistence.sqlite_watch",
    "persistence.sqlite_backup persistence.archive persistence.restore",
    "persistence.postgres_schema persistence.postgres_check",
    "persistence.postgres_read persistence.postgres_write",
    "persistence.sqlite",
    "persistence.transfer",
    "persistence.memory persistence.postgres",
    "persistence.opening",
    "persistence",
    # The process: what anything may say, obey and use.
    "server server.clock server.errors server.limits server.memory",
    "server.apart server.heads server.origins server.pace server.settings server.tempo",
    "server.interruption",
    "server.terminal",
    "server.turns",
    "server.logs",
    "server.tls",
    # Rights: who somebody is, what they may do, and how they show it.
    "server.auth server.auth.principal",
    "server.auth.asking server.auth.credentials server.auth.signatures server.auth.verifier",
    "server.auth.anonymous server.auth.callback server.auth.jwks server.auth.keys",
    "server.auth.jwt",
    "server.auth.chain server.auth.revocations",
    "server.auth.setup server.audit",
    "server.auth.guard",
    # Bounds: what one client and all of them may take, and what is counted.
    "server.capacity server.counters server.patience server.quota",
    "server.admission",
    # Webhooks: what an application is told of documents, when and how.
    "server.webhook_message",
    "server.visits server.webhook_pace",
    "server.webhook_post",
    "server.webhooks",
    # Bytes: frames, and updates as Yjs writes them.
    "server.wire server.wire.frames server.wire.messages server.wire.strict_json",
    "server.wire.lib0",
    "server.wire.values",
    "server.wire.presence server.wire.state_vector server.wire.update server.wire.ywebsocket",
    "server.wire.envelope",
    "server.wire.places server.wire.structs",
    "server.wire.keys server.wire.parents server.wire.readiness server.wire.shadowed",
    "server.wire.slices server.wire.stand_ins server.wire.surrogates",
    "server.wire.portions",
    "server.update_report",
    # Documents: one of them, what it shows, and how it comes back.
    "server.shown server.updates",
    "server.content",
    "server.appearance server.document",
    "server.cutting server.torn_characters server.replay",
    "server.revert server.folding",
    "server.compaction server.state",
    "server.facts server.recovery",
    "server.verification",
    # Rooms: one client, all clients of a document, all documents.
    "server.awareness server.outbox server.pending server.session",
    "server.member",
    "server.remote",
    "server.intake",
    "server.changes server.kept_state server.lines",
    "server.answers server.attendance server.borrowed server.fanout server.holding server.saving",
    # Nodes: what they say to each other, and the way there.
    "server.link server.redis_wire server.relay",
    "server.redis_relay",
    "server.room",
    "server.cluster server.connection server.leases server.loading server.records",
    "server.following server.rooms server.source",
    "server.upkeep",
    "server.hub",
    # The network: sockets, then REST, then the application.
    "server.framed",
    "server.listing server.metrics server.proxies server.pump server.watch",
    "server.handover",
    "server.incoming",
    "server.direct server.refusal server.visit",
    "server.channel server.endpoint",
    "server.openapi",
    "server.rest",
    "server.negotiation",
    "server.rights",
    "server.api",
    "server.app",
    "server.serving",
    # Commands.
    "server.command",
    "server.cli_documents server.cli_health server.cli_transfer server.cli_auth_words",
    "server.cli_auth server.cli_store",
    "server.cli_auth_keys",
    # The load generator: it speaks to servers as a client does.
    "server.histogram server.target server.typist",
    "server.editors server.machine server.scenarios",
    "server.load",
    "server.cli_bench server.cli_options",
    "server.cli_auth_options",
    "server.cli",
    "server.__main__",
)
RANK = {module: rank for rank, row in enumerate(LAYERS) for module in row.split()}

# These decide and compute; time, chance and bytes are handed to them.
PURE = {
    "persistence.compaction",
    "persistence.store",
    "server.admission",
    "server.awareness",
    "server.borrowed",
    "server.capacity",
    "server.counters",
    "server.errors",
    "server.limits",
    "server.outbox",
    "server.patience",
    "server.pending",
    "server.quota",
    "server.session",
    "server.webhook_message",
    "server.webhook_pace",
} | {module for module in RANK if f"{module}.".startswith("server.wire.")}
# Its protocols say what stores do, and stores wait.
PURE_BUT_ASYNC = {"persistence.store"}
IMPURE = set(
    "asyncio time random socket sqlite3 aiosqlite asyncpg starlette uvicorn pycrdt".split()
)

# A library that one concern needs stays with it: each user is listed with the reason.
USERS = {
    "asyncpg": {
        "persistence.postgres_connection": "has the pool, and runs statements",
        "persistence.postgres_errors": "knows what each error means",
        "persistence.postgres_check": "tells of an error that reading meets, and goes on",
        "persistence.postgres_read": "names the type of a row",
        "persistence.postgres_records": "names the type of a row",
        "persistence.postgres_outbox": "names the type of a row",
    },
    "pycrdt": {
        "server.updates": "merges updates and tells what is in them, without a document",
        "server.document": "holds the document that clients edit",
        "server.content": "reads a document's types to tell what they are",
        "server.shown": "reads a document's types to tell them as JSON",
        "server.appearance": "reads a document's types to compare what they show",
        "server.revert": "edits a document back to what it was",
        "server.torn_characters": "edits texts back to what they were",
    },
    "httpx": {
        "server.auth.asking": "asks applications and identity providers about tokens",
        "server.webhook_post": "posts webhooks",
    },
    "prometheus_client": {
        "server.metrics": "tells what is counted elsewhere",
    },
    "redis": {
        "server.redis_relay": "connects to Redis",
        "server.redis_wire": "reads what comes from it",
    },
    "websockets": {
        "server.wire.frames": "takes the masks off frames",
    },
    "picows": {
        "server.editors": "is the load generator's socket",
        "server.target": "knows what its handshakes raise",
    },
    "cryptography": {
        "server.auth.signatures": "reads public keys, and tells what they may be used with",
    },
    "jwt": {
        "server.auth.signatures": "verifies signatures",
        "server.auth.jwt": "signs tokens",
    },
    "starlette": {
        "web.pages": "serves pages and static files",
        "server.origins": "reads the headers of a request or a socket",
        "server.auth.credentials": "finds the token of a request or a socket",
        "server.auth.anonymous": "reads the headers of a request",
        "server.auth.guard": "reads who makes a request",
        "server.refusal": "is the socket of who is refused",
        "server.endpoint": "is the socket",
        "server.rights": "answers what is asked about rights",
        "server.rest": "reads requests, writes answers",
        "server.negotiation": "reads what a request asks for",
        "server.api": "is the REST interface",
        "server.app": "puts routes together",
    },
}

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 600

MAY_SLEEP = {
    # Waits for what is awaited, up to a deadline, so that no test has to guess how long it takes.
    "tests/support/deadlines.py",
    # Is a slow line for as long as something is sent over it.
    "tests/support/proxy.py",
    # Time is virtual there, and passes at once.
    "tests/persistence/test_writer_closing.py",
    "tests/persistence/test_writer_commits.py",
    "tests/simulation/editors.py",
    "tests/simulation/network.py",
    "tests/simulation/storage.py",
    "tests/simulation/world.py",
    "tests/support/writing.py",
}


@cache
def sources() -> dict[str, Path]:
    """Return the file of every module, a package's __init__ under the package's own name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "node_modules" not in path.parts:
                name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                found[name.removesuffix(".__init__")] = path
    return found


@cache
def tree(path: Path) -> ast.Module:
    """Return a file as syntax, parsed once for all tests."""
    return ast.parse(path.read_text(), str(path))


def imports(module: str) -> Iterator[tuple[int, str]]:
    """Yield line and full name of all that a module imports, inside functions too.

    `from package import name` is an import of the module `package.name` if there is one, otherwise
    of the package's __init__.
    """
    for node in ast.walk(tree(sources()[module])):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield node.lineno, name if name.removeprefix(PREFIX) in sources() else base


@cache
def files_of_tests() -> dict[str, Path]:
    """Return every file below tests by its path; what is in tests/node is JavaScript, or npm's."""
    found = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if not name.startswith("tests/node/"):
            found[name] = path
    return found


def libraries(module: str) -> set[str]:
    """Return the top-level names of what a module imports."""
    return {name.partition(".")[0] for _, name in imports(module)}


def test_every_module_is_ranked_once() -> None:
    times = Counter(module for row in LAYERS for module in row.split())
    problems = [f"give {module} a row in LAYERS" for module in sources() if module not in times]
    problems += [f"{module} is in LAYERS, but is gone" for module in times.keys() - sources()]
    problems += [f"{module} is in LAYERS {n} times" for module, n in times.items() if n > 1]
    assert not problems, "\n".join(problems)


@pytest.mark.parametrize("module", sources())
def test_imports_point_down(module: str) -> None:
    assert module in RANK, f"give {module} a row in LAYERS"
    problems = []
    for line, name in imports(module):
        target = name.removeprefix(PREFIX)
        if name.startswith("."):
            problems.append(f"line {line} has a relative import: write the whole name")
        elif f"{name}.".startswith(PREFIX) and target not in RANK:
            problems.append(f"line {line} imports {name}, which has no row in LAYERS")
        elif name.startswith(PREFIX) and RANK[target] >= RANK[module]:
            problems.append(f"line {line} imports {name}, which is not in a row above")
    assert not problems, f"{module}: " + "; ".join(problems)


@pytest.mark.parametrize("module", sorted(PURE))
def test_pure_modules_import_nothing_impure(module: str) -> None:
    found = libraries(module) & IMPURE
    assert not found, f"{module} is to be pure, but imports {', '.join(sorted(found))}"


@pytest.mark.parametrize("module", sorted(PURE - PURE_BUT_ASYNC))
def test_pure_modules_wait_for_nothing(module: str) -> None:
    lines = [
        node.lineno if not isinstance(node, ast.comprehension) else node.target.lineno
        for node in ast.walk(tree(sources()[module]))
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)
        or (isinstance(node, ast.comprehension) and node.is_async)
    ]
    assert not lines, f"{module} is to be pure, but is asynchronous in lines {sorted(lines)}"


@pytest.mark.parametrize("library", USERS)
def test_library_stays_with_its_users(library: str) -> None:
    users = {module for module in sources() if library in libraries(module)}
    assert users == USERS[library].keys()


@pytest.mark.parametrize("module", sources())
def test_functions_fit_on_a_screen(module: str) -> None:
    problems = []
    for node in ast.walk(tree(sources()[module])):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > FUNCTION_LINES_MAX:
                problems.append(f"{node.name} has {lines} lines")
    assert not problems, f"{module}, of at most {FUNCTION_LINES_MAX}: " + "; ".join(problems)


@pytest.mark.parametrize("module", sources())
def test_modules_are_short_and_say_what_they_are(module: str) -> None:
    lines = len(sources()[module].read_text().splitlines())
    assert lines <= MODULE_LINES_MAX, f"{module} has {lines} lines: split it"
    assert ast.get_docstring(tree(sources()[module])), f"{module} has no docstring"


def test_files_of_tests_are_short() -> None:
    problems = []
    for name, path in files_of_tests().items():
        lines = len(path.read_text().splitlines())
        if lines > MODULE_LINES_MAX:
            problems.append(f"{name} has {lines} lines: split it")
    assert not problems, "\n".join(problems)


def test_every_package_is_in_the_wheel() -> None:
    # setuptools says nothing of a package that isn't listed, and leaves it out.
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    inits = {module for module, path in sources().items() if path.name == "__init__.py"}
    assert sorted(listed) == sorted(PREFIX + module for module in inits)


@pytest.mark.parametrize("package", PACKAGES)
def test_package_says_that_it_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


def test_no_test_sleeps() -> None:
    problems = []
    for name, path in files_of_tests().items():
        if name in MAY_SLEEP:
            continue
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep":
                if ast.unparse(node) != "asyncio.sleep(0)":
                    problems.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert not problems, "wait for what is awaited (tests.support.deadlines):\n" + "\n".join(
        problems
    )
