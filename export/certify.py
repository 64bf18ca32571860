"""From a finished run to an artifact on disk: convert, prove, and only then write."""

import hashlib
import json
import platform
import subprocess
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import onnx
import onnxruntime as ort
import torch
from msgspec import UNSET
from torch import nn

from export import checks
from export.artifact import write_artifact
from export.convert import OPSET, run_torch, to_onnx
from export.operators import check_operators
from export.profile import make_profile
from models.artifact.device_certificate import UNMEASURED, DevicePlacement
from models.artifact.manifest import (
    FORMAT,
    MANIFEST_FILE,
    Certificate,
    Manifest,
    Training,
    from_bytes,
    read_artifact,
)
from models.card import AnyCard, Feeds
from models.errors import CertificateError, LecternError
from models.paths import REPOSITORY
from models.runtime.device import CPU_PROVIDER, has_cuda
from models.runtime.predictor import Predictor, open_predictor
from models.runtime.session import describe, open_model
from models.train.__main__ import RUNS, as_trained, finishing, read_run, recipes
from models.training.checkpoint import CHECKPOINT, FINAL_WEIGHTS, REPORT
from models.training.datasets import Data, Rewritable
from models.training.loop import Learner, Recipe, seed_everything

THREADS = 1
REPORTED = ("ended", "not_done", "interval", "cross_validation", "unknown_words", "cut_words")


def artifact_folder(family: str, model: str) -> Path:
    """Return where a model's artifact lies in the repository."""
    return REPOSITORY / "models" / family / "trained" / model


def torch_predictor(net: nn.Module, card: AnyCard, data: Data) -> Predictor:
    """Return the one scoring path over the torch net itself."""

    def run(feeds: Feeds, outputs: list[str]) -> dict[str, Any]:
        found = run_torch(net, card, feeds)
        return {name: found[name] for name in outputs}

    names = frozenset(spec.name for spec in card.outputs if not spec.is_attention)
    return Predictor(card=card, assets=data.assets, outputs=names, run=run)


def certify(
    net: nn.Module, card: AnyCard, data: Data, *, threads: int = THREADS
) -> tuple[onnx.ModelProto, Certificate]:
    """Convert a net and prove everything the certificate says.

    Raises:
        CertificateError: At the first proof that fails.
    """
    net.eval()
    model = to_onnx(net, card, data.assets)
    return model, certify_model(model, net, card, data, threads=threads)


def certify_model(
    model: onnx.ModelProto, net: nn.Module, card: AnyCard, data: Data, *, threads: int = THREADS
) -> Certificate:
    """Prove a converted model against its net; raises as ``certify``."""
    operators = check_operators(model, threads)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    engine = ort.InferenceSession(model.SerializeToString(), options, providers=[CPU_PROVIDER])
    outputs = frozenset(output.name for output in engine.get_outputs())

    def run(feeds: Feeds, names: list[str]) -> dict[str, Any]:
        return dict(zip(names, engine.run(names, feeds), strict=True))

    predictor = Predictor(card=card, assets=data.assets, outputs=outputs, run=run)
    before = torch_predictor(net, card, data)
    others = data.rewritten() if isinstance(data, Rewritable) else {}
    return Certificate(
        parity=checks.check_parity(net, predictor),
        batch_norm=checks.check_batch_norm(net, card, data.assets),
        batch_invariance=checks.check_batch_invariance(predictor),
        operators=operators,
        score=checks.check_score(data, before, predictor),
        other_scores=[checks.check_score(other, before, predictor) for other in others.values()] or UNSET,
    )


def export_run(model: str, wanted_version: str | None, *, runs: Path = RUNS, target: Path | None = None) -> Path:
    """Export ``runs/<model>`` into the repository, or into ``target``.

    Raises:
        CertificateError: If there is no finished run, or a proof fails; then nothing is written.
    """
    recipe, data_path, report = read_finished_run(runs / model)
    seed_everything(report["seed"])
    learner = recipe.learner(recipe, data_path, report["seed"])
    learner.net.load_state_dict(torch.load(runs / model / FINAL_WEIGHTS, weights_only=True))
    proto, certificate = certify(learner.net, recipe.card, learner.data)
    folder = target or artifact_folder(recipe.card.family, model)
    content = proto.SerializeToString(deterministic=True)
    tag = model, wanted_version or _next_version(folder, content)
    manifest = _manifest(tag, recipe, learner.data, report, content, certificate)
    manifest = with_profile(manifest, content, learner.data)
    write_artifact(folder, with_device(manifest, content, learner), content)
    return folder


def with_device(manifest: Manifest, content: bytes, learner: Learner) -> Manifest:
    """Return the same certificate with what was proved and measured on this machine's GPU, or that there was none.

    What cannot be proved there is no fault of the artifact: it computes on the CPU, where all was proved.
    """
    choice = UNMEASURED
    if has_cuda():
        from export.device import certify_device, compute_of  # it needs this module

        try:
            choice = certify_device(manifest, content, compute_of("cuda"), data=learner.data, net=learner.net)
        except LecternError as error:
            choice = DevicePlacement(chosen="cpu", reason=f"not proved on the GPU: {error}")
    return msgspec.structs.replace(manifest, device=choice)


