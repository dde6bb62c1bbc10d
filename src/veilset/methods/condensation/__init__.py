"""Methods that release a few images a class and nothing else."""
