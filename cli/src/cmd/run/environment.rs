//! What the command finds in its environment: the way to the gateway, and nothing that leads past it.
//!
//! Variables that would bend a client, and credentials of ours, are taken away; the agent's own
//! token stands where tools look for a credential. `docs/operator-guide.md` lists all of it.

use std::{
    ffi::{OsStr, OsString},
    net::SocketAddr,
    process::Command,
};

use aegis_broker::secret::Secret;

use super::trust::Trust;

/// What is known of the run.
pub struct Given<'a> {
    /// The agents' door, as the command reaches it.
    pub door: SocketAddr,
    /// The session's token.
    pub token: &'a Secret,
    /// The session's id.
    pub run_id: &'a str,
    /// Files with certificates.
    pub trust: &'a Trust,
    /// Variables of ours that the command keeps although they look like credentials.
    pub keep: &'a [String],
    /// Variables that the configuration says are secrets.
    pub secrets: &'a [String],
}

/// The command's environment, as changes to ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Environment {
    removed: Vec<OsString>,
    set: Vec<(String, OsString)>,
}

impl Environment {
    /// Plans the changes to `ours`.
    pub fn plan(ours: impl IntoIterator<Item = (OsString, OsString)>, given: &Given<'_>) -> Self {
        let ours: Vec<(OsString, OsString)> = ours.into_iter().collect();
        let removed = ours.iter().map(|(name, _)| name).filter(|name| goes(name, given)).cloned().collect();
        let mut environment = Self { removed, set: Vec::new() };
        environment.way(given);
        environment.certificates(given.trust);
        environment.java(&ours, given);
        environment.git(&ours, given);
        environment.credentials(given);
        environment
    }

    /// Makes the changes. What is set wins over what is removed.
    pub fn apply(&self, command: &mut Command) {
        for name in &self.removed {
            command.env_remove(name);
        }
        command.envs(self.set.iter().map(|(name, value)| (name, value)));
    }

    fn put(&mut self, name: impl Into<String>, value: impl Into<OsString>) {
        self.set.push((name.into(), value.into()));
    }

    fn way(&mut self, given: &Given<'_>) {
        let token = String::from_utf8_lossy(given.token.expose());
        let proxy = format!("http://aegis:{token}@{}", given.door);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
            self.put(name, &proxy);
        }
        for name in ["NO_PROXY", "no_proxy"] {
            self.put(name, LOOPBACK);
        }
        // Node 24 and later; earlier ones have no proxy for `fetch`.
        self.put("NODE_USE_ENV_PROXY", "1");
        self.put("AEGIS_URL", format!("http://{}", given.door));
        self.put("AEGIS_AGENT_TOKEN", &*token);
        self.put("AEGIS_RUN_ID", given.run_id);
    }

    fn certificates(&mut self, trust: &Trust) {
        for name in REPLACES_ROOTS {
            self.put(name, &trust.bundle);
        }
        for name in ADDS_ROOTS {
            self.put(name, &trust.ours);
        }
    }

    /// The JVM prints this variable on every start, so no token is in it: a plain JDK client gets through
    /// routes with `proxy_auth = "inner"`.
    fn java(&mut self, ours: &[(OsString, OsString)], given: &Given<'_>) {
        let mut options = value(ours, "JAVA_TOOL_OPTIONS").cloned().unwrap_or_default();
        if !options.is_empty() {
            options.push(" ");
        }
        let (host, port) = (given.door.ip(), given.door.port());
        options.push(format!("-Dhttp.proxyHost={host} -Dhttp.proxyPort={port}"));
        options.push(format!(" -Dhttps.proxyHost={host} -Dhttps.proxyPort={port}"));
        // Without these the JDK refuses Basic for tunnels even where a program has a password to give.
        options.push(" -Djdk.http.auth.tunneling.disabledSchemes= -Djdk.http.auth.proxying.disabledSchemes=");
        options.push(" -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStore='");
        options.push(&given.trust.java);
        options.push("'");
        self.put("JAVA_TOOL_OPTIONS", options);
    }

    /// git's own configuration, above every file. Entries that somebody else put there stay unless they
    /// are about connections or credentials.
    fn git(&mut self, ours: &[(OsString, OsString)], given: &Given<'_>) {
        let token = String::from_utf8_lossy(given.token.expose());
        let mut entries = git_entries(ours);
        let own: [(&str, OsString); 5] = [
            ("http.proxy", format!("http://aegis:{token}@{}", given.door).into()),
            ("http.proxyAuthMethod", "basic".into()),
            ("http.sslCAInfo", given.trust.bundle.clone().into()),
            // Empty forgets the helpers of all files, which have our credentials to give.
            ("credential.helper", OsString::new()),
            ("credential.helper", GIT_HELPER.into()),
        ];
        entries.extend(own.map(|(key, value)| (key.into(), value)));
        self.put("GIT_CONFIG_COUNT", entries.len().to_string());
        for (n, (key, value)) in entries.into_iter().enumerate() {
            self.put(format!("GIT_CONFIG_KEY_{n}"), key);
            self.put(format!("GIT_CONFIG_VALUE_{n}"), value);
        }
        self.put("GIT_TERMINAL_PROMPT", "0");
    }

    /// The agent's token in the shape that each tool's own client takes.
    fn credentials(&mut self, given: &Given<'_>) {
        let token = String::from_utf8_lossy(given.token.expose());
        for (name, shape) in CREDENTIALS {
            self.put(name, format!("{shape}{token}"));
        }
        self.put("AWS_SECRET_ACCESS_KEY", AWS_SECRET);
        // Instance metadata would hand out the machine's own role.
        self.put("AWS_EC2_METADATA_DISABLED", "true");
    }
}