def with_profile(manifest: Manifest, content: bytes, data: Data) -> Manifest:
    """Return the same certificate with what is usual of the model's requests and answers.

    Raises:
        CertificateError: If the model was trained on other data.
    """
    if data.provenance.sha256 != manifest.training.data["sha256"]:
        raise CertificateError(f"{manifest.tag} was trained on other data than {data.provenance.name}")
    predictor = open_predictor(open_model(manifest, content))
    return msgspec.structs.replace(manifest, profile=make_profile(predictor, data))


def add_profile(folder: Path, data_path: Path | None) -> Manifest:
    """Certify an artifact again, with a profile: the same weights, the same proofs, another digest.

    Args:
        folder: The artifact.
        data_path: What it was trained on; ``None`` for the recipe's public dataset.

    Raises:
        CertificateError: If it was trained on other data, or by a recipe that is no more.
    """
    manifest, content = read_artifact(folder)
    write_artifact(folder, with_profile(manifest, content, data_of(manifest, data_path)), content)
    return read_artifact(folder)[0]


def data_of(manifest: Manifest, data_path: Path | None) -> Data:
    """Return what a model was trained on, test set included.

    Args:
        manifest: The model's.
        data_path: Where it is; ``None`` for the recipe's public dataset.

    Raises:
        CertificateError: If its recipe is no more.
    """
    recipe = recipes(manifest.family).get(manifest.training.recipe["name"])
    if recipe is None:
        raise CertificateError(f"{manifest.tag}: there is no recipe {manifest.training.recipe['name']!r} any more")
    recipe = as_trained(recipe, manifest.training.recipe)
    return recipe.learner(recipe, data_path, manifest.training.seed).data


def read_finished_run(folder: Path) -> tuple[Recipe, Path | None, dict[str, Any]]:
    """Recipe, data path and report of a run.

    Raises:
        CertificateError: If the run is missing or unfinished.
    """
    if not (folder / REPORT).exists():
        wanted = f"train first: make train MODEL={folder.name}"
        if (folder / CHECKPOINT).exists():
            wanted = f"go on with the command it was begun with, or end it with what it has: {finishing(folder.name)}"
        raise CertificateError(f"{folder}: no finished run; {wanted}")
    recipe, data_path, _ = read_run(folder)
    return recipe, data_path, json.loads((folder / REPORT).read_text())


def _manifest(
    tag: tuple[str, str],
    recipe: Recipe,
    data: Data,
    report: dict[str, Any],
    content: bytes,
    certificate: Certificate,
) -> Manifest:
    engine = ort.InferenceSession(content, providers=[CPU_PROVIDER])
    return Manifest(
        format=FORMAT,
        family=recipe.card.family,
        task=recipe.card.task,
        model=tag[0],
        version=tag[1],
        summary=recipe.summary,
        opset=OPSET,
        model_sha256=hashlib.sha256(content).hexdigest(),
        model_bytes=len(content),
        intra_op_num_threads=THREADS,
        inputs=describe(engine.get_inputs()),
        outputs=describe(engine.get_outputs()),
        certificate=certificate,
        training=Training(
            recipe=report["recipe"],
            seed=report["seed"],
            epochs=report["epochs"],
            seconds=report["seconds"],
            parameters=report["parameters"],
            scores={split: round(score, 4) for split, score in report["scores"].items()},
            report={key: report[key] for key in REPORTED if key in report},
            data=data.provenance.record(),
            versions=_versions(),
            commit=_commit(),
            trained=date.fromisoformat(report["trained"]) if "trained" in report else UNSET,
        ),
    )


def _next_version(folder: Path, content: bytes) -> str:
    """1.0.0 at first; the same for the same bytes; else the patch number goes up."""
    path = folder / MANIFEST_FILE
    if not path.exists():
        return "1.0.0"
    old = from_bytes(path.read_bytes(), path)
    if old.model_sha256 == hashlib.sha256(content).hexdigest():
        return old.version
    major, minor, patch = old.version.split(".")
    return f"{major}.{minor}.{int(patch) + 1}"


def _versions() -> dict[str, str]:
    found = {name: version(name) for name in ("torch", "onnx", "onnxscript", "numpy")}
    return found | {"onnxruntime": ort.__version__, "python": platform.python_version()}


def _commit() -> str:
    """Return the commit of the code; ``-dirty`` when anything but an artifact differs from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ":(exclude)models/*/trained/*")
    return f"{head}{'-dirty' if changed else ''}" if head else "unknown"


def _git(*arguments: str) -> str:
    run = subprocess.run(  # noqa: S603  arguments are ours
        ["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    return run.stdout.strip()
