"""What a tokenizer makes of pictures and captions, as files."""

from seqtok.export.belongs import require_export
from seqtok.export.config import ExportConfig
from seqtok.export.run import export_latents, export_tokens

__all__ = ["ExportConfig", "export_latents", "export_tokens", "require_export"]