/// Whether a variable of ours must not reach the command.
fn goes(name: &OsStr, given: &Given<'_>) -> bool {
    let Some(text) = name.to_str() else { return false };
    if given.keep.iter().any(|k| k == text) {
        return false;
    }
    let upper = text.to_ascii_uppercase();
    given.secrets.iter().any(|s| s == text)
        || COMPETING.contains(&upper.as_str())
        || SECRETS.contains(&upper.as_str())
        || PREFIXES.iter().any(|p| upper.starts_with(p))
        || ENDINGS.iter().any(|e| upper.ends_with(e))
}

/// The entries of `GIT_CONFIG_COUNT` that stay.
fn git_entries(ours: &[(OsString, OsString)]) -> Vec<(OsString, OsString)> {
    let count: usize = value(ours, "GIT_CONFIG_COUNT").and_then(|c| c.to_str()?.trim().parse().ok()).unwrap_or(0);
    let entry = |n: usize| {
        let of = |part: &str| value(ours, &format!("GIT_CONFIG_{part}_{n}"));
        Some((of("KEY")?.clone(), of("VALUE")?.clone()))
    };
    let stays = |key: &OsStr| {
        let key = key.to_string_lossy().to_ascii_lowercase();
        !key.starts_with("http.") && !key.starts_with("credential.")
    };
    (0..count.min(MAX_GIT_ENTRIES)).filter_map(entry).filter(|(key, _)| stays(key)).collect()
}

fn value<'a>(ours: &'a [(OsString, OsString)], name: &str) -> Option<&'a OsString> {
    ours.iter().find(|(n, _)| n == name).map(|(_, value)| value)
}

/// A command's own servers are its own business; the gateway is not the way to them.
const LOOPBACK: &str = "localhost,127.0.0.1,::1";

/// Read by clients as the only roots they trust.
const REPLACES_ROOTS: [&str; 11] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "AWS_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "HTTPLIB2_CA_CERTS",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "NIX_SSL_CERT_FILE",
];
/// Read by clients as roots besides their own.
const ADDS_ROOTS: [&str; 2] = ["NODE_EXTRA_CA_CERTS", "DENO_CERT"];

/// Variables and what stands before the token in them. Stripe's command line takes nothing else than
/// `sk_…` and `rk_…`; the others take what they are given. Of an AWS key pair the gateway reads the id.
const CREDENTIALS: [(&str, &str); 8] = [
    ("GH_TOKEN", ""),
    ("GITHUB_TOKEN", ""),
    ("GH_ENTERPRISE_TOKEN", ""),
    ("GITHUB_ENTERPRISE_TOKEN", ""),
    ("OPENAI_API_KEY", ""),
    ("ANTHROPIC_API_KEY", ""),
    ("STRIPE_API_KEY", "sk_test_"),
    ("AWS_ACCESS_KEY_ID", ""),
];
/// Signs requests that the gateway signs anew; as long as a real one.
const AWS_SECRET: &str = "placeholder/the+gateway+signs+anew+00000";
const GIT_HELPER: &str =
    r#"!f() { test "$1" != get || printf 'username=aegis\npassword=%s\n' "$AEGIS_AGENT_TOKEN"; }; f"#;

