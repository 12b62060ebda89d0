"""Streams in Parquet files: for appending and reading."""

from __future__ import annotations

from datastore_lab.engines.parquet_file.engine import ParquetFileEngine

__all__ = ["ParquetFileEngine"]
