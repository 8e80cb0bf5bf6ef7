"""Image-text data: from what people have to batches. Imports neither torch.nn nor DeepSpeed.

The way of a picture, with the file of each step:
1. sources/open.py finds out what a path is (a folder: sources/folders/layout.py; of tables
   sources/tables/open_tables.py); a Source (sources/base.py) names its samples by range, and one that comes sorted is
   shuffled (sources/derived/shuffled.py).
2. prepare/run.py cuts the ranges into tasks (prepare/tasks.py); executors/run.py hands them to workers.
3. In a task prepare/build.py asks the source for each pair: a record (sources/record_source.py over rows, tables,
   folders or tars), its captions by level and its bytes (sources/records.py).
4. pictures/decode.py makes the bytes pixels of one size, captions/clean.py the texts clean, prepare/keys.py a name.
   What is damaged is dropped there (prepare/build.py), counted by reason in the shard's index (prepare/tasks.py),
   summed over shards (prepare/tally.py) and refused beyond a share (prepare/run.py).
5. tars/write.py streams the members into a shard; shards/files.py puts it and its index in place, whole or not at all.
6. prepare/run.py ends with dataset.json (shards/manifest.py); reading/vocabulary.py learns the captions model.
7. shards/shard_set.py opens a split, ours or foreign, as one list of samples.
8. reading/order.py says which samples stand in which step; reading/loader.py fetches them, here or in workers.
9. reading/picture_reader.py and reading/texts.py read them; reading/image_text.py makes the batch (samples.py).
   Where a picture cannot be decoded the run ends, or the next one stands in and it is counted
   (reading/picture_reader.py); of a stream (reading/stream.py) it is left out.
looking/ inspects and verifies what lies on disk; scenes.py and glyphs.py draw pictures that carry their truth.
"""
