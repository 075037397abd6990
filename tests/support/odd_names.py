"""Names of clients and users that the registry allows (`tokenry_registry.realms.check_name`) and addresses can lose."""

ODD_NAMES = (
    "{service}", "{id}", "}{", "{{", "a b", " a ", "a  b", "50%", "a%2fb", "a%2Fb", "%7B", "%25", "%", "%zz", "a+b",
    "a?b=c", "?", "a#b", "#", "a;b", "a&b=c", "a=b", "a:b", "@a", "~a", "a\\b", "a\\..\\b", "a..", "a...", "-", "*",
    "[a]", "a,b", "a|b", "a^b", "`a`", "'a'", '"a"', "<a>", "$(a)", "Straße", "éclair", "e\u0301clair", "名前", "имя",
    "🔑", "disable", "a.json", "a" * 240,
)  # fmt: skip
