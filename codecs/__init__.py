"""Neural codecs: plain torch and bytes. No Ray, no YAML, no PyAV."""
