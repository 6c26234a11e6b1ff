"""scripts/: .venv is made once, remade where it is broken, and every failure says what to do.

Each test copies the scripts into an empty folder and lets them meet a stand-in for Python, whose
``-m venv`` and ``-m pip`` only write down that they were called; no network is needed. The real
thing, slow, comes last.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TIMEOUT_S = 60
ORDINARY = "-n 2 --dist loadfile -m not slow"

#: Stands for a Python: real for -c, a note in $CALLS for -m. A venv that it makes holds itself.
PYTHON = """\
#!/usr/bin/env bash
set -eu
here="$(dirname "$0")"
case "${1:-} ${2:-}" in
"-m venv")
    echo venv >>"$CALLS"
    [ -z "${FAIL_VENV:-}" ] || { echo "no space left"; exit 1; }
    mkdir -p "$3/bin"
    cp "$0" "$3/bin/python"
    printf '#!/usr/bin/env bash\\necho "kotak $*"\\n' >"$3/bin/kotak"
    chmod +x "$3/bin/kotak" ;;
"-m pip")
    case "$*" in *--version*) exit 0 ;; esac
    echo "pip $*" >>"$CALLS"
    [ -z "${SLOW_PIP:-}" ] || sleep 0.3
    [ -z "${KILL_PIP:-}" ] || kill -9 "$PPID"
    [ -z "${WRONG_HASH:-}" ] || { echo "ERROR: THESE PACKAGES DO NOT MATCH THE HASHES"; exit 1; }
    [ -z "${FAIL_PIP:-}" ] || { echo "ERROR: no route to host"; exit 1; } ;;
