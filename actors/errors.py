"""Every error this project raises on purpose.

* MesosActorError
  x ProtocolError
    + LocalError         our side broke a rule: the caller's mistake
    + PeerError          the other side did; never brings an actor down
  + ConfigError          a setting cannot be used: names the field, the value and the fix
  + InvalidInput         a value from outside cannot be used: names the field, the value and the fix
  + StorageError         the disk refused: full, damaged, locked, or written by a newer version
  + SecurityError        a key is missing, unreadable or not the cluster's
  + NotLeading           this master does not lead; carries who does, when known
  + Unavailable          nobody answered within the time given
  + InternalError        a bug of ours; the supervisor restarts the actor and says so

`x` marks a base that is never raised itself. A test compares this drawing with the classes.
"""

from __future__ import annotations


class MesosActorError(Exception):
    """Base of all errors of this project."""


class ProtocolError(MesosActorError):
    """Base of the errors that say whose fault a broken rule is; never raised itself."""

    def __init__(self, *args: object) -> None:
        if type(self) is ProtocolError:
            raise TypeError("tried to directly instantiate ProtocolError")
        super().__init__(*args)


class LocalError(ProtocolError):
    """We were asked for something the rules forbid."""


class PeerError(ProtocolError):
    """A peer sent something the rules forbid."""


class ConfigError(MesosActorError):
    """A setting cannot be used. The text names the field, the value and the fix."""


class InvalidInput(MesosActorError):
    """A value from outside cannot be used. The text names the field, the value and the fix."""


class StorageError(MesosActorError):
    """The disk refused: full, damaged, locked by another process, or written by a newer version."""


class SecurityError(MesosActorError):
    """A key is missing, unreadable, too open, or not this cluster's."""


class NotLeading(MesosActorError):
    """The master asked does not lead. `leader` is the address of the one that does, or empty."""

    def __init__(self, text: str, leader: str = "") -> None:
        super().__init__(text)
        self.leader = leader


class Unavailable(MesosActorError):
    """Nobody answered within the time given."""


class InternalError(MesosActorError):
    """A bug of ours. If you meet one, please file a report with its text."""
