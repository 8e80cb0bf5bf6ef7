"""The tests of seqtok, in folders of the rooms' names.

Many compare bits, which depend on the number of threads: it must not follow the load of the machine.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count() or 1))
