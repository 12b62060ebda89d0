"""``python -m datastore_lab.cli``."""

from __future__ import annotations

import sys

from datastore_lab.cli.main import main

sys.exit(main())
