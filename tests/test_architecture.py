"""The style of the code as a test: who may import whom, how long things are, what is not written.

Every failure says what to do. A rule that is wrong for a good reason is changed here, with it.
"""

from __future__ import annotations

import ast
import inspect
import re
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from broker.core import ports
from broker.logs import FIELDS

ROOT: Final = Path(__file__).resolve().parent.parent

#: A unit may import units of lower floors only. Units of one floor do not import each other: one
#: that needs another takes it as a parameter, and broker.server puts them together.
FLOORS: Final[Mapping[str, int]] = {
    "broker.wire": 0,
    "broker.exits": 0,
    "broker.core": 1,
    "broker.setting_kinds": 1,
    "broker.stores": 2,
    "broker.transports": 2,
    "broker.workers": 2,
    "broker.passwords": 2,
    "broker.accounts_file": 2,
    "broker.metrics": 2,
    "broker.audit": 2,
    "broker.config": 2,
    "broker.logs": 2,
    "broker.server": 3,
    "broker.admin": 3,
    "broker.cli": 4,
    "broker.embedding": 4,
}
#: What the clients may import of the broker.
CLIENTS_IMPORT: Final = "broker.wire"
#: Who may import the clients: the text gateway and the accounts' commands are clients themselves.
IMPORT_CLIENTS: Final = ("broker.server", "broker.cli")

MODULE_LINES_MAX: Final = 500
FUNCTION_LINES_MAX: Final = 60
FUNCTION_LINES_P95: Final = 40
FUNCTION_LINES_MEDIAN: Final = 8
#: A public function up to this long is understood faster by reading it than by reading about it;
#: a method has the docstring of its class besides.
UNDOCUMENTED_LINES_MAX: Final = 8
UNDOCUMENTED_METHOD_LINES_MAX: Final = 20
DOCUMENTED: Final = ("broker.wire", "broker.core", "clients")
WORDS_OF_NO_MEANING: Final = frozenset(
    {"manager", "managers", "helper", "helpers", "util", "utils", "misc", "common", "data"}
)
#: What they print is their result: tables, answers, and the line that says where the doors are.
MAY_PRINT: Final = frozenset({"broker.cli", "broker.admin", "broker.server.run"})

Function = ast.FunctionDef | ast.AsyncFunctionDef


class Module(NamedTuple):
    """One source file: its dotted name (a package is its __init__), its place, its syntax tree."""

    name: str
    path: Path
    text: str
    tree: ast.Module


@cache
def modules() -> tuple[Module, ...]:
    return tuple(
        _module(path)
        for top in ("broker", "clients")
        for path in sorted(ROOT.glob(f"{top}/**/*.py"))
    )


def _module(path: Path) -> Module:
    text = path.read_text()
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return Module(name, path, text, ast.parse(text))


def names() -> frozenset[str]:
    return frozenset(module.name for module in modules())


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Every module of ours that a module imports, wherever in it, with the line."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module.path}:{node.lineno}: write the whole name"
            base = node.module or ""
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield (whole if whole in names() else base), node.lineno


def unit(name: str) -> str:
    """``broker.core.service`` belongs to ``broker.core``; all of clients is one unit."""
    top, *rest = name.split(".")
    return ".".join([top, *rest[:1]]) if top == "broker" else top


def where(module: Module, line: int) -> str:
    return f"{module.path.relative_to(ROOT)}:{line}"


# --- Imports ---------------------------------------------------------------------------------


def test_every_module_of_the_broker_has_a_floor() -> None:
    homeless = {unit(m.name) for m in modules()} - set(FLOORS) - {"broker", "clients"}
    assert not homeless, f"give these a floor in FLOORS, the lowest that works: {sorted(homeless)}"


def test_no_floor_is_kept_for_a_module_that_is_gone() -> None:
    gone = set(FLOORS) - {unit(m.name) for m in modules()}
    assert not gone, f"remove these from FLOORS: {sorted(gone)}"


def test_imports_go_down_the_floors_only() -> None:
    wrong = []
    for module in modules():
        here = unit(module.name)
        for name, line in imports(module):
            there = unit(name)
            if there in FLOORS and here in FLOORS and there != here:
                if FLOORS[there] >= FLOORS[here]:
                    wrong.append(f"{where(module, line)}: {here} imports {there}")
            elif there == "clients" and here not in ("clients", *IMPORT_CLIENTS):
                wrong.append(f"{where(module, line)}: {here} imports the clients")
    assert not wrong, "\n".join(
        [
            "take what you need as a parameter with a Protocol, and let broker.server pass it:",
            *wrong,
        ]
    )


