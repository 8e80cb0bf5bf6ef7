"""The roof of seqtok: commands, run configs, wiring, and the judge of the order (evaluation).

The way of a command, with the file of each step:
1. cli.py finds the command in commands/, one file per group; nothing heavy is imported before it runs.
2. runs/settings.py merges the config file with key=value words, runs/kinds.py makes it a run of its kind.
3. The run (runs/base.py; runs/tokenizer.py, runs/generators/pairs.py) builds objective, loader and hooks; runs/train.py
   hands them to the training service. plan/ and runs/checkpoints.py ask the same run.
4. export/ turns pictures into latents and tables; evaluation/ judges models; runs/demo goes the whole way;
   explorer/ shows models at work on a web page.
5. An error of a room below is said in the words of the command (words.py).
"""
