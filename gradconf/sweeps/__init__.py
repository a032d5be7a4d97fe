"""Many runs, described as data: on a laptop, on several processes or on a cluster, with every result kept.

A grid is expanded into configurations, each run is a pure function of its configuration, and each result becomes one
line of a table. What was interrupted goes on where it stopped.
"""

from gradconf.sweeps.configurations import Configuration
from gradconf.sweeps.costs import cost
from gradconf.sweeps.execution import execute
from gradconf.sweeps.grids import Sweep, expand, read_sweep
from gradconf.sweeps.processes import pool
from gradconf.sweeps.reading import frame, histories, tuned
from gradconf.sweeps.running import run
from gradconf.sweeps.tables import read_table

__all__ = [
    "Configuration",
    "Sweep",
    "cost",
    "execute",
    "expand",
    "frame",
    "histories",
    "pool",
    "read_sweep",
    "read_table",
    "run",
    "tuned",
]
