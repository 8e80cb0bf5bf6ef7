"""Curves against prefix length as SVG that follows the page: its colours are CSS variables, so that one
picture serves light and dark, and its text is text.

Curves are named at their right ends; names that would touch are moved apart.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

# Colours that matplotlib writes and the page replaces by its own.
_TOKENS = {
    "#00a0c0": "var(--c0)",
    "#00a0c1": "var(--c1)",
    "#00a0c2": "var(--c2)",
    "#00a0c3": "var(--c3)",
    "#00a0c4": "var(--c4)",
    "#00a0c5": "var(--c5)",
    "#00b0b0": "var(--muted)",
    "#00b0b1": "var(--line)",
}


@dataclass(frozen=True)
class _Palette:
    curves: Sequence[str]
    muted: str
    line: str


_PAGE = _Palette([name for name, value in _TOKENS.items() if value.startswith("var(--c")], "#00b0b0", "#00b0b1")
_PRINT = _Palette(["#2f5fd0", "#0f8a7e", "#b86a00", "#a8327f", "#15181d", "#6b7a10"], "#5d6673", "#e1e5ea")
_DPI = 200  # of a printed chart
_SIZE = (5.2, 3.0)  # inches at 72 dots: about 374 x 216 CSS pixels before scaling
_LONGEST = 18  # characters of a name
_NAME_GAP = 12.5  # points between the baselines of two names
_LEFT, _BOTTOM, _HEIGHT, _NAME_CHARACTER = 0.09, 0.17, 0.70, 0.0155  # shares of the figure


@dataclass(frozen=True)
class Curve:
    """`points` maps k (as text, as results.json has it) to a value; `chance` is drawn as a dotted line."""

    name: str
    points: Mapping[str, float | None]
    chance: float | None = None


def chart(curves: Sequence[Curve], unit: str, describe: str, over: str | None = None) -> str:
    """-> an <svg> element. `unit` stands above the vertical axis; with "%" values are shares and shown
    times 100. `over`: what the numbers of `points` count instead of tokens; the axis is linear then.

    At most six curves; `describe` is what a screen reader says. Curves without a value are left out.
    """
    svg = _drawn(curves, unit, describe, over, _PAGE, ("svg",))
    return _for_page(svg["svg"].decode(), describe) if svg else ""


def printed(curves: Sequence[Curve], unit: str, describe: str) -> dict[str, bytes]:
    """The same chart for a paper: "svg" and "png", with colours of their own on white; nothing without a value."""
    return _drawn(curves, unit, describe, None, _PRINT, ("svg", "png"))


def _drawn(
    curves: Sequence[Curve], unit: str, describe: str, over: str | None, palette: _Palette, formats: Sequence[str]
) -> dict[str, bytes]:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    curves = [curve for curve in curves if any(value is not None for value in curve.points.values())]
    if not curves:
        return {}
    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": describe,
        "font.family": "sans-serif",
        "font.size": 9.5,
    }
    with rc_context(style):
        figure = Figure(figsize=_SIZE)
        longest = max(len(_short(curve.name)) for curve in curves)
        width = 1 - _LEFT - 0.03 - _NAME_CHARACTER * longest
        axes = figure.add_axes((_LEFT, _BOTTOM, width, _HEIGHT))
        scale = 100.0 if unit == "%" else 1.0
        dots = 4.2 if over is None else 0.0
        ends = [_draw(axes, curve, color, scale, dots) for curve, color in zip(curves, palette.curves, strict=False)]
        if over is None:
            _prefix_axis(axes, sorted({int(k) for curve in curves for k in curve.points}), palette)
        else:
            _counting_axis(axes, over, palette)
        _frame(axes, unit, palette)
        _name(axes, curves, ends, palette)
        return {kind: _saved(figure, kind, clear=palette is _PAGE) for kind in formats}


def _saved(figure: Any, kind: str, clear: bool) -> bytes:
    stream = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure.savefig(stream, format=kind, transparent=clear, metadata=metadata, dpi=_DPI)
    return stream.getvalue()


def _draw(axes: Any, curve: Curve, color: str, scale: float, dots: float) -> float:
    """`dots`: size of a point's mark. Returns the last value, where the name goes."""
    points = [(int(k), value * scale) for k, value in curve.points.items() if value is not None]
    points.sort()
    xs, ys = [x for x, _ in points], [y for _, y in points]
    if curve.chance is not None:
        axes.axhline(curve.chance * scale, color=color, linewidth=1.1, linestyle=(0, (1, 2.2)), zorder=1)
    axes.plot(xs, ys, color=color, linewidth=2.0, marker="o", markersize=dots, zorder=3, clip_on=False)
    return float(ys[-1])


def _prefix_axis(axes: Any, ticks: Sequence[int], palette: _Palette) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(ticks)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(list(ticks), [str(k) for k in ticks])
    axes.set_xlabel("tokens k", color=palette.muted, labelpad=3)


def _counting_axis(axes: Any, over: str, palette: _Palette) -> None:
    from matplotlib.ticker import EngFormatter, MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.set_xlabel(over, color=palette.muted, labelpad=3)


def _frame(axes: Any, unit: str, palette: _Palette) -> None:
    from matplotlib.ticker import MaxNLocator

    if unit == "%":
        axes.set_ylim(0, 102)
        axes.set_yticks([0, 25, 50, 75, 100])
    else:
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.margins(y=0.12)
    axes.set_title(
        unit, color=palette.muted, fontsize=9.5, loc="left", x=-0.8 * _LEFT / axes.get_position().width, pad=8
    )
    axes.tick_params(colors=palette.muted, length=0, pad=5)
    axes.grid(axis="y", color=palette.line, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in axes.spines.values():
        side.set_visible(False)


def _name(axes: Any, curves: Sequence[Curve], ends: Sequence[float], palette: _Palette) -> None:
    low, high = axes.get_ylim()
    points_high = _SIZE[1] * 72 * _HEIGHT
    wanted = [(end - low) / (high - low) * points_high for end in ends]
    for curve, color, y in zip(curves, palette.curves, spread(wanted, _NAME_GAP, points_high), strict=False):
        axes.annotate(
            _short(curve.name),
            (1, 0),
            (9, y),
            xycoords="axes fraction",
            textcoords="offset points",
            color=color,
            va="center",
            fontweight="bold",
        )


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"


def spread(wanted: Sequence[float], gap: float, most: float) -> list[float]:
    """Positions near `wanted`, at least `gap` apart and at most `most` where there is room, in the same
    order."""
    order = sorted(range(len(wanted)), key=lambda i: (wanted[i], -i))
    placed = list(wanted)
    for before, i in pairwise(order):  # upwards: nobody touches the one below
        placed[i] = max(placed[i], placed[before] + gap)
    top = most
    for i in reversed(order):  # downwards again where the topmost went too far
        placed[i] = min(placed[i], top)
        top = placed[i] - gap
    return placed


def _for_page(svg: str, describe: str) -> str:
    """Without the size, style sheet and fonts of its own; the page decides."""
    svg = svg[svg.index("<svg") :]
    for token, variable in _TOKENS.items():
        svg = svg.replace(token, variable)
    svg = re.sub(r'\s(?:width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;]*; ", "", svg).replace("font-weight: 700", "font-weight: 600")
    label = html.escape(describe, quote=True)
    return svg.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)
