"""The judge: metrics as pure functions, thin runners, and the report."""

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
