"""Whether two sets of images are the same, wherever they lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paddle_sam.core.processes import spread
from paddle_sam.errors import ImageError
from paddle_sam.imagesets.archive import ImageSource, content_digest, relative_name, source_size

# Names and sizes of all images count; of so many from all over the set also the content.
_LOOKED_INTO = 256


def identify_images(root: str, images: Sequence[ImageSource], facts: Any = None) -> dict[str, Any]:
    """Describe a set of images by its content, and `facts` that belong to them, such as ages."""
    looked_into = set(spread(_LOOKED_INTO, len(images)))
    digest = hashlib.sha256(json.dumps(facts).encode())
    for index, image in enumerate(images):
        content = ""
        if index in looked_into:
            try:
                content = content_digest(image)
            except ImageError:
                content = "unreadable"  # the loader says so
        line = f"{relative_name(image, Path(root))}\0{source_size(image)}\0{content}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    return {"images": len(images), "sha256": digest.hexdigest()}


def joined(sets: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Describe several sets of images as one."""
    if len(sets) == 1:
        return sets[0]
    digest = hashlib.sha256(json.dumps(sets).encode()).hexdigest()
    return {"images": sum(one["images"] for one in sets), "sha256": digest}
