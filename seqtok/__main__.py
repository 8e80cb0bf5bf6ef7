"""`python -m seqtok`, and the script `seqtok`: the command line, also for launchers such as torchrun."""

from __future__ import annotations

import sys


def main() -> None:
    """A signal that a training meets while its command is being loaded is remembered until somebody can answer it."""
    words = [word for word in sys.argv[1:] if not word.startswith("-")][:2]
    if words[:1] == ["train"] or words in (["tokenizer", "train"], ["generator", "train"]):
        from seqtok_core.foundation.run_record import Remembering

        Remembering().install()
    from seqtok import cli

    cli.main()


if __name__ == "__main__":
    main()
