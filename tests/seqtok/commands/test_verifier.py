"""An open_clip model, made on the spot, that chooses among drawings: as open_clip itself would score them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ar_model.sampling import SearchConfig
from seq_tokenizer import SeqTokenizer
from seq_tokenizer.prefixes import decode_all
from seq_tokenizer.text.pretrained import PicturesAndTexts
from seqtok.grids import to_image
from seqtok.pictures.verifier import prompt_score
from seqtok_core.foundation.compat import prepare_torchvision
from seqtok_core.foundation.errors import ConfigError
from tests.seqtok.commands.test_commands import seqtok
from tests.seqtok.commands.test_sampling_command import models  # noqa: F401 (a fixture)

CLIP = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 16, "head_width": 8, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
STATISTICS = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7], "interpolation": "bicubic", "resize_mode": "squash"}
PROMPTS = ["a red circle", "a blue square"]


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prepare_torchvision()
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": STATISTICS}))
    torch.manual_seed(0)
    weights = open_clip.model.CLIP(**CLIP).state_dict()
    save_file({n: w.contiguous() for n, w in weights.items()}, folder / "open_clip_model.safetensors")
    return folder


def test_pictures_and_texts_are_where_open_clip_puts_them(clip: Path) -> None:
    import open_clip

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{clip}")
    pictures = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    own = PicturesAndTexts(str(clip))
    with torch.no_grad():
        expected = model.eval().encode_image(torch.stack([preprocess(to_image(p)) for p in pictures]), normalize=True)
        texts = model.encode_text(open_clip.get_tokenizer(f"local-dir:{clip}")(PROMPTS), normalize=True)
    torch.testing.assert_close(own.of_pictures(pictures), expected, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(own.of_texts(PROMPTS), texts)
    torch.testing.assert_close(own.of_texts(PROMPTS[0]), texts[:1])
    small = own.of_pictures(pictures[..., ::2, ::2])
    assert small.shape == (3, 16)


def test_the_best_by_its_eyes_is_kept(clip: Path, models) -> None:  # noqa: F811
    from ar_model import SeqGenerator

    generator, tokenizer = SeqGenerator.from_pretrained(models[0]), SeqTokenizer.from_pretrained(models[1])
    search = SearchConfig(candidates=4)
    score = prompt_score(generator, tokenizer, PROMPTS, search, clip)
    assert score is not None
    best = generator.sample(PROMPTS, guidance=1.0, candidates=4, score=score)
    model = PicturesAndTexts(str(clip))
    texts = model.of_texts(PROMPTS)
    value = (model.of_pictures(decode_all(tokenizer, best, best.shape[1])) * texts).sum(1)
    torch.testing.assert_close(score(best), value)
    assert bool((value >= score(generator.sample(PROMPTS, guidance=1.0))).all())


def test_on_the_command_line(clip: Path, models, capsys, tmp_path: Path) -> None:  # noqa: F811
    words = ["--prompt", "a red circle", "--steps", 2, "--out", tmp_path / "x.png", "--json", "--verifier"]
    status, printed, err = seqtok(capsys, "generator", "sample", *models, *words, clip, "--candidates", 2)
    assert status == 0, err
    assert json.loads(printed)["verifier"] == str(clip)
    for name, extra, message in (
        (tmp_path / "none", ["--candidates", 2], "no open_clip model, neither a folder nor a hub id"),
        (clip, [], "nothing to choose from; draw several candidates"),
    ):
        status, _, err = seqtok(capsys, "generator", "sample", *models, *words, name, *extra)
        assert status != 0
        assert message in err
        assert "Traceback" not in err


def test_a_folder_without_weights_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP, "preprocess_cfg": STATISTICS}))
    with pytest.raises(ConfigError, match="no open_clip model"):
        PicturesAndTexts(str(tmp_path))
