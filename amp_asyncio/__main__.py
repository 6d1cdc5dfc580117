"""`python -m amp_asyncio`: see `cli/`."""

import sys

from .cli import main

sys.exit(main())
