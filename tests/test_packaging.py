"""What is installed, and how it is run as a service: the pins, and the unit in packaging/."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from broker.config import SETTINGS
from broker.exits import Exit
from clients import Client
from clients.curve_keys import read_curve
from tests.e2e.program import PATIENCE_S, ROOT, run
from tests.e2e.program import environment as clean
from tests.sandboxed import CANNOT, UNIT, unit_options

PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS: Final = PROJECT["project"]["optional-dependencies"]
RUNTIME: Final = [*PROJECT["project"]["dependencies"], *EXTRAS["redis"]]
DEV: Final = [*RUNTIME, *EXTRAS["dev"]]
BUILD: Final = PROJECT["build-system"]["requires"]
#: Of a pin: its name, its version, what it is for (a marker), and its hashes.
_PIN: Final = re.compile(
    r"^([a-z0-9-]+)==(\S+)(?: ; (.+?))? \\\n((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)",
    re.MULTILINE,
)
#: What SECURITY and the unit's comments promise.
PROMISED: Final = {
    "Type": "notify",
    "Restart": "on-failure",
    "User": "kotak",
    "StateDirectory": "kotak",
    "StateDirectoryMode": "0700",
    "UMask": "0077",
    "LimitNOFILE": "65536",
    "LimitCORE": "0",
    "MemorySwapMax": "0",
    "CapabilityBoundingSet": "",
    "AmbientCapabilities": "",
    "ProtectSystem": "strict",
    "ProtectProc": "invisible",
    "DevicePolicy": "closed",
    "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
    "SystemCallArchitectures": "native",
    **dict.fromkeys(
        [
            *("NoNewPrivileges", "ProtectHome", "ProtectClock", "ProtectHostname"),
            *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
            *("ProtectControlGroups", "PrivateTmp", "PrivateDevices", "PrivateUsers"),
            *("PrivateMounts", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime"),
            *("RestrictSUIDSGID", "LockPersonality", "MemoryDenyWriteExecute"),
        ],
        "yes",
    ),
}
#: Tenths, as systemd-analyze weighs it; 2.0 is what we promise.
EXPOSURE_MAX: Final = 20


def pins(name: str) -> str:
    return (ROOT / f"requirements/{name}.txt").read_text()


# --- Pins ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "wanted"), [("runtime", RUNTIME), ("dev", DEV), ("build", BUILD)])
def test_every_dependency_is_pinned_inside_its_range_and_by_hash(
    name: str, wanted: list[str]
) -> None:
    pinned = {pin[1]: pin[2] for pin in _PIN.finditer(pins(name))}
    for each in map(Requirement, wanted):
        version = pinned.get(canonicalize_name(each.name))
        assert version, f"{each.name} is not in requirements/{name}.txt: run requirements/renew"
        assert each.specifier.contains(version), f"{each} is pinned to {version}"


@pytest.mark.parametrize("name", ["runtime", "dev", "build"])
def test_a_pin_file_holds_pins_with_hashes_and_nothing_else(name: str) -> None:
    text = pins(name)
    rest = "".join(line for line in _PIN.sub("", text).splitlines(keepends=True))
    assert all(line.startswith("# ") for line in rest.splitlines()), rest
    assert "requirements/renew" in rest  # how to renew it
    assert "://" not in text  # no index, no host: those are the installer's
    assert len(_PIN.findall(text)) == text.count("==") - text.count(" == '")


def test_tests_judge_the_releases_that_run() -> None:
    runtime, dev = ({pin[0] for pin in _PIN.finditer(pins(name))} for name in ("runtime", "dev"))
    assert runtime <= dev


def test_a_pin_is_for_every_machine_not_for_the_one_that_it_was_made_on() -> None:
    """Each wheel has a hash of its own: one for each Python, processor and system."""
    for name in ("pyzmq", "msgpack", "argon2-cffi-bindings", "cffi"):
        found = re.search(rf"^{name}==.*?(?=^\S|\Z)", pins("runtime"), re.MULTILINE | re.DOTALL)
        assert found
        assert found[0].count("--hash=") > 20


# --- The unit --------------------------------------------------------------------------------


@pytest.mark.parametrize(("option", "value"), PROMISED.items())
def test_the_unit_holds_what_is_promised(option: str, value: str) -> None:
    assert unit_options().get(option) == [value]


def test_the_unit_limits_memory_tasks_and_system_calls() -> None:
    options = unit_options()
    assert options["MemoryMax"]
    assert options["TasksMax"]
    assert options["SystemCallFilter"][0] == "@system-service"
    assert options["SystemCallFilter"][1].startswith("~@privileged")


def test_the_unit_starts_kotak_with_flags_and_variables_that_exist() -> None:
    program, command, *words = shlex.split(unit_options()["ExecStart"][0])
    assert (Path(program).name, command) == ("kotak", "serve")
    assert {word for word in words if word.startswith("-")} <= {
        setting.flag for setting in SETTINGS.values()
    }
    named = set(re.findall(r"\bKOTAK_\w+", UNIT.read_text()))
    assert named
    assert named <= {setting.variable for setting in SETTINGS.values()}


def test_the_unit_does_not_restart_what_a_restart_does_not_heal() -> None:
    kept = {int(code) for code in unit_options()["RestartPreventExitStatus"][0].split()}
    assert {Exit.USAGE, Exit.DATA_FOLDER, Exit.GATE_FAILED} <= kept
    assert Exit.DISK_FAILED not in kept  # "start again to recover"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    _require("systemd-analyze")
    unit = tmp_path / "kotak.service"
    # Its program is looked for, and is not installed here.
    unit.write_text(UNIT.read_text().replace("/opt/kotak/.venv/bin/kotak", sys.executable))
    ended = _systemd("verify", "--man=no", str(unit))
    about_it = [line for line in ended.stderr.splitlines() if "kotak" in line]
    assert about_it == []


def test_systemd_counts_the_unit_among_the_well_confined() -> None:
    _require("systemd-analyze")
    ended = _systemd("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", str(UNIT))
    if "unrecognized option" in ended.stderr:
        pytest.skip("this systemd-analyze judges running services only")
    assert ended.returncode == 0, ended.stdout.splitlines()[-1]


def test_a_broker_serves_under_the_units_filter_and_without_memory_to_write_and_run(
    tmp_path: Path,
) -> None:
    """Encrypted, with a password to hash: libsodium, argon2 and cffi get what they need."""
    _require("systemd-analyze")
    key = tmp_path / "broker.key"
    assert run("keygen", str(key)).code == 0
    doors = ("--zmq", "tcp://127.0.0.1:0", "--text", "127.0.0.1:0", "--http", "127.0.0.1:0")
    words = ("serve", "--data", str(tmp_path / "data"), *doors, "--curve-key", str(key), "--demo")
    command = [sys.executable, "-m", "tests.sandboxed", *words]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=clean(None),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as confined:
        try:
            ready = _ready_line(confined)
            with Client(
                ready.split()[1].removeprefix("zmq="), curve=read_curve(f"{key}.pub")
            ) as me:
                me.login("shafwa", "mks")
                assert me.send("fadly", "hai").seq
        finally:
            confined.terminate()
        assert confined.wait(PATIENCE_S) == 0


def _ready_line(broker: subprocess.Popen[str]) -> str:
    assert broker.stdout
    assert broker.stderr
    for line in broker.stdout:
        if line.startswith("ready "):
            return line
    said = broker.stderr.read()
    if broker.wait(PATIENCE_S) == CANNOT:
        pytest.skip(said)
    pytest.fail(said)


def _require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program} here")


def _systemd(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *words],
        check=False, capture_output=True, text=True, timeout=60, env=clean(None),
    )  # fmt: skip