"-m pytest") shift 2; echo "pytest $*" ;;
"-c import ensurepip, venv") [ -z "${NO_VENV:-}" ] ;;
"-c import sys; sys.exit(sys.version_info < (3, 11))") [ -z "${OLD:-}" ] ;;
*) exec "REAL" "$@" ;;
esac
"""


@dataclass
class Checkout:
    """A folder with the scripts, and a PATH on which the stand-in is the only Python."""

    root: Path
    bin: Path
    calls_file: Path

    def run(
        self, script: str, *words: str, cwd: Path | None = None, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        path = self.root / script if not script.startswith("/") else Path(script)
        return subprocess.run(
            [str(path), *words],
            cwd=cwd or "/",
            env=self.environ(**environ),
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    def environ(self, **more: str) -> dict[str, str]:
        return {"PATH": str(self.bin), "CALLS": str(self.calls_file), **more}

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    root = tmp_path / "a checkout"
    shutil.copytree(ROOT / "scripts", root / "scripts")
    (root / "pyproject.toml").write_text("[project]\n")
    (root / "requirements").mkdir()
    for pins in ("build", "runtime", "dev"):
        (root / f"requirements/{pins}.txt").write_text("")
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in [
        "bash",
        "env",
        "dirname",
        "readlink",
        "cat",
        "cksum",
        "rm",
        "mkdir",
        "touch",
        "tail",
        "tee",
        "cp",
        "chmod",
        "sleep",
        "grep",
    ]:
        found = shutil.which(tool)
        assert found
        (tools / tool).symlink_to(found)
    python = tools / "python3.11"
    python.write_text(PYTHON.replace("REAL", sys.executable))
    python.chmod(0o755)
    return Checkout(root, tools, tmp_path / "calls")


def test_the_first_run_installs_and_says_so_and_the_second_is_silent(checkout: Checkout) -> None:
    first = checkout.run("scripts/kotak", "who")
    assert first.stdout == "kotak who\n"
    assert "making" in first.stderr
    assert "installing what Kotak needs" in first.stderr
    assert len(first.stderr.splitlines()) == 2
    assert [call.split()[0] for call in checkout.calls] == ["venv", "pip", "pip"]
    second = checkout.run("scripts/kotak", "who")
    assert (second.stdout, second.stderr) == ("kotak who\n", "")
    assert len(checkout.calls) == 3


def test_pip_is_quiet_and_installs_what_is_pinned_and_then_kotak_alone(checkout: Checkout) -> None:
    checkout.run("scripts/broker")
    pip, pins = "pip -m pip install --quiet --disable-pip-version-check", checkout.root
    files = (f"{pins}/requirements/{name}.txt" for name in ("build", "runtime"))
    build, runtime = (f"--requirement {file}" for file in files)
    assert checkout.calls[1:] == [
        f"{pip} --require-hashes {build} {runtime}",
        f"{pip} --no-deps --no-build-isolation --editable {checkout.root}",
    ]


def test_broker_is_kotak_serve_with_its_arguments_untouched(checkout: Checkout) -> None:
    assert (
        checkout.run("scripts/broker", "--data", "a b", "*").stdout == "kotak serve --data a b *\n"
    )


def test_broker_becomes_the_process_so_that_signals_reach_it(checkout: Checkout) -> None:
    checkout.run("scripts/kotak")
    serve = checkout.root / ".venv/bin/kotak"
    serve.write_text("#!/usr/bin/env bash\necho $$\nread -r _\n")
    with subprocess.Popen(
        [checkout.root / "scripts/broker"],
        env=checkout.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as running:  # fmt: skip
        assert running.stdout
        assert int(running.stdout.readline()) == running.pid
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == -signal.SIGTERM


def test_scripts_work_through_a_symlink_from_any_folder(checkout: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(checkout.root / "scripts/kotak")
    assert checkout.run(str(link), cwd=tmp_path).returncode == 0
    assert (checkout.root / ".venv").is_dir()
    assert not (tmp_path / ".venv").exists()


def test_loadtest_runs_from_any_folder_with_its_words_untouched(
    checkout: Checkout, tmp_path: Path
) -> None:
    package = checkout.root / "tests/load"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("import os, sys; print(os.getcwd(), *sys.argv[1:])\n")
    ended = checkout.run("scripts/loadtest", "room", "--members", "a b", cwd=tmp_path)
    assert ended.stdout == f"{tmp_path} room --members a b\n"


def test_prove_runs_from_any_folder_with_its_words_untouched(
    checkout: Checkout, tmp_path: Path
) -> None:
    package = checkout.root / "tests/proof/prove"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("import os, sys; print(os.getcwd(), *sys.argv[1:])\n")
    ended = checkout.run("scripts/prove", "--only", "rot", "--json", "a b", cwd=tmp_path)
    assert ended.stdout == f"{tmp_path} --only rot --json a b\n"


def test_hostile_runs_from_any_folder_with_its_words_untouched(
    checkout: Checkout, tmp_path: Path
) -> None:
    package = checkout.root / "tests/hostile"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text("import os, sys; print(os.getcwd(), *sys.argv[1:])\n")
    ended = checkout.run("scripts/hostile", "crowd", "--seconds", "a b", cwd=tmp_path)
    assert ended.stdout == f"{tmp_path} crowd --seconds a b\n"


def test_test_installs_the_dev_extra_and_leaves_slow_tests_out(checkout: Checkout) -> None:
    ended = checkout.run("scripts/test", "-k", "a or b")
    assert ended.stdout == f"pytest {ORDINARY} -k a or b\n"
    assert checkout.calls[1].endswith("/requirements/dev.txt")
    assert checkout.run("scripts/test", "-x", "--slow").stdout == "pytest -x\n"
    covered = checkout.run("scripts/test", "--coverage", "-x").stdout
    coverage = "--cov --cov-report=term-missing:skip-covered"
    assert covered == f"pytest {ORDINARY} {coverage} -x\n"
    assert checkout.run("scripts/kotak").stderr == ""  # dev holds what the runtime needs


def test_the_runtime_alone_is_not_enough_for_the_tests(checkout: Checkout) -> None:
    checkout.run("scripts/kotak")
    checkout.run("scripts/test")
    assert [call.split()[0] for call in checkout.calls] == ["venv", *4 * ["pip"]]


@pytest.mark.parametrize("changed", ["pyproject.toml", "requirements/runtime.txt"])
def test_changed_dependencies_are_installed_again_into_the_same_venv(
    checkout: Checkout, changed: str
) -> None:
    checkout.run("scripts/kotak")
    (checkout.root / changed).write_text("# another\n")
    checkout.run("scripts/kotak")
    assert [call.split()[0] for call in checkout.calls] == ["venv", *4 * ["pip"]]


def test_a_run_that_was_killed_while_installing_is_made_good_by_the_next(
    checkout: Checkout,
) -> None:
    assert checkout.run("scripts/kotak", KILL_PIP="1").returncode == -signal.SIGKILL
    assert checkout.run("scripts/kotak").returncode == 0
    assert [call.split()[0] for call in checkout.calls] == ["venv", "pip", "venv", "pip", "pip"]


def test_a_venv_whose_python_is_gone_is_made_again(checkout: Checkout) -> None:
    checkout.run("scripts/kotak")
    (checkout.root / ".venv/bin/python").unlink()
    assert checkout.run("scripts/kotak").returncode == 0
    assert checkout.calls.count("venv") == 2


def test_a_checkout_that_was_moved_makes_its_venv_again(checkout: Checkout) -> None:
    checkout.run("scripts/kotak")
    checkout.root = checkout.root.rename(checkout.root.with_name("elsewhere"))
    assert checkout.run("scripts/kotak").returncode == 0
    assert checkout.calls.count("venv") == 2


def test_a_venv_made_by_hand_is_used_not_deleted(checkout: Checkout) -> None:
    subprocess.run(
        [checkout.bin / "python3.11", "-m", "venv", checkout.root / ".venv"],
        env=checkout.environ(), check=True, timeout=TIMEOUT_S,
    )  # fmt: skip
    mine = checkout.root / ".venv/mine"
    mine.touch()
    assert checkout.run("scripts/kotak").returncode == 0
    assert mine.exists()
    assert checkout.calls.count("venv") == 1


def test_two_scripts_at_once_install_once(checkout: Checkout) -> None:
    command = [checkout.root / "scripts/kotak"]
    environ = checkout.environ(SLOW_PIP="1")
    both = [subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [one.wait(TIMEOUT_S) for one in both] == [0, 0]
    assert [call.split()[0] for call in checkout.calls] == ["venv", "pip", "pip"]


def test_without_a_recent_python_the_message_says_what_to_do(checkout: Checkout) -> None:
    ended = checkout.run("scripts/kotak", OLD="1")
    assert ended.returncode == 1
    assert "no Python 3.11 or later was found" in ended.stderr
    assert "PYTHON=/path" in ended.stderr


def test_a_wrong_python_variable_is_named_not_passed_over(checkout: Checkout) -> None:
    ended = checkout.run("scripts/kotak", PYTHON="/nowhere/python")
    assert ended.returncode == 1
    assert ended.stderr == "kotak: PYTHON is '/nowhere/python', which is no Python 3.11 or later\n"


def test_a_python_without_venv_names_the_package_to_install(checkout: Checkout) -> None:
    ended = checkout.run("scripts/kotak", NO_VENV="1")
    assert ended.returncode == 1
    version = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    assert f"apt install {version}" in ended.stderr
    assert not (checkout.root / ".venv").exists()


def test_a_failed_download_shows_pips_last_lines_and_the_next_run_tries_again(
    checkout: Checkout,
) -> None:
    ended = checkout.run("scripts/kotak", FAIL_PIP="1")
    assert ended.returncode == 1
    assert "ERROR: no route to host" in ended.stderr
    assert "is the package index reachable?" in ended.stderr
    assert checkout.run("scripts/kotak", "who").stdout == "kotak who\n"


def test_a_package_that_is_not_the_pinned_one_is_named_as_such_and_not_installed(
    checkout: Checkout,
) -> None:
    ended = checkout.run("scripts/kotak", WRONG_HASH="1")
    assert ended.returncode == 1
    assert "is not the one that requirements/ pins" in ended.stderr
    assert len(checkout.calls) == 2  # Kotak itself is not installed over the remains


def test_a_venv_that_cannot_be_made_says_why(checkout: Checkout) -> None:
    ended = checkout.run("scripts/kotak", FAIL_VENV="1")
    assert ended.returncode == 1
    assert "no space left" in ended.stderr


@pytest.mark.parametrize(
    "script",
    [
        "scripts/broker",
        "scripts/kotak",
        "scripts/test",
        "scripts/loadtest",
        "scripts/prove",
        ".ci/run",
    ],
)
def test_every_script_is_executable_and_stops_at_the_first_error(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert "set -euo pipefail" in path.read_text()


@pytest.mark.slow
def test_a_fresh_copy_installs_from_the_package_index_and_runs(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns(".venv", ".git", ".*_cache", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, tmp_path / "fresh", ignore=ignored)
    ended = subprocess.run(
        [tmp_path / "fresh/scripts/kotak", "--version"],
        env={"PATH": os.defpath, "HOME": str(tmp_path), "PYTHON": sys.executable},
        check=False, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.stdout.startswith("kotak "), ended.stderr
