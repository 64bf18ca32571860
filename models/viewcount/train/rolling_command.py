"""Rolling-origin validation: ``python -m models.viewcount.train.rolling_command viewcount viewcount-days-7``.

The whole procedure, choice of the epoch and learning once more included, is repeated as if today were the end of each
half year before the test (Tashman 2000). Whatever was chosen, was chosen by the mean of these errors.
"""

from statistics import fmean

import click
import torch

from models.viewcount.train.experiments import LADDER
from models.viewcount.train.rolling_origin import measure


@click.command(help=__doc__)
@click.argument("names", nargs=-1)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(0))
def main(names: tuple[str, ...], seed: int) -> None:
    """The command line; without names, every recipe of the family."""
    known = {rung.recipe.name: rung.recipe for rung in LADDER.rungs}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise click.UsageError(f"no recipe {unknown[0]!r}; there are {', '.join(known)}")
    torch.set_num_threads(1)
    for name in names or known:
        errors = measure(known[name], seed)
        click.echo(f"{name:40} {fmean(errors):7,.0f}  " + "  ".join(f"{error:7,.0f}" for error in errors))


if __name__ == "__main__":
    main()
