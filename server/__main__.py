"""`python -m plait.server` is `plait`."""

import sys

from plait.server.cli import main

sys.exit(main())
