"""Which images go when they take too much. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec


class ImageFacts(msgspec.Struct, frozen=True):
    image_id: str
    layers: tuple[str, ...]
    used_ns: int
    """When it was last used."""
    held: bool


class LayerFacts(msgspec.Struct, frozen=True):
    diff_id: str
    size_bytes: int


def to_remove(
    images: Iterable[ImageFacts], layers: Iterable[LayerFacts], max_bytes: int
) -> tuple[list[str], list[str], int]:
    """(images, layers, bytes) to remove so that at most `max_bytes` stay, as far as what is held allows.

    The image used longest ago goes first, and a layer with the last image that has it. Layers of no image go always.
    """
    images = list(images)
    sizes = {layer.diff_id: layer.size_bytes for layer in layers}
    uses = Counter(diff_id for image in images for diff_id in set(image.layers))
    unused = [diff_id for diff_id in sizes if not uses[diff_id]]
    left_bytes = sum(sizes.values()) - sum(sizes[diff_id] for diff_id in unused)
    gone = []
    for image in sorted(images, key=lambda image: (image.used_ns, image.image_id)):
        if left_bytes <= max_bytes:
            break
        if image.held:
            continue
        gone.append(image.image_id)
        for diff_id in sorted(set(image.layers)):
            uses[diff_id] -= 1
            if not uses[diff_id] and diff_id in sizes:
                unused.append(diff_id)
                left_bytes -= sizes[diff_id]
    return gone, unused, sum(sizes[diff_id] for diff_id in unused)
