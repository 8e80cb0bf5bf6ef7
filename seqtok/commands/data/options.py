"""Options of the commands that write data sets of pictures."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from typer import Argument, Option


class Kind(StrEnum):
    auto = "auto"
    folder, pictures, sidecar, classes = "folder", "pictures", "sidecar", "classes"
    csv, jsonl, parquet = "csv", "jsonl", "parquet"
    coco, tars = "coco", "tars"


class Form(StrEnum):
    png, jpg = "png", "jpg"


class Resize(StrEnum):
    fast, exact = "fast", "exact"


class EngineName(StrEnum):
    processes, ray = "processes", "ray"


class Resume(StrEnum):
    auto, never = "auto", "never"


class OnBad(StrEnum):
    error, skip = "error", "skip"


class Pyramid(StrEnum):
    given, sentences = "given", "sentences"


class NoCaption(StrEnum):
    drop, keep = "drop", "keep"


_RECORDS, _CAPTIONS, _SPLITS, _SHARDS = "Records", "Captions", "Splits", "Shards"  # panels of --help

SourcePath = Annotated[Path, Argument(help="Folder with captions.jsonl, of pictures or tars; table; COCO JSON; tar.")]
Out = Annotated[Path, Argument(help="Folder to write; made if missing.")]
KindOption = Annotated[Kind, Option(help="What the source is.")]

Images = Annotated[Path | None, Option(help="Folder of pictures, by default the table's.", rich_help_panel=_RECORDS)]
ImageField = Annotated[str, Option(help="Field of path or bytes, or 'images/{id}.jpg'.", rich_help_panel=_RECORDS)]
KeyField = Annotated[str, Option(help="Field that names a sample, by default its path.", rich_help_panel=_RECORDS)]
LabelFields = Annotated[list[str] | None, Option(help="Field that is a label; repeatable.", rich_help_panel=_RECORDS)]
Where = Annotated[
    list[str] | None,
    Option(help="Only samples with e.g. label=dog,cat or width>=256.", rich_help_panel=_RECORDS),
]

CaptionsFields = Annotated[
    list[str] | None,
    Option(help="Field of captions, coarse to fine, or 'a photo of a {label}'; repeatable.", rich_help_panel=_CAPTIONS),
]
PyramidOption = Annotated[
    Pyramid, Option(help="sentences: the last text becomes a level per sentence.", rich_help_panel=_CAPTIONS)
]
MaxLevels = Annotated[int, Option(help="Most levels of sentences.", min=1, rich_help_panel=_CAPTIONS)]
MaxCharacters = Annotated[int, Option(help="Longer captions are cut.", min=1, max=1000, rich_help_panel=_CAPTIONS)]
MinCharacters = Annotated[int, Option(help="Shorter captions are left out.", min=1, rich_help_panel=_CAPTIONS)]
UnescapeHtml = Annotated[bool, Option("--unescape-html", help="Read &amp; as &.", rich_help_panel=_CAPTIONS)]
NoCaptionOption = Annotated[NoCaption, Option(help="Pictures without any caption.", rich_help_panel=_CAPTIONS)]

Split = Annotated[str, Option(help="Split of what no file name gives one.", rich_help_panel=_SPLITS)]
ValShare = Annotated[float, Option(help="Share cut off as split val.", rich_help_panel=_SPLITS)]
TestShare = Annotated[float, Option(help="Share cut off as split test.", rich_help_panel=_SPLITS)]

Size = Annotated[int, Option(help="Pixels per side: short side, then centre crop.", min=1, rich_help_panel=_SHARDS)]
FormOption = Annotated[Form, Option(help="Of pictures that must be encoded again.", rich_help_panel=_SHARDS)]
Quality = Annotated[int, Option(help="Of jpg.", min=1, max=100, rich_help_panel=_SHARDS)]
ResizeOption = Annotated[Resize, Option(help="How large JPEG shrinks: docs/images.md.", rich_help_panel=_SHARDS)]
Name = Annotated[str, Option(help="First part of the shards' names.", rich_help_panel=_SHARDS)]
SamplesPerShard = Annotated[int, Option(min=1, rich_help_panel=_SHARDS)]
MaxBadRun = Annotated[
    int, Option(help="So many bad samples in a row are an error; 0: no limit.", min=0, rich_help_panel=_SHARDS)
]
MaxBadShare = Annotated[float, Option(help="More bad samples than this are an error.", rich_help_panel=_SHARDS)]
OnBadShard = Annotated[OnBad, Option(help="Damaged tars of the source.", rich_help_panel=_SHARDS)]

Processes = Annotated[int, Option(help="Worker processes.", min=1)]
EngineOption = Annotated[EngineName, Option(help="Who builds shards: this machine, or a Ray cluster.")]
RayAddress = Annotated[str, Option(help="auto, HOST:PORT, ray://HOST:PORT, or local: start one here.")]
ResumeOption = Annotated[Resume, Option(help="Continue what was begun, or refuse to.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace a data set that is there.")]
DryRun = Annotated[bool, Option("--dry-run", help="Show the plan and ten decoded samples; write nothing.")]
