"""What a tokenizer makes of pictures and captions, as files."""

from seqtok.export.belongs import require_export
from seqtok.export.config import ExportConfig
from seqtok.export.run import export, export_latents

__all__ = ["ExportConfig", "export", "export_latents", "require_export"]
