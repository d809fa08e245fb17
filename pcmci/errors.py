"""What can go wrong, in words for the user.

Every error that a user can cause or must know of is a `PcmciError`. Its message is one line that
names the offending value and what would be right; the command line prints it without a traceback
and leaves with `exit_code`.
"""


class PcmciError(Exception):
    """The base of all errors raised on purpose. `exit_code`: 1, work that failed."""

    exit_code = 1


class UsageError(PcmciError):
    """A value the user gave cannot be used: a flag, an order of stages, a path. Exit code 2."""

    exit_code = 2


class AnnotationError(UsageError):
    """An annotation file says something impossible; the message names the file and the line."""


class VideoError(PcmciError):
    """A video file cannot be turned into frames; the message is the reason that gets recorded."""


class RemoteError(PcmciError):
    """A server cannot be reached or refuses; the message names the URL. reason: it without that."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


class WeightsError(UsageError):
    """Weights are not there, are not of the named model, or cannot be read safely."""


class StoreError(PcmciError):
    """A feature store cannot be opened, read or written."""


class SpecMismatch(StoreError):
    """A store was made with other settings than those asked for; the message names the fields."""

    exit_code = 2


class ClusterError(PcmciError):
    """A cluster that cannot be reached, was lost, or whose workers fail."""


class NoWorker(ClusterError):
    """Workers are there, and none of them may do the work: they have to be set up in another
    way."""

    exit_code = 2
