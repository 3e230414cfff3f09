"""What must hold before a release is published: each check gives findings, never an exception.

A check compares a stage's outcome with the source model's own predictions. It reports every output
of every run, agreeing or not, so that a report that is green also says what was looked at.
"""
