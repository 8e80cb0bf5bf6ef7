"""The judge: metrics as pure functions, thin runners, and the report.

1. runners/tokenizer.py and runners/generation.py make pictures at every prefix length, and ask metrics/ and scenes/.
2. scenes/reader.py reads drawn scenes (scenes/reader_training.py trains it, scenes/reader_folder.py keeps it, as
   readers/training.py and readers/folder.py do for all); scenes/scoring.py compares what is read with what was asked;
   scenes/fitted.py is a second reader that was never trained. eyes/ reads labels of other pictures.
3. runners/understanding.py asks metrics/state_probes.py and metrics/zero_shot.py what a model knows of pictures;
   runners/resampling.py draws anew what follows the first tokens, scenes/resampling.py counts what stays;
   capacity/ counts how many characters come through a code; ordering/ holds orders against each other.
4. report/ merges sections of results.json and writes one HTML file.
"""
