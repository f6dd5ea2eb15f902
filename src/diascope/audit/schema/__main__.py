"""`python -m diascope.audit.schema [--table]`."""

from __future__ import annotations

import json
import sys

from diascope.audit.schema import json_schema, tables

if __name__ == "__main__":
    print(tables() if "--table" in sys.argv else json.dumps(json_schema(), indent=1))
