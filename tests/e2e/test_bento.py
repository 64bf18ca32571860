"""The built Bento: no torch side in it, and every model answers from an empty ``BENTOML_HOME``."""

import json
import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pip_requirements_parser import RequirementsFile

from models.paths import REPOSITORY

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TORCH_SIDE = {"train", "training"}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository's files, as a clone of this state would have them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    copy = tmp_path_factory.mktemp("checkout")
    for name in filter(None, listed.stdout.split("\0")):
        if (REPOSITORY / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, copy / name)
    return copy


@pytest.fixture(scope="module")
def built(checkout: Path, run: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """Tag, folder and exported file of a Bento built in the copy."""
    home = tmp_path_factory.mktemp("build-home")
    assert run("-m", "export", "install", home=home, cwd=checkout).returncode == 0
    done = run("-m", "bentoml", "build", "--output", "tag", home=home, cwd=checkout, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder,) = (home / "bentos" / "lectern").glob("*/")
    tag = f"lectern:{folder.name}"
    file = tmp_path_factory.mktemp("export") / "lectern.bento"
    done = run("-m", "bentoml", "export", tag, str(file), home=home, cwd=file.parent, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return tag, folder, file


@pytest.fixture(scope="module")
def bento_server(
    built: tuple[str, Path, Path], run: Any, launch_bento: Any, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """The exported Bento, imported into an empty home and served from an empty folder."""
    tag, _, file = built
    home, elsewhere = tmp_path_factory.mktemp("empty-home"), tmp_path_factory.mktemp("elsewhere")
    done = run("-m", "bentoml", "import", str(file), home=home, cwd=elsewhere, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return launch_bento(tag, home, elsewhere)


def test_the_bento_holds_no_torch_side(built: tuple[str, Path, Path]) -> None:
    """No networks, recipes, data or tests, only the rooms that serve; torch is not among its requirements."""
    _, folder, _ = built
    files = [path.relative_to(folder / "src") for path in (folder / "src").rglob("*") if path.is_file()]
    assert {path.parts[0] for path in files if path.suffix == ".py"} == {"models", "service"}
    assert not [path for path in files if TORCH_SIDE.intersection(path.parts) or "tests" in path.parts]
    assert not [path for path in files if b"import torch" in (folder / "src" / path).read_bytes()]
    requirements = (folder / "env" / "python" / "requirements.txt").read_text()
    assert "onnxruntime" in requirements
    assert "torch" not in requirements


def test_the_bento_holds_the_page(built: tuple[str, Path, Path]) -> None:
    """Every file of the page that ``LECTERN_DEMO`` switches on, and the licence of its library."""
    _, folder, _ = built
    position = Path("service", "demo", "static")
    kept = {path.name: path.read_bytes() for path in (folder / "src" / position).iterdir()}
    assert kept == {path.name: path.read_bytes() for path in (REPOSITORY / position).iterdir()}
    assert {"index.html", "d3.LICENSE"} <= kept.keys()


def test_the_bento_needs_no_more_python_than_it_holds(built: tuple[str, Path, Path]) -> None:
    """Every package that pyproject's serve group asks for is in the Bento's requirements."""
    _, folder, _ = built
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
    wanted = {re.split(r"[\[<>=;~! ]", line)[0] for line in groups["serve"]} - {"onnxruntime"}
    lines = (folder / "env" / "python" / "requirements.txt").read_text().splitlines()
    assert wanted <= {re.split(r"[\[<>=;~! ]", line)[0] for line in lines}


def test_the_bento_installs_the_lock(built: tuple[str, Path, Path]) -> None:
    """Its requirements are those of the lock with every hash, which pip and uv insist on where they stand."""
    _, folder, _ = built
    wanted = RequirementsFile.from_file(str(REPOSITORY / "requirements" / "cuda.txt")).requirements
    found = RequirementsFile.from_file(str(folder / "env" / "python" / "requirements.txt")).requirements
    pins = {(one.name, str(one.specifier), str(one.marker), tuple(sorted(one.hash_options))) for one in found}
    assert {(w.name, str(w.specifier), str(w.marker), tuple(sorted(w.hash_options))) for w in wanted} <= pins
    # BentoML adds the version it runs as once more; pip and uv take the hashes from the other line.
    assert [one.name for one in found if not one.hash_options] == ["bentoml"]


def test_the_bento_answers_every_example(bento_server: Any, server: Any, model: str) -> None:
    """Its documented example gives the documented answer, which is also the answer of the repository's own server."""
    page = bento_server.page(f"/v1/models/{model}")
    answer = bento_server.post(model, page["example"]["request"])
    assert answer.status_code == 200, answer.text
    assert json.dumps(answer.json()) == json.dumps(page["example"]["response"])
    ours = server.page(f"/v1/models/{model}")
    assert page["digest"] == ours["digest"]
    assert answer.json() == server.post(model, ours["example"]["request"]).json()


def test_the_bento_runs_its_own_code(bento_server: Any) -> None:
    """No process of it has the repository as its working folder or has a file of it open."""
    for one in bento_server.tree():
        assert not Path(one.cwd()).is_relative_to(REPOSITORY)
        assert not [file.path for file in one.open_files() if Path(file.path).is_relative_to(REPOSITORY)]


def test_a_bento_without_settings_serves_every_shipped_model(bento_server: Any, built: tuple[str, Path, Path]) -> None:
    """The manifests it carries say which."""
    _, folder, _ = built
    shipped = sorted(path.parent.name for path in (folder / "src").glob("models/*/trained/*/manifest.json"))
    assert sorted(one["name"] for one in bento_server.page("/v1/models")["models"]) == shipped
