"""What is in `deploy/` and the Dockerfile, held against the tools that read it and the code that it
runs: a name that changes here and not there is found before somebody deploys it.

Not tried here are an image and a cluster; docs/deploy.md says what was. The balancers are in
tests/test_balancers.py.
"""

import json
import re
import subprocess
import sys
import tomllib
from functools import cache
from ipaddress import IPv4Network, ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml
from starlette.routing import Route

from plait.server.app import Plait
from plait.server.auth.setup import check, configured
from plait.server.errors import ConfigError
from plait.server.proxies import trusted
from plait.server.refusal import HELD_SECONDS
from plait.server.settings import NAMES, Settings, load
from tests.support.server import PlaitProcess, environment, free_port

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
PAGE = (ROOT / "docs" / "deploy.md").read_text()
GOODBYE_SECONDS = 5
"""What a stopping server may take after it stored what was unsaved and sent its clients away."""

NOT_KUBERNETES_OWN = ("kustomization.yaml", "podmonitor.yaml")
"""Kinds that come with a tool, whose schemas the validator doesn't have."""


@cache
def parsed(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def manifest(name: str) -> Any:
    return parsed(KUBERNETES / f"{name}.yaml")


def variables_of_kubernetes() -> dict[str, str]:
    """Return the variables of the deployment, with the secret's as in the example."""
    (container,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    secret = manifest("secret.example")["stringData"]
    return {
        each["name"]: each["value"]
        if "value" in each
        else secret[each["valueFrom"]["secretKeyRef"]["key"]]
        for each in container["env"]
    }


def variables_of_compose(**given: str) -> dict[str, str]:
    """Return the variables of a node, with these in place of what is in `.env`.

    One without a value is passed on if it is set, and is not set if not.
    """
    environment = parsed(DEPLOY / "compose.yaml")["services"]["plait-1"]["environment"]
    return {
        name: re.sub(r"\$\{(\w+)(:[^}]*)?\}", lambda found: given.get(found[1], ""), str(value))
        for name, value in environment.items()
        if value is not None
    } | {
        name: given[name] for name, value in environment.items() if value is None and name in given
    }


def tool(name: str, *arguments: str | Path) -> None:
    """Run a tool that was installed beside Python; it has to be content."""
    command = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def seconds(text: str) -> int:
    """Return a duration of Compose in seconds."""
    number, unit = re.fullmatch(r"(\d+)(s|m)", text).groups()  # type: ignore[union-attr]
    return int(number) * {"s": 1, "m": 60}[unit]


def instructions(name: str) -> list[str]:
    """Return the arguments of all instructions of a kind in the Dockerfile, a line each."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [line.removeprefix(name).strip() for line in lines if line.startswith(f"{name} ")]


def copied() -> set[str]:
    """Return the paths that the Dockerfile takes from the repository."""
    return {
        word.rstrip("/")
        for arguments in instructions("COPY")
        if "--from" not in arguments
        for word in arguments.split()[:-1]
    }


# Everything that is YAML, with the tools that know its kind.


@pytest.mark.parametrize("path", sorted(DEPLOY.rglob("*.yaml")), ids=lambda path: path.name)
def test_yaml_can_be_read(path: Path) -> None:
    assert parsed(path)


def test_compose_file_is_one() -> None:
    tool("check-jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")


def test_kubernetes_accepts_the_manifests() -> None:
    paths = [path for path in KUBERNETES.glob("*.yaml") if path.name not in NOT_KUBERNETES_OWN]
    assert paths
    tool("kubernetes-validate", "--strict", *sorted(paths))


# Names: settings, metrics, routes.


@pytest.mark.parametrize(
    "path",
    [ROOT / "Dockerfile", ROOT / "docs" / "deploy.md", *sorted(DEPLOY.rglob("*.*"))],
    ids=lambda path: path.name,
)
def test_variables_are_settings(path: Path) -> None:
    named = set(re.findall(r"\bPLAIT_([A-Z_]+)\b", path.read_text())) - {"CONFIG"}
    assert {name.lower() for name in named} <= set(NAMES)


def test_values_of_variables_can_be_used() -> None:
    image = dict(re.findall(r"\b(PLAIT_\w+)=(\S+)", " ".join(instructions("ENV"))))
    compose = variables_of_compose(
        PLAIT_TOKEN_SECRET="x" * 32, PLAIT_ALLOW_ORIGIN="https://app.example.org"
    )
    assert "https://app.example.org" in load({}, compose).allow_origin
    for variables in (variables_of_kubernetes(), image):
        load({}, variables)


def test_metrics_in_rules_exist() -> None:
    described = set(re.findall(r"`(plait_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    described.add("plait_relay_connected")  # Only a node with a relay has it.
    for path in (DEPLOY / "prometheus-rules.yaml", KUBERNETES / "horizontalpodautoscaler.yaml"):
        used = set(re.findall(r"\bplait_\w+", path.read_text()))
        assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in used} <= described


def test_every_alert_is_explained() -> None:
    (group,) = parsed(DEPLOY / "prometheus-rules.yaml")["groups"]
    for rule in group["rules"]:
        assert f"| `{rule['alert']}` |" in PAGE, rule["alert"]
        assert rule["labels"]["severity"] in ("warning", "critical")


def test_autoscaler_is_told_what_it_asks_for() -> None:
    (asked,) = [
        metric["pods"]["metric"]["name"]
        for metric in manifest("horizontalpodautoscaler")["spec"]["metrics"]
        if metric["type"] == "Pods"
    ]
    (rule,) = parsed(DEPLOY / "prometheus-adapter.yaml")["rules"]["custom"]
    assert rule["name"]["as"] == asked
    assert rule["seriesQuery"].startswith(f"{asked}{{")


def test_paths_of_checks_are_routes() -> None:
    routes = {
        route.path
        for route in Plait(Settings(store="memory://")).asgi.routes
        if isinstance(route, Route)
    }
    pod = manifest("deployment")["spec"]["template"]
    (container,) = pod["spec"]["containers"]
    probed = {
        container[f"{probe}Probe"]["httpGet"]["path"]
        for probe in ("startup", "readiness", "liveness")
    }
    scraped = pod["metadata"]["annotations"]["prometheus.io/path"]
    monitored = manifest("podmonitor")["spec"]["podMetricsEndpoints"][0]["path"]
    balanced = re.findall(r"httpchk GET (\S+)", (DEPLOY / "haproxy.cfg").read_text())
    denied = re.findall(r"-m str (\S+)", (DEPLOY / "haproxy.cfg").read_text())
    assert probed | {scraped, monitored, *balanced, *denied} <= routes


# The image.


def test_image_takes_what_exists_and_is_sent_to_the_builder() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    for source in copied():
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source


def test_image_takes_all_that_the_wheel_needs() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {
        "pyproject.toml",
        "setup.py",
        project["project"]["readme"],
        *project["project"]["license-files"],
    }
    for folder in project["tool"]["setuptools"]["package-dir"].values():
        needed |= {str(path.relative_to(ROOT)) for path in (ROOT / folder).glob("*.py")}
        needed.add(f"{folder}/py.typed")
    needed |= {str(path.relative_to(ROOT)) for path in (ROOT / "web" / "static").iterdir()}
    taken = copied()
    assert [
        path
        for path in needed
        if not taken & {path, *(str(parent) for parent in Path(path).parents)}
    ] == []


def test_image_is_run_by_nobody_in_particular_and_lets_nobody_in_by_itself() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1])
    assert json.loads(instructions("ENTRYPOINT")[0]) == ["plait", "serve"]
    assert "ANONYMOUS" not in " ".join(instructions("ENV") + instructions("ENTRYPOINT"))
    assert instructions("EXPOSE") == [str(Settings().port)]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]


async def test_health_check_of_the_image(tmp_path: Path) -> None:
    check = json.loads(instructions("HEALTHCHECK")[0].split("CMD ", 1)[1])
    assert check[0] == "plait"

    def healthy(port: int) -> bool:
        command = [sys.executable, "-m", "plait.server", *check[1:]]
        done = subprocess.run(
            command, env=environment(PLAIT_PORT=str(port)), capture_output=True, check=False
        )
        return done.returncode == 0

    async with PlaitProcess(tmp_path) as server:
        assert healthy(server.port)
        await server.stop()
    assert not healthy(free_port())


# Compose and the balancers.


def test_balancers_know_the_nodes() -> None:
    services = parsed(DEPLOY / "compose.yaml")["services"]
    nodes = {f"{name}:{Settings().port}" for name in services if name.startswith("plait")}
    haproxy = re.findall(r"^    server \S+ (\S+)", (DEPLOY / "haproxy.cfg").read_text(), re.M)
    nginx = re.findall(r"^        server ([^\s;]+:\d+)", (DEPLOY / "nginx.conf").read_text(), re.M)
    assert set(haproxy) == set(nginx) == nodes
    assert len(haproxy) == len(nginx) == 2 * len(nodes)


def test_secrets_come_from_the_environment() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    example = (DEPLOY / ".env.example").read_text()
    variables = set(re.findall(r"\$\{(\w+)", text))
    assert variables == set(re.findall(r"^(\w+)=", example, re.MULTILINE))
    for line in text.splitlines():
        if "PASSWORD:" in line or "SECRET:" in line:
            assert "${" in line, line
    for name in variables:
        if name.endswith(("PASSWORD", "SECRET")):
            assert f"\n{name}=\n" in example
            assert text.count(f"${{{name}") == text.count(f"${{{name}:?"), "it may be empty"


def test_nobody_is_let_in_from_outside_until_that_is_asked_for() -> None:
    compose = parsed(DEPLOY / "compose.yaml")
    published = {
        name: each["ports"] for name, each in compose["services"].items() if "ports" in each
    }
    assert set(published) == {"haproxy"}
    assert all(port.startswith("${LISTEN_ADDRESS:-127.0.0.1}:") for port in published["haproxy"])
    assert compose["networks"]["inside"]["internal"] is True
    paths = {path["path"] for path in manifest("ingress")["spec"]["rules"][0]["http"]["paths"]}
    assert paths == {"/", "/ws", "/api", "/static"}


# Who may come in.


def test_only_tokens_let_anybody_in() -> None:
    for path in [ROOT / "Dockerfile", *DEPLOY.rglob("*.*"), ROOT / "docs" / "deploy.md"]:
        if path.is_file():
            assert "ALLOW_ANONYMOUS" not in path.read_text(), path
    secret = "0123456789abcdef" * 4
    compose = load({}, variables_of_compose(PLAIT_TOKEN_SECRET=secret))
    kubernetes = load({}, variables_of_kubernetes() | {"PLAIT_TOKEN_SECRET": secret})
    for settings in (compose, kubernetes):
        check(settings)
        assert configured(settings)
        assert not settings.allow_anonymous
        assert settings.token_secret == (secret,)


def test_a_secret_that_nobody_made_is_not_accepted() -> None:
    with pytest.raises(ConfigError, match="PLAIT_TOKEN_SECRET is set, and empty"):
        load({}, variables_of_compose())
    with pytest.raises(ConfigError, match="token_secret"):
        check(load({}, variables_of_kubernetes()))


def test_compose_believes_the_balancer_and_nobody_else() -> None:
    compose = parsed(DEPLOY / "compose.yaml")
    address = compose["services"]["haproxy"]["networks"]["inside"]["ipv4_address"]
    for name, service in compose["services"].items():
        if name.startswith("plait"):
            assert load({}, {"PLAIT_TRUSTED_PROXIES": address}).trusted_proxies == tuple(
                service["environment"]["PLAIT_TRUSTED_PROXIES"].split()
            )
            assert service["networks"] == ["inside"]
    (pool,) = compose["networks"]["inside"]["ipam"]["config"]
    subnet, given_out = IPv4Network(pool["subnet"]), IPv4Network(pool["ip_range"])
    assert ip_address(address) in subnet
    assert given_out.subnet_of(subnet)
    # Nobody else is given it.
    assert ip_address(address) not in given_out
    assert address != pool["gateway"]


def test_no_deployment_believes_everybody() -> None:
    for variables in (variables_of_compose(PLAIT_TOKEN_SECRET="x" * 32), variables_of_kubernetes()):
        settings = load({}, variables)
        assert settings.trusted_proxies != Settings().trusted_proxies
        assert "*" not in trusted(settings.trusted_proxies)
        assert all(ip_network(each).is_private for each in settings.trusted_proxies)
        # So clients are told apart, and limits are as they come.
        limits = [name for name in NAMES if "per_address" in name or name.startswith("address_")]
        assert [name for name in limits if getattr(settings, name) == 0] == []


def test_clients_do_not_say_where_they_come_from() -> None:
    haproxy = (DEPLOY / "haproxy.cfg").read_text()
    assert "http-request set-header X-Forwarded-For %[src]" in haproxy
    assert "option forwardfor" not in haproxy
    nginx = (DEPLOY / "nginx.conf").read_text()
    assert "proxy_set_header X-Forwarded-For $remote_addr;" in nginx
    for text in (nginx, (ROOT / "README.md").read_text()):
        assert "$proxy_add_x_forwarded_for" not in text


def test_silence_is_borne_for_longer_than_a_refused_browser_is_held() -> None:
    nginx = (DEPLOY / "nginx.conf").read_text()
    annotations = manifest("ingress")["metadata"]["annotations"]
    limits = re.findall(r"proxy_(?:read|send)_timeout (\d+)s;", nginx)
    for each in ("read", "send"):
        limits.append(annotations[f"nginx.ingress.kubernetes.io/proxy-{each}-timeout"])
    assert len(limits) == 4
    assert all(int(limit) > 2 * HELD_SECONDS for limit in limits)
    assert "timeout tunnel 1h" in (DEPLOY / "haproxy.cfg").read_text()


def test_stopping_is_given_the_time_that_it_takes() -> None:
    plait = parsed(DEPLOY / "compose.yaml")["services"]["plait-1"]
    drain = int(plait["environment"]["PLAIT_DRAIN_SECONDS"])
    # Once for what is unsaved, once for sending clients away.
    assert seconds(plait["stop_grace_period"]) > 2 * drain + GOODBYE_SECONDS

    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (drain,) = [
        int(each["value"]) for each in container["env"] if each["name"] == "PLAIT_DRAIN_SECONDS"
    ]
    _, before = container["lifecycle"]["preStop"]["exec"]["command"]
    granted = pod["terminationGracePeriodSeconds"]
    assert granted > int(before) + 2 * drain + GOODBYE_SECONDS


# Kubernetes.


def test_what_selects_pods_selects_these() -> None:
    deployment = manifest("deployment")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    pod = deployment["spec"]["template"]["spec"]
    selectors = [
        deployment["spec"]["selector"]["matchLabels"],
        manifest("service")["spec"]["selector"],
        manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"],
        manifest("networkpolicy")["spec"]["podSelector"]["matchLabels"],
        manifest("podmonitor")["spec"]["selector"]["matchLabels"],
        *(each["labelSelector"]["matchLabels"] for each in pod["topologySpreadConstraints"]),
    ]
    assert [selector for selector in selectors if not selector.items() <= labels.items()] == []
    target = manifest("horizontalpodautoscaler")["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", deployment["metadata"]["name"])


def test_ports_are_those_of_the_container() -> None:
    (container,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    (port,) = container["ports"]
    assert port["containerPort"] == Settings().port
    (exposed,) = manifest("service")["spec"]["ports"]
    assert exposed["targetPort"] == port["name"]
    for path in manifest("ingress")["spec"]["rules"][0]["http"]["paths"]:
        backend = path["backend"]["service"]
        assert backend["name"] == manifest("service")["metadata"]["name"]
        assert backend["port"]["name"] == exposed["name"]


def test_secret_has_what_the_deployment_asks_for() -> None:
    (container,) = manifest("deployment")["spec"]["template"]["spec"]["containers"]
    asked = [each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each]
    secret = manifest("secret.example")
    assert {each["name"] for each in asked} == {secret["metadata"]["name"]}
    assert {each["key"] for each in asked} == set(secret["stringData"])


def test_kustomization_has_every_manifest_or_says_why_not() -> None:
    text = (KUBERNETES / "kustomization.yaml").read_text()
    resources = set(manifest("kustomization")["resources"])
    for path in KUBERNETES.glob("*.yaml"):
        assert path.name in text or path.name == "kustomization.yaml", path.name
    assert all((KUBERNETES / name).is_file() for name in resources)
