"""Self-contained HTML pages: the heads of a model, a few-shot study, the six arguments; text in `templates`."""
