"""Certified artifacts: ``model NAME``, ``install``, ``inspect NAME``; ``keygen`` and ``sign``; ``sbom``."""

import base64
import json
from collections import Counter
from functools import partial
from pathlib import Path

import click

from models.datasets import REPOSITORY
from models.errors import LecternError
from models.manifest import read_artifact
from models.profile import describe_feature


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


@main.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path))
def install(folders: tuple[Path, ...]) -> None:
    """Put artifacts (default: all in the repository) into the BentoML model store."""
    from export.store import install as install_artifact
    from export.store import shipped_folders

    for folder in folders or shipped_folders():
        manifest, is_new = install_artifact(folder)
        click.echo(f"{'installed' if is_new else 'in store '}  {manifest.tag:<20} {manifest.digest[:12]}")


@main.command("inspect")
@click.argument("name")
def inspect_model(name: str) -> None:
    """Verify the artifact NAME and print what its certificate proves."""
    from export.store import shipped_folders

    for folder in shipped_folders():
        if folder.name == name:
            return _describe(folder)
    raise click.ClickException(f"no artifact {name!r} in models/*/trained")


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


def _describe(folder: Path) -> None:
    manifest, content = read_artifact(folder)
    proof = manifest.certificate
    click.echo(f"{manifest.tag}  {manifest.family}/{manifest.task}  {len(content):,} bytes  {manifest.digest}")
    click.echo(f"  parity            {proof.parity.max_abs_diff}, {proof.parity.instances} instances")
    norm = proof.batch_norm
    click.echo(f"  batch norm        {norm.layers} layers frozen; unfrozen would shift {norm.shift_if_unfrozen}")
    same = proof.batch_invariance
    click.echo(f"  batch invariance  {same.requests} requests, {same.companies} companies, bits {same.bit_identical}")
    score = proof.score
    click.echo(
        f"  {score.metric:<16}  torch {score.torch} onnx {score.onnx} {score.unit}, {score.label_changes} changes"
    )
    click.echo(f"  nodes             {dict(_operators(content))}")
    for feature in [] if manifest.profile is None else manifest.profile.features:
        click.echo(f"  watched           {describe_feature(feature)}")


def _operators(content: bytes) -> Counter[str]:
    import onnx  # not needed to serve

    return Counter(node.op_type for node in onnx.load_model_from_string(content).graph.node)


if __name__ == "__main__":
    main()
