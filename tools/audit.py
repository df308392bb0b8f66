"""Ask pip-audit whether a pinned package has a known weakness; say so in one line without network.

python tools/audit.py            # exit code 1 where it has
"""

import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
PINS = ROOT / "constraints.txt"
SECONDS = 120
UNREACHED = re.compile(
    r"ServiceError|ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|Max retries exceeded"
    r"|NameResolutionError|Temporary failure in name resolution|Name or service not known"
    r"|nodename nor servname|getaddrinfo failed|no route to host|network is unreachable"
    r"|connection (refused|reset|aborted|timed out)|could ?n.t connect|timed out"
    r"|(service|PyPI) is not (available|redirecting)|50[0234] server error",
    re.IGNORECASE,
)
"""What pip-audit, its HTTP library and the system say where no service answers."""


def pins(text: str) -> dict[str, str]:
    """Read ``name==version`` lines.

    Raises:
        ValueError: a line is no pin.

    """
    found: dict[str, str] = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if not line:
            continue
        name, equals, version = line.partition("==")
        if not equals or not version or any(sign in version for sign in "*<>=, "):
            raise ValueError(f"{line!r} is no pin such as torch==2.13.0")
        found[name] = version
    return found


def judge(output: str, errors: str) -> tuple[int, str]:
    """Return exit code and message for what pip-audit printed; no JSON means no answer."""
    try:
        packages = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        if UNREACHED.search(errors):
            return 0, "pip-audit: no vulnerability service could be reached; skipped"
        last = (errors.strip().splitlines() or ["it said nothing"])[-1].strip()
        return 1, f"pip-audit: failed without a verdict: {last}"
    weak = [
        f"{package['name']} {package['version']}: {weakness['id']}"
        + (
            f" (mended in {', '.join(weakness['fix_versions'])})"
            if weakness["fix_versions"]
            else ""
        )
        for package in packages
        for weakness in package.get("vulns", [])
    ]
    if weak:
        return 1, "pip-audit: known weaknesses\n  " + "\n  ".join(weak)
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if len(unknown) == len(packages):
        return 0, "pip-audit: this package index has no vulnerability service; skipped"
    more = f"; not judged: {', '.join(unknown)}" if unknown else ""
    return 0, f"pip-audit: no known weakness in {len(packages) - len(unknown)} packages{more}"


def main(command: Sequence[str] = (sys.executable, "-m", "pip_audit")) -> int:
    """Ask; print one line; return the exit code."""
    pins(PINS.read_text(encoding="utf-8"))
    options = ["-r", str(PINS), "--no-deps", "--disable-pip", "--format", "json"]
    try:
        done = subprocess.run(
            [*command, *options, "--progress-spinner", "off"],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        output, errors = done.stdout, done.stderr
    except subprocess.TimeoutExpired:
        output, errors = "", f"timed out after {SECONDS} s"
    except OSError as error:
        output, errors = "", str(error)
    code, message = judge(output, errors)
    print(message)
    return code


if __name__ == "__main__":
    sys.exit(main())
