"""Options that several commands share, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

Resume = Annotated[str, typer.Option(help="auto, never, or the path of a checkpoint.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what the output folder holds.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; write nothing.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Changes to the config: key.sub=value …")]
