"""Become BentoML's parent process: ``python -m service.parent serve …`` is ``bentoml serve …``, watched."""

import bentoml._internal.utils.circus as circus
from bentoml_cli.cli import cli

from service.settings import say_parent
from service.watchdog import watched


def main() -> None:
    """BentoML's own command line."""
    say_parent()
    circus.create_standalone_arbiter = watched(circus.create_standalone_arbiter)
    cli()


if __name__ == "__main__":
    main()
