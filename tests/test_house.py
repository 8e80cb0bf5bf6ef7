"""The house rules: who imports whom, how large files and functions are, and that importing does nothing."""

from __future__ import annotations

import ast
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOMS = ("seqtok_core", "data_pipelines", "seq_tokenizer", "ar_model", "seqtok")
FILE_LINES, FUNCTION_LINES = 300, 60

# room -> what it may import of ours (prefixes). The first prefix that fits a module names its room.
ALLOWED: dict[str, tuple[str, ...]] = {
    "seqtok_core.foundation": ("seqtok_core.foundation",),
    "seqtok_core.layers": ("seqtok_core.layers",),
    "seqtok_core.training": ("seqtok_core.foundation", "seqtok_core.training"),
    "seqtok_core": (),
    "data_pipelines": ("seqtok_core.foundation", "data_pipelines"),
    "seq_tokenizer": (
        "seqtok_core.foundation",
        "seqtok_core.layers",
        "data_pipelines.samples",
        "seq_tokenizer",
    ),
    "ar_model": (
        "seqtok_core.foundation",
        "seqtok_core.layers",
        "data_pipelines.samples",
        "data_pipelines.captions",
        "seq_tokenizer.latents",
        "ar_model",
    ),
    "seqtok.evaluation": (
        "seqtok_core.foundation",
        "seqtok_core.layers",
        "data_pipelines",
        "seq_tokenizer",
        "ar_model",
        "seqtok.evaluation",
    ),
    "seqtok": ROOMS,
}
# library -> the files that alone may import it.
ONLY_IN = {
    "deepspeed": "seqtok_core/training/",
    "open_clip": "seq_tokenizer/text_alignment.py",
}
FORBIDDEN = {"data_pipelines": ("torch.nn", "deepspeed"), "seqtok_core.layers": ("pydantic", "omegaconf")}


@cache
def files() -> tuple[Path, ...]:
    return tuple(path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py")))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    return next(room for room in ALLOWED if module == room or module.startswith(room + "."))


def imports(path: Path) -> set[str]:
    """Every module that the file names, at the top or inside a function; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def within(module: str, prefixes: tuple[str, ...]) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_room_imports_only_what_lies_below_it(path: Path):
    module = module_of(path)
    room = room_of(module)
    allowed = ALLOWED[room]
    for name in imports(path):
        if not within(name, ROOMS) or name in ("seqtok_core", "data_pipelines", "seq_tokenizer"):
            continue
        # `from data_pipelines.samples import X` names data_pipelines.samples.X as well: its parent decides.
        assert within(name, allowed) or within(name, tuple(f"{a}.__init__" for a in allowed)), (
            f"{module} imports {name}"
        )
    for library, home in ONLY_IN.items():
        if any(within(name, (library,)) for name in imports(path)):
            assert str(path.relative_to(ROOT)).startswith(home), f"{module} imports {library}"
    for name in imports(path):
        assert not within(name, FORBIDDEN.get(room, ())), f"{module} imports {name}"


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= FILE_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= FUNCTION_LINES, node.name


@pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_what_it_is_and_models_stay_on_their_device(path: Path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "a file begins with what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr != "cuda" or within(ast.unparse(node), ("torch.cuda",)), "no .cuda()"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "no bare except"


def test_help_does_not_import_torch():
    code = "import sys; from seqtok import cli; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_foundation_does_not_import_torch():
    code = (
        "import sys\n"
        "from seqtok_core.foundation import compat, config, errors, faults, files, fingerprint, model_folder\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_everything_leaves_no_trace(tmp_path: Path):
    """No folder, no process group, no random draw, no change of torch's settings."""
    code = f"""
import importlib, os
import torch
before = (torch.random.get_rng_state().tolist(), torch.get_num_threads(), dict(os.environ))
for name in {[module_of(path) for path in files() if path.name != "__main__.py"]!r}:
    importlib.import_module(name)
after = (torch.random.get_rng_state().tolist(), torch.get_num_threads(), dict(os.environ))
assert before == after
assert not os.listdir('.'), os.listdir('.')
assert not torch.distributed.is_initialized()
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
