"""seqtok demo: from nothing to a report in which pictures emerge token by token, on drawn scenes, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seqtok.commands.options.common import Overrides, Overwrite, folder_to_write


def demo(
    overrides: Overrides = None,
    out: Annotated[
        Path, typer.Option(help="Folder of everything that the demo makes.", callback=folder_to_write)
    ] = Path("runs/demo"),
    config: Annotated[str, typer.Option(help="A demo config: a YAML file or a shipped one's name.")] = "demo",
    overwrite: Overwrite = False,
) -> None:
    """Draw scenes, train a tokenizer and a sequence model, judge both, write a report. Killed, it continues."""
    from seqtok.runs.demo.chain import run_demo

    typer.echo(str(run_demo(config, out, overrides or [], overwrite)))
