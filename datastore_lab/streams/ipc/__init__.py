"""Arrow IPC files of this package: every byte lies under a sum, torn ends are recovered.

`datastore_lab.streams.ipc.head` takes the frame of a message apart, `datastore_lab.streams.ipc.write`
appends, `datastore_lab.streams.ipc.read` reads.
"""

from __future__ import annotations
