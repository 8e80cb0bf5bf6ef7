"""The errors that a user can cause. The command line prints each as one message, without a traceback."""

_SHOWN = 80  # characters


def shown(value: object) -> str:
    """What a message shows of a name, a key or a cell that a user's data holds: one line, at most 80 characters."""
    return " ".join(cut_text(str(value), _SHOWN).split())


def cut_text(text: str, most: int) -> str:
    """At most `most` characters of a text: its beginning and, of a path what counts, its end."""
    half = most // 2
    return text if len(text) <= most else f"{text[:half]}…{text[half + 1 - most :]}"


class SeqtokError(Exception):
    """A fault with a known way out. The message says what, where and what to do; exit status is `exit_code`."""

    exit_code = 1


class ConfigError(SeqtokError, ValueError):
    """A setting is unknown, has the wrong type, or does not fit the others. Exit status 2."""

    exit_code = 2


class DataError(SeqtokError):
    """Input data is missing, damaged, or not what it says it is."""


class MismatchError(SeqtokError):
    """Two parts that must belong together do not: latents and tokenizer, checkpoint and config."""


class StorageError(SeqtokError):
    """The disk is full or a folder cannot be written. Exit status 3."""

    exit_code = 3


class Preempted(SeqtokError):
    """The run was asked to stop, saved its state and can be requeued. Exit status 75 (EX_TEMPFAIL)."""

    exit_code = 75
