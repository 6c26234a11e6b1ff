# Sourced by the scripts beside it: makes .venv at the repository's root, once, and says so.
#
#   prepare runtime|dev    install Kotak into .venv where that is not done yet; needs ROOT
#
# Two marks stand in .venv: `made-by` (for which checkout and which Python it was made) and
# `installed-runtime` or `installed-dev` (for which pyproject.toml and pins). While `unfinished` stands
# there, an earlier run was interrupted, and .venv is made anew.
#
# What is installed is what requirements/ pins, each file judged by its hash. Where a pin does not fit,
# the installation fails: nothing else is taken in its place.
# shellcheck shell=bash

VENV="$ROOT/.venv"

say() { printf 'kotak: %s\n' "$*" >&2; }
die() { say "$@"; exit 1; }

prepare() {
    local extra="$1"
    is_prepared "$extra" && return
    local python
    python="$(find_python)" || exit 1
    # The lock is on pyproject.toml itself, held by descriptor 9 of this shell: no file is left
    # behind, and the second of two scripts waits here until the first is done.
    exec 9<"$ROOT/pyproject.toml"
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'
    is_prepared "$extra" || install_into_venv "$python" "$extra"
    exec 9<&-
}

is_prepared() {
    [[ -x "$VENV/bin/python" && ! -e "$VENV/unfinished" ]] &&
        [[ "$(cat "$VENV/made-by" 2>/dev/null)" == "$(maker)" ]] &&
        [[ "$(cat "$VENV/installed-$1" 2>/dev/null)" == "$(project)" ]]
}

# A system upgrade changes what .venv/bin/python points to; a moved checkout breaks its paths.
maker() { printf '%s %s' "$ROOT" "$(readlink -f "$VENV/bin/python" 2>/dev/null)"; }
project() { cat "$ROOT/pyproject.toml" "$ROOT"/requirements/*.txt | cksum; }

find_python() {
    local candidate
    for candidate in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        if is_recent "$candidate"; then
            has_venv "$candidate" || return 1
            printf '%s' "$candidate"
            return
        fi
        if [[ -n "${PYTHON:-}" ]]; then
            say "PYTHON is '$PYTHON', which is no Python 3.11 or later"
            return 1
        fi
    done
    say "no Python 3.11 or later was found: install one, or say where it is: PYTHON=/path/to/python3"
    return 1
}

is_recent() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

has_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1 && return
    local version
    version="$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
    say "Python $version lacks its venv module: on Debian or Ubuntu, apt install python$version-venv"
    return 1
}

install_into_venv() {
    local python="$1" extra="$2"
    is_usable || make_venv "$python"
    say "installing what Kotak needs (${extra}) into $VENV"
    touch "$VENV/unfinished"
    : >"$VENV/pip.log"
    pip_install --require-hashes --requirement "$ROOT/requirements/build.txt" \
        --requirement "$ROOT/requirements/$extra.txt"
    # Kotak itself: built by what was just installed, and with nothing fetched beside it.
    pip_install --no-deps --no-build-isolation --editable "$ROOT"
    maker >"$VENV/made-by"
    project | tee "$VENV/installed-$extra" >"$VENV/installed-runtime"
    rm "$VENV/unfinished"
}

pip_install() {
    "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check "$@" \
        </dev/null >>"$VENV/pip.log" 2>&1 9<&- && return
    tail -n 8 "$VENV/pip.log" >&2
    if grep -q -e 'DO NOT MATCH THE HASHES' -e 'require-hashes' "$VENV/pip.log"; then
        die "a package is not the one that requirements/ pins, see above: do not install it (all: $VENV/pip.log)"
    fi
    die "the installation failed, see above; is the package index reachable? (all: $VENV/pip.log)"
}

# A .venv that somebody made by hand, recent and with pip, is used as it is.
is_usable() {
    [[ ! -e "$VENV/unfinished" ]] && is_recent "$VENV/bin/python" &&
        [[ ! -e "$VENV/made-by" || "$(cat "$VENV/made-by")" == "$(maker)" ]] &&
        "$VENV/bin/python" -m pip --version >/dev/null 2>&1
}

make_venv() {
    say "making $VENV with $("$1" --version 2>&1)"
    rm -rf "$VENV"
    mkdir "$VENV"
    touch "$VENV/unfinished"
    "$1" -m venv "$VENV" >"$VENV/pip.log" 2>&1 9<&- || {
        tail -n 8 "$VENV/pip.log" >&2
        die "cannot make $VENV, see above"
    }
}
