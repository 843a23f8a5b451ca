"""Ways to make a sample look ordinary, applied to attack and twin alike."""
