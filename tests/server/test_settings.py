"""Settings: where they come from, and what is said of those that can't be used."""

from pathlib import Path

import pytest

from plait.server.errors import ConfigError
from plait.server.settings import NAMES, Settings, early_log_format, flag_help, load


def test_without_anything_the_defaults_hold() -> None:
    assert load({}, {}) == Settings()
    assert Settings().host == "127.0.0.1"
    assert Settings().allow_anonymous is False


def test_flags_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text('port = 1\nidle_seconds = 1\nhistory_days = 1\nlog_level = "debug"\n')
    environment = {"PLAIT_CONFIG": str(file), "PLAIT_PORT": "2", "PLAIT_IDLE_SECONDS": "2"}
    chosen = load({"port": "3", "host": None}, environment)
    assert (chosen.port, chosen.idle_seconds, chosen.history_days) == (3, 2.0, 1.0)
    assert chosen.log_level == "debug"


def test_a_named_file_wins_over_the_environments(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("port = 1")
    (tmp_path / "b.toml").write_text("port = 2")
    chosen = load({}, {"PLAIT_CONFIG": str(tmp_path / "a.toml")}, str(tmp_path / "b.toml"))
    assert chosen.port == 2


def test_lists_and_switches_have_their_forms(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text('allow_origin = ["https://a.example", "https://b.example"]\n')
    both = ("https://a.example", "https://b.example")
    assert load({}, {}, str(file)).allow_origin == both
    assert load(
        {}, {"PLAIT_ALLOW_ORIGIN": "https://a.example, https://b.example"}
    ).allow_origin == (both)
    assert load({}, {"PLAIT_ALLOW_ANONYMOUS": "yes"}).allow_anonymous is True
    assert load({"allow_anonymous": "true"}, {}).allow_anonymous is True


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PLAIT_PROT": "1"}, "PLAIT_PROT: there is no such setting; did you mean PLAIT_PORT?"),
        ({"PLAIT_PORT": "abc"}, "PLAIT_PORT: 'abc' can't be used: a number is expected"),
        ({"PLAIT_PORT": "70000"}, "PLAIT_PORT: 70000 can't be used: it has to be from 0 to 65535"),
        ({"PLAIT_IDLE_SECONDS": "-1"}, "it has to be at least 0"),
        ({"PLAIT_IDLE_SECONDS": "nan"}, "it has to be at least 0"),
        ({"PLAIT_LOG_LEVEL": "loud"}, "one of debug, info, warning, error is expected"),
        ({"PLAIT_ALLOW_ANONYMOUS": "maybe"}, "true or false is expected"),
        ({"PLAIT_CONFIG": ""}, "PLAIT_CONFIG is set, and empty: give it a value, or unset the"),
    ],
)
def test_a_bad_variable_is_named_and_explained(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load({}, environment)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "there is no such setting; did you mean port?"),
        ("port = true", "True can't be used: a whole number is expected"),
        ("port = 1.5", "a whole number is expected"),
        ("host = 1", "text is expected"),
        ("port = 70000", "from 0 to 65535"),
        ("port =", "is not TOML"),
        (" \n", "is empty"),
        ('token_secret = ""', "empty: give it a value (`plait token secret` makes one), or take"),
        ("token_secret = []", "is set, and empty"),
        ('token_secret = [" "]', "is set, and empty"),
        ('allow_origin = ["https://a.example", ""]', "is set, and empty"),
        ('auth_secret = " "', "is set, and empty"),
        ('port = ""', "is set, and empty"),
    ],
)
def test_a_bad_file_is_named_and_explained(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "plait.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load({}, {}, str(file))
    assert said in str(raised.value) and "plait.toml" in str(raised.value)


@pytest.mark.parametrize("empty", ["", " ", ",\n"])
def test_what_is_set_and_empty_is_refused_wherever_it_is(empty: str, tmp_path: Path) -> None:
    """A secret that a failed command left empty would otherwise mean that there is none."""
    for name in NAMES:
        with pytest.raises(ConfigError, match=f"PLAIT_{name.upper()} is set, and empty") as raised:
            load({}, {f"PLAIT_{name.upper()}": empty})
        assert "unset the variable" in str(raised.value)
        flag = f"--{name.replace('_', '-')}"
        with pytest.raises(ConfigError, match=f"{flag} is set, and empty") as raised:
            load({name: empty}, {})
        assert "leave the option out" in str(raised.value)
    with pytest.raises(ConfigError, match="--config is set, and empty"):
        load({}, {}, empty)


def test_a_list_may_be_empty_where_that_is_said(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text("trusted_proxies = []\n")
    assert load({}, {}, str(file)).trusted_proxies == ()
    assert load({}, {"PLAIT_TRUSTED_PROXIES": "none"}).trusted_proxies == ()


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load({}, {}, str(tmp_path / "none.toml"))


def test_what_kubernetes_sets_beside_a_service_named_plait_is_left_alone() -> None:
    environment = {
        "PLAIT_SERVICE_HOST": "10.0.0.1",
        "PLAIT_SERVICE_PORT_HTTP": "80",
        "PLAIT_PORT": "tcp://10.0.0.1:80",
        "PLAIT_PORT_80_TCP": "tcp://10.0.0.1:80",
        "PLAIT_PORT_80_TCP_ADDR": "10.0.0.1",
    }
    assert load({}, environment) == Settings()


def test_every_setting_has_help_with_its_default() -> None:
    for name in NAMES:
        assert len(flag_help(name)) > 20
    assert "(default: 8000)" in flag_help("port")
    assert "(default: false)" in flag_help("allow_anonymous")


@pytest.mark.parametrize(
    ("arguments", "variable", "file", "found"),
    [
        ("serve", "", "", "text"),
        ("serve", "json", "", "json"),
        ("serve --log-format=json --port x", "text", "text", "json"),
        ("serve --log-format json", "", "text", "json"),
        ("serve --log-format text", "json", "json", "text"),
        ("serve --log-format", "", "", "text"),
        ("serve --no-such-flag", "", "json", "json"),
        ("serve", "loud", "", "text"),
    ],
)
def test_the_log_format_is_known_before_the_rest_is_understood(
    arguments: str, variable: str, file: str, found: str, tmp_path: Path
) -> None:
    """So that what is wrong with the rest is told in that format, too."""
    path = tmp_path / "plait.toml"
    path.write_text(f'log_format = "{file}"\nno_such_key = 1\n' if file else "not TOML")
    environment = {"PLAIT_LOG_FORMAT": variable, "PLAIT_CONFIG": str(path)}
    assert early_log_format(arguments.split(), environment) == found
    assert early_log_format(arguments.split(), {"PLAIT_CONFIG": str(tmp_path / "none")}) in (
        found if "--log-format" in arguments else "text"
    )
