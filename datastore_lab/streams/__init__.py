"""Streams in files of their own: what the engines that append and read, but never change, share.

`datastore_lab.streams.places` finds the files, `datastore_lab.streams.mending` checks and repairs them,
`datastore_lab.streams.engine` refuses changes,
`datastore_lab.streams.rows` gathers what is appended, `datastore_lab.streams.parts` takes selections apart.
The Arrow messages of `datastore_lab.streams.ipc` are a format of their own and the spool of another.
"""

from __future__ import annotations
