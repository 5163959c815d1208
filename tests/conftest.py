"""What all tests share: where a GPU is promised, a missing one is a failure; elsewhere it is a skip."""

from __future__ import annotations

import os

import pytest
import torch


@pytest.fixture(scope="session")
def gpu() -> str:
    """The device of a CUDA GPU; set FRAMEFOLD_REQUIRE_GPU=1 where there must be one."""
    if torch.cuda.is_available():
        return "cuda"
    message = "no CUDA device"
    if os.environ.get("FRAMEFOLD_REQUIRE_GPU") == "1":
        pytest.fail(f"{message}, and FRAMEFOLD_REQUIRE_GPU=1 promises one")
    pytest.skip(message)
