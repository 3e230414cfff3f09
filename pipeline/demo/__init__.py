"""``tritonpipe demo``: the main job on real servers, as three kinds of users do it.

A data scientist trains and registers (:mod:`pipeline.demo.science`), an application sends requests
all the while (:mod:`pipeline.demo.traffic`), and the pipeline promotes and rolls back between them
(:mod:`pipeline.demo.run`).
"""
