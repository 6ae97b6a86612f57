"""``python -m adjoint_rd`` is the command line ``adjoint-rd``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
