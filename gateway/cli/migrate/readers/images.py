"""Which container images are TGI's."""

import re

from gateway.cli.migrate.launch import Note, Place

# HF's own, its mirrors and variants, Amazon's and Google's builds of it.
_TGI = re.compile(r"text-generation-inference|tgi-gaudi|huggingface-pytorch-tgi|pytorch-hf-tgi|(^|/)tgi([:@-]|$)")


def is_tgi(image: str) -> bool:
    """Whether an image is a TGI, by its name."""
    return _TGI.search(image.lower()) is not None


def not_tgi(image: str, place: Place) -> Note:
    """Return the note that an image was left alone."""
    return Note(place, f"the image {image or '(none)'} is not TGI's: left alone")
