"""What a container of a command sees: its root file system, its volumes, its namespaces, its rights.

A command with a ContainerSpec gets namespaces of its own (mounts, processes, System V objects, host name; the network
as it asked), Docker's default capabilities and system call filter, and no way to more. With an image it gets that as
its root, by an overlay in its own mount namespace, so that nothing is left on the host when it ends; where the kernel
cannot overlay it as it is, by a copy. An agent that is not root does all that in a user namespace, in which the command
is root and on the host nobody but the agent's own user.

Kept below `directory`: `images` (image_store.py), `roots/<container>` with what the container wrote to its root.

Mesos: isolators filesystem/linux, docker/runtime, volume/*, namespaces/*, linux/{capabilities,nnp,seccomp}.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from mesos_actor.actors.core.container_network import BRIDGE
from mesos_actor.actors.core.container_spec import DOCKER
from mesos_actor.actors.errors import InvalidInput
from mesos_actor.actors.ids import ContainerId
from mesos_actor.actors.messages.containers import LaunchContainer
from mesos_actor.actors.messages.values import ContainerSpec
from mesos_actor.actors.messages.values import Volume as HostVolume
from mesos_actor.isolation import capabilities
from mesos_actor.isolation.command import CommandError, owner_of
from mesos_actor.isolation.confinement_plan import (
    MAX_OPTION_BYTES,
    Confinement,
    IdMap,
    Overlay,
    User,
    Volume,
    fields_of,
)
from mesos_actor.isolation.containerizer import IMAGES_MAX_BYTES
from mesos_actor.isolation.image_config import ImageRun, resolve_user, run_in_image
from mesos_actor.isolation.image_error import ImageError
from mesos_actor.isolation.image_provide import provide
from mesos_actor.isolation.image_registry import RegistryOptions
from mesos_actor.isolation.image_rootfs import RootfsPlan, copy_rootfs, found_in, text_of
from mesos_actor.isolation.image_store import MAX_IMAGE_BYTES, ImageStore
from mesos_actor.isolation.isolator import BaseIsolator, Contribution, IsolatorError, Watch
from mesos_actor.isolation.network_isolator import RESOLVER, Joined
from mesos_actor.isolation.paths import directory_name

SANDBOX_INSIDE = "/mnt/mesos/sandbox"
"""Where a container with an image sees its sandbox. (Mesos: --sandbox_directory)"""
MAX_ACCOUNTS_BYTES = 1 << 20
"""Read of an image's /etc/passwd and /etc/group."""
NETWORKS = {"host": "host", "own": "loopback", "none": "none", BRIDGE: "join"}


