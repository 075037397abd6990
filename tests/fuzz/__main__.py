"""
Coverage-guided fuzzing of one parser of `tests.support.parsers`: `python -m tests.fuzz PARSER SECONDS CORPUS`.

Ends with 0 when nothing was found, and with a traceback and the input that led to it otherwise (libFuzzer writes it to
`crash-<hash>` in the corpus's folder). A find becomes a file under tests/assets/hostile, named after its defect.
"""

import sys
from pathlib import Path

import atheris

USAGE = 2


def main(arguments: list[str]) -> int:
    try:
        name, seconds, corpus = arguments[0], int(arguments[1]), Path(arguments[2])
    except (IndexError, ValueError):
        sys.stderr.write(f"{__doc__}\n")
        return USAGE
    with atheris.instrument_imports(
        include=["tokenry", "tokenry_registry", "tokenry_issuer", "tokenry_revocation", "tokenry_tokeninfo"]
    ):
        from tests.support.parsers import PARSERS
    parser = PARSERS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate([*parser.seeds, *parser.hostile(name)]):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [
        sys.argv[0],
        f"-max_total_time={seconds}",
        "-max_len=9000",  # beyond a token's 8 KiB
        "-timeout=5",  # one input: none is meant to take a hundredth
        "-rss_limit_mb=1024",
        "-verbosity=0",
        "-print_final_stats=1",
        f"-artifact_prefix={corpus}/",
        str(corpus),
    ]
    atheris.Setup(options, lambda data: parser.try_one(data) and None)
    atheris.Fuzz()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
