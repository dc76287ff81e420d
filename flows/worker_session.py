"""Every worker of a local Dask cluster loads this module when it starts: each has its own session."""

from vocsep.sessions import begin_session

begin_session()
