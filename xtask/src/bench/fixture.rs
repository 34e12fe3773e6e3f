//! Everything that runs for the length of a benchmark, on loopback.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use super::{
    Options,
    gateway::Gateway,
    load::{self, Target, Tls},
    machine::{self, Machine},
    process::Process,
    progress,
};

/// What is measured, running.
pub struct Fixture {
    /// The upstream.
    pub origin: Server,
    /// nginx in front of it, where nginx is installed.
    pub nginx: Option<Server>,
    /// Pingora in front of it and nothing else.
    pub bare: Server,
    /// The same with TLS.
    pub bare_tls: Server,
    /// mitmproxy in front of it, where mitmproxy is installed.
    pub mitmproxy: Option<Server>,
    /// The gateway in front of it, on the proxy's core.
    pub gateway: Gateway,
    /// Median fdatasync where the receipts are.
    pub sync: Duration,
    /// Folder of the run; removed at its end.
    pub folder: Folder,
}

/// A process with its address.
pub struct Server {
    /// The process.
    pub process: Process,
    /// Where it listens.
    pub target: Target,
}

/// A folder that goes with the run.
pub struct Folder(pub PathBuf);

impl Fixture {
    /// Starts it all and asks each for one answer.
    pub fn start(options: &Options, machine: &Machine) -> Result<Self, String> {
        let folder = Folder::create(&options.binaries().join("bench"))?;
        let sync = machine::sync_time(&folder.0)?;
        let examples = options.binaries().join("examples");
        let (proxy, load) = (machine.proxy_core.to_string(), machine.load_core.to_string());
        progress("starting origin, nginx, bare Pingora and the gateway");
        let origin = Server::start("origin", &load, &examples, &["127.0.0.1:0"], &folder.0)?;
        let bare = Server::start("bare", &proxy, &examples, &["127.0.0.1:0", &origin.target.address], &folder.0)?;
        let bare_tls = bare_tls(&examples, &proxy, &origin.target.address, &folder.0)?;
        let mitmproxy = mitmproxy(options, &proxy, &origin.target.address, &folder.0)?;
        let nginx = machine.nginx.then(|| nginx(options, &proxy, &origin.target.address, &folder.0)).transpose()?;
        let gateway = Gateway::start(options, &proxy, &origin.target.address, &folder.0.join("gateway"))?;
        for target in
            [Some(&origin.target), Some(&bare.target), nginx.as_ref().map(|n| &n.target)].into_iter().flatten()
        {
            load::probe(target)?;
        }
        for target in [&gateway.remembered, &gateway.anew] {
            load::probe(target)?.ok_or("the gateway answers without a receipt")?;
        }
        Ok(Self { origin, nginx, bare, bare_tls, mitmproxy, gateway, sync, folder })
    }
}

impl Server {
    /// An example that prints its address.
    fn start(name: &str, cores: &str, folder: &Path, args: &[&str], logs: &Path) -> Result<Self, String> {
        let program = folder.join(name);
        if !program.is_file() {
            return Err(format!("{} is missing; run without `--no-build`", program.display()));
        }
        let mut command = Command::new(program);
        command.args(args);
        let mut process = Process::start(name, cores, &command, &logs.join(format!("{name}.stderr")))?;
        let address = process.first_line()?;
        Ok(Self { process, target: plain(address) })
    }
}

