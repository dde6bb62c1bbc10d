"""Methods that release a few images per class and nothing else."""
