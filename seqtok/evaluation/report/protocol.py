"""What every number of a report is, in words: the protocol that stands beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PSNR = """
PSNR in dB over 8-bit RGB, computed per picture and then averaged over {test:,} held-out pictures of
{size} x {size} pixels. Each is decoded from its first k of {length} tokens ({dim} channels each); the other
tokens are absent. Higher is better.
"""
_SSIM = """
Structural similarity (Gaussian window of 11 pixels, standard deviation 1.5) of the same pictures, averaged
over them. 1 is identical.
"""
_PROBE = """
Share of {test:,} held-out pictures whose label a linear probe names: multinomial logistic regression with
L2 on the first k tokens, flattened and standardised, fitted on {train:,} training pictures. A level is the
mean over its labels. Dotted: always naming the commonest class.
"""
_RETRIEVAL = """
Among {test:,} held-out pictures, R@1 (R@5) is the share of queries with a right answer among the nearest 1
(5), by cosine similarity between the embedding of the first k tokens and that of the caption. Candidates
are the different captions of one level. An answer that says the same as the picture's own caption is right.
Dotted: a random order.
"""
_READER = """
One picture for each of {prompts:,} held-out prompts (the {level} captions of test scenes), drawn with
guidance {guidance:g}, temperature {temperature:g}, {head} and seed {seed}; {chosen}.
A reader network, trained on other drawn scenes, says what each picture shows.
Chance: real pictures of other scenes under the same prompts. Ceiling: real pictures of the same scenes.
Interval: 95 % (Wilson). Unseen: prompts with a combination of shape and colour, or of shapes and relation,
that no training scene holds.
"""
_BY_PREFIX = "The same pictures, decoded from their first k generated tokens and judged in the same way."
_PREFIX = """
Of each of {scenes:,} held-out scenes the first k tokens are kept, and {seeds} pictures are drawn from them without a
prompt, with guidance {guidance:g}, temperature {temperature:g} and {head}; of {candidates} candidates for each that
one is taken whose own first tokens are nearest to those kept, without asking for captions. The reader says whether they
show all that the scene's caption of a level says. Dotted: the same drawings under the captions of other scenes.
"""
_CAPTIONS = """
Each of {scenes:,} held-out scenes is encoded, and the sequence model writes its finest caption from the tokens, {how}.
The caption is read back by the grammar of the scenes' captions and compared with the scene: it is right where what it
says is true, in whatever order. Chance: the captions of other scenes. Interval: 95 % (Wilson).
"""
_UNDERSTANDING = """
Each picture is read by the sequence model without a prompt. Linear probes (multinomial logistic regression with L2,
fitted on {fit:,} pictures) name its labels from the hidden states after a block, a mean over the image's tokens or the
last token's alone; the block is chosen for each label on {val:,} other pictures, and its probe is asked once about
{test:,} held-out ones. Beside them the same probes on what went in: all latents, flattened, and their mean. A level is
the mean over its labels. Interval: 95 %, bootstrap over held-out pictures. Chance: the commonest class.
"""
_BY_BLOCK = "The same probes on the mean over tokens after each block, on the pictures that the block is chosen on."
_ZERO_SHOT = """
Nothing is fitted: of the different captions of a level, at most {candidates}, one wording each, the one that the model
finds likeliest for a held-out picture; right where it says the same as the picture's own. Levels with more captions are
left out. Interval: 95 %, bootstrap over pictures. Chance: always naming the commonest.
"""
_RESAMPLING = """
Of each of {scenes:,} held-out scenes the first k tokens are kept, and the rest is drawn anew {seeds} times: by the
sequence model without a prompt (guidance {guidance:g}, temperature {temperature:g}, {head}), from another picture
(swapped), or as noise of the size that latents of that place have. The reader says what every redrawing shows; counted
is what is as in the original scene. PSNR to the original picture; std of a pixel over the redrawings of one picture, in
levels of 255. Chance: real pictures of other scenes.
"""
_FORCED = """
The first m tokens are the true ones, the rest is drawn by the model for the finest caption, {seeds} times for each of
{scenes:,} scenes: how much of what is wrong comes from the first tokens.
"""
_UNGUIDED = "The same prompts with guidance 1 and temperature 1: the law of pictures as it was learnt."
_SECOND = """The same pictures read by the drawing program itself, fitted to each region that stands out: it was never
trained, and what it cannot draw has no name. Rebuilt: what the tokenizer alone makes of the real pictures, the most
that any sequence model can reach."""
_VARIETY = """Two drawings of each of {varied} prompts: the standard deviation of a shape's place within one prompt, in
shares of the picture's side, and that of real pictures of one finest caption, whose shapes the drawing program moves
wherever else the caption lets them. Pairs that are right in everything count, of prompts that name no two shapes alike.
"""
_CAPACITY = """Held-out pages of n characters, each drawn evenly from {alphabet} and put into one of 64 cells, pass the
{tokens} tokens; a reader trained on other pages names the character of every cell of what is decoded. Share of the
drawn characters that are named rightly, mean over {pages} pages; interval: 95 %, by resampling pages. Chance: any one
character everywhere; ceiling: the real pages. Bits of a page: drawn, n log2 {alphabet}; recovered, at least, by Fano's
inequality from the share that is right. The code's own bits ({code_bits_are}) are those of the bottleneck
through its noise, where it has one: with noise the latents are those of training, otherwise as they are handed out.
"""
_PUBLISHED = """The first {pages} pages of each number are read by PP-OCR, too, which others trained on print of all
kinds: a character is of the cell that its middle lies in."""
_SAMPLES = """
{count:,} pictures of {prompts:,} prompts, {labels}, drawn with guidance {guidance:g}, temperature {temperature:g},
{head} and seed {seed}, seen by {network} and held against {reference}. Frechet distance between normal laws of the
features; precision and recall by balls that reach to the third nearest neighbour; inception score in parts of 5,000.
"""
_LABELS = {"even": "each as often as another", "random": "each picture's drawn evenly among them"}
VARIED = 200  # prompts that are drawn twice
_LEVELS = ("coarsest", "second", "third", "finest")


def of_tokenizer(results: Mapping[str, Any]) -> dict[str, str]:
    """Section of `results` -> the sentences that belong to it, for every section that is there."""
    facts = {**results["images"], **results["tokens"]}
    words = {"psnr": _PSNR, "ssim": _SSIM, "probe": _PROBE, "retrieval": _RETRIEVAL}
    return {name: _filled(text, facts) for name, text in words.items() if name in results}


def of_generation(prompts: int, config: Mapping[str, Any], head: str) -> dict[str, str]:
    """How pictures were drawn and judged; `config` is that of the runner, as a mapping, `head` the model's kind."""
    search = config["search"]
    chosen = "none was chosen or drawn again"
    if search["candidates"] * search["beams"] > 1:
        chosen = (
            f"{search['beams']} beams with {search['candidates']} candidates each, chosen by the tokenizer's text space"
        )
    facts = {
        **config,
        **_of_sample(config["sample"], head),
        "chosen": chosen,
        "prompts": prompts,
        "level": _LEVELS[config["level"]],
    }
    said = {"reader": _filled(_READER, facts), "reader_by_prefix": _BY_PREFIX, "reader_unguided": _UNGUIDED}
    return {**said, "second_reader": _SECOND, "variety": _filled(_VARIETY, {"varied": min(prompts, VARIED)})}


