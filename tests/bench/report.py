"""The table of a run: every case as CPU microseconds and as a ratio to its reference, then the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

_THOUSAND = "validate, 1,000 revocations"
BARE, OURS = "aiohttp request, in process", "aiohttp request with middleware, in process"
VERIFY, SIGN = "cryptography verify", "cryptography sign"


def table(found: dict[str, Any]) -> str:
    """Return the whole table of what was *found*."""
    validation, http = found.get("validation", {}), found.get("http", {})
    lines = [f"{'case':<70}{'CPU µs':>9}{'ratio':>8}{'req/s':>9}{'p50 ms':>8}{'p99':>8}{'p99.9':>8}{'MiB':>7}{'±%':>5}"]
    lines += [f"{name:<70}{value:>9.2f}{value / validation[VERIFY]:>8.3f}" for name, value in validation.items()]
    for name, row in http.items():
        base = http.get(reference_of(name), {}).get("cpu_us")
        ratio = f"{row['cpu_us'] / base:.3f}" if base else ""
        lines.append(
            f"{name:<70}{row['cpu_us']:>9.2f}{ratio:>8}{row['requests_per_second']:>9,.0f}"
            f"{row['p50_ms']:>8.2f}{row['p99_ms']:>8.2f}{row['p999_ms']:>8.2f}{row['mib']:>7.0f}"
            f"{row['cpu_us_spread'] * 50:>5.0f}"
        )
    for row in found.get("memory", []):
        lines.append(
            f"{'tokeninfo, memory after ' + format(row['requests'], ',') + ' requests':<70}{row['mib']:>57.0f}"
        )
    for name, row in found.get("registry", {}).items():
        lines += ["", f"{'issuer, ' + name:<50}{'CPU s':>9}{'s':>9}{'MiB':>9}"]
        for step in ("first load", "nothing changed", "one changed", "all changed"):
            memory = f"{row['memory, MiB']:.0f}" if step == "first load" else ""
            lines.append(f"  {step:<48}{row[step + ', CPU s']:>9.3f}{row[step + ', s']:>9.3f}{memory:>9}")
    if validation and http:
        lines += ["", f"{'target':<78}{'limit':>9}{'found':>9}"]
        for name, limit, value in targets(validation, http):
            lines.append(f"{name:<78}{limit:>9.2f}{value:>9.2f}  {'met' if value <= limit else 'NOT MET'}")
    return "\n".join(lines)


def reference_of(name: str) -> str:
    """Return the case that *name* is compared to."""
    if name.startswith("aiohttp service"):
        return "aiohttp service"
    endpoint = name.partition(",")[0]
    return "bare aiohttp, bytes of tokeninfo" if endpoint.startswith("bare") else f"bare aiohttp, bytes of {endpoint}"


def targets(validation: dict[str, float], http: dict[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Yield what is aimed at: a name, the limit, and what was found; ratios within this one run."""
    verify, sign = validation[VERIFY], validation[SIGN]
    sizes = [name for name in validation if name.startswith("validate remembered") and name.endswith("revocations")]

    def cpu(name: str) -> float:
        return float(http[name]["cpu_us"])

    bare, one, many = cpu("bare aiohttp, bytes of tokeninfo"), "tokeninfo, one token", "tokeninfo, 1,000 tokens"
    verify_in_server = cpu("bare aiohttp and one bare verify, bytes of tokeninfo") - bare
    different = cpu("tokeninfo, all-different tokens") - bare
    added = cpu("aiohttp service with middleware") - cpu("aiohttp service")
    token = cpu("token") - cpu("bare aiohttp, bytes of token") - 2 * sign
    steady = "tokeninfo, 2,000 a second"
    flooded = http[f"{steady}, and 100,000 bad tokens a minute"]
    remembered = [validation[name] for name in sizes]
    yield "validate with signature, empty list / bare verify", 1.25, validation["validate, 0 revocations"] / verify
    yield "validate with signature, 1,000 revocations / bare verify", 1.25, validation[_THOUSAND] / verify
    yield "validate remembered, µs", 3.0, max(remembered)
    yield "validate remembered, most / no revocations", 2.0, remembered[-1] / remembered[0]
    yield "middleware, µs added to an aiohttp request, between servers", 3.0, added
    yield "the same, in one process without sockets", 3.0, validation[OURS] - validation[BARE]
    yield "tokeninfo, one token / bare aiohttp", 1.15, cpu(one) / bare
    yield "tokeninfo, 1,000 tokens / bare aiohttp", 1.15, cpu(many) / bare
    yield "tokeninfo, all-different: bare verifies above bare aiohttp", 1.35, different / verify
    yield "the same, in verifies as they cost inside a server", 1.35, different / verify_in_server
    yield "token: µs above bare aiohttp and 2 signs", 20.0, token
    signing = cpu("bare aiohttp and two bare signs, bytes of token")
    yield "token: µs above a bare aiohttp handler that signs twice", 20.0, cpu("token") - signing
    yield "token: bare signs above bare aiohttp", 1.5, (token + 2 * sign) / sign
    yield "mint an access token / bare sign", 1.5, validation["mint an access token"] / sign
    twice = cpu("tokeninfo, 4,000 a second, 2 processes") / cpu(steady)
    yield "tokeninfo, CPU a request: 2 processes / 1, each with 2,000 a second", 1.10, twice
    for name in ("p50", "p99"):
        grown = flooded[f"{name}_ms"] / http[steady][f"{name}_ms"]
        yield f"tokeninfo, {name} of good tokens: with 100,000 bad ones a minute / without", 2.0, grown
