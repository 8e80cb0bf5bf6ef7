"""From a user's settings to what every task of an export shares. Raises what is wrong before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from data_pipelines.shards import latent_check
from data_pipelines.shards.latents import LatentWriter
from seq_tokenizer import SeqTokenizer
from seqtok.export.config import FORMAT_VERSION, ExportConfig, is_single_file
from seqtok.export.encode import ShardEncoder
from seqtok.export.single_file import parts_folder
from seqtok.export.source import ExportSource, open_export_source
from seqtok.export.stores import LatentStore, PartStore
from seqtok.export.work import ExportWork
from seqtok_core.foundation import model_folder
from seqtok_core.foundation.errors import ConfigError, DataError
from seqtok_core.training.processes.distributed import World

_BATCH = {"cpu": 64, "cuda": 256}  # pictures or captions encoded at once; on a CPU by each thread
_GPU_THREADS = 2  # one slice is decoded while another is encoded


def plan_export(
    model: str | Path, data: Path, out: Path, config: ExportConfig, world: World
) -> tuple[ExportWork, dict[str, Any]]:
    """-> what all tasks share, and the JSON of the tokenizer's LatentSpec."""
    folder = model_folder.find_model_folder(model)
    if config.processes > 1 and world.device.type != "cpu":
        raise ConfigError(
            "--processes is for CPUs; on several GPUs: torchrun --nproc-per-node N -m seqtok tokenizer export …"
        )
    on_cpu = world.device.type == "cpu"
    threads = max(1, torch.get_num_threads() // config.processes) if on_cpu else _GPU_THREADS
    encoder = ShardEncoder(folder, str(world.device), threads)
    tokenizer, spec = encoder.tokenizer, encoder.tokenizer.spec
    prefixes = _prefixes(tokenizer, config)
    source = open_export_source(Path(data), config, tokenizer.config.image_size)
    fingerprints = {
        "format_version": FORMAT_VERSION,
        "tokenizer_id": spec.tokenizer_id,
        "captions_sha256": encoder.captions.sha256,
        "data": source.fingerprint,
    }
    stores = _stores(out, config, source, encoder, fingerprints, prefixes)
    work = ExportWork(
        model=folder,
        source=source,
        config=config,
        stores=stores,
        prefixes=prefixes,
        statistics=latent_check.Statistics.from_spec(spec.to_json()),
        fingerprints=fingerprints,
        device=str(world.device),
        threads=threads,
        batch=config.batch or _BATCH[world.device.type],
        encoder=encoder,
    )
    return work, spec.to_json()


def _stores(
    out: Path,
    config: ExportConfig,
    source: ExportSource,
    encoder: ShardEncoder,
    fingerprints: dict[str, Any],
    prefixes: tuple[int, ...],
) -> list[LatentStore] | list[PartStore]:
    form, model = config.format_of(out), encoder.tokenizer.config
    codes = encoder.codes if config.what == "latents" else None
    plan: dict[str, Any] = {**fingerprints, "splits": list(source.sizes)}
    if config.what == "latents":
        plan["on_outlier"] = config.on_outlier
    if config.what == "latents" and form == "webdataset":
        shape = (model.num_latents, model.latent_dim)
        name = f"{source.name}_latents"
        writer = LatentWriter(out, shape=shape, source=source.manifest, plan=plan, name=name, codes=codes)
        return [LatentStore(out, writer)]
    plan |= {"tables": list(config.tables), "format": form, "prefixes": list(prefixes), "name": source.name}
    if codes is not None:
        plan["codes"] = codes.to_json()
    folder = parts_folder(out) if is_single_file(out) else out
    width = model.text.embed_dim if model.text else 0
    shapes: dict[str, tuple[int, ...]] = {
        "latents": (model.num_latents, model.latent_dim),
        "images": (width,) if form == "parquet" else (len(prefixes), width),
        "texts": (width,),
    }
    return [
        PartStore(table, folder, source.name, form, {"export": plan}, prefixes, shapes[table], fingerprints, codes)
        for table in config.tables
    ]


def _prefixes(tokenizer: SeqTokenizer, config: ExportConfig) -> tuple[int, ...]:
    if config.what == "latents":
        return ()
    if tokenizer.text is None:
        raise DataError("this tokenizer was trained without captions: it has no text-image space to embed into")
    if "images" not in config.tables:
        return ()
    length = tokenizer.config.num_latents
    for k in config.prefixes:
        if k > length:
            raise ConfigError(f"--prefix {k}: choose from 1 to {length}")
    return tuple(sorted(config.prefixes)) or (length,)
