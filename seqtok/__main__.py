"""`python -m seqtok`: the command line, for launchers such as torchrun."""

from seqtok.cli import main

main()
