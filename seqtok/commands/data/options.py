"""Options that several commands of data sets share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from data_pipelines.sources.base import MAX_BAD_SHARE
from data_pipelines.sources.records import Fields
from seqtok.commands.options.flags import Flags


class Resume(StrEnum):
    auto, never = "auto", "never"


Out = Annotated[Path, Argument(help="Folder to write; made if missing.")]
ResumeOption = Annotated[Resume, Option(help="Continue what was begun, or refuse to.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace a data set that is there.")]
DryRun = Annotated[bool, Option("--dry-run", help="Show the plan and ten decoded samples; write nothing.")]
MaxBadShare = Annotated[
    float, Option(help=f"Foreign tars: more bad samples than this are an error ({MAX_BAD_SHARE:g}).", min=0, max=1)
]


def of_foreign_tars(*paths: str) -> Flags:
    """Which of their members and fields are pictures, captions, labels; data sets of ours say it themselves."""
    names = {"captions": "captions_field", "labels": "label_field"}
    only = ("captions", *paths, "image_member", "caption_members")
    panels = {"Foreign tars": only}
    return Flags(Fields, names={p: n for p, n in names.items() if p in only}, only=only, panels=panels)
