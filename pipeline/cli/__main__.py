"""`python -m framefold.pipeline.cli`, where the command is not on the path."""

import sys

from framefold.pipeline.cli import main

sys.exit(main())
