"""The judge: metrics as pure functions, thin runners, and the report.

1. tokenizer_runner.py and generation_runner.py make pictures at every prefix length, and ask metrics/ and scenes/.
2. scenes/reader.py reads drawn scenes (scenes/reader_training.py trains it, scenes/reader_folder.py keeps it, as
   readers/training.py and readers/folder.py do for all); scenes/scoring.py compares what is read with what was asked.
3. capacity/reader.py reads drawn glyphs back; capacity/judgement.py counts how many come through a code, and
   capacity/scoring.py how many bits that is.
4. report/ merges sections of results.json and writes one HTML file.
"""
