"""What a step costs: arithmetic, memory, and what the hardware gives."""
