"""Parameter groups, AdamW and Muon, schedules, the moving average, and the flat layout of ZeRO."""
