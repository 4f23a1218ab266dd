"""`python -m dreambooth_cli` is the same program as `dreambooth`."""

from .cli.app import main

if __name__ == "__main__":
    main()
