"""What tests of separation share."""

import pytest

from tests.vocsep.models.small_models import lively_separator
from vocsep.separation.separator import Separator


@pytest.fixture(scope="module")
def separator() -> Separator:
    return lively_separator(channels=2)
