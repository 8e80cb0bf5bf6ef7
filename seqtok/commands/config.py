"""seqtok config: which configs there are, what one resolves to, whether it is valid."""

from __future__ import annotations

from typing import Annotated

import typer

from seqtok.commands.options.common import Overrides

app = typer.Typer(help="Configs: list, show, validate.", no_args_is_help=True)
File = Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")]


@app.command()
def ls() -> None:
    """List the shipped configs with their first line."""
    from seqtok.runs.settings import shipped_configs

    for name, file in shipped_configs().items():
        typer.echo(f"{name:24} {file.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}")


@app.command()
def show(config: File, overrides: Overrides = None) -> None:
    """Print a config with every default filled in and every change applied."""
    from seqtok.runs.base import TrainingRun
    from seqtok.runs.kinds import load_run
    from seqtok.runs.settings import dump

    run = load_run(config, overrides or [])
    typer.echo(dump(run))
    if isinstance(run, TrainingRun):
        count, assumed = run.parameters()
        typer.echo(f"# {count / 1e6:.2f} M parameters" + (f"; {assumed}" if assumed else ""))


@app.command()
def validate(config: File, overrides: Overrides = None) -> None:
    """Check a config; exit status 2 and one line for what is wrong."""
    from seqtok.runs.kinds import load_run

    run = load_run(config, overrides or [])
    typer.echo(f"{config}: a valid {run.kind} config")
