"""The bill of materials: every locked package that serves, the page's library, and every shipped model.

CycloneDX 1.6, JSON. Torch-free.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

from models.artifact.manifest import Manifest, read_artifact
from models.paths import REPOSITORY

LIBRARY = REPOSITORY / "service/demo/static/d3.min.js"


def bill(lock: Path, folders: Iterable[Path]) -> dict[str, Any]:
    """Return the bill; the same inputs give the same document.

    Args:
        lock: Requirements with hashes.
        folders: Of the artifacts.

    Raises:
        ArtifactError: If an artifact is not what its certificate says.
    """
    document = _packages(lock)
    for package in document["components"]:
        del package["description"]  # the requirement's line once more, with every hash
    document["components"] += [
        _library(LIBRARY.read_bytes()),
        *(_model(read_artifact(folder)[0]) for folder in folders),
    ]
    return document


def _packages(lock: Path) -> dict[str, Any]:
    options = ["--output-reproducible", "--sv", "1.6", "--no-validate"]  # a test validates the whole
    command = [sys.executable, "-m", "cyclonedx_py", "requirements", *options, str(lock)]
    done = subprocess.run(command, capture_output=True, check=True)  # noqa: S603
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def _library(body: bytes) -> dict[str, Any]:
    """D3 as the page holds it; its first line says which."""
    named = re.match(rb"// https://d3js\.org v([0-9.]+) ", body)
    assert named is not None  # a test holds the file to NOTICE
    version = named[1].decode()
    return {
        "type": "library",
        "bom-ref": f"page:d3@{version}",
        "name": "d3",
        "version": version,
        "purl": f"pkg:npm/d3@{version}",
        "licenses": [{"license": {"id": "ISC"}}],
        "hashes": [{"alg": "SHA-256", "content": sha256(body).hexdigest()}],
    }


def _model(manifest: Manifest) -> dict[str, Any]:
    data = manifest.training.data
    facts = {
        "manifest_digest": manifest.digest,
        "data_licence": data.get("licence", "not stated"),
        "data_attribution": data.get("attribution", "not stated"),
        **{f"data_sha256:{name}": digest for name, digest in sorted(data.get("sha256", {}).items())},
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{manifest.tag}",
        "name": manifest.model,
        "version": manifest.version,
        "description": manifest.summary,
        "hashes": [{"alg": "SHA-256", "content": manifest.model_sha256}],
        "properties": [{"name": f"lectern:{name}", "value": str(value)} for name, value in facts.items()],
        "modelCard": {
            "modelParameters": {
                "task": f"{manifest.family}/{manifest.task}",
                "datasets": [{"type": "dataset", "name": str(data.get("name", "not stated"))}],
            }
        },
    }
