"""Options that several commands share, spelled once."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from seqtok_core.foundation.errors import ConfigError
from seqtok_core.foundation.files import require_place


def file_to_write(path: Path | None) -> Path | None:
    """For an option: refused before the work, not after it, where no file can be written."""
    if path is not None:
        require_place(path, "file")
    return path


def folder_to_write(path: Path | None) -> Path | None:
    """The same of a folder."""
    if path is not None:
        require_place(path, "folder")
    return path


def place_to_write(path: Path) -> Path:
    """A file, or a folder: what is one, or has no ending."""
    require_place(path, "folder" if path.is_dir() or not path.suffix else "file")
    return path


Picture = Annotated[Path, typer.Option(help="PNG to write.", callback=file_to_write)]
Resume = Annotated[str, typer.Option(help="auto, never, or the path of a checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to the config: key.sub=value …")]
# None: as SampleConfig has it, which owns the defaults.
Guidance = Annotated[float | None, typer.Option(help="1 follows the prompt as learnt, more insists on it.", min=0)]
Temperature = Annotated[float | None, typer.Option(help="Scale of the noise that latents are drawn from.", min=0)]
Candidates = Annotated[
    int, typer.Option(help="Drawings of which the best is kept: its own first tokens are nearest to the prefix.", min=1)
]
Drawings = Annotated[int, typer.Option(help="Drawings of each prompt: the one that says most of it is kept.", min=1)]
Verifier = Annotated[
    str | None,
    typer.Option(help="open_clip model, folder or hub id, that chooses among drawings; else the tokenizer does."),
]
Beginnings = Annotated[
    int, typer.Option(help="Beginnings of a drawing that are kept at 1, 2, 4, … tokens, each with --candidates.", min=1)
]
Beams = Annotated[int | None, typer.Option(help="Beginnings that are kept in the search for a caption.", min=1)]
CaptionCandidates = Annotated[
    int | None, typer.Option(help="Captions of which the one is kept that the picture is drawn from best.", min=1)
]
SceneSeed = Annotated[int, typer.Option(help="Of the held-out scenes.", min=0)]
Alphabet = Annotated[str | None, typer.Option(help="Characters in a row; by default upper-case letters and digits.")]
Font = Annotated[Path | None, typer.Option(help="Font file that has them, for other scripts; by default Pillow's own.")]
Weak = Annotated[
    str | None, typer.Option(help="Model folder of a weaker sequence model, which guides in place of no prompt.")
]
Steps = Annotated[int | None, typer.Option(help="Solver steps per token.", min=1)]


def sample_settings(
    guidance: float | None, temperature: float | None, steps: int | None, weak: str | None = None
) -> dict[str, Any]:
    """What was given, as keys of SampleConfig."""
    given: dict[str, Any] = {"guidance": guidance, "temperature": temperature, "weak": weak}
    given |= {head: {"steps": steps} if steps is not None else None for head in ("flow", "mean_flow", "diffusion")}
    return {key: value for key, value in given.items() if value is not None}


def take_free_cores() -> None:
    """For a command that computes here: as many threads as cores are free, said in one line, unless the user chose."""
    import torch

    from seqtok_core.foundation.threads import choose_threads

    choice = choose_threads("auto", on_cpu=not torch.cuda.is_available())
    if choice.chosen is not None:
        torch.set_num_threads(choice.chosen)
        typer.echo(choice.describe(), err=True)


def require_installed(extra: str, modules: Sequence[str]) -> None:
    """Raises ConfigError where what an extra installs is not there."""
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f'{" and ".join(missing)}: not installed; pip install "seqtok[{extra}]"')
