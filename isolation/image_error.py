"""What is wrong with an image. An image is somebody else's work: every part of it is judged, and nothing is kept of one
that fails."""

from __future__ import annotations

import errno

from mesos_actor.actors.errors import InvalidInput

FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT)


class ImageError(InvalidInput):
    """An image cannot be used. The text names it, the part of it, and why."""

    def __init__(self, text: str, full: bool = False) -> None:
        super().__init__(text)
        self.full = full
        """Whether it was our disk that was full: the image itself may be good."""


class Cancelled(ImageError):
    """Whoever wanted the image does not want it any more."""


def from_os_error(what: str, error: OSError) -> ImageError:
    """The same as an ImageError about `what`."""
    return ImageError(f"{what}: {error.strerror or error}", full=error.errno in FULL_ERRNOS)
