"""How the report says numbers and names. Shares are printed as per cent."""

from __future__ import annotations

_SPELLED = {
    "color": "colour",
    "colors": "colours",
    "main_color": "main colour",
    "binding": "colour on its shape",
}
_BARE = "–"  # where there is no number


def percent(value: float | None, digits: int = 1) -> str:
    """0.5 -> "50.0". None -> a dash."""
    return _BARE if value is None else f"{100 * value:.{digits}f}"


def spelled(name: str) -> str:
    """An attribute's or level's name as a reader sees it."""
    return _SPELLED.get(name, name.replace("_", " "))


def duration_text(seconds: float) -> str:
    """75.2 -> "1 min 15 s"; 0.42 -> "0.42 s"."""
    if seconds < 10:
        return f"{seconds:.2f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest:02d} s"


def number(value: float | None, digits: int) -> str:
    """0.5, 2 -> "0.50". None -> a dash."""
    return _BARE if value is None else f"{value:.{digits}f}"


FILTERS = {"percent": percent, "spelled": spelled, "duration": duration_text}
