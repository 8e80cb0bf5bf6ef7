"""seqtok evaluate: models and data in, numbers out, as a table on the terminal and as results.json."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import typer

from data_pipelines.captions.tokenizer import CaptionTokenizer
from data_pipelines.reading.image_text import read_split
from data_pipelines.reading.picture_reader import LoaderConfig
from data_pipelines.reading.vocabulary import FILE as CAPTIONS_FILE
from data_pipelines.scenes import make_scene
from data_pipelines.shards.manifest import FILE, Manifest, read_manifest
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import PrefixTokenizer
from seqtok.evaluation.runners.captions import CaptionEvaluation, evaluate_captions
from seqtok.evaluation.runners.generation import GenerationConfig, evaluate_generation, evaluate_prefixes
from seqtok.evaluation.runners.tokenizer import SCENE_LEVELS, evaluate_tokenizer
from seqtok.evaluation.scenes.prefix_truth import PrefixTruthConfig
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.evaluation.scenes.scoring import scene_meaning
from seqtok.pictures.sample import load_pair
from seqtok.pictures.verifier import prompt_score
from seqtok.runs.judge.foreign import is_foreign, open_foreign
from seqtok.runs.judge.shown import keep_results, print_attributes, print_table
from seqtok_core.foundation import model_folder
from seqtok_core.training import World

Levels = Mapping[str, Sequence[str]]


def judge_reconstruction(model: str, data: Path, split: str, limit: int, out: Path | None) -> dict[str, Any]:
    tokenizer, captions, loader = _open(model, data)
    test = read_split(data, split, captions, limit, loader)
    bare = replace(test, labels={}, captions=[])
    results = evaluate_tokenizer(tokenizer, bare, bare)
    print_table("PSNR in dB and SSIM by number of tokens", {name: results[name] for name in ("psnr", "ssim")})
    keep_results(out, results)
    return results


def probe_and_retrieve(
    model: str, data: Path, split: str, fit_split: str, limit: int, fit_limit: int, out: Path | None
) -> dict[str, Any]:
    tokenizer, captions, loader = _open(model, data)
    train = read_split(data, fit_split, captions, fit_limit, loader)
    test = read_split(data, split, captions, limit, loader)
    levels, meaning = levels_of(data)
    results = evaluate_tokenizer(tokenizer, train, test, levels=levels, meaning=meaning)
    if "probe" in results:
        print_table("accuracy of linear probes by number of tokens", results["probe"]["levels"])
    if "retrieval" in results:
        first = {
            level: {k: value["image_to_caption_r1"] for k, value in points.items()}
            for level, points in results["retrieval"].items()
        }
        print_table("retrieval, image to caption, R@1 by number of tokens", first)
    keep_results(out, results)
    return results


def judge_generation(
    generator_model: str,
    tokenizer_model: str,
    reader_folder: Path,
    prompts: int,
    config: GenerationConfig,
    seed: int,
    out: Path | None,
) -> dict[str, Any]:
    """`seed`: of the scenes."""
    generator, tokenizer = load_pair(generator_model, tokenizer_model)
    reader = load_or_train_reader(reader_folder, ReaderConfig())
    scenes = [make_scene(seed, index, "test") for index in range(prompts)]
    score = partial(prompt_score, generator, tokenizer, search=config.search)
    results, _ = evaluate_generation(tokenizer, generator, scenes, reader, config, score)
    for section, how in (("reader", ""), ("reader_unguided", ", without guidance")):
        print_attributes(f"share of {prompts} pictures that are right{how}", results[section])
    print_table("the same by a second reader, which was never trained", results["second_reader"])
    print_table("everything right, by number of shapes", results["by_shapes"])
    if "variety" in results:
        rows = {"as asked": results["variety"]["reader"], "without guidance": results["variety"]["reader_unguided"]}
        print_table("spread of a shape's place within a prompt, in sides of the picture", rows)
    keep_results(out, results)
    return results


def judge_captions(
    generator_model: str,
    tokenizer_model: str,
    scenes: int,
    config: CaptionEvaluation,
    seed: int,
    out: Path | None,
) -> dict[str, Any]:
    """`seed`: of the scenes."""
    generator, tokenizer = load_pair(generator_model, tokenizer_model)
    held_out = [make_scene(seed, index, "test") for index in range(scenes)]
    results, _ = evaluate_captions(tokenizer, generator, held_out, tokenizer.config.image_size, config)
    print_attributes(f"share of captions of {scenes} pictures that are right", results["captions"])
    typer.echo(f"of all single attributes right: {results['captions_right']:.3f}")
    if "captions_by_prefix" in results:
        print_table("captions written from k tokens, right in everything", results["captions_by_prefix"])
    keep_results(out, results)
    return results


def judge_prefixes(
    generator_model: str,
    tokenizer_model: str,
    reader_folder: Path,
    scenes: int,
    config: PrefixTruthConfig,
    seed: int,
    out: Path | None,
) -> dict[str, Any]:
    """`seed`: of the scenes."""
    generator, tokenizer = load_pair(generator_model, tokenizer_model)
    reader = load_or_train_reader(reader_folder, ReaderConfig())
    held_out = [make_scene(seed, index, "test") for index in range(scenes)]
    results, _ = evaluate_prefixes(tokenizer, generator, held_out, reader, tokenizer.config.image_size, config)
    for how, table in (("drawn", "prefix_truth"), ("decoded", "decoded_truth")):
        rows = results[table]["attributes"]
        shown = {
            key: {**row["value"], "chance": row["chance"]["1"], "real": row["ceiling"]} for key, row in rows.items()
        }
        print_table(f"share of pictures {how} from k tokens that are right", shown)
    keep_results(out, results)
    return results


def _open(model: str, data: Path) -> tuple[PrefixTokenizer, CaptionTokenizer, LoaderConfig]:
    """Ours by its model folder, or another project's by its file; the words, and how its pictures are read."""
    if is_foreign(model):
        foreign = open_foreign(model)
        words = CaptionTokenizer.load(data / CAPTIONS_FILE)
        return foreign, words, LoaderConfig(image_size=foreign.image_size)
    tokenizer, captions = load_tokenizer(model)
    return tokenizer, captions, LoaderConfig(image_size=tokenizer.config.image_size)


def load_tokenizer(model: str | Path) -> tuple[SeqTokenizer, CaptionTokenizer]:
    """A tokenizer, on the GPU where there is one, with the sentencepiece model of its text tower."""
    folder = model_folder.find_model_folder(model)
    device = World.from_environment().device
    return SeqTokenizer.from_pretrained(folder).to(device), CaptionTokenizer.load(model_folder.captions_of(folder))


def of_scenes(manifest: Manifest) -> bool:
    """Whether a data set holds drawn scenes, as pictures or as the latents that were exported of them."""
    return manifest.name.removesuffix("_latents") == "scenes"


def levels_of(data: Path) -> tuple[Levels | None, Callable[[str], str]]:
    """Names of the caption levels with their labels, and which captions mean the same, as the data set says."""
    if not (data / FILE).is_file():
        return None, str
    manifest = read_manifest(data)
    if of_scenes(manifest):
        return SCENE_LEVELS, scene_meaning
    if manifest.level_names and manifest.level_labels:
        return dict(zip(manifest.level_names, manifest.level_labels, strict=True)), str
    return None, str
