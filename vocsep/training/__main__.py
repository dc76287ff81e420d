"""One of several processes that train together: `python -m vocsep.training JOB ANSWER`, started by torchrun."""

import sys
from pathlib import Path

from storage.errors import UserError
from storage.files import read_json, write_json
from vocsep.training.step import TrainJob, train
from vocsep.training.stopping import TrainingStopped

if __name__ == "__main__":
    try:
        content = read_json(Path(sys.argv[1]))
        result = train(TrainJob.model_validate(content["job"]), promote=content["promote"])
        if result is not None:
            write_json(Path(sys.argv[2]), vars(result))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except TrainingStopped as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(128 + stopped.signal)
