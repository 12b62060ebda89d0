"""Everything that can go wrong, as one tree.

```
LabError (code, key)
 |- NotFound(KeyError)            no such key, file or name
 |   `- UnknownTask(ValueError)   an experiment has no such task
 |- AlreadyExists(ValueError)     the name is taken
 |- ReadOnly(OSError)             the store, or the place it lies in, can't be written
 |- Locked(OSError)               another process holds the store
 |- BadKey(ValueError)            a key that no store could hold
 |- NotStorable(TypeError)        an object that no codec can turn into arrays and JSON
 |- Foreign(ValueError)           a valid file that another program made for another purpose
 |   `- Newer                     one that a later version of this package made
 |- Untrusted                     decoding would need code that is not loaded
 |- Corrupt(OSError, ValueError)  bytes that are not what was written
 |- MissingExtra(ImportError)     an optional dependency is not installed
 |- EngineError(OSError)          the medium failed, or no engine fits
 `- StreamError                   something went wrong in a stream
     |- Overrun                   a view of the ring was overwritten while it was in use
     |- DeviceFailed              a device raised or fell silent
     `- RunAborted                the run ended before it was asked to
```

Every error names the key or file, the cause and the way out. The second base class of each is the
built-in exception that a caller who has never heard of this package would expect, so that
``except KeyError`` around a lookup keeps working.
"""

from __future__ import annotations

from typing import Any, ClassVar


class LabError(Exception):
    """Base of every error that this package raises on purpose.

    Parameters
    ----------
    message : str
        What happened, to what, why, and what to do about it, as one or two sentences.
    key : object, optional
        The key, path or name that the error is about.

    Attributes
    ----------
    code : str
        A stable identifier for programs, such as ``"not-found"``.
    key : object
        As given.
    """

    code: ClassVar[str] = "error"

    def __init__(self, message: str, *, key: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.key = key

    def __str__(self) -> str:  # KeyError would show the repr of the message, OSError its tuple
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:  # keeps `key` when an error crosses a process border
        return (_rebuild, (type(self), self.message, self.key))


def _rebuild(cls: type[LabError], message: str, key: Any) -> LabError:
    return cls(message, key=key)


class NotFound(LabError, KeyError):
    """There is nothing under this key, path or name."""

    code = "not-found"


class UnknownTask(NotFound, ValueError):
    """The participant has not begun this task."""

    code = "unknown-task"


class AlreadyExists(LabError, ValueError):
    """The name is taken, and overwriting was not asked for."""

    code = "already-exists"


class ReadOnly(LabError, OSError):
    """The store was opened for reading, or the place can't be written."""

    code = "read-only"


class Locked(LabError, OSError):
    """Another process is writing to this store."""

    code = "locked"


class BadKey(LabError, ValueError):
    """A key with an empty part, a part that is not text, or a path that climbs out."""

    code = "bad-key"


class NotStorable(LabError, TypeError):
    """No codec can turn this object into arrays and JSON; nothing was written."""

    code = "not-storable"


class Foreign(LabError, ValueError):
    """A valid file, but not one of the kind that was asked for."""

    code = "foreign"


class Newer(Foreign):
    """A later version of this package made it, in a layout that this one does not know."""

    code = "newer"


class Untrusted(LabError):
    """Decoding this item would need a class that this session has not loaded itself."""

    code = "untrusted"


class Corrupt(LabError, OSError, ValueError):
    """The stored bytes are not those that were written."""

    code = "corrupt"


class MissingExtra(LabError, ImportError):
    """An optional dependency is not installed; the message gives the command that installs it."""

    code = "missing-extra"


class EngineError(LabError, OSError):
    """The medium failed, or no engine can open this place."""

    code = "engine"


class StreamError(LabError):
    """A device, a ring or a writer failed while a run was going on."""

    code = "stream"


class Overrun(StreamError):
    """Data was overwritten in the ring while it was being looked at."""

    code = "overrun"


class DeviceFailed(StreamError):
    """A device raised an error, fell silent or sent something it had not described."""

    code = "device-failed"


class RunAborted(StreamError):
    """The run ended before it was asked to; what had been flushed is on disk."""

    code = "run-aborted"
