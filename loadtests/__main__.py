"""``python -m loadtests``: the commands are in ``loadtests.command``, and take a second to import."""

import sys

if __name__ == "__main__":
    try:
        from loadtests.command import main
    except KeyboardInterrupt:
        sys.stderr.write("lectern: interrupted\n")
        sys.exit(130)
    main()
