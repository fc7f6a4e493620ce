"""The verbs that the workflow's rules call: `astolfo job VERB --spec JSON ...`.

Each reads a spec (or `@FILE` that holds one), writes its outputs whole or not at all, with their side-cars, and logs to
its own file besides the terminal. None knows which rule called it.
"""

from astolfo.commands.jobs import evaluation, inputs, merging, training
from astolfo.commands.jobs.job import jobs

__all__ = ["evaluation", "inputs", "jobs", "merging", "training"]