def test_the_clients_import_nothing_of_the_broker_but_its_wire() -> None:
    wrong = [
        f"{where(module, line)}: {name}"
        for module in modules()
        if unit(module.name) == "clients"
        for name, line in imports(module)
        if name.split(".")[0] == "broker" and unit(name) != CLIENTS_IMPORT
    ]
    assert not wrong, "\n".join(["a client runs where there is no broker; from its side:", *wrong])


def test_no_module_imports_itself_by_a_detour() -> None:
    graph = {m.name: {name for name, _ in imports(m)} & names() - {m.name} for m in modules()}
    # A package's own modules may import from it only what it does not import from them.
    cycle = _cycle(graph)
    assert not cycle, f"move what both need into a third module: {' -> '.join(cycle)}"


def _cycle(graph: Mapping[str, set[str]]) -> list[str]:
    """Return one cycle, its first name again at its end; empty where there is none."""
    done: set[str] = set()

    def visit(name: str, path: list[str]) -> list[str]:
        if name in path:
            return [*path[path.index(name) :], name]
        if name in done:
            return []
        for other in sorted(graph[name]):
            if found := visit(other, [*path, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(graph) if (found := visit(name, []))), [])


# --- Sizes -----------------------------------------------------------------------------------


def functions(module: Module) -> Iterator[Function]:
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def code_lines(function: Function | ast.ClassDef) -> int:
    """Lines from ``def`` to the end. A docstring does not count: what explains is not too long."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        total -= (first.end_lineno or first.lineno) - first.lineno + 1
    return total


def test_a_module_fits_into_one_head() -> None:
    long = [
        f"{where(m, 1)} has {lines} lines"
        for m in modules()
        if (lines := len(m.text.splitlines())) > MODULE_LINES_MAX
    ]
    assert not long, f"split by reason to change ({MODULE_LINES_MAX} at most): {long}"


def test_a_function_fits_on_one_screen() -> None:
    long = [
        f"{where(m, f.lineno)} {f.name} has {code_lines(f)} lines"
        for m in modules()
        for f in functions(m)
        if code_lines(f) > FUNCTION_LINES_MAX
    ]
    assert not long, "\n".join([f"name its parts ({FUNCTION_LINES_MAX} lines at most):", *long])


def test_most_functions_are_short() -> None:
    lines = sorted(code_lines(f) for m in modules() for f in functions(m))
    p95 = lines[int(len(lines) * 0.95)]
    assert statistics.median(lines) <= FUNCTION_LINES_MEDIAN, "functions have grown: name parts"
    assert p95 <= FUNCTION_LINES_P95, f"95 % of the functions have {p95} lines: name their parts"


# --- Names, docstrings, habits ------------------------------------------------------------------


def test_a_modules_name_says_what_it_is_for() -> None:
    wrong = [m.name for m in modules() if WORDS_OF_NO_MEANING & set(re.split(r"[._]", m.name))]
    assert not wrong, f"name these after the noun they are about: {wrong}"


def test_every_module_says_what_it_is_for() -> None:
    silent = [where(m, 1) for m in modules() if not ast.get_docstring(m.tree)]
    assert not silent, f"say in a docstring what it is for, and why: {silent}"


def test_public_names_say_shapes_units_and_errors() -> None:
    silent = [
        f"{where(module, node.lineno)} {node.name}"
        for module in modules()
        if module.name.startswith(DOCUMENTED)
        for node, lines_max in _public(module.tree)
        if ast.get_docstring(node) is None and code_lines(node) > lines_max
    ]
    assert not silent, "\n".join(["write docstrings (shapes, units, errors, source):", *silent])


def _public(tree: ast.Module) -> Iterator[tuple[Function | ast.ClassDef, int]]:
    """Every public class, function and method, and how long it may be without a docstring."""
    for node in tree.body:
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield node, UNDOCUMENTED_LINES_MAX
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node, 0
            for method in node.body:
                if isinstance(method, Function) and not method.name.startswith("_"):
                    yield method, UNDOCUMENTED_METHOD_LINES_MAX


def calls(module: Module) -> Iterator[ast.Call]:
    return (node for node in ast.walk(module.tree) if isinstance(node, ast.Call))


def test_the_broker_logs_and_does_not_print() -> None:
    wrong = [
        where(m, call.lineno)
        for m in modules()
        if unit(m.name) != "clients" and not {m.name, unit(m.name)} & MAY_PRINT
        for call in calls(m)
        if isinstance(call.func, ast.Name) and call.func.id == "print"
    ]
    assert not wrong, f"use logging.getLogger('kotak...'): {wrong}"


def test_every_logged_field_is_on_the_list() -> None:
    wrong = [
        f"{where(m, node.lineno)} {key.value!r}"
        for m in modules()
        for node in ast.walk(m.tree)
        if isinstance(node, ast.Dict)
        for outer, fields in zip(node.keys, node.values, strict=True)
        if isinstance(outer, ast.Constant)
        and outer.value == "fields"
        and isinstance(fields, ast.Dict)
        for key in fields.keys
        if isinstance(key, ast.Constant) and key.value not in FIELDS
    ]
    assert not wrong, f"add to logs.FIELDS what can never hold a secret; the rest is lost: {wrong}"


def test_an_ignored_rule_has_its_reason_beside_it() -> None:
    bare = re.compile(
        r"#\s*(ruff: )?noqa(?!: [A-Z0-9, ]+ - \w)|#\s*type: ignore(?!\[[\w, -]+\]  ?[#-])"
    )
    wrong = [
        where(m, number)
        for m in modules()
        for number, line in enumerate(m.text.splitlines(), start=1)
        if bare.search(line)
    ]
    assert not wrong, f"write '# noqa: CODE - reason', or better, code that needs none: {wrong}"


SENDS: Final = frozenset({"send", "send_multipart", "send_string", "send_json", "send_pyobj"})


def blocking_sends(source: str) -> list[int]:
    """Lines that send without NOBLOCK, by its name or by a constant whose value has it."""
    tree = ast.parse(source)
    safe = {"NOBLOCK", "DONTWAIT"}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Assign | ast.AnnAssign)
            and node.value
            and _mentions(node.value, safe)
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            safe |= {target.id for target in targets if isinstance(target, ast.Name)}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and (
            node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        )
        in SENDS
        and not any(_mentions(a, safe) for a in [*node.args, *(k.value for k in node.keywords)])
    ]


def _mentions(node: ast.AST, wanted: set[str]) -> bool:
    return any(
        (isinstance(n, ast.Name) and n.id in wanted)
        or (isinstance(n, ast.Attribute) and n.attr in wanted)
        for n in ast.walk(node)
    )


def test_the_router_never_waits_for_a_peer() -> None:
    path = ROOT / "broker/transports/router.py"
    wrong = blocking_sends(path.read_text())
    assert not wrong, (
        f"{path.name}, lines {wrong}: one peer that does not read would stop the broker; "
        "send with zmq.NOBLOCK, and drop and count on zmq.Again"
    )


# --- The rules can fail ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("sock.send(x)", [1]),
        ("sock.send(x, zmq.SNDMORE)", [1]),
        ("send = sock.send\nsend(x)", [2]),
        ("sock.send(x, zmq.NOBLOCK | zmq.SNDMORE)", []),
        ("MORE: Final = zmq.DONTWAIT | zmq.SNDMORE\nsend(x, MORE)", []),
        ("sock.send_multipart(x, flags=zmq.NOBLOCK)", []),
    ],
)
def test_a_blocking_send_is_found(source: str, lines: list[int]) -> None:
    assert blocking_sends(source) == lines


def test_a_cycle_is_found() -> None:
    assert _cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert _cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_a_docstring_does_not_make_a_function_long() -> None:
    tree = ast.parse('def f():\n    """One.\n\n    Two.\n    """\n    return 1\n')
    (function,) = tree.body
    assert isinstance(function, ast.FunctionDef)
    assert code_lines(function) == 2


@pytest.mark.parametrize(
    "rule",
    [
        test_every_module_of_the_broker_has_a_floor,
        test_imports_go_down_the_floors_only,
        test_the_clients_import_nothing_of_the_broker_but_its_wire,
        test_no_module_imports_itself_by_a_detour,
        test_the_broker_logs_and_does_not_print,
        test_every_logged_field_is_on_the_list,
        test_an_ignored_rule_has_its_reason_beside_it,
    ],
)
def test_every_rule_is_broken_by_bad_code(
    rule: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = {
        "broker.wire.bad": "import broker.core.bad  # noqa\nprint(1)",
        "broker.core.bad": "from broker.wire import bad\nx = {'fields': {'password': 1}}",
        "broker.nowhere": "",
        "clients.bad": "from broker.core import bad",
    }
    made = tuple(Module(n, ROOT / n, source, ast.parse(source)) for n, source in bad.items())
    monkeypatch.setitem(globals(), "modules", lambda: made)
    with pytest.raises(AssertionError):
        rule()


@pytest.mark.parametrize(
    ("port", "most"),
    [(ports.Store, 7), (ports.Directory, 4), (ports.Neighbours, 6), (ports.Upkeep, 3)],
)
def test_the_ports_of_the_store_are_small(port: type, most: int) -> None:
    """A small port is what lets another engine in; one more method wants a better cut."""
    methods = [name for name, each in vars(port).items() if inspect.isfunction(each)]
    public = [name for name in methods if not name.startswith("_")]
    assert len(public) <= most, f"{len(public)} methods in broker.core.ports.{port.__name__}"
