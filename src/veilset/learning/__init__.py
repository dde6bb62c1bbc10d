"""What training loops share: DP-SGD, schedules, averages, augmentation, shrinkage. Reads no private record."""
