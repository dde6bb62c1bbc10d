"""Public images that are made and not read: printed glyphs, and dead leaves. No private file is opened."""
