"""The judge: metrics as pure functions, thin runners, and the report.

1. tokenizer_runner.py and generation_runner.py make pictures at every prefix length, and ask metrics/ and scenes/.
2. scenes/reader.py reads drawn scenes (scenes/reader_training.py trains it, scenes/reader_folder.py keeps it);
   scenes/scoring.py compares what is read with what was asked for.
3. report/ merges sections of results.json and writes one HTML file.
"""

from seqtok.evaluation.generation_runner import (
    Generated,
    GenerationConfig,
    evaluate_generation,
    judge_pictures,
    pictures_for_report,
)
from seqtok.evaluation.report.kept_pictures import ReportPictures, kept_pictures
from seqtok.evaluation.report.report import merge, read_results, write_report, write_results
from seqtok.evaluation.scenes.reader import SceneReader
from seqtok.evaluation.scenes.reader_folder import load_or_train_reader, reader_quality
from seqtok.evaluation.scenes.reader_training import ReaderConfig
from seqtok.evaluation.scenes.scoring import scene_meaning
from seqtok.evaluation.stopwatch import Stopwatch
from seqtok.evaluation.tokenizer_runner import SCENE_LEVELS, evaluate_tokenizer

__all__ = [
    "SCENE_LEVELS",
    "Generated",
    "GenerationConfig",
    "ReaderConfig",
    "ReportPictures",
    "SceneReader",
    "Stopwatch",
    "evaluate_generation",
    "evaluate_tokenizer",
    "judge_pictures",
    "kept_pictures",
    "load_or_train_reader",
    "merge",
    "pictures_for_report",
    "read_results",
    "reader_quality",
    "scene_meaning",
    "write_report",
    "write_results",
]