/// Lead past the gateway, or to other roots.
const COMPETING: [&str; 21] = [
    "FTP_PROXY",
    "WS_PROXY",
    "WSS_PROXY",
    "GRPC_PROXY",
    "NO_GRPC_PROXY",
    "PIP_PROXY",
    "CARGO_HTTP_PROXY",
    "NPM_CONFIG_PROXY",
    "NPM_CONFIG_HTTP_PROXY",
    "NPM_CONFIG_HTTPS_PROXY",
    "NPM_CONFIG_NOPROXY",
    "NPM_CONFIG_CA",
    "NPM_CONFIG_CAFILE",
    "GIT_PROXY_COMMAND",
    "GIT_SSL_CAPATH",
    "GIT_CONFIG_PARAMETERS",
    "SSL_CERT_DIR",
    "DENO_TLS_CA_STORE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
];
/// Hold a credential, or lead to one, under a name that does not say so.
const SECRETS: [&str; 9] = [
    "SSH_AUTH_SOCK",
    "SSH_ASKPASS",
    "GIT_ASKPASS",
    "SUDO_ASKPASS",
    "KUBECONFIG",
    "NETRC",
    "PGPASSFILE",
    "DOCKER_AUTH_CONFIG",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
];
const PREFIXES: [&str; 5] = ["AEGIS_", "AWS_CONTAINER_", "VSCODE_GIT_", "GIT_CONFIG_KEY_", "GIT_CONFIG_VALUE_"];
/// Names that say so.
const ENDINGS: [&str; 15] = [
    "TOKEN",
    "API_KEY",
    "APIKEY",
    "SECRET",
    "SECRET_KEY",
    "SECRETKEY",
    "ACCESS_KEY",
    "ACCESS_KEY_ID",
    "PRIVATE_KEY",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "CREDENTIALS",
    "_PAT",
    "_PWD",
];
/// More than anybody writes; a count is not a reason to look for a million variables.
const MAX_GIT_ENTRIES: usize = 1000;

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn trust() -> Trust {
        Trust { bundle: "/t/bundle.pem".into(), ours: "/t/ca.pem".into(), java: "/t/java.jks".into() }
    }

    fn planned(ours: &[(&str, &str)], keep: &[&str]) -> (Vec<String>, BTreeMap<String, String>) {
        let ours = ours.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let keep: Vec<String> = keep.iter().map(|k| (*k).to_owned()).collect();
        let given = Given {
            door: "127.0.0.1:8080".parse().unwrap(),
            token: &Secret::from("aegis_agt_x".to_owned()),
            run_id: "run_1",
            trust: &trust(),
            keep: &keep,
            secrets: &["MY_MASTER".to_owned()],
        };
        let planned = Environment::plan(ours, &given);
        let text = |t: OsString| t.into_string().unwrap();
        (planned.removed.into_iter().map(text).collect(), planned.set.into_iter().map(|(n, v)| (n, text(v))).collect())
    }

    #[test]
    fn our_credentials_and_what_leads_past_the_gateway_go() {
        let gone = [
            "GITHUB_PAT",
            "SLACK_BOT_TOKEN",
            "LINEAR_API_KEY",
            "PGPASSWORD",
            "MYSQL_PWD",
            "AEGIS_ADMIN_TOKEN",
            "MY_MASTER",
            "GOOGLE_APPLICATION_CREDENTIALS",
            "npm_config_//registry.example/:_authToken",
            "SSH_AUTH_SOCK",
            "SSL_CERT_DIR",
            "npm_config_noproxy",
            "AWS_SESSION_TOKEN",
            "AWS_PROFILE",
            "VSCODE_GIT_IPC_HANDLE",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        ];
        let stays = ["PATH", "HOME", "PWD", "OLDPWD", "TERM", "LANG", "AWS_REGION", "MAX_TOKENS", "SSH_CONNECTION"];
        let ours: Vec<(&str, &str)> = gone.iter().chain(&stays).map(|n| (*n, "v")).collect();
        assert_eq!(planned(&ours, &[]).0, gone);
        assert_eq!(planned(&[("DB_PASSWORD", "v"), ("X_TOKEN", "v")], &["DB_PASSWORD"]).0, ["X_TOKEN"]);
    }

    #[test]
    fn every_client_is_led_to_the_gateway() {
        let (_, set) = planned(&[], &[]);
        for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY"] {
            assert_eq!(set[name], "http://aegis:aegis_agt_x@127.0.0.1:8080");
        }
        assert_eq!(set["STRIPE_API_KEY"], "sk_test_aegis_agt_x");
        assert_eq!(set["AWS_SECRET_ACCESS_KEY"].len(), 40);
        assert_eq!(
            (set["SSL_CERT_FILE"].as_str(), set["NODE_EXTRA_CA_CERTS"].as_str()),
            ("/t/bundle.pem", "/t/ca.pem")
        );
        assert!(!set["JAVA_TOOL_OPTIONS"].contains("aegis_agt_"), "the JVM prints it");
    }

    #[test]
    fn what_others_configured_for_git_and_java_stays_where_it_does_not_lead_away() {
        let ours = [
            ("GIT_CONFIG_COUNT", "3"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
            ("GIT_CONFIG_KEY_1", "HTTP.https://github.com/.extraheader"),
            ("GIT_CONFIG_VALUE_1", "AUTHORIZATION: basic real"),
            ("GIT_CONFIG_KEY_2", "credential.helper"),
            ("GIT_CONFIG_VALUE_2", "store"),
            ("JAVA_TOOL_OPTIONS", "-Xmx1g"),
        ];
        let (_, set) = planned(&ours, &[]);
        assert_eq!(set["GIT_CONFIG_COUNT"], "6");
        assert_eq!((set["GIT_CONFIG_KEY_0"].as_str(), set["GIT_CONFIG_VALUE_0"].as_str()), ("safe.directory", "*"));
        assert_eq!((set["GIT_CONFIG_KEY_4"].as_str(), set["GIT_CONFIG_VALUE_4"].as_str()), ("credential.helper", ""));
        assert!(set["GIT_CONFIG_VALUE_5"].contains("AEGIS_AGENT_TOKEN"));
        assert!(set.values().all(|v| !v.contains("real")));
        assert!(set["JAVA_TOOL_OPTIONS"].starts_with("-Xmx1g -Dhttp.proxyHost=127.0.0.1"));
    }
}
