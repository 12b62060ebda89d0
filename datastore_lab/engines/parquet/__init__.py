"""Records in a folder of Parquet files, each described by a readable YAML file, behind a redo log."""

from __future__ import annotations

from datastore_lab.engines.parquet.engine import ParquetFolderEngine

__all__ = ["ParquetFolderEngine"]
