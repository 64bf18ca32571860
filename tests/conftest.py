"""What every test may lean on: one torch thread, and the shipped artifacts, each opened once."""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest
import torch

from models.paths import REPOSITORY
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import Session, open_artifact
from models.training.datasets import Dataset, data_root, is_local

# Two threads that wait for each other on a busy machine take twenty times as long.
torch.set_num_threads(1)


def skip_without(dataset: Dataset) -> None:
    """Skip the test where a dataset would have to be downloaded, and say how to get it."""
    if not is_local(dataset):
        pytest.skip(
            f"{dataset.name} is not in {data_root()}: make data downloads it, LECTERN_DATA names another folder"
        )


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked ``data`` runs where all of its datasets are."""
    for dataset in (one for marker in item.iter_markers("data") for one in marker.args):
        skip_without(dataset)


@pytest.fixture(scope="session")
def need_data() -> Callable[[Dataset], None]:
    """What a test calls that learns only as it runs which dataset it needs."""
    return skip_without


@pytest.fixture(scope="session")
def shipped_session() -> Callable[[str], Session]:
    """The open session of a shipped model, by name."""

    @lru_cache
    def open_shipped(name: str) -> Session:
        return open_artifact(next((REPOSITORY / "models").glob(f"*/trained/{name}")))

    return open_shipped


@pytest.fixture(scope="session")
def shipped(shipped_session: Callable[[str], Session]) -> Callable[[str], Predictor]:
    """The predictor of a shipped model, by name."""
    return lru_cache(lambda name: open_predictor(shipped_session(name)))


@pytest.fixture(scope="session")
def shipped_folder() -> Callable[[str], Path]:
    """Where a shipped model's artifact lies, by name."""
    return lambda name: next((REPOSITORY / "models").glob(f"*/trained/{name}"))
