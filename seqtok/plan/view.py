"""The tables of `seqtok plan`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_ROWS = (
    *("weights", "gradients", "optimizer", "average", "buckets", "activations"),
    *("loader", "checkpoint_copy", "base", "total"),
)
_NAMES = {
    "average": "weights' average",
    "base": "Python, libraries",
    "loader": "samples kept",
    "checkpoint_copy": "copy for saving",
}


def show_answer(answer: dict[str, Any]) -> None:
    console = Console()
    device, batch = answer["device"], answer["batch"]
    console.print(
        f"{answer['config']} ({answer['kind']}) on {device['count']} x {device['name']}, batch {batch['global']} = "
        f"{device['count']} x {batch['micro']} x {batch['accumulation']} (devices x micro-batch x accumulation)"
    )
    groups = ", ".join(f"{title} {count / 1e6:.2f} M" for title, count in answer["parameters"]["groups"].items())
    console.print(f"parameters: {answer['parameters']['total'] / 1e6:.2f} M ({groups})")
    console.print(_memory(answer))
    console.print(_time(answer))
    for note in answer["assumptions"]:
        console.print(f"  {note}", style="dim", markup=False)
    for warning in answer["warnings"]:
        console.print(f"warning: {warning}", style="bold yellow", markup=False)


def _memory(answer: dict[str, Any]) -> Table:
    memory = answer["memory"]
    title = f"memory of one process, by ZeRO stage (of {size(answer['device']['memory'])})"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for stage in memory["stages"]:
        chosen = stage["stage"] == memory["chosen_stage"]
        table.add_column(f"{stage['stage']}{' (config)' if chosen else ''}", justify="right")
    for row in _ROWS:
        values = [size(stage[row]) for stage in memory["stages"]]
        table.add_row(_NAMES.get(row, row), *values, style="bold" if row == "total" else None)
    table.add_row("largest micro-batch", *[_count(stage["largest_micro_batch"]) for stage in memory["stages"]])
    table.add_row("DeepSpeed's states", *[size(s["deepspeed"]) if s["deepspeed"] else "-" for s in memory["stages"]])
    if "measured_peak" in memory:
        table.caption = (
            f"measured here after the timed steps: {size(memory['measured_peak'])}; to expect: {size(memory['total'])}"
        )
    return table


def _time(answer: dict[str, Any]) -> Table:
    time, disk = answer["time"], answer["disk"]
    table = Table(show_header=False, title="time and disk", title_justify="left")
    table.add_row("FLOPs per image, forward and backward", flops(answer["flops_per_image"]))
    table.add_row("peak of one device", f"{flops(time['peak_flops'])}/s ({time['peak_source']})")
    table.add_row("training, by formula", f"{duration(time['formula_seconds'])} at MFU {time['mfu']:.2f}")
    if "step_seconds" in time:
        step = f"{1000 * time['step_seconds']:.0f} ms a step"
        table.add_row("training, from steps measured here", f"{duration(time['seconds'])}, {step}")
    table.add_row("images per second", f"{time['images_per_s']:,.0f}")
    table.add_row("GPU hours, cost", f"{time['gpu_hours']:,.1f} h, {time['cost_usd']:,.2f} USD")
    table.add_row("sent per step and process", size(time["communication_bytes_per_step"]))
    table.add_row("data read", f"{size(disk['read_bytes_per_s'])}/s")
    table.add_row("a checkpoint; on the disk at most", f"{size(disk['checkpoint_bytes'])}; {size(disk['kept_bytes'])}")
    return table


def _count(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"


def size(count: float) -> str:
    """Bytes for people."""
    for unit, factor in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{count:.0f} B"


def flops(count: float) -> str:
    for unit, factor in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6)):
        if count >= factor:
            return f"{count / factor:.2f} {unit}FLOP"
    return f"{count:.0f} FLOP"


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
