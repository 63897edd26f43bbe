"""Adapters: one short file a family of diffusers pipelines."""
