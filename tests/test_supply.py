"""Locks, the Bento's packages, pyproject's groups and constraints agree; the bill and the audit say what is true."""

import hashlib
import importlib.util
import json
import re
import shutil
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pip_requirements_parser import RequirementsFile

from export.__main__ import main
from export.bill import bill
from export.store import shipped_folders
from models.artifact.manifest import MANIFEST_FILE, from_bytes
from models.paths import REPOSITORY

FILES = (
    "requirements/serve.txt",
    "requirements/cuda.txt",
    "pyproject.toml",
    "constraints.txt",
    "bentofile.yaml",
    "Makefile",
)
HASHES = r"(    --hash\S+( \\)?\n)+"
Pins = dict[str, tuple[str, frozenset[str]]]


def pins(lock: Path) -> Pins:
    """Version and hashes of every package of a lock."""
    found: Pins = {}
    for one in RequirementsFile.from_file(str(lock)).requirements:
        (specifier,) = one.specifier
        assert specifier.operator == "==", one.name
        found[canonicalize_name(one.name)] = specifier.version, frozenset(one.hash_options)
    return found


def needed(names: list[str]) -> set[str]:
    """These packages and all that they need here, by what is installed."""
    found: set[str] = set()
    while names:
        name = canonicalize_name(names.pop())
        if name not in found:
            found.add(name)
            wanted = [Requirement(line) for line in metadata.requires(name) or ()]
            names += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found


def disagreements(root: Path) -> list[str]:
    """Return what does not fit together, one line each."""
    serve, cuda = pins(root / "requirements/serve.txt"), pins(root / "requirements/cuda.txt")
    lines = (root / "constraints.txt").read_text().splitlines()
    tested = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines[1:])}
    group = tomllib.loads((root / "pyproject.toml").read_text())["dependency-groups"]["serve"]
    python = yaml.safe_load((root / "bentofile.yaml").read_text())["python"]
    wanted = [Requirement(line) for line in group]
    here = [one.name for one in wanted if one.marker is None or one.marker.evaluate()]
    found = [f"{name}: no sha256" for name, (_, hashes) in {**serve, **cuda}.items() if not hashes]
    found += [f"{name}: a hash that is no sha256" for name, (_, h) in cuda.items() if not all(map(is_sha256, h))]
    found += [f"{name}: not the tested version" for name, (version, _) in serve.items() if tested.get(name) != version]
    found += [f"{name}: differs with the GPU" for name, pin in serve.items() if cuda.get(name) != pin]
    found += [f"{one.name}: not what pyproject asks" for one in wanted if not fits(one, serve)]
    found += [f"{name}: needed, not locked" for name in sorted(needed(here) - serve.keys())]
    for name in ("serve", "cuda"):
        text = re.sub(r"#.*", "", (root / f"requirements/{name}.txt").read_text())
        found += [f"{name}: a place stands in it" for _ in re.findall(r"://|^-|/", text, re.MULTILINE)]
    if (python["requirements_txt"], python["lock_packages"]) != ("./requirements/cuda.txt", False):
        found.append("bentofile.yaml: other packages")
    if "packages" in python:
        found.append("bentofile.yaml: packages that are not checked")
    if not re.search(r"\$\(SERVE\) -m pip install.* --require-hashes ", (root / "Makefile").read_text()):
        found.append("Makefile: packages that are not checked")
    return found


def is_sha256(option: str) -> bool:
    return re.fullmatch(r"sha256:[0-9a-f]{64}", option) is not None


def fits(wanted: Requirement, locked: Pins) -> bool:
    version, _ = locked.get(canonicalize_name(wanted.name), ("", None))
    return bool(version) and wanted.specifier.contains(version)


