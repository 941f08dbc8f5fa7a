//! Stand-ins of cloud stores, started by the test that needs them and ended with it.
//!
//! `scripts/test-servers.sh` installs them; `TRESOR_TEST_SERVERS` names another folder than its own; with `TRESOR_REQUIRE_SERVERS=1` a missing one
//! is a failure and not a skipped test.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to start on a machine that is busy with other tests.
const START_TIME_MAX: Duration = Duration::from_secs(120);

/// A running server; ended when dropped, also by a panic.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os("TRESOR_TEST_SERVERS") {
        return folder.into();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        Some(home.join(".cache"))
    });
    cache.unwrap_or_default().join("tresor/servers")
}

/// The program, or `None` after having said by name what is skipped.
fn find(store: &str, program: &str) -> Option<PathBuf> {
    let path = folder().join(program);
    if path.is_file() {
        return Some(path);
    }
    let required = std::env::var("TRESOR_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "{} is not there; scripts/test-servers.sh installs it",
        path.display()
    );
    eprintln!(
        "skipped: {store} ({} is not there; scripts/test-servers.sh installs it)",
        path.display()
    );
    None
}

fn start(command: impl Fn(u16) -> Command) -> Server {
    // Between learning of a free port and using it somebody else may take it; then the server ends at once.
    for _ in 0..5 {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut command = command(port);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut server = Server {
            child: command.spawn().unwrap(),
            address,
        };
        let began = Instant::now();
        while server.child.try_wait().unwrap().is_none() {
            if TcpStream::connect_timeout(&address, Duration::from_secs(1)).is_ok() {
                return server;
            }
            assert!(began.elapsed() < START_TIME_MAX, "{command:?} does not listen");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    panic!("the server ends again and again");
}

/// S3, without checking signatures, and with a bucket `bucket`.
pub(crate) fn moto() -> Option<Server> {
    let program = find("s3", "python/bin/moto_server")?;
    let server = start(|port| {
        let mut command = Command::new(&program);
        command.args(["-H", "127.0.0.1", "-p", &port.to_string()]);
        command
    });
    let mut stream = TcpStream::connect(server.address).unwrap();
    write!(
        stream,
        "PUT /bucket HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        server.address
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Some(server)
}

/// The account and the key that every azurite has: published, and no secret.
pub(crate) const AZURITE_ACCOUNT: &str = "devstoreaccount1";
pub(crate) const AZURITE_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Makes a container: the one request that object_store has no word for.
const MAKE_CONTAINER: &str = r#"
const [port, account, key, container] = process.argv.slice(1);
const date = new Date().toUTCString(), version = "2021-10-04", path = `/${account}/${container}`;
const toSign = ["PUT", ...Array(11).fill(""), `x-ms-date:${date}`, `x-ms-version:${version}`, `/${account}${path}`, "restype:container"].join("\n");
const signature = require("crypto").createHmac("sha256", Buffer.from(key, "base64")).update(toSign, "utf8").digest("base64");
const headers = { "x-ms-date": date, "x-ms-version": version, "content-length": 0, authorization: `SharedKey ${account}:${signature}` };
const request = { host: "127.0.0.1", port, path: path + "?restype=container", method: "PUT", headers };
require("http").request(request, (answer) => process.exit(answer.statusCode === 201 ? 0 : 1)).end();
"#;

/// Azure blobs, with a container `container`.
pub(crate) fn azurite() -> Option<Server> {
    let program = find("azure", "node_modules/.bin/azurite-blob")?;
    let server = start(|port| {
        let mut command = Command::new(&program);
        command.args([
            "--inMemoryPersistence",
            "--skipApiVersionCheck",
            "--silent",
            "--disableTelemetry",
            "--blobHost",
            "127.0.0.1",
        ]);
        command.args(["--blobPort", &port.to_string()]);
        command
    });
    let port = server.address.port().to_string();
    let made = Command::new("node")
        .args([
            "-e",
            MAKE_CONTAINER,
            "--",
            &port,
            AZURITE_ACCOUNT,
            AZURITE_KEY,
            "container",
        ])
        .status()
        .unwrap();
    assert!(made.success(), "the container was not made");
    Some(server)
}
