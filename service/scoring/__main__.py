"""A file in, every row out exactly once: ``python -m service.scoring run MODEL IN OUT``."""

from service.scoring.commands import main

if __name__ == "__main__":
    main(prog_name="python -m service.scoring")
