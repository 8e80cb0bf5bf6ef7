"""seqtok plan: memory, time, money and disk of a training before it is started."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from seqtok.commands.options.common import Overrides


def plan(
    config: Annotated[str, typer.Argument(help="A YAML file, or the name of a shipped config.")],
    overrides: Overrides = None,
    gpus: Annotated[int, typer.Option(help="GPUs (or CPU processes) in all.", min=1)] = 1,
    gpu: Annotated[str | None, typer.Option(help="h100, a100-40gb, …, cpu; by default what this machine has.")] = None,
    price: Annotated[float | None, typer.Option(help="USD per GPU hour.", min=0)] = None,
    mfu: Annotated[float | None, typer.Option(help="Share of the peak that training reaches, 0 to 1.")] = None,
    measure: Annotated[
        bool | None, typer.Option("--measure/--no-measure", help="Time real steps here; by default on cpu only.")
    ] = None,
    steps: Annotated[int, typer.Option(help="Steps that are timed.", min=1)] = 20,
    vocab: Annotated[int | None, typer.Option(help="Vocabulary, where there is no captions model yet.")] = None,
    latents: Annotated[str | None, typer.Option(help="KxD, where there are no latents yet: 64x16.")] = None,
    samples: Annotated[int | None, typer.Option(help="Samples, where there is no data set yet.", min=1)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything, as JSON.")] = False,
) -> None:
    """Say what a training needs: parameters, memory by ZeRO stage, FLOPs, time, cost, disk. Trains nothing."""
    from seqtok.plan.answer import answer_plan as make
    from seqtok.plan.request import PlanRequest
    from seqtok.runs.base import AssumedData
    from seqtok_core.foundation.errors import ConfigError

    if mfu is not None and not 0 < mfu <= 1:
        raise ConfigError(f"--mfu {mfu}: a share above 0, at most 1")
    assumed = AssumedData(vocab, _shape(latents), samples)
    answer = make(config, overrides or [], PlanRequest(gpus, gpu, price, mfu, measure, steps, assumed))
    if as_json:
        typer.echo(json.dumps(answer, indent=1, sort_keys=True))
    else:
        from seqtok.plan.view import show_answer

        show_answer(answer)


def _shape(latents: str | None) -> tuple[int, int] | None:
    from seqtok_core.foundation.errors import ConfigError

    if latents is None:
        return None
    try:
        length, dim = (int(part) for part in latents.lower().split("x"))
    except ValueError:
        raise ConfigError(f"--latents {latents}: write length x channels, as 64x16") from None
    if length < 1 or dim < 1:
        raise ConfigError(f"--latents {latents}: both numbers must be at least 1")
    return length, dim
