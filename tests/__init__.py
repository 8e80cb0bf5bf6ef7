"""The tests of seqtok, in folders of the rooms' names.

Many compare bits, which depend on the number of threads: it must not follow the load of the machine. Tests side by
side share the cores: threads that wait for each other on cores where others work take many times as long. Some
interrupt what they start: a shell's background job is born deaf to SIGINT, one under nohup to SIGHUP, and its children
with it.
"""

import os
import signal

_beside = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _beside)))
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
