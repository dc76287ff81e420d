"""Is this set-up able to learn?"""
