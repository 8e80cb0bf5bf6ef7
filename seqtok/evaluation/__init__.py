"""The judge: metrics as pure functions, thin runners, and the report.

1. tokenizer_runner.py and generation_runner.py make pictures at every prefix length, and ask metrics/ and scenes/.
2. scenes/reader.py reads drawn scenes (scenes/reader_training.py trains it, scenes/reader_folder.py keeps it);
   scenes/scoring.py compares what is read with what was asked for.
3. understanding_runner.py asks metrics/state_probes.py and metrics/zero_shot.py what a model knows of pictures;
   resampling_runner.py draws anew what follows the first tokens, scenes/resampling.py counts what stays.
4. report/ merges sections of results.json and writes one HTML file.
"""
