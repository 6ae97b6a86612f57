"""Frames in files are read, and images written.

    read_observation    frames to fit from HDF5 (the layout of The Well), .npy, .npz, or PNG, TIFF and GIF images
    write_image         an array or a state as an 8-bit PNG with a colour map
    write_pattern       one species as an 8-bit grey PNG that says in a text chunk what its levels stand for

Nothing is unpickled, and a target is never half-written, see `files`.
"""

from .images import write_image, write_pattern
from .observation import Observation
from .reading import IMAGES, read_observation

__all__ = ["IMAGES", "Observation", "read_observation", "write_image", "write_pattern"]
