"""Copying between stores on any two engines: resumable, of bounded memory, verified at the end."""

from __future__ import annotations

from datastore_lab.store.moving.copying import Existing, copy_records
from datastore_lab.store.moving.report import CopyReport, Progress
from datastore_lab.store.moving.run import check_source, copy_store

__all__ = ["CopyReport", "Existing", "Progress", "check_source", "copy_records", "copy_store"]
