"""`python -m seqtok`, and the script `seqtok`: the command line, also for launchers such as torchrun."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """A signal that a training meets while its command is being loaded is remembered until somebody can answer it."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")][:2]
    if words[:1] == ["train"] or words in (["tokenizer", "train"], ["generator", "train"]):
        _remember_signals()
    from seqtok import cli

    cli.main()


def _remember_signals() -> None:
    """Even the import of what remembers them takes a tenth of a second: what comes meanwhile waits in the kernel."""
    waiting = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    from seqtok_core.foundation.run_record import Remembering

    Remembering().install()
    signal.pthread_sigmask(signal.SIG_SETMASK, waiting)


if __name__ == "__main__":
    main()
