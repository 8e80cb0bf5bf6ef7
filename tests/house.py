"""The house in numbers: who imports whom, circles, entries of folders, lines; `python -m tests.house` prints them.

Pure readings of the syntax trees; `test_house.py` holds the laws.
"""

from __future__ import annotations

import ast
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("seqtok_core", "data_pipelines", "seq_tokenizer", "ar_model", "seqtok")
BELOW_THE_ROOF = ROOMS[:-1]
TEMPLATES = (".j2", ".typed")

# A flag, a command of ours, or a dotted config key: what only the roof may speak of.
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
GROUPS = "data|tokenizer|generator|checkpoint|evaluate|config"
COMMAND = re.compile(rf"\bseqtok (?:(?:{GROUPS}) [a-z]+|train|report|explore|doctor|plan|demo)\b")
SECTIONS = "data|train|model|objective"
FILE_ENDINGS = "py|json|jsonl|yaml|html|md|model|safetensors|typed|tar"
OTHER_PROGRAM = re.compile(r"`(?!seqtok\b|-)\S[^`]* [^`]*`")  # `torchrun --nproc-per-node 2`: that program's words
DOTTED_KEY = re.compile(rf"(?<![\w.])(?:{SECTIONS})\.(?!(?:{FILE_ENDINGS})\b)[a-z_]+(?:\.[a-z_]+)*(?![\w(.])")


@cache
def files() -> tuple[Path, ...]:
    """Every Python file of the rooms."""
    return tuple(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))


@cache
def tree_of(path: Path) -> ast.Module:
    """The syntax tree of a file, parsed once."""
    return ast.parse(path.read_text(encoding="utf-8"))


def module_of(path: Path) -> str:
    """The dotted name of a file of the checkout."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(path: Path) -> frozenset[str]:
    """Every module that the file names, at the top or inside a function; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


@cache
def edges() -> dict[str, frozenset[str]]:
    """module -> the modules of ours that it imports; a package counts as its `__init__` where a name comes from it."""
    modules = {module_of(path): path for path in files()}
    found: dict[str, frozenset[str]] = {}
    for name, path in modules.items():
        named = imports(path)
        targets = {module for module in named if module in modules and module != name}
        # `from a import b` where b is a file names the package a only as the way to b.
        ways = {module for module in targets if modules[module].name == "__init__.py"}
        targets -= {way for way in ways if not _takes_a_name(path, way, modules)}
        found[name] = frozenset(targets)
    return found


def _takes_a_name(path: Path, package: str, modules: dict[str, Path]) -> bool:
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom) and node.module == package:
            if any(f"{package}.{alias.name}" not in modules for alias in node.names):
                return True
        elif isinstance(node, ast.Import) and any(alias.name == package for alias in node.names):
            return True
    return False


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected sets of more than one node (Tarjan, 1972), each sorted."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in graph.get(node, ()):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = []
            while True:
                group.append(stack.pop())
                if group[-1] == node:
                    break
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return sorted(found)


def file_circles() -> list[list[str]]:
    """Files that import each other in a ring, imports under TYPE_CHECKING included."""
    return circles({name: set(targets) for name, targets in edges().items()})


def folder_circles() -> list[list[str]]:
    """Rings between the entries of one folder: each entry, file or folder, stands for all that lies in it."""
    packages = {module_of(path) for path in files() if path.name == "__init__.py"}
    found = []
    for folder in ["", *sorted(packages)]:
        graph: dict[str, set[str]] = defaultdict(set)
        for name, targets in edges().items():
            for target in targets:
                one, other = _entry(name, folder), _entry(target, folder)
                if one and other and one != other:
                    graph[one].add(other)
                    graph.setdefault(other, set())
        found += circles(graph)
    return found


def _entry(module: str, folder: str) -> str:
    """The entry of `folder` that holds the module, or "" where it lies elsewhere."""
    if folder and not module.startswith(folder + "."):
        return ""
    rest = module[len(folder) + 1 :] if folder else module
    return (f"{folder}." if folder else "") + rest.split(".")[0]


