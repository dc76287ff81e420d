"""Is this set-up able to learn, and what is it made of?"""
