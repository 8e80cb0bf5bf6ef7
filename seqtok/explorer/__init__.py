"""A web page on which models are looked at: slide the prefix, swap tokens, type a prompt, watch it emerge.

1. found.py finds the parts of a run; studio.py holds the models, held_out.py the pictures and captions of their data.
2. serve.py listens; guard.py lets in who may ask, and says what the page may do.
3. app.py answers: wire.py reads requests and writes answers, line.py lets one request at a time at the models.
4. page/ is what the browser shows: plain HTML, CSS and JavaScript, with nothing from outside.

The server keeps nothing of a request: the page holds the latents of its pictures and sends them along.
"""
