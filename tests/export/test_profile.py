"""From data to a profile: how much data are worth, bins, limits, and a shipped artifact profiled again."""

import base64
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from export.__main__ import main
from export.profile import WINDOW, count_independent, find_edges, find_limit, make_feature
from export.signing import make_key, read_private, sign
from models.artifact.drift_profile import LEAST_SHARE, stability_index
from models.artifact.manifest import MANIFEST_FILE, MODEL_FILE, from_bytes, read_artifact, to_bytes
from models.artifact.signature import read_keys, trust_only
from models.card import DriftFeature
from models.errors import ArtifactMismatch, ArtifactUntrusted
from models.graph.train.molecule_data import MUTAG

Find = Callable[[str], Path]
LENGTH = DriftFeature(name="length", unit="m")


def walk(count: int, memory: float) -> np.ndarray:
    """Return an autoregressive series, by which neighbours are alike."""
    rng, values = np.random.default_rng(0), np.zeros(count)
    for position in range(1, count):
        values[position] = memory * values[position - 1] + rng.normal()
    return values


def test_independent_instances() -> None:
    """Independent ones are worth what they are; of an autoregression (1 - r) / (1 + r) are; kinds alike."""
    assert count_independent(walk(20_000, 0.0)) == pytest.approx(20_000, rel=0.05)
    assert count_independent(walk(20_000, 0.9)) == pytest.approx(20_000 / 19, rel=0.2)
    kinds = np.eye(2)[(walk(20_000, 0.9) > 0).astype(int)]
    assert count_independent(kinds) < 5_000
    assert count_independent(np.ones(7)) == 7
    assert count_independent(np.array([1.0, np.nan])) == 1


def test_edges() -> None:
    """A range a quarter wider on each side, and only the quantiles that enough independent values are beyond."""
    values = np.arange(1001, dtype=np.float64)
    assert find_edges(values, 1001) == [-250.0, 10.0, 100.0, 300.0, 500.0, 700.0, 900.0, 990.0, 1250.0]
    assert find_edges(values, 10) == [-250.0, 300.0, 500.0, 700.0, 1250.0]
    assert find_edges(values, 5) == [-250.0, 1250.0]
    assert find_edges(np.zeros(1000), 1000) == [-0.25, 0.25]
    many_zeros = np.where(values < 600, 0.0, values)
    assert find_edges(many_zeros, 1001) == [-250.0, 700.0, 900.0, 990.0, 1250.0]


def test_limit_is_for_quiet_days() -> None:
    """Ordinary days stay below it; with fewer instances to learn from it is higher; a little shift is within reach."""
    expected = np.full(10, 0.1)
    many, few = (find_limit(expected, expected, count, seed=0) for count in (10_000, 40))
    assert (many, few > 0.5) == (0.1, True)
    rng = np.random.default_rng(1)
    windows = stability_index(expected, rng.multinomial(WINDOW, expected, size=100_000).astype(float))
    assert windows.max() < many
    shifted = np.array([0.2, *[0.8 / 9] * 9])
    assert stability_index(expected, rng.multinomial(WINDOW, shifted, size=100).astype(float)).mean() > many * 0.7


def test_validation_that_differs_raises_the_limit() -> None:
    """What already differs between training and validation data is no alarm."""
    usual, other = np.array([0.5, 0.5]), np.array([0.8, 0.2])
    difference = float(stability_index(usual, other))
    assert find_limit(usual, other, 10_000, seed=0) > difference > find_limit(usual, usual, 10_000, seed=0)


def test_feature() -> None:
    """Shares of all bins, those never seen included; the same for the same data."""
    values = walk(5000, 0.0)
    feature = make_feature(LENGTH, values, values, "train", None)
    assert feature == make_feature(LENGTH, values, values, "train", None)
    assert sum(feature.expected) == pytest.approx(1, abs=1e-4)
    assert 0 < feature.expected[0] < LEAST_SHARE
    assert (feature.split, feature.instances, len(feature.expected)) == ("train", 5000, 12)
    kinds = make_feature(
        DriftFeature(name="label", unit="label", kinds=lambda assets: assets),
        np.eye(2)[[0, 0, 1]],
        np.eye(2),
        "train",
        "ab",
    )
    assert (kinds.kinds, kinds.edges, kinds.expected) == (["a", "b"], [], [0.625, 0.375])


@pytest.fixture
def folder(tmp_path: Path, shipped_folder: Find) -> Path:
    """A copy of the smallest shipped artifact."""
    return shutil.copytree(shipped_folder("molecule"), tmp_path / "molecule")


def test_artifacts_without_a_profile_keep_their_bytes(folder: Path, tmp_path: Path) -> None:
    """They say nothing of one, byte for byte as before there were any; nobody may write that there is none."""
    manifest, _ = read_artifact(folder)
    bare = msgspec.structs.replace(manifest, profile=None)
    content = to_bytes(bare)
    assert b"profile" not in content
    assert to_bytes(from_bytes(content, "")) == content
    path = folder / MANIFEST_FILE
    path.write_bytes(content)
    private = tmp_path / "key"
    public = make_key(private, None)
    sign(folder, read_private(private, str))
    trust_only(read_keys([base64.b64encode(public).decode()]))
    try:
        assert read_artifact(folder)[0] == from_bytes(content, "")
        path.write_bytes(to_bytes(manifest))
        with pytest.raises(ArtifactUntrusted):
            read_artifact(folder)
    finally:
        trust_only({})
    path.write_bytes(content.replace(b' "summary"', b' "profile": null,\n "summary"'))
    with pytest.raises(ArtifactMismatch):
        read_artifact(folder)


@pytest.mark.data(MUTAG)
def test_profile_again(folder: Path) -> None:
    """The shipped profile comes out again, bit by bit, and nothing else of the artifact changes."""
    whole, model = (folder / MANIFEST_FILE).read_bytes(), (folder / MODEL_FILE).read_bytes()
    manifest, _ = read_artifact(folder)
    (folder / MANIFEST_FILE).write_bytes(to_bytes(msgspec.structs.replace(manifest, profile=None)))
    done = CliRunner().invoke(main, ["profile", str(folder)])
    assert done.exit_code == 0, done.output
    assert done.output == f"profiled   {manifest.tag:<20} {manifest.digest[:12]}\n"
    assert (folder / MANIFEST_FILE).read_bytes() == whole
    assert (folder / MODEL_FILE).read_bytes() == model


@pytest.mark.data(MUTAG)
def test_other_data_are_refused(folder: Path) -> None:
    """A profile of data that the model was not trained on is none of its."""
    manifest, _ = read_artifact(folder)
    data = manifest.training.data | {"sha256": {"MUTAG_A.txt": "0" * 64}}
    other = msgspec.structs.replace(manifest, training=msgspec.structs.replace(manifest.training, data=data))
    (folder / MANIFEST_FILE).write_bytes(to_bytes(other))
    done = CliRunner().invoke(main, ["profile", str(folder)])
    assert done.exit_code == 1
    assert done.output == f"Error: {manifest.tag} was trained on other data than MUTAG (TUDataset)\n"