def test_locks_agree() -> None:
    """What `make serve` and the Bento install is what pyproject asks for, in the tested versions, all of it hashed."""
    assert disagreements(REPOSITORY) == []


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        ("requirements/serve.txt", "msgspec==0", "msgspec==1", "msgspec: not the tested version"),
        (
            "requirements/cuda.txt",
            r"(uvicorn==\S+ \\\n)(    --hash\S+( \\)?\n)+",
            r"uvicorn==0.54.0\n",
            "uvicorn: no sha",
        ),
        ("requirements/serve.txt", r"h11==\S+ \\\n(    --hash\S+( \\)?\n)+", "", "h11: needed, not locked"),
        ("requirements/serve.txt", "\\A", "--index-url https://somewhere/simple\n", "serve: a place stands in it"),
        ("requirements/cuda.txt", "(pillow.*\n.*sha256:).", r"\1z", "pillow: a hash that is no sha256"),
        ("requirements/cuda.txt", "orjson==3", "orjson==4", "orjson: differs with the GPU"),
        ("pyproject.toml", "orjson>=3.10", "orjson>=99", "orjson: not what pyproject asks"),
        (
            "pyproject.toml",
            r"serve = \[\n",
            'serve = [\n    "httptools>=0",\n    "locust>=2",\n',
            "locust: needed, not",
        ),
        ("constraints.txt", "tornado==6", "tornado==5", "tornado: not the tested version"),
        ("bentofile.yaml", "cuda.txt", "other.txt", "bentofile.yaml: other packages"),
        ("bentofile.yaml", "python:\n", "python:\n  packages: [x]\n", "bentofile.yaml: packages that are not checked"),
        ("Makefile", "--require-hashes ", "", "Makefile: packages that are not checked"),
    ],
)
def test_a_lock_that_drifted_is_seen(file: str, old: str, new: str, words: str, tmp_path: Path) -> None:
    """The controls of the test above: each file changed in one place."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    text = (tmp_path / file).read_text()
    changed = re.sub(old, new, text, count=1)
    assert changed != text
    (tmp_path / file).write_text(changed)
    assert [line for line in disagreements(tmp_path) if line.startswith(words)]


def one_package(tmp_path: Path, change: Any = lambda digest: digest) -> list[str]:
    """``pip install`` as the Makefile has it, of one small package of the lock, with its hashes changed."""
    version, hashes = pins(REPOSITORY / "requirements/serve.txt")["idna"]
    options = " ".join(f"--hash=sha256:{change(one.removeprefix('sha256:'))}" for one in hashes)
    lock = tmp_path / "lock.txt"
    lock.write_text(f"idna=={version} {options}\n")
    target = ["--target", str(tmp_path / "there"), "--no-cache-dir", "--retries", "1"]
    fixed = ["--quiet", "--require-hashes", "--only-binary", ":all:", "--requirement", str(lock)]
    return [sys.executable, "-m", "pip", "install", *target, *fixed]


@pytest.mark.e2e
def test_an_altered_package_is_not_installed(tmp_path: Path) -> None:
    """A wheel whose bytes are not those of the lock ends the installation, and nothing is installed."""
    command = one_package(tmp_path)
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("no package index can be reached: the unaltered package cannot be installed either")
    assert (tmp_path / "there" / "idna").is_dir()
    shutil.rmtree(tmp_path / "there")
    flipped = one_package(tmp_path, lambda digest: ("0" if digest[0] != "0" else "1") + digest[1:])
    done = subprocess.run(flipped, capture_output=True, text=True)
    assert done.returncode != 0
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert not (tmp_path / "there" / "idna").exists()


def test_the_bill_names_every_package_and_model(tmp_path: Path) -> None:
    """A valid CycloneDX document: locked packages and the page's library with hashes, models with data licence."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    out = tmp_path / "new" / "sbom.cdx.json"
    result = CliRunner().invoke(main, ["sbom", str(out)])
    assert result.exit_code == 0, result.output
    text = out.read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    components = json.loads(text)["components"]
    packages = {one["name"]: one for one in components if one["type"] == "library"}
    page = packages.pop("d3")
    held = (REPOSITORY / "service/demo/static/d3.min.js").read_bytes()
    assert page["hashes"] == [{"alg": "SHA-256", "content": hashlib.sha256(held).hexdigest()}]
    assert page["purl"] == "pkg:npm/d3@7.9.2"
    locked = pins(REPOSITORY / "requirements/serve.txt")
    assert {canonicalize_name(name): one["version"] for name, one in packages.items()} == {
        name: version for name, (version, _) in locked.items()
    }
    (position,) = packages["orjson"]["externalReferences"]
    assert {f"sha256:{one['content']}" for one in position["hashes"]} == locked["orjson"][1]
    models = {one["name"]: one for one in components if one["type"] == "machine-learning-model"}
    for folder in shipped_folders():
        manifest = from_bytes((folder / MANIFEST_FILE).read_bytes(), folder)
        model = models.pop(manifest.model)
        facts = {one["name"]: one["value"] for one in model["properties"]}
        assert model["version"] == manifest.version
        assert model["hashes"] == [{"alg": "SHA-256", "content": manifest.model_sha256}]
        assert facts["lectern:data_licence"] == manifest.training.data["licence"]
    assert not models
    assert str(REPOSITORY) not in text
    assert bill(REPOSITORY / "requirements/serve.txt", shipped_folders()) == json.loads(text)


def load_audit() -> Any:
    spec = importlib.util.spec_from_file_location("audit", REPOSITORY / ".ci" / "audit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CLEAN = {"name": "orjson", "version": "3.13.0", "vulns": []}
BAD = {"name": "pillow", "version": "1.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["13.0.0"]}]}
SKIPPED = {"name": "uvloop", "version": "0.23.0", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("stdout", "stderr", "words", "status"),
    [
        ({"dependencies": [CLEAN, CLEAN]}, "", "2 packages checked, 0 known defects", 0),
        ({"dependencies": [CLEAN, BAD]}, "", "pillow 1.0: PYSEC-1, mended in 13.0.0", 1),
        ({"dependencies": [CLEAN, SKIPPED]}, "", "NOT CHECKED: uvloop: not found", 0),
        ({"dependencies": [SKIPPED]}, "", "NOT CHECKED: the database knows none", 0),
        (None, "requests.exceptions.ConnectionError: no route", "NOT CHECKED: the database cannot be reached", 0),
        (None, "ERROR: malformed requirement", "pip-audit failed", 1),
        (None, "", "pip-audit failed", 1),
    ],
)
def test_the_audit_never_calls_silence_a_pass(
    stdout: Any,
    stderr: str,
    words: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A known defect fails, as does a broken audit; a database that cannot be asked is said, and fails nothing."""
    done = subprocess.CompletedProcess([], 1, json.dumps(stdout) if stdout else "", stderr)
    module = load_audit()
    monkeypatch.setattr(module.subprocess, "run", lambda *_, **__: done)
    assert module.main("lock.txt") == status
    said = capsys.readouterr()
    assert words in said.out + said.err
