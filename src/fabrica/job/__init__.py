"""The main job: raw files to an evidence report, from one TOML file; what is done already is not done again."""

from fabrica.job.run import Outcome, run
from fabrica.job.spec import Job, load

__all__ = ["Job", "Outcome", "load", "run"]
