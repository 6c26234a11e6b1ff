"""The interposer, built once a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.proof.disk.interposer import AbsentError, build


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it; without a compiler a skip here, a failure where CI=true."""
    try:
        return build(tmp_path_factory.mktemp("interposer"))
    except AbsentError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error))
        pytest.skip(str(error))
