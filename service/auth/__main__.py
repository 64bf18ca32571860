"""Make API keys: ``python -m service.auth new --name NAME``."""

import click

from models.errors import SettingsError
from service.auth.api_keys import ROLES, line_of, new_key, parse_keys
from service.settings import LEAST_PER_SECOND, MOST_PER_SECOND


@click.group(help="API keys.")
def main() -> None:
    """The command line."""


@main.command()
@click.option("--name", required=True, help="Whose key it is; letters, digits, dots, dashes and underscores.")
@click.option("--role", "roles", multiple=True, type=click.Choice(list(ROLES)), default=["predict"], show_default=True)
@click.option(
    "--requests-per-second",
    "rate",
    type=click.FloatRange(LEAST_PER_SECOND, MOST_PER_SECOND),
    help="Default: the server's.",
)
@click.option("--burst", type=click.IntRange(min=1), help="Requests at once. Default: those of one second.")
def new(name: str, roles: tuple[str, ...], rate: float | None, burst: int | None) -> None:
    """Make a key. It is said now, on standard error, and kept nowhere; its line is printed, to be put in a file."""
    key = new_key()
    line = line_of(key, name, dict.fromkeys(roles), rate=rate, burst=burst)
    try:
        parse_keys(line, "the new line")
    except SettingsError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"the key of {name}, shown only now: {key}", err=True)
    click.echo(line)


if __name__ == "__main__":
    main()
