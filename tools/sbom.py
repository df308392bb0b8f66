"""Write the bill of materials of this environment: every package with its version.

python tools/sbom.py sbom.json      # CycloneDX 1.6, JSON; needs no network
"""

import subprocess
import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Write it; return the exit code."""
    if len(arguments) != 1:
        print("usage: python tools/sbom.py FILE", file=sys.stderr)
        return 2
    target = Path(arguments[0])
    target.parent.mkdir(parents=True, exist_ok=True)
    # Without dates and serial numbers: the same environment gives the same file.
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    command += ["--output-format", "JSON", "--spec-version", "1.6", "--output-file", str(target)]
    done = subprocess.run([*command, sys.executable], check=False)
    if done.returncode == 0:
        print(f"bill of materials written to {target}")
    return done.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
