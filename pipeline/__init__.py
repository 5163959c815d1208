"""The engine: a YAML file becomes a checked graph, the graph becomes running replicas.

It knows no codec and no stage by name (entry points do), and never looks inside a payload.
"""
