"""What keeps a run whole: journal, paid answers, checkpoints, several processes."""
