"""The pictures of a report in a file, so that a later report of the run shows them too: safetensors, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from seqtok.evaluation.scenes.generation import Verdict
from seqtok_core.foundation.errors import DataError
from seqtok_core.foundation.files import atomic_write


@dataclass(frozen=True)
class ReportPictures:
    """What the report shows. P prefix lengths; n originals, each with S drawings, and m prompts; pictures (3, H, W)
    uint8."""

    prefixes: Sequence[int]
    originals: Tensor  # (n, 3, H, W), held out
    rebuilt: Tensor  # (n, P, 3, H, W): each original decoded from 1, 2, 4, ... K tokens
    prompts: Sequence[str] = ()
    generated: Tensor | None = None  # (m, P, 3, H, W)
    verdicts: Sequence[Verdict] = ()  # m, of the pictures at full length
    unseen: Sequence[bool] = ()  # m, whether training never held the prompt's combination
    drawn: Tensor | None = None  # (n, S, P, 3, H, W): drawn by a sequence model from the first 1, 2, 4, ... K tokens
    redrawn: Tensor | None = None  # (n, S, len(kept), 3, H, W): the first tokens kept, the rest drawn by a model
    kept: Sequence[int] = ()  # numbers of tokens
    captioned: Tensor | None = None  # (c, 3, H, W), held out, with what the sequence model said of them
    captions: Sequence[str] = ()  # c
    caption_verdicts: Sequence[Verdict] = ()  # c


FILE = "pictures.safetensors"
_WORDS = "words"


def keep_pictures(folder: Path, pictures: ReportPictures) -> None:
    """Write `folder`/pictures.safetensors."""
    from safetensors.torch import save

    tensors = {"originals": pictures.originals, "rebuilt": pictures.rebuilt}
    if pictures.generated is not None:
        tensors["generated"] = pictures.generated
    if pictures.drawn is not None:
        tensors["drawn"] = pictures.drawn
    if pictures.redrawn is not None:
        tensors["redrawn"] = pictures.redrawn
    if pictures.captioned is not None:
        tensors["captioned"] = pictures.captioned
    words = {
        "prefixes": list(pictures.prefixes),
        "prompts": list(pictures.prompts),
        "verdicts": list(pictures.verdicts),
        "unseen": list(pictures.unseen),
        "kept": list(pictures.kept),
        "captions": list(pictures.captions),
        "caption_verdicts": list(pictures.caption_verdicts),
    }
    plain = {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic_write(Path(folder) / FILE) as stream:
        stream.write(save(plain, {_WORDS: json.dumps(words)}))  # one: safetensors writes several in any order


def kept_pictures(folder: Path) -> ReportPictures | None:
    """The pictures kept in `folder`, None when there are none. Raises DataError when the file is damaged."""
    import safetensors

    path = Path(folder) / FILE
    if not path.is_file():
        return None
    try:
        with safetensors.safe_open(path, framework="pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 (no mapping)
            words = {name: json.loads(value) for name, value in (stored.metadata() or {}).items()}
        return ReportPictures(**tensors, **words.get(_WORDS, words))  # as they are: of an earlier version
    except (safetensors.SafetensorError, OSError, TypeError, ValueError) as error:
        raise DataError(f"{path}: not pictures of a report ({error})") from None
