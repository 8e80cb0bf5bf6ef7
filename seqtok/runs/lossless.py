"""A lossless tokenizer of a data set: no training, but the statistics of its patches."""

from __future__ import annotations

from pathlib import Path

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import sample_split
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.samples import to_model
from data_pipelines.shards.manifest import read_manifest
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.config import lossless_config
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.model_folder import require_free

_STATISTICS = 4096  # training pictures


def write_lossless(data: Path, out: Path, patch_size: int, order: str) -> Path:
    """Write a model folder. Raises DataError where the pictures have no one size, ConfigError where `out` is no new
    folder."""
    size = read_manifest(data).image_size
    if size is None:
        raise DataError(f"{data}: its pictures are of several sizes; prepare them at one: seqtok data prepare --size")
    require_free(out)
    tokenizer = SeqTokenizer(lossless_config(size, patch_size, order))  # type: ignore[arg-type]
    captions = CaptionTokenizer.load(data / CAPTIONS_FILE)
    batches = sample_split(data, "train", captions, _STATISTICS)
    tokenizer.measure_latents(to_model(batch.images) for batch in batches)
    tokenizer.save_pretrained(out, data / CAPTIONS_FILE)
    return out
