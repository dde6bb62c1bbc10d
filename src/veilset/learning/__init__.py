"""What training loops share: DP-SGD, schedules, averages, augmentation, shrinkage, cells. Reads no private record."""
