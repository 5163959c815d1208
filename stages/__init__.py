"""Where the engine and the codecs meet: one YAML name = one file = one class."""
