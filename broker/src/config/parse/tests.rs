use aegis_connectors::ParamType;

use super::*;

#[test]
fn every_problem_is_reported_at_once_with_its_line() {
    let text = r#"
[[route]]
name = "GitHub"
connector = "gitlab"
upstream = "http://api.github.com"
credential = "github"
hots = ["api.github.com"]
hosts = ["API.github.com", "ok.example"]
[[credential]]
name = "other"
kind = "smoke"
"#;
    let problems = parse("routes.toml", text, &NamedFiles::default()).unwrap_err();
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    for (line, needle) in [
        (3, "must be 1 to 64"),
        (4, "`gitlab`"),
        (5, "danger_plaintext_upstream"),
        (7, "did you mean `hosts`"),
        (8, "`API.github.com`"),
        (11, "`smoke`"),
    ] {
        assert!(
            lines.iter().any(|l| l.starts_with(&format!("routes.toml:{line}:")) && l.contains(needle)),
            "{line} {needle}: {lines:#?}"
        );
    }
}

#[test]
fn a_route_needs_its_credential_declared() {
    let text = "[[route]]\nname=\"a\"\nupstream=\"https://a.example\"\ncredential=\"x\"\n";
    let problems = parse("f", text, &NamedFiles::default()).unwrap_err();
    assert_eq!(problems[0].line, 4);
    assert!(problems[0].message.contains("`x` is not declared"), "{}", problems[0]);
}

#[test]
fn upstreams_are_split_strictly() {
    let ok = parse_upstream("https://api.example:8443/v3/", false).unwrap();
    assert_eq!((ok.host.as_str(), ok.port, ok.base_path.as_str()), ("api.example", 8443, "/v3"));
    assert_eq!(ok.authority(), "api.example:8443");
    for bad in [
        "ftp://x",
        "https://u@x",
        "https://x/../y",
        "https://",
        "https://x:0",
        "https://x.",
        "https://x?y",
        "https://a//b//c",
        "https://2130706433",
        "https://0x7f000001",
        "https://0x7f.1",
        "https://127.1",
        "https://0177.0.0.1",
        "https://127.0.0.01",
        "https://10.0.0.256",
        "https://1.2.3.4.5",
    ] {
        assert!(parse_upstream(bad, true).is_err(), "{bad}");
    }
}

#[test]
fn declared_tools_are_entries() {
    let text = "[[tool]]\nname=\"deploy.start\"\nclass=\"write\"\nrisk=\"high\"\nresource=\"{service}\"\n[tool.parameters]\nservice=\"string\"\ncount=\"integer\"\n";
    let (config, _) = parse("f", text, &NamedFiles::default()).unwrap();
    assert_eq!(config.tools[0].parameters["count"].ty, ParamType::Integer);
    assert!(config.tools[0].mutates_state);
}

#[test]
fn aliases_of_a_tool_lead_to_its_names() {
    let tool = |aliases: &str| {
        format!(
            "[[tool]]\nname=\"deploy.start\"\nclass=\"write\"\nrisk=\"high\"\nresource=\"{{service}}\"\n\
             [tool.parameters]\ncount=\"integer\"\n[tool.aliases]\n{aliases}\n"
        )
    };
    let (config, _) = parse("f", &tool("svc=\"service\"\nn=\"count\""), &NamedFiles::default()).unwrap();
    let aliases = config.tools[0].argument_aliases();
    assert_eq!((aliases["svc"], aliases["n"]), ("service", "count"));
    for (bad, says) in
        [("svc=\"host\"", "no parameter"), ("count=\"service\"", "a name of its own"), ("svc=3", "must be the name")]
    {
        let problems = parse("f", &tool(bad), &NamedFiles::default()).unwrap_err();
        assert!(problems.iter().any(|p| p.message.contains(says)), "{bad}: {problems:?}");
    }
}