class RootIsolator(BaseIsolator):
    """`volume_roots`: directories of the host whose insides may be volumes. `confine_all`: commands without a
    ContainerSpec are confined as well. `joined` tells the network of a container that is at the agent's bridge; None:
    it has none. `user_id` None: the agent's own."""

    name = "root"
    makes_containers = True

    def __init__(
        self,
        directory: Path,
        volume_roots: Sequence[str] = (),
        *,
        confine_all: bool = False,
        images_max_bytes: int = IMAGES_MAX_BYTES,
        registries: RegistryOptions | None = None,
        user_id: int | None = None,
        joined: Callable[[ContainerId], Joined | None] | None = None,
    ) -> None:
        self._roots = directory / "roots"
        # One that is larger alone would drive out all others and go past the bound all the same.
        self._store = ImageStore(directory / "images", max_image_bytes=min(MAX_IMAGE_BYTES, images_max_bytes))
        self._volume_roots = tuple(volume_roots)
        self._confine_all = confine_all
        self._images_max_bytes = images_max_bytes
        self._registries = registries
        self._rootless = (os.geteuid() if user_id is None else user_id) != 0
        self._joined = joined
        self._watch: Watch | None = None

    def start(self, watch: Watch) -> None:
        """Raises ImageError when the directory cannot be used."""
        self._watch = watch
        self._store.open()
        self._roots.mkdir(mode=0o700, parents=True, exist_ok=True)

    def slow(self, launch: LaunchContainer) -> bool:
        spec = launch.command.container
        return spec is not None and bool(spec.image)

    def prepare(self, launch: LaunchContainer, sandbox: str) -> Contribution:
        spec = launch.command.container
        if spec is None:
            if not self._confine_all:
                return Contribution()
            spec = ContainerSpec()
        if spec.type == DOCKER:
            text = "container.type: 'docker' needs Docker Engine: start the agent with --containerizers docker"
            raise IsolatorError("spawn", f"{text}, or leave the type out")
        try:
            return self._with_image(launch, spec, sandbox) if spec.image else self._without(launch, spec)
        except ImageError as error:
            raise IsolatorError("fetch", f"image: {error}") from None
        except (InvalidInput, CommandError) as error:
            raise IsolatorError("spawn", f"container: {error}") from None

    # -- on the host's own files --------------------------------------------------------------------------------------

    def _without(self, launch: LaunchContainer, spec: ContainerSpec) -> Contribution:
        owner = owner_of(launch.command.user)
        groups = () if owner is None else tuple(os.getgrouplist(owner.name, owner.group_id))
        user = None if owner is None else User(owner.user_id, owner.group_id, groups)
        plan = self._plan(launch, spec, user)
        return Contribution(fields={"confine": fields_of(plan)})

    # -- in an image --------------------------------------------------------------------------------------------------

    def _with_image(self, launch: LaunchContainer, spec: ContainerSpec, sandbox: str) -> Contribution:
        image = provide(self._store, spec, self._registries, scratch=self._roots)
        layers = self._store.hold(image.image_id, launch.container_id)
        if layers is None:
            raise ImageError(f"image {spec.image!r} was collected at this very moment; launch again")
        self._collect()
        run = run_in_image(launch.command, image.config)
        who = resolve_user(
            run.user,
            text_of(layers, "/etc/passwd", MAX_ACCOUNTS_BYTES),
            text_of(layers, "/etc/group", MAX_ACCOUNTS_BYTES),
        )
        user = User(who.uid, who.gid, who.groups)
        if self._rootless and (user.user_id, user.group_id) != (0, 0):
            text = f"user: {run.user!r} of the image: an agent that is not root has only its own user, which is root"
            raise InvalidInput(f"{text} inside; name the user 0:0")
        if not self._rootless:
            os.chown(sandbox, user.user_id, user.group_id)
        cwd = run.working_dir if image.config.working_dir else SANDBOX_INSIDE
        plan = self._plan(launch, spec, user)
        plan = msgspec.structs.replace(plan, sandbox=sandbox, sandbox_target=SANDBOX_INSIDE, cwd=cwd)
        plan = self._rooted(plan, layers, launch.container_id)
        return Contribution(
            defaults=_environment(run, who.home),
            argv=run.argv,
            sandbox=SANDBOX_INSIDE,
            fields={"confine": fields_of(plan)},
        )

    def _rooted(self, plan: Confinement, layers: RootfsPlan, container_id: ContainerId) -> Confinement:
        """The plan with the image as its root: an overlay, or a copy."""
        own = self._own(container_id)
        self._remove(own)  # of a launch that a dead agent had only prepared
        upper, work = own / "upper", own / "work"
        lower = tuple(layer.name for layer in reversed(layers.layers))
        short = max(len(":".join(lower)), *(len(os.fsencode(str(path))) for path in (upper, work))) <= MAX_OPTION_BYTES
        plain = not any(character in f"{upper}" for character in ",:\\")
        if short and plain and not layers.why_copy(user_xattr=self._rootless):
            for path in (upper, work):
                path.mkdir(mode=0o700, parents=True)
            mode, owner, group = layers.root_attributes()
            upper.chmod(mode)
            if not self._rootless:
                os.chown(upper, owner, group)
            root = upper
            overlay = Overlay(
                store=layers.store, lower=lower, upper=str(upper), work=str(work), user_xattr=self._rootless
            )
        else:
            root, overlay = own / "root", None
            own.mkdir(mode=0o700, parents=True)
            copy_rootfs(layers, str(root))
        if plan.cwd != SANDBOX_INSIDE and found_in(layers, plan.cwd) is None:
            with contextlib.suppress(FileExistsError):
                (root / plan.cwd.lstrip("/")).mkdir(mode=0o755, parents=True)
        return msgspec.structs.replace(plan, root=str(root), overlay=overlay)

    def _collect(self) -> None:
        """Make room. What cannot be removed does not keep a container from its image."""
        try:
            collected = self._store.collect(self._images_max_bytes)
        except OSError as error:
            if self._watch is not None:
                self._watch.log("images_not_removed", level="warning", text=str(error))
            return
        if collected.images and self._watch is not None:
            self._watch.log("images_removed", images=", ".join(collected.images), freed_bytes=collected.freed_bytes)

    # -- what all have ------------------------------------------------------------------------------------------------

    def _plan(self, launch: LaunchContainer, spec: ContainerSpec, user: User | None) -> Confinement:
        joined = self._network(launch.container_id) if spec.network == BRIDGE else Joined("", "")
        volumes = tuple(map(self._volume, spec.volumes))
        if joined.resolver and not any(volume.target == RESOLVER for volume in volumes):
            volumes += (Volume(source=joined.resolver, target=RESOLVER, read_only=True),)
        is_root = (user is None or user.user_id == 0) and not self._rootless
        maps = ((IdMap(0, os.geteuid()),), (IdMap(0, os.getegid()),)) if self._rootless else ((), ())
        return Confinement(
            pid=True,
            ipc=True,
            mount=True,
            uts=True,
            network=NETWORKS[spec.network],  # type: ignore[arg-type]
            network_path=joined.namespace,
            read_only_root=spec.read_only_root,
            volumes=volumes,
            user=user,
            effective=capabilities.DOCKER if is_root or self._rootless else (),
            bounding=capabilities.DOCKER,
            user_ids=maps[0],
            group_ids=maps[1],
        )

    def _network(self, container_id: ContainerId) -> Joined:
        joined = None if self._joined is None else self._joined(container_id)
        if joined is None:
            why = "is for agents of root: links and rules are the host's" if self._rootless else "has no isolator here"
            raise InvalidInput(
                f"network: 'bridge' {why}; start the agent as root, name the type 'docker' where the agent has Docker "
                "Engine, or choose 'host', 'own' or 'none'"
            )
        return joined

    def _volume(self, wanted: HostVolume) -> Volume:
        source, target, read_only = wanted.host_path, wanted.container_path, wanted.read_only
        for allowed in self._volume_roots:
            inside = allowed.rstrip("/")
            if source.rstrip("/") == inside:
                return Volume(source=allowed, target=target, read_only=read_only)
            if source.startswith(f"{inside}/"):
                relative = source[len(inside) + 1 :]
                return Volume(source=relative, target=target, read_only=read_only, within=allowed)
        roots = ", ".join(self._volume_roots) or "nothing"
        raise InvalidInput(
            f"volume: host_path {source!r} is not allowed on this agent, which allows what is in: {roots}; its "
            "operator names directories by --volume-roots"
        )

    # -- afterwards ---------------------------------------------------------------------------------------------------

    def cleanup(self, container_id: ContainerId) -> None:
        try:
            self._remove(self._own(container_id))
            self._store.release(container_id)
        except OSError as error:
            raise IsolatorError("sandbox", f"root: cannot remove {error.filename}: {error.strerror}") from None
        except InvalidInput:
            return  # such a name never had one

    def recover(self, kept: Collection[ContainerId]) -> Collection[ContainerId]:
        self._store.release_others(set(kept))
        names = {directory_name("container_id", container_id) for container_id in kept}
        return [ContainerId(name) for name in sorted(os.listdir(self._roots)) if name not in names]  # noqa: PTH208

    def _own(self, container_id: ContainerId) -> Path:
        return self._roots / directory_name("container_id", container_id)

    @staticmethod
    def _remove(path: Path) -> None:
        """All of it; a directory that was made unreadable by its owner too."""
        if not path.exists():
            return

        def again(function: object, name: str, _: object) -> None:
            os.chmod(Path(name).parent, 0o700)  # noqa: PTH101
            if Path(name).is_dir() and not Path(name).is_symlink():
                os.chmod(name, 0o700)  # noqa: PTH101
                shutil.rmtree(name)
            else:
                Path(name).unlink(missing_ok=True)

        shutil.rmtree(path, onerror=again)


def _environment(run: ImageRun, home: str) -> dict[str, str]:
    return {"HOME": home, **run.env}
