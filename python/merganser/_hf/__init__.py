"""Parts of merganser.hf. Needs transformers and accelerate."""
