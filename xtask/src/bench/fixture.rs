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
    load::{self, Target},
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
        Ok(Self { origin, nginx, bare, gateway, sync, folder })
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
    Target { address, base: String::new(), token: None }
}

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
