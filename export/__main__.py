"""Certified artifacts: make and inspect them, prove them on a device, install, sign and list them."""

import base64
import json
import shlex
from collections import Counter
from functools import partial
from pathlib import Path

import click

from models.artifact.device_certificate import UNMEASURED, DevicePlacement
from models.artifact.drift_profile import describe_feature
from models.artifact.manifest import MANIFEST_FILE, MODEL_FILE, read_artifact
from models.artifact.onnx_allowlist import find_size_nodes
from models.errors import LecternError
from models.paths import REPOSITORY
from models.runtime.device import Compute, Device
from models.runtime.session import find_nodes, open_artifact


class OneLineErrors(click.Group):
    """Turns the project's errors into one line and exit status 1."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the chosen command."""
        try:
            return super().invoke(ctx)
        except LecternError as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=OneLineErrors, help=__doc__)
def main() -> None:
    """The command line."""


@main.command("model")
@click.argument("name")
@click.option("--version", "wanted_version", help="Default: 1.0.0, or the next patch when the bytes changed.")
@click.option("--out", type=click.Path(path_type=Path), help="Instead of models/<family>/trained/<name>.")
def export_model(name: str, wanted_version: str | None, out: Path | None) -> None:
    """Turn the finished run NAME into a certified artifact."""
    from export.certify import export_run  # torch: only this command needs it

    folder = export_run(name, wanted_version, target=out)
    _describe(folder)
    click.echo(f"artifact: {folder}\nto have it served and scored with: {installing(folder)}")


def installing(folder: Path) -> str:
    """Return the command that puts an artifact into the model store."""
    from export.store import shipped_folders

    if folder.resolve() in [shipped.resolve() for shipped in shipped_folders()]:
        return "make install, which make serve and make score begin with"
    return f".venv/bin/python -m export install {shlex.quote(str(folder))}"


@main.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
def install(folders: tuple[Path, ...]) -> None:
    """Put artifacts (default: all in the repository) into the BentoML model store."""
    from export.store import install as install_artifact
    from export.store import shipped_folders

    for folder in folders or shipped_folders():
        try:
            manifest, is_new = install_artifact(folder)
        except OSError as error:  # BentoML makes its home when it is first asked for something
            reason = "BENTOML_HOME must be a folder that this user can write"
            raise click.ClickException(f"{reason}, got {error.filename}: {error.strerror}") from error
        click.echo(f"{'installed' if is_new else 'in store '}  {manifest.tag:<20} {manifest.digest[:12]}")


@main.command("inspect")
@click.argument("name")
def inspect_model(name: str) -> None:
    """Verify the artifact NAME (or in the folder NAME), print what its certificate proves and what computes where."""
    folder = _find(name)
    _describe(folder)
    _describe_nodes(folder)


@main.command("certify-device")
@click.argument("name")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="What it was trained on, if not public.")
@click.option("--without-test-set", is_flag=True, help="Prove all else where the data are not at hand.")
@click.option("--write", is_flag=True, help="Into the manifest; a signature has to be made anew.")
def certify_on_device(name: str, device: str, data: Path | None, without_test_set: bool, write: bool) -> None:
    """Prove the artifact NAME (or in the folder NAME) on a GPU, and measure which device it is better off on."""
    from export.certify import data_of  # torch: a recipe knows its data
    from export.device import add_device, certify_device, compute_of

    folder = _find(name)
    manifest, content = read_artifact(folder)
    test_set = None if without_test_set else data_of(manifest, data.resolve() if data else None)
    choice = certify_device(manifest, content, compute_of(device), data=test_set)
    _describe_device(choice)
    if write:
        manifest = add_device(folder, choice)
        click.echo(f"certified  {manifest.tag:<20} {manifest.digest[:12]}")


@main.command("profile")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--data", type=click.Path(path_type=Path, exists=True), help="What it was trained on, if not public.")
def profile_model(folder: Path, data: Path | None) -> None:
    """Add what is usual of requests and answers to the artifact in FOLDER; a signature has to be made anew."""
    from export.certify import add_profile  # torch: a recipe knows its data

    manifest = add_profile(folder, data.resolve() if data else None)
    click.echo(f"profiled   {manifest.tag:<20} {manifest.digest[:12]}")


@main.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--encrypt", is_flag=True, help="Ask for a passphrase.")
def keygen(file: Path, encrypt: bool) -> None:
    """Make a key to sign with in FILE, to be kept offline, and print what servers are to trust."""
    from export.signing import make_key

    passphrase = click.prompt("passphrase", hide_input=True, confirmation_prompt=True) if encrypt else None
    click.echo(f"LECTERN_TRUSTED_KEYS={base64.b64encode(make_key(file, passphrase)).decode()}")


