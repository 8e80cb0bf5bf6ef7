"""The tests of seqtok, in folders of the rooms' names.

Many compare bits, which depend on the number of threads: it must not follow the load of the machine. Some interrupt
what they start: a shell's background job is born deaf to SIGINT, and its children with it.
"""

import os
import signal

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
