"""How moments, lengths of time and texts of unknown origin are written."""

from __future__ import annotations

from datetime import datetime, timedelta


def moment(value: datetime | None) -> str:
    """Say when, in local time, to the second."""
    return "-" if value is None else value.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(value: timedelta) -> str:
    """Say about how long."""
    seconds = max(value.total_seconds(), 0.0)
    if seconds < 90:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{hours} h" if hours < 48 else f"{round(hours / 24)} d"


def quiet_text(text: str) -> str:
    """Return text of unknown origin as one line that cannot drive a terminal."""
    return "".join(character if character.isprintable() else " " for character in text)


def shown(value: object, most: int = 200) -> str:
    """Return a value of unknown origin as Python writes it, on one line and at most about so long. Never raises."""
    try:
        text = str.__str__(repr(value[: most + 1] if isinstance(value, str | bytes) else value))
    except BaseException:  # the value's own code
        return f"<{type(value).__name__} that cannot be shown>"
    text = quiet_text(text[: most + 1])
    return text if len(text) <= most else text[:most] + "…"
