"""Student models: where weights come from, how they are loaded, and how they are served."""