fn nginx(options: &Options, cores: &str, origin: &str, folder: &Path) -> Result<Server, String> {
    let failed = |e: std::io::Error| format!("nginx: {e}");
    let home = folder.join("nginx");
    fs::create_dir_all(&home).map_err(failed)?;
    let address = free_address()?;
    let template = options.root.join("tests").join("bench").join("nginx.conf");
    let text = fs::read_to_string(template).map_err(failed)?;
    fs::write(home.join("nginx.conf"), text.replace("LISTEN", &address).replace("UPSTREAM", origin)).map_err(failed)?;
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&home).args(["-c", "nginx.conf", "-e", "stderr"]);
    // Debian keeps it where only administrators look.
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin"));
    let process = Process::start("nginx", cores, &command, &folder.join("nginx.stderr"))?;
    let server = Server { process, target: plain(address) };
    let patience = Instant::now() + Duration::from_secs(5);
    loop {
        match load::probe(&server.target) {
            Ok(_) => return Ok(server),
            Err(error) if Instant::now() > patience => return Err(error),
            Err(_) => thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// nginx does not tell which port it got, so it gets one that was free a moment ago.
fn free_address() -> Result<String, String> {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr());
    listener.map(|a| a.to_string()).map_err(|e| format!("no free port: {e}"))
}

fn plain(address: String) -> Target {
    Target { address, base: String::new(), token: None, tls: None }
}

/// Pingora with a certificate of its own: what handshakes and records cost without a gateway.
fn bare_tls(examples: &Path, cores: &str, origin: &str, folder: &Path) -> Result<Server, String> {
    let home = folder.join("bare-tls");
    fs::create_dir_all(&home).map_err(|e| format!("{}: {e}", home.display()))?;
    let place = home.display().to_string();
    let made = Command::new(examples.join("tunnel_load")).args(["certificate", &place, &load::host(0)]).status();
    if !made.is_ok_and(|status| status.success()) {
        return Err("tunnel_load made no certificate".to_owned());
    }
    let (certificate, key) = (format!("{place}/cert.pem"), format!("{place}/key.pem"));
    let args = ["127.0.0.1:0", origin, "--tls", &certificate, &key];
    let mut server = Server::start("bare", cores, examples, &args, &home)?;
    server.target.tls = Some(Tls { ca: home.join("root.pem"), tunnel: false });
    Ok(server)
}

/// mitmproxy as a forward proxy: it ends the TLS in tunnels and goes on in plain HTTP, as the gateway does here.
fn mitmproxy(options: &Options, cores: &str, origin: &str, folder: &Path) -> Result<Option<Server>, String> {
    let venv = options.root.join(".cache").join("bench");
    let program = venv.join("bin").join("mitmdump");
    if !program.is_file() && !install_mitmproxy(&venv) {
        progress("mitmproxy could not be installed: its rows are left out");
        return Ok(None);
    }
    let address = free_address()?;
    let port = address.rsplit(':').next().unwrap_or_default();
    let home = folder.join("mitmproxy");
    let mut command = Command::new(program);
    command.args(["--quiet", "--listen-host", "127.0.0.1", "--listen-port", port]);
    command.args(["--set", &format!("confdir={}", home.display()), "--set", "connection_strategy=lazy"]);
    command.args(["--set", "upstream_cert=false", "--set", &format!("origin={origin}")]);
    command.arg("--scripts").arg(options.root.join("tests").join("bench").join("mitmproxy_origin.py"));
    let process = Process::start("mitmproxy", cores, &command, &folder.join("mitmproxy.stderr"))?;
    let tls = Tls { ca: home.join("mitmproxy-ca-cert.pem"), tunnel: true };
    let server = Server { process, target: Target { tls: Some(tls), ..plain(address) } };
    let patience = Instant::now() + Duration::from_secs(30);
    while std::net::TcpStream::connect(&server.target.address).is_err() {
        if Instant::now() > patience {
            return Err("mitmproxy did not start within 30 s".to_owned());
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(Some(server))
}

fn install_mitmproxy(venv: &Path) -> bool {
    progress("installing mitmproxy into .cache/bench");
    let runs = |command: &mut Command| command.stdout(std::process::Stdio::null()).status().is_ok_and(|s| s.success());
    runs(Command::new("python3").args(["-m", "venv"]).arg(venv))
        && runs(Command::new(venv.join("bin").join("pip")).args(["install", "--quiet", MITMPROXY]))
}

const MITMPROXY: &str = "mitmproxy==11.0.2";

impl Folder {
    fn create(parent: &Path) -> Result<Self, String> {
        let folder = parent.join(std::process::id().to_string());
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
