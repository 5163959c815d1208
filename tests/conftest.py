"""What all tests share: one thread, a GPU where one is promised, and one Ray cluster for the whole run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

# The networks of tests are so small that a second thread only waits, on a busy machine for ever.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.pop("COLUMNS", None)  # workers of pytest-xdist have it: tables would not be as wide as in a log

import pytest
import torch

# Ray turns tokens on for a Ray that it starts itself, and leaves that on in the process: the cluster below, which
# has none, would then give no actor to whoever comes from there.
os.environ["RAY_AUTH_MODE"] = "disabled"

PROMPT_LOSSES = {
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 2000,
    "health_check_failure_threshold": 5,
    "health_check_initial_delay_ms": 2000,
}
"""A machine that is gone is noticed in five seconds, not in fifteen."""


@pytest.fixture(scope="session")
def gpu() -> str:
    """The device of a CUDA GPU; set FRAMEFOLD_REQUIRE_GPU=1 where there must be one."""
    if torch.cuda.is_available():
        return "cuda"
    message = "no CUDA device"
    if os.environ.get("FRAMEFOLD_REQUIRE_GPU") == "1":
        pytest.fail(f"{message}, and FRAMEFOLD_REQUIRE_GPU=1 promises one")
    pytest.skip(message)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[Any]:
    """A real cluster of one machine; tests may add machines, and take away those that they added."""
    from ray.cluster_utils import Cluster

    import framefold.pipeline.ray_executor  # noqa: F401 - sets what Ray reads when it is imported

    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 8,
            "object_store_memory": 200 * 2**20,
            "labels": {"zone": "head"},
            "_system_config": PROMPT_LOSSES,
        },
    )
    yield cluster
    cluster.shutdown()


@pytest.fixture
def address(ray_cluster: Any) -> str:
    """Where the cluster is."""
    return str(ray_cluster.address)
