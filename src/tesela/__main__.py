"""``python -m tesela`` is ``tesela``."""

from tesela.cli.main import main

if __name__ == "__main__":
    main()