def entries(top: Iterable[str] = (*ROOMS, "tests", "benchmarks", "configs")) -> dict[str, int]:
    """folder -> its entries, `__init__.py`, templates and results apart."""
    counts = {}
    for room in top:
        for folder, folders, names in os.walk(ROOT / room):
            folders[:] = sorted(name for name in folders if name not in ("__pycache__", "results", ".mypy_cache"))
            kept = [name for name in names if name != "__init__.py" and not name.endswith((*TEMPLATES, ".pyc"))]
            counts[str(Path(folder).relative_to(ROOT))] = len(folders) + len(kept)
    return counts


def roof_words(path: Path) -> Iterator[tuple[int, str]]:
    """(line, word) of every flag, command and dotted config key in the strings of a file below the roof.

    Another program's own flags are that program's words: in a list of arguments that begins with its name, or in a
    command of it in backticks.
    """
    tree = tree_of(path)
    lists = [node.elts for node in ast.walk(tree) if isinstance(node, ast.List)]
    others = {id(item) for items in lists if items and not _is_flag(items[0]) for item in items}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in others:
            for pattern in (FLAG, COMMAND, DOTTED_KEY):
                for match in pattern.finditer(OTHER_PROGRAM.sub("", node.value)):
                    yield node.lineno, match.group(0)


def _is_flag(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and str(node.value).startswith("-")


def roof_words_below() -> list[str]:
    """The place and the word of each, in all rooms below the roof."""
    below = (path for path in files() if module_of(path).split(".")[0] in BELOW_THE_ROOF)
    return [f"{path.relative_to(ROOT)}:{line}: {word}" for path in below for line, word in roof_words(path)]


def classes() -> dict[str, list[str]]:
    """class name -> the modules that define it."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in files():
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.ClassDef):
                found[node.name].append(module_of(path))
    return dict(found)


def public_functions() -> dict[str, list[str]]:
    """name -> the modules that define a public function of it at their top."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in files():
        for node in tree_of(path).body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_"):
                found[node.name].append(module_of(path))
    return dict(found)


def function_lines(path: Path) -> dict[str, int]:
    """The lines of every function of a file."""
    return {
        node.name: (node.end_lineno or 0) - node.lineno + 1
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


def lines(path: Path) -> int:
    """The lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def arrows_up(allowed: dict[str, tuple[str, ...]]) -> list[str]:
    """`module -> module` of every import that goes where the room may not look."""
    found = []
    for name, targets in edges().items():
        room = room_of(name, allowed)
        found += [f"{name} -> {target}" for target in targets if not within(target, allowed[room])]
    return sorted(found)


def room_of(module: str, allowed: Iterable[str]) -> str:
    """The first room of the table that the module lies in."""
    return next(room for room in allowed if within(module, (room,)))


def within(module: str, prefixes: Iterable[str]) -> bool:
    """Whether the module is one of these or lies in one."""
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def twice(names: dict[str, list[str]]) -> dict[str, list[str]]:
    """The names that several modules define."""
    return {name: sorted(modules) for name, modules in sorted(names.items()) if len(modules) > 1}


def main() -> None:
    """Print the house in numbers."""
    counts = entries()
    sizes = {module_of(path): lines(path) for path in files()}
    functions = Counter(
        {f"{module_of(path)}.{name}": size for path in files() for name, size in function_lines(path).items()}
    )
    print(f"{len(files())} files in {len(counts)} folders, {sum(sizes.values())} lines")
    fullest = Counter(counts).most_common(5)
    print("entries of the fullest folders:", ", ".join(f"{name} {count}" for name, count in fullest))
    print(f"circles of files: {len(file_circles())}", *(f"  {' = '.join(ring)}" for ring in file_circles()), sep="\n")
    print(f"circles of folders: {len(folder_circles())}", *(f"  {' = '.join(r)}" for r in folder_circles()), sep="\n")
    long = Counter(sizes).most_common(1)[0]
    print(f"lines of a file: median {sorted(sizes.values())[len(sizes) // 2]}, most {long[1]} ({long[0]})")
    median = sorted(functions.values())[len(functions) // 2]
    print(f"lines of a function: median {median}, most {functions.most_common(1)[0][1]}")
    print(f"words of the roof below it: {len(roof_words_below())}")
    print("class names twice:", ", ".join(twice(classes())) or "none")
    print("public functions twice:", ", ".join(twice(public_functions())) or "none")


if __name__ == "__main__":
    main()
