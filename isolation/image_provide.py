"""An image for a container: from the store, or into it, as the pull policy says. Blocks: call it on a thread."""

from __future__ import annotations

import threading
from pathlib import Path

from mesos_actor.actors.core.image_reference import parse_image_reference
from mesos_actor.actors.messages.values import ContainerSpec
from mesos_actor.isolation.fetch import Reader
from mesos_actor.isolation.image_error import ImageError
from mesos_actor.isolation.image_registry import RegistryOptions, RegistrySource
from mesos_actor.isolation.image_source import disk_source
from mesos_actor.isolation.image_store import ImageStore, StoredImage


def provide(
    store: ImageStore,
    spec: ContainerSpec,
    registries: RegistryOptions | None = None,
    reader: Reader | None = None,
    scratch: Path | None = None,
    cancelled: threading.Event | None = None,
) -> StoredImage:
    """The image that `spec` names. `reader`: whose rights decide what is read of this host's disk. `scratch`: where a
    compressed tarball is unpacked meanwhile.

    An image on the host's disk is looked at each time, whatever the policy: it may be another now, and another user may
    not read it; its layers are read only when they are new. Raises ImageError, InvalidInput for a name that is none.
    """
    reference = parse_image_reference(spec.image)
    name = str(reference)
    if reference.is_on_disk:
        return store.add(disk_source(reference, reader, str(scratch) if scratch else None), name, cancelled)
    # What a digest names never changes.
    found = store.find(name) if spec.pull != "always" or reference.digest else None
    if found is not None:
        return found
    if spec.pull == "never":
        raise ImageError(f"image {spec.image!r} is not on this host, and 'pull' is 'never'")
    return store.add(RegistrySource(reference, registries, cancelled), name, cancelled)