@main.command()
@click.argument("folders", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--key", required=True, type=click.Path(path_type=Path, dir_okay=False), help="What keygen made.")
def sign(folders: tuple[Path, ...], key: Path) -> None:
    """Sign the artifacts in FOLDERS."""
    from export.signing import read_private
    from export.signing import sign as sign_artifact

    private = read_private(key, partial(click.prompt, "passphrase", hide_input=True, err=True))
    for folder in folders:
        manifest = sign_artifact(folder, private)
        click.echo(f"signed     {manifest.tag:<20} {manifest.digest[:12]}")


@main.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--lock", type=click.Path(path_type=Path, exists=True), default=REPOSITORY / "requirements" / "serve.txt")
def sbom(out: Path, lock: Path) -> None:
    """Write the bill of materials of what serves to OUT."""
    from export.bill import bill
    from export.store import shipped_folders

    document = bill(lock, shipped_folders())
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(document, indent=2) + "\n")
    click.echo(f"{len(document['components'])} components: {out}")


def _find(name: str) -> Path:
    """Return the artifact of the repository with this name, or in this folder.

    Raises:
        click.ClickException: If there is none.
    """
    from export.store import shipped_folders

    found = next((folder for folder in shipped_folders() if folder.name == name), Path(name))
    if not (found / MANIFEST_FILE).is_file():
        raise click.ClickException(f"no artifact {name!r} in models/*/trained, and no folder with one")
    return found


def _describe_nodes(folder: Path) -> None:
    """Where each operator computes on this machine, by count; what depends on sizes alone is told apart."""
    session = open_artifact(folder, Compute(device=Device.AUTO, allows_cpu=True, records_nodes=True))
    size_nodes = find_size_nodes((folder / MODEL_FILE).read_bytes())
    counts = dict[str, Counter[str]]()
    for node in find_nodes(session.engine):
        kind = f"{node.provider}, sizes" if node.name in size_nodes else node.provider
        counts.setdefault(kind, Counter())[node.operator] += 1
    for kind, operators in sorted(counts.items()):
        click.echo(f"  {kind}: {operators.total()} nodes, {dict(sorted(operators.items()))}")


def _describe_device(choice: DevicePlacement) -> None:
    click.echo(f"  device            {choice.chosen or 'not chosen'}: {choice.reason}")
    proof = choice.proof
    if proof is None:
        return
    click.echo(f"  on                {proof.device}, {proof.provider}, {proof.versions}")
    click.echo(f"  nodes by provider {proof.nodes}; {proof.size_nodes} on the CPU depend on sizes alone")
    click.echo(f"  against float64   {proof.parity}, by {proof.reference}; with TF32 {proof.tf32_parity}")
    click.echo(f"  repeatable        {proof.is_repeatable}, {proof.repeats} times")
    click.echo(f"  in company        {proof.company_max_abs_diff:.3g} at most, {proof.companies} companies, 0 labels")
    click.echo(f"  test set          {proof.test_instances} instances, {proof.test_label_changes} label changes")
    click.echo(f"  buckets           {proof.buckets}")


def _describe(folder: Path) -> None:
    manifest, content = read_artifact(folder)
    proof = manifest.certificate
    click.echo(f"{manifest.tag}  {manifest.family}/{manifest.task}  {len(content):,} bytes  {manifest.digest}")
    click.echo(f"  parity            {proof.parity.max_abs_diff}, {proof.parity.instances} instances")
    norm = proof.batch_norm
    click.echo(f"  batch norm        {norm.layers} layers frozen; unfrozen would shift {norm.shift_if_unfrozen}")
    same = proof.batch_invariance
    click.echo(f"  batch invariance  {same.requests} requests, {same.companies} companies, bits {same.bit_identical}")
    if ended := manifest.training.report.get("ended"):
        click.echo("  ended             after {epochs} of {of} epochs {half}: {kept} ships".format(**ended))
    for score in (proof.score, *(proof.other_scores or ())):
        asked = f", by {score.measured_on}" if score.measured_on else ""
        found = f"torch {score.torch} onnx {score.onnx} {score.unit}, {score.label_changes} changes"
        click.echo(f"  {score.metric:<16}  {found}{asked}")
    click.echo(f"  nodes             {dict(_operators(content))}")
    _describe_device(manifest.device or UNMEASURED)
    for feature in [] if manifest.profile is None else manifest.profile.features:
        click.echo(f"  watched           {describe_feature(feature)}")


def _operators(content: bytes) -> Counter[str]:
    import onnx  # not needed to serve

    return Counter(node.op_type for node in onnx.load_model_from_string(content).graph.node)


if __name__ == "__main__":
    main()
