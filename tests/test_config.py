"""broker.config: where a setting may come from, which source wins, and what a mistake says."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.config import (
    SETTINGS,
    Address,
    Config,
    ConfigError,
    default_data_folder,
    load,
    read_endpoint,
    show,
)

HOME = {"HOME": "/home/somebody"}


def refusal(
    *, flags: dict[str, object] | None = None, environ: dict[str, str] | None = None
) -> str:
    with pytest.raises(ConfigError) as caught:
        load(flags=flags or {}, environ=HOME | (environ or {}))
    return str(caught.value)


def file_refusal(path: Path, content: str | bytes) -> str:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        load(flags={}, environ=HOME, file=str(path))
    return str(caught.value)


def test_nothing_said_gives_the_defaults_on_loopback() -> None:
    config, sources = load(flags={}, environ=HOME)
    assert config.data == Path("/home/somebody/.local/share/kotak")
    assert config.zmq == "tcp://127.0.0.1:8890"
    assert config.text == Address("127.0.0.1", 8889)
    assert config.http == Address("127.0.0.1", 8891)
    assert not config.demo
    assert not config.register
    assert config.exposures() == []
    assert set(sources.values()) == {"default"}
    assert list(sources) == list(SETTINGS)


def test_a_flag_wins_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "kotak.toml"
    file.write_text('workers = 8\ndrain_ms = 100\nlog_level = "debug"\ndemo = true\n')
    environ = HOME | {"KOTAK_WORKERS": "16", "KOTAK_DRAIN_MS": "2_00"}
    config, sources = load(flags={"workers": "32", "text": None}, environ=environ, file=str(file))
    assert (config.workers, config.drain_ms, config.log_level) == (32, 200, "debug")
    assert config.demo
    assert sources["workers"] == "--workers"
    assert sources["drain_ms"] == "KOTAK_DRAIN_MS"
    assert sources["log_level"] == str(file)
    assert sources["text"] == "default"


def test_the_environment_may_name_the_file_and_a_flag_another(tmp_path: Path) -> None:
    one, two = tmp_path / "one.toml", tmp_path / "two.toml"
    one.write_text("workers = 5")
    two.write_text("workers = 6")
    environ = HOME | {"KOTAK_CONFIG": str(one)}
    assert load(flags={}, environ=environ).config.workers == 5
    assert load(flags={}, environ=environ, file=str(two)).config.workers == 6


@pytest.mark.parametrize("name", SETTINGS)
def test_every_setting_is_accepted_from_all_three_sources_as_it_is_shown(
    name: str, tmp_path: Path
) -> None:
    setting = SETTINGS[name]
    shown = str(tmp_path) if name == "data" else show(setting.default)
    expected = tmp_path if name == "data" else setting.default
    file = tmp_path / "kotak.toml"
    native = shown if isinstance(setting.default, bool | int) else f'"{shown}"'
    file.write_text(f"{name} = {native}")
    for loaded in (
        load(flags={name: shown}, environ=HOME),
        load(flags={}, environ=HOME | {setting.variable: shown}),
        load(flags={}, environ=HOME, file=str(file)),
    ):
        assert getattr(loaded.config, name) == expected
        assert loaded.sources[name] != "default"


def test_every_setting_has_a_help_text_and_a_default_of_the_dataclass(tmp_path: Path) -> None:
    plain = Config(data=tmp_path)
    for setting in SETTINGS.values():
        assert setting.help
        assert setting.kind.allowed
        if setting.name != "data":
            assert getattr(plain, setting.name) == setting.default


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("workers", "1"),
        ("workers", "65"),
        ("workers", "4.0"),
        ("workers", "four"),
        ("workers", ""),
        ("workers", "9" * 5_000),
        ("workers", "٤"),
        ("drain_ms", "4001"),
        ("drain_ms", "-1"),
        ("demo", "maybe"),
        ("log_level", "INFO"),
        ("store", "redis:localhost"),
        ("store", "redis://"),
        ("store", "redis+ring://localhost"),
        ("store", "sqlite"),
        ("data", ""),
        ("data", "a\0b"),
        ("zmq", "127.0.0.1:8890"),
        ("zmq", "tcp://off"),
        ("zmq", "tcp://127.0.0.1"),
        ("zmq", "ipc:///tmp/x"),
        ("text", "8889"),
        ("text", "127.0.0.1:65536"),
        ("text", "::1:8889"),
        ("text", "[nonsense]:8889"),
        ("text", "a b:8889"),
        ("text", "127.0.0.1:-1"),
        ("curve_key", ""),
        ("curve_clients", "a\0b"),
        ("insecure_public", "perhaps"),
    ],
)
def test_a_bad_value_names_its_source_the_value_and_what_is_allowed(name: str, value: str) -> None:
    setting = SETTINGS[name]
    for text, source in (
        (refusal(flags={name: value}), setting.flag),
        (refusal(environ={setting.variable: value}), setting.variable),
    ):
        assert text.startswith(f"{source} is ")
        assert text.endswith(f"but must be {setting.kind.allowed}")
        assert "\n" not in text
        assert len(text) < 300


@pytest.mark.parametrize(
    "line",
    ["workers = true", "workers = 4.0", "demo = 1", "log_json = []", "text = false", "data = 7"],
)
def test_a_file_must_use_the_right_type(line: str, tmp_path: Path) -> None:
    text = file_refusal(tmp_path / "kotak.toml", line)
    assert f"kotak.toml: {line.split(maxsplit=1)[0]} is " in text


def test_what_stands_before_the_at_sign_of_an_address_is_never_shown() -> None:
    text = refusal(flags={"store": "rediz://:secret@there@host/0"})
    assert "secret" not in text
    assert "host/0" in text


def test_a_password_in_the_stores_address_is_taken_and_never_shown() -> None:
    url = "redis+cluster://kotak:secret@one:1,two:2?replicas=1"
    config = load(flags={"store": url}, environ=HOME).config
    assert config.store == url
    assert show(config.store) == "redis+cluster://***@one:1,two:2?replicas=1"


def test_an_unknown_key_in_the_file_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    text = file_refusal(tmp_path / "kotak.toml", "worker = 4")
    assert text.endswith("there is no setting 'worker'; did you mean workers?")
    text = file_refusal(tmp_path / "kotak.toml", "colour = 4")
    assert "check-config" in text


def test_a_misspelt_variable_is_refused_and_a_foreign_one_left_alone() -> None:
    text = refusal(environ={"KOTAK_WORKRES": "4"})
    assert text == "there is no setting KOTAK_WORKRES; did you mean KOTAK_WORKERS?"
    assert "KOTAK_WORKERS" in refusal(environ={"KOTAK_workers": "4"})
    # Set by container platforms, and by the clients' users.
    foreign = {"KOTAK_PORT": "tcp://10.0.0.1:1", "KOTAK_SERVICE_HOST": "10.0.0.1"}
    clients = {"KOTAK_BROKER": "x", "KOTAK_PASSWORD": "x", "KOTAK_SESSION_FILE": "x"}
    load(flags={}, environ=HOME | foreign | clients)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"workers = = 4", "is not TOML"), (b"\xff\xfe", "not UTF-8"), (b"#" * 2**21, "1 MiB")],
)
def test_a_file_that_is_no_configuration_says_so(content: bytes, said: str, tmp_path: Path) -> None:
    assert said in file_refusal(tmp_path / "kotak.toml", content)


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"missing\.toml: No such file"):
        load(flags={}, environ=HOME, file=str(tmp_path / "missing.toml"))


def test_settings_that_contradict_each_other_are_refused_with_both_sources() -> None:
    text = refusal(flags={"session_idle_ms": "5000"}, environ={"KOTAK_SESSION_MAX_MS": "4000"})
    assert text == (
        "session_idle_ms is 5000 (--session-idle-ms), but must not be above session_max_ms, "
        "which is 4000 (KOTAK_SESSION_MAX_MS)"
    )
    assert "dedup_ids_max" in refusal(flags={"dedup_ids_max": "1"})


def test_ipv6_addresses_stand_in_brackets_and_come_out_the_same() -> None:
    config = load(flags={"text": "[::1]:0", "zmq": "tcp://[::1]:8890"}, environ=HOME).config
    assert config.text == Address("::1", 0)
    assert show(config.text) == "[::1]:0"
    assert config.zmq == "tcp://[::1]:8890"
    assert config.exposures() == []


def test_a_door_that_is_off_is_none() -> None:
    config = load(flags={"text": "off", "http": "off"}, environ=HOME).config
    assert config.text is None
    assert config.http is None
    assert show(config.text) == "off"


PUBLIC = {"zmq": "tcp://0.0.0.0:8890", "text": "[::]:8889", "http": "chat.example:80"}


def exposed(**more: object) -> list[str]:
    config = load(flags={**PUBLIC, **more}, environ=HOME).config
    return [sentence.split()[0] for sentence in config.exposures()]


def test_every_door_beyond_this_machine_is_named_unless_it_encrypts() -> None:
    assert exposed() == ["zmq", "text", "http"]
    assert exposed(curve_key="broker.key") == ["text", "http"]
    assert exposed(tls_cert="cert.pem", tls_key="key.pem") == ["zmq", "http"]
    assert exposed(zmq="tcp://*:8890", text="off") == ["zmq", "http"]
    local = {"zmq": "tcp://localhost:1", "text": "127.9.9.9:1", "http": "[::1]:1"}
    assert exposed(**local) == []


def test_naming_the_risk_does_not_make_a_door_safe() -> None:
    assert exposed(insecure_public=True) == ["zmq", "text", "http"]


def test_one_door_can_be_asked_about_alone() -> None:
    (sentence,) = load(flags=PUBLIC, environ=HOME).config.exposures(["text"])
    assert sentence.startswith("text listens on [::]:8889, beyond this machine, and without enc")
    assert "Set tls_cert and tls_key" in sentence


@pytest.mark.parametrize(
    ("given", "missing"),
    [("tls_cert", "tls_key"), ("tls_key", "tls_cert"), ("curve_clients", "curve_key")],
)
def test_half_an_encryption_is_refused(given: str, missing: str) -> None:
    assert refusal(flags={given: "some/file"}) == (
        f"{given} (--{given.replace('_', '-')}) needs {missing}, which is off"
    )


def test_the_data_folder_follows_xdg_and_a_relative_one_is_made_absolute() -> None:
    assert default_data_folder({"XDG_DATA_HOME": "/x"}) == Path("/x/kotak")
    assert default_data_folder({"XDG_DATA_HOME": "x", **HOME}).parts[:3] == (
        "/",
        "home",
        "somebody",
    )
    assert load(flags={"data": "here"}, environ=HOME).config.data == Path.cwd() / "here"


def test_read_endpoint_names_the_option_that_is_wrong() -> None:
    assert read_endpoint("tcp://localhost:1", source="--broker") == "tcp://localhost:1"
    with pytest.raises(ConfigError, match=r"^--broker is 'localhost', but must be tcp://"):
        read_endpoint("localhost", source="--broker")
