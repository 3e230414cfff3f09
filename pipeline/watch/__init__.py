"""The loop: an alias in the registry is the wish, and nobody has to do anything else.

Level-triggered: a round reads what is wished and what is published, computes the difference as a
value, and carries it out. A notification only wakes the loop earlier; one that was lost, doubled or
forged changes nothing but the moment. Killed anywhere, the next round goes on from what is there.
"""
