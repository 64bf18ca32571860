"""Download the public datasets that are not in the data folder yet, and check all of them."""

import click

from models.errors import LecternError
from models.graph.train.citation_data import CITESEER, CORA
from models.graph.train.molecule_data import MUTAG
from models.image.train.data import FASHION_MNIST
from models.tagging.train.data import EWT
from models.training.datasets import Dataset, data_root, read
from models.viewcount.train.companions import WIKIPEDIA
from models.viewcount.train.data import OTEXTS

DATASETS: tuple[Dataset, ...] = (OTEXTS, WIKIPEDIA, EWT, FASHION_MNIST, CORA, CITESEER, MUTAG)


@click.command(help=__doc__)
def main() -> None:
    """The command line."""
    try:
        for dataset in DATASETS:
            size = sum(len(read(dataset, name)) for name in dataset.files)
            click.echo(f"{data_root() / dataset.folder}: {dataset.name}, {size / 1e6:.1f} MB")
    except LecternError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
