"""The house rules: who imports whom, how large files, functions and folders are, and that importing does nothing.

`python -m tests.house` prints the same as numbers.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import house
from tests.house import ROOMS, ROOT, files, imports, module_of, room_of, within

FILE_LINES, FUNCTION_LINES, FOLDER_ENTRIES = 300, 60, 12

# room -> what it may import of ours (prefixes). The first prefix that fits a module names its room.
ALLOWED: dict[str, tuple[str, ...]] = {
    "seqtok_core.foundation": ("seqtok_core.foundation",),
    "seqtok_core.layers": ("seqtok_core.layers",),
    "seqtok_core.training": ("seqtok_core.foundation", "seqtok_core.training"),
    "seqtok_core": (),
    "data_pipelines": ("seqtok_core.foundation", "data_pipelines"),
    "seq_tokenizer": ("seqtok_core.foundation", "seqtok_core.layers", "data_pipelines.samples", "seq_tokenizer"),
    "ar_model": (
        "seqtok_core.foundation",
        "seqtok_core.layers",
        "data_pipelines.samples",
        "data_pipelines.captions.tokenizer",
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
        "seqtok.grids",
    ),
    "seqtok": ROOMS,
}
# library -> the files that alone may import it.
ONLY_IN = {"deepspeed": "seqtok_core/training/engine/", "open_clip": "seq_tokenizer/text/tower.py"}
FORBIDDEN = {"data_pipelines": ("torch.nn", "deepspeed"), "seqtok_core.layers": ("pydantic", "omegaconf")}

each_file = pytest.mark.parametrize("path", files(), ids=lambda path: str(path.relative_to(ROOT)))


def test_a_room_imports_only_what_lies_below_it():
    assert house.arrows_up(ALLOWED) == []


@each_file
def test_only_its_home_imports_a_library(path: Path):
    room = room_of(module_of(path), ALLOWED)
    for name in imports(path):
        for library, home in ONLY_IN.items():
            if within(name, (library,)):
                assert str(path.relative_to(ROOT)).startswith(home), f"{path} imports {library}"
        assert not within(name, FORBIDDEN.get(room, ())), f"{path} imports {name}"


def test_no_circle_of_files_or_of_folders():
    assert house.file_circles() == []
    assert house.folder_circles() == []


def test_a_circle_is_seen():
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]


def test_only_the_roof_speaks_of_flags_commands_and_config_keys():
    """A library user has no `--image-field`: rooms below name their fields, and the roof translates."""
    assert house.roof_words_below() == []


@pytest.mark.parametrize(("folder", "count"), house.entries().items())
def test_a_folder_shows_a_sentence_and_not_a_list(folder: str, count: int):
    assert count <= FOLDER_ENTRIES


def test_the_tests_lie_where_the_rooms_lie():
    """tests/ROOM/FOLDER exists only where ROOM/FOLDER does; what crosses rooms lies at the top or with the roof."""
    for folder in house.entries(("tests",)):
        rest = Path(folder).relative_to("tests")
        assert rest.parts[:1] in ((), ("configs",)) or (ROOT / rest).is_dir(), folder
    loose = {path.name for path in (ROOT / "tests").glob("*.py")}
    assert loose == {"__init__.py", "house.py", "slow.py", "test_house.py"}


def test_every_package_is_listed():
    """A folder that is missing in the list is missing in the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    listed = set(project["tool"]["setuptools"]["packages"]) - {"seqtok.configs"}
    assert listed == {module_of(path) for path in files() if path.name == "__init__.py"}
    data = project["tool"]["setuptools"]["package-data"]
    for room in ROOMS:
        assert (ROOT / room / "py.typed").is_file()
        assert "py.typed" in data[room]
    for path in (p for room in ROOMS for p in (ROOT / room).rglob("*.j2")):
        assert "*.html.j2" in data[".".join(path.parent.relative_to(ROOT).parts)]


# Public functions that share a name because they mean one thing. A command is a function of its command word.
ONE_MEANING = {"main", "parameter_count"}


def test_a_name_means_one_thing():
    assert house.twice(house.classes()) == {}
    functions = {
        name: [module for module in modules if not within(module, ("seqtok.commands",))]
        for name, modules in house.public_functions().items()
        if name not in ONE_MEANING
    }
    assert house.twice(functions) == {}


@each_file
def test_files_and_functions_stay_readable(path: Path):
    assert house.lines(path) <= FILE_LINES
    assert {name: size for name, size in house.function_lines(path).items() if size > FUNCTION_LINES} == {}


@each_file
def test_every_file_says_what_it_is_and_models_stay_on_their_device(path: Path):
    tree = house.tree_of(path)
    assert ast.get_docstring(tree), "a file begins with what it is for"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            assert node.attr != "cuda" or within(ast.unparse(node), ("torch.cuda",)), "no .cuda()"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "no bare except"


def test_a_journey_names_files_that_exist():
    """The head of a room says its steps with the file of each."""
    journeys = [*(ROOT / room / "__init__.py" for room in (*ROOMS, "seqtok/evaluation"))]
    journeys += [ROOT / "seqtok_core/training/__init__.py", ROOT / "seqtok_core/training/loop.py"]
    for path in journeys:
        named = re.findall(r"[\w/]+\.py\b", ast.get_docstring(house.tree_of(path)) or "")
        assert [name for name in named if not name.endswith("build.py") and not (path.parent / name).is_file()] == []
        if path.parent.name in ROOMS[1:]:
            assert len(named) >= 5, path


def test_help_does_not_import_torch():
    code = "import sys; from seqtok import cli; assert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_training_does_not_load_the_judge():
    code = "import sys, seqtok.runs.kinds, seqtok.runs.train, seqtok.plan.answer\n"
    code += "assert not [name for name in sys.modules if name.startswith('seqtok.evaluation')]"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_importing_foundation_does_not_import_torch():
    names = [module_of(path) for path in files() if within(module_of(path), ("seqtok_core.foundation",))]
    code = f"import sys, importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n"
    code += "assert 'torch' not in sys.modules"
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
