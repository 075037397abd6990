"""
Run the tests marked `system_packages`, and say plainly when there are none: `make test-system`.

Exit status 5 of pytest ("no tests collected") is honest only here, where it means that nobody has written
one.
"""

import subprocess
import sys

NO_TESTS_COLLECTED = 5


def main() -> int:
    command = [sys.executable, "-m", "pytest", "-m", "system_packages", *sys.argv[1:]]
    status = subprocess.run(command, check=False).returncode
    if status == NO_TESTS_COLLECTED:
        print("test-system: no test is marked system_packages yet; nothing was run", file=sys.stderr)  # noqa: T201
        return 0
    return status


if __name__ == "__main__":
    sys.exit(main())