def of_prefixes(scenes: int, config: Mapping[str, Any], head: str) -> dict[str, str]:
    """How pictures were drawn from prefixes; `config` is a PrefixTruthConfig, as a mapping."""
    return {"prefix_truth": _filled(_PREFIX, {**config, **_of_sample(config["sample"], head), "scenes": scenes})}


def of_understanding(sizes: Mapping[str, int], config: Mapping[str, Any], chosen: bool) -> dict[str, str]:
    """`sizes`: pictures of each part; `config` is an UnderstandingConfig, as a mapping; `chosen`: whether captions were
    chosen among."""
    said = {"understanding": _filled(_UNDERSTANDING, sizes), "understanding_by_block": _BY_BLOCK}
    return {**said, "zero_shot": _filled(_ZERO_SHOT, config)} if chosen else said


def of_resampling(scenes: int, config: Mapping[str, Any], head: str) -> dict[str, str]:
    """How the rest was drawn anew; `config` is a ResamplingConfig, as a mapping."""
    facts = {**config, **_of_sample(config["sample"], head), "scenes": scenes}
    return {"resampling": _filled(_RESAMPLING, facts), "forced": _filled(_FORCED, facts)}


def of_captions(scenes: int, config: Mapping[str, Any]) -> dict[str, str]:
    """How captions were written; `config` is a CaptionEvaluation, as a mapping."""
    own = config["caption"]
    if own["temperature"] > 0:
        how = f"drawn with temperature {own['temperature']:g} from the likeliest {own['top_p']:.0%}"
    else:
        how = "the likeliest word each time" if own["beams"] == 1 else f"by beam search with {own['beams']} beams"
    if own["candidates"] > 1:
        how += (
            f", and {own['candidates'] - 1} drawn at temperature {own['temperature'] or 1:g}: kept is the caption that "
        )
        how += "the picture is drawn from best, by the loss of its latents"
    by_prefix = "The same, written from the first k tokens; of each level's captions the share that is right in all."
    return {"captions": _filled(_CAPTIONS, {"scenes": scenes, "how": how}), "captions_by_prefix": by_prefix}


def of_samples(found: Mapping[str, Any], asked: Mapping[str, Any], head: str) -> dict[str, str]:
    """How a set was drawn and seen; `asked` is a SampleSetConfig and the number of prompts."""
    facts = {**found, **asked, **_of_sample(asked["sample"], head), "labels": _LABELS[asked["labels"]]}
    return {"samples": _filled(_SAMPLES, facts)}


def of_capacity(section: Mapping[str, Any]) -> dict[str, str]:
    """How pages of glyphs were read; `section` is that of results.json."""
    pages = next(iter(section["ways"]["encoded"].values()))["pages"]
    said = _filled(_CAPACITY, {**section, "pages": pages})
    if published := section.get("published"):
        own = next(iter(published["encoded"].values()))["pages"]
        said += " " + _filled(_PUBLISHED, {"pages": own})
    return {"capacity": said}


def _of_sample(sample: Mapping[str, Any], kind: str) -> dict[str, Any]:
    part = ", ".join(f"{key} {value}" for key, value in sample[kind].items())
    return {**sample, "head": f"{kind} with {part}" if part else kind}


def _filled(text: str, facts: Mapping[str, Any]) -> str:
    return " ".join(text.format(**facts).split())
