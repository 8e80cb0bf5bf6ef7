"""Options of the commands that write data sets of pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


class Resume(StrEnum):
    auto, never = "auto", "never"


Out = Annotated[Path, Argument(help="Folder to write; made if missing.")]
ResumeOption = Annotated[Resume, Option(help="Continue what was begun, or refuse to.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace a data set that is there.")]
DryRun = Annotated[bool, Option("--dry-run", help="Show the plan and ten decoded samples; write nothing.")]
