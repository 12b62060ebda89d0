"""Every state in which a crash can leave the disk, from one recorded run.

`RecordingDisk` notes each call that changes a disk. `states` replays the notes and yields what a crash
could leave behind after each of them: everything that was asked for (the process died), the last write cut
short, and what was not synced yet lost in whole or in part (the power failed). `operations` makes a run to
record and `digest` says what an engine holds, so that each state can be held against what was promised.
"""

from __future__ import annotations

from datastore_lab.testing.crash.disks import Event, FailingDisk, RecordingDisk
from datastore_lab.testing.crash.runs import digest, operations
from datastore_lab.testing.crash.states import State, put, states

__all__ = ["Event", "FailingDisk", "RecordingDisk", "State", "digest", "operations", "put", "states"]
