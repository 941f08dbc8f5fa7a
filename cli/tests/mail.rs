//! Channels of mail with a real server of mail: TLS from the start and after STARTTLS, passwords, and what is not sent without them.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use common::node::{Node, until};
use common::{Ran, Site, files};

const USER: &str = "tresor";
const PASSWORD: &str = "staple-battery-horse";

/// The interpreter that has aiosmtpd, or none after having said by name what is skipped.
fn python() -> Option<PathBuf> {
    let cache = || {
        let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home)?;
        Some(cache.join("tresor/servers"))
    };
    let servers = std::env::var_os("TRESOR_TEST_SERVERS")
        .map(PathBuf::from)
        .or_else(cache)?;
    let path = servers.join("python/bin/python");
    let has_it = Command::new(&path)
        .args(["-c", "import aiosmtpd"])
        .stderr(Stdio::null())
        .status();
    if has_it.is_ok_and(|status| status.success()) {
        return Some(path);
    }
    let required = std::env::var("TRESOR_REQUIRE_SERVERS").is_ok_and(|value| value == "1");
    assert!(
        !required,
        "{} has no aiosmtpd; scripts/test-servers.sh installs it",
        path.display()
    );
    eprintln!("skipped: mail (no aiosmtpd; scripts/test-servers.sh installs it)");
    None
}

/// An authority, and a server's certificate of it: their files and that of its key.
fn certificates(site: &Site) -> [String; 3] {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut authority = CertificateParams::new(Vec::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let server = CertificateParams::new(vec![String::from("localhost")]).unwrap();
    let server = server.signed_by(&key, &authority).unwrap();
    [
        site.file("authority.pem", authority.pem()),
        site.file("server.pem", server.pem()),
        site.file("server.key", key.serialize_pem()),
    ]
}

/// A server of mail; ended with the test.
struct Server {
    child: Child,
    port: u16,
    mails: PathBuf,
}

impl Server {
    fn start(site: &Site, python: &PathBuf, way: &str, [_, certificate, key]: &[String; 3]) -> Self {
        let mails = site.path(way);
        std::fs::create_dir_all(&mails).unwrap();
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/common/mail.py");
        let mut child = Command::new(python)
            .args([script, way, &port.to_string(), certificate, key, USER, PASSWORD])
            .arg(&mails)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        until("the server of mail listens", || {
            assert!(child.try_wait().unwrap().is_none(), "the server of mail ended");
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok()
        });
        Self { child, port, mails }
    }

    /// Adds a channel that leads to it.
    fn channel(&self, site: &Site, name: &str, scheme: &str, password: &str) {
        let secret = site.file("password", password);
        let url = format!("{scheme}://{USER}@localhost:{}", self.port);
        let who = ["--email", "ops@example.org", "--from", "Tresor <tresor@example.org>"];
        let how = ["--smtp", &url, "--secret-file", &secret];
        site.json(&[&["notify", "add", name][..], &who, &how].concat());
    }

    /// What it took.
    fn mails(&self) -> Vec<String> {
        let read = |path: &PathBuf| std::fs::read_to_string(path).unwrap();
        files(&self.mails).iter().map(read).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn test(site: &Site, channel: &str) -> Ran {
    let ran = site.run(&["notify", "test", channel]);
    assert!(!format!("{ran}").contains(PASSWORD), "{ran}");
    ran
}

#[test]
fn mail_goes_over_tls_and_with_a_password_and_not_at_all_where_either_is_wrong() {
    let Some(python) = python() else { return };
    let site = Site::new();
    let certificates = certificates(&site);
    let node = Node::start_in(&site, &[("SSL_CERT_FILE", certificates[0].as_str())]);
    let of_way = |way| Server::start(&site, &python, way, &certificates);
    let (starttls, tls, none) = (of_way("starttls"), of_way("tls"), of_way("none"));

    for (server, scheme) in [(&starttls, "smtp"), (&tls, "smtps")] {
        server.channel(&site, scheme, scheme, PASSWORD);
        let ran = test(&site, scheme);
        assert_eq!(ran.code, 0, "{ran}");
        assert!(ran.stdout.contains("taken as 1"), "{ran}");
        let mails = server.mails();
        assert_eq!(mails.len(), 1);
        for line in [
            "To: ops@example.org",
            "tresor@example.org",
            "X-Tresor-Id: ",
            "Auto-Submitted: auto-generated",
        ] {
            assert!(mails[0].contains(line), "{line} is not in {}", mails[0]);
        }

        let wrong = format!("{scheme}-wrong");
        server.channel(&site, &wrong, scheme, "wrong");
        let ran = test(&site, &wrong);
        assert_eq!(ran.code, 1, "{ran}");
        assert!(ran.stdout.contains("535"), "{ran}");
        assert_eq!(server.mails().len(), 1, "nothing is taken without the password");
    }

    // It offers no TLS: neither mail nor password is told to it.
    none.channel(&site, "none", "smtp", PASSWORD);
    let ran = test(&site, "none");
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stdout.to_lowercase().contains("starttls"), "{ran}");
    assert!(none.mails().is_empty());
    node.stop();

    // A certificate of nobody that this machine knows.
    let node = Node::start(&site);
    for (server, scheme) in [(&starttls, "smtp"), (&tls, "smtps")] {
        let ran = test(&site, scheme);
        assert_eq!(ran.code, 1, "{ran}");
        assert!(ran.stdout.to_lowercase().contains("certificate"), "{ran}");
        assert_eq!(server.mails().len(), 1);
    }
    node.stop();
}
