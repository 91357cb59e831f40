"""Rows of a long benchmark, kept in a file: a later run with the same settings
continues after the last complete one."""

import json
import os


def write(file, text):
    """Replaces a file at once."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, file)


class KeptRows:
    """Outcomes by the name of a row."""

    def __init__(self, file, options, without):
        """`without`: names of options on which no row depends."""
        self.file = file
        settings = {
            name: str(value)
            for name, value in vars(options).items()
            if name not in without
        }
        self.saved = {"settings": settings, "rows": {}}
        if file.exists():
            self.saved = json.loads(file.read_text(encoding="utf-8"))
        if self.saved["settings"] != settings:
            raise SystemExit(f"{file} has other settings: choose another --work")
        self.rows = self.saved["rows"]

    def keep(self, name, row):
        self.rows[name] = row
        write(self.file, json.dumps(self.saved) + "\n")
