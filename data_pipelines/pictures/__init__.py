"""Bytes <-> pixels: decode, resize, augment, and JPEG as the codecs have it."""
