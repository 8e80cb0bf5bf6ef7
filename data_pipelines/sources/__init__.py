"""Where pairs of picture and captions come from: tables, folders, COCO, tars, drawn scenes."""
