"""`python -m frangible.cli`: the same as the `frangible` script, with the interpreter of one's choice."""

import sys

from frangible.cli import main

sys.exit(main())
