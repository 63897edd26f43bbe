"""The doctor: what a LoRA file does to a model, and what this machine can run."""
