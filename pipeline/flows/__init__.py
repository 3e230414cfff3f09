"""The flows choose stages and order them; the rooms below know nothing of each other."""
