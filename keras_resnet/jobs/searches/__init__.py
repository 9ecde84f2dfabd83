"""A search in a folder: `job` asks and divides the work, `supervisor` looks after `process`es, `folder` holds the files."""
