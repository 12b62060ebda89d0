"""Analysis workspaces: everything of one analysis, in namespaces, over any store."""

from __future__ import annotations

from datastore_lab.workspace.analysis import AnalysisWorkspace
from datastore_lab.workspace.lazily import LazyAnalysisWorkspace

__all__ = ["AnalysisWorkspace", "LazyAnalysisWorkspace"]
