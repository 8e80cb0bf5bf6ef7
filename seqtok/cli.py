"""The `seqtok` command. A user's mistake ends in one message and a non-zero exit status, never in a traceback."""

from __future__ import annotations

import errno
import logging
import os
import sys
import warnings
from typing import Annotated

import typer

from seqtok.commands import checkpoint, config, demo, doctor, evaluate, generator, plan, report, tokenizer, train
from seqtok.commands.data import app as data
from seqtok.words import command_of, in_words_of
from seqtok_core.foundation.errors import SeqtokError
from seqtok_core.foundation.machine import too_many_files

app = typer.Typer(
    help="Ordered 1-D image tokens: data, tokenizer, sequence model, judge.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.command(name="demo")(demo.demo)
app.add_typer(config.app, name="config")
app.add_typer(data.app, name="data")
app.add_typer(tokenizer.app, name="tokenizer")
app.add_typer(generator.app, name="generator")
app.command(name="train")(train.train)
app.add_typer(evaluate.app, name="evaluate")
app.add_typer(checkpoint.app, name="checkpoint")
app.command(name="report")(report.report)
app.command(name="explore")(report.explore)
app.command(name="plan")(plan.plan)
app.command(name="doctor")(doctor.doctor)


@app.callback()
def options(
    local_rank: Annotated[int | None, typer.Option("--local_rank", "--local-rank", hidden=True)] = None,
) -> None:
    # The deepspeed launcher puts --local_rank=N before the words of the command; it sets LOCAL_RANK as well.
    if local_rank is not None:
        os.environ.setdefault("LOCAL_RANK", str(local_rank))


def main() -> None:
    """Run the command line; exit statuses are those of seqtok_core.foundation.errors."""
    status = _run()
    distributed = sys.modules.get(
        "seqtok_core.training.processes.distributed"
    )  # loaded by what trains, and only by that
    if distributed is not None:
        distributed.leave(status)
    sys.exit(status)


def _spoken(message: str) -> str:
    """A message of the rooms below in the words of the command that was called."""
    words = sys.argv[1:]
    return in_words_of(command_of(app, words), message, words)


class _Spoken(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _spoken(super().format(record))


def speak() -> None:
    """Warnings and logs of this process are said as errors are: one line each, in the words of the command."""
    plain = warnings.formatwarning
    warnings.formatwarning = lambda message, category, *where, **line: (
        f"warning: {_spoken(str(message))}\n" if category is UserWarning else plain(message, category, *where, **line)
    )
    if logging.lastResort is not None:  # what writes logs where nobody has set a handler
        logging.lastResort.setFormatter(_Spoken())


def _run() -> int:
    speak()
    try:
        app()
    except SeqtokError as error:
        typer.echo(f"seqtok: {_spoken(str(error))}", err=True)
        return error.exit_code
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            typer.echo(f"seqtok: {_spoken(str(too_many_files()))}", err=True)
            return 1
        if error.filename is None:
            raise
        typer.echo(f"seqtok: {error.filename}: {error.strerror}", err=True)  # what no room below has put in words
        return 1
    except KeyboardInterrupt:
        typer.echo("seqtok: interrupted; the same command continues", err=True)
        return 130
    except SystemExit as end:  # how typer ends, well or not
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0
