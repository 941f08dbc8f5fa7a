//! Support bundles: what is in them, and that nothing secret is.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use common::node::Node;
use common::{Site, files, noise};

/// Unpacks a bundle into a folder; gives its files with their contents.
fn unpack(site: &Site, bundle: &str, into: &str) -> Vec<(String, Vec<u8>)> {
    let folder = site.path(into);
    std::fs::create_dir_all(&folder).unwrap();
    let packed = std::fs::read(bundle).unwrap();
    let tar = zstd::bulk::decompress(&packed, 64 << 20).unwrap();
    std::fs::write(folder.join("b.tar"), tar).unwrap();
    let ran = Command::new("tar").args(["-xf", "b.tar"]).current_dir(&folder).status();
    assert!(ran.unwrap().success());
    std::fs::remove_file(folder.join("b.tar")).unwrap();
    let name = |path: &Path| path.strip_prefix(&folder).unwrap().display().to_string();
    files(&folder)
        .iter()
        .map(|path| (name(path), std::fs::read(path).unwrap()))
        .collect()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn no_secret_byte_of_a_home_is_in_its_bundle() {
    let site = Site::new();
    let secrets = [
        "staple-battery-horse",
        "s3-secret-from-file",
        "AKIAPLANTED12345",
        "env-secret-of-aws",
        "url-password-77",
        "proxy-pass-99",
        "log-token-abcdef",
    ];
    let [passphrase, s3, id, environment, url, proxy, logged] = secrets;
    let pass = site.file("pass", passphrase);
    site.file("home/s3", s3);
    site.file(
        "home/config.toml",
        format!(
            "passphrase_file = \"../pass\"\n[stores.\"s3://u:{url}@b\"]\nregion = \"eu\"\naccess_key_id = \"{id}\"\nsecret_access_key_file = \"s3\"\n"
        ),
    );
    site.file(
        "home/logs/worker.log",
        format!("put s3://u:{url}@b/x?sig={environment}\npassword={passphrase} token: {logged}\nnothing else\n"),
    );
    let image = site.file("web-planted.img", noise(1, 50_000));
    site.json(&["backup", &image, "--item", "web-planted"]);
    site.json(&["vault", "create", "locked", "--passphrase", "--passphrase-file", &pass]);
    let key = std::fs::read_to_string(files(&site.path("home/keys")).remove(0)).unwrap();
    let key = key
        .lines()
        .find_map(|line| line.strip_prefix("key "))
        .unwrap()
        .to_owned();
    let cluster_keys: Vec<Vec<u8>> = files(&site.path("home/node"))
        .iter()
        .filter(|path| path.file_name().unwrap().to_string_lossy().contains("key"))
        .map(|path| std::fs::read(path).unwrap())
        .filter(|key| key.len() >= 16)
        .collect();
    assert!(!cluster_keys.is_empty(), "the node has a key");
    std::fs::remove_file(site.path("web-planted.img")).unwrap();
    let failed = site.run(&["backup", &image, "--item", "web-planted"]);
    assert_ne!(failed.code, 0, "{failed}");

    for (name, anonymous) in [("plain", false), ("anonymous", true)] {
        let bundle = site.text(&format!("{name}.tar.zst"));
        let mut args = vec!["--json", "support-bundle", "--output", &bundle];
        if anonymous {
            args.push("--anonymous");
        }
        let mut command = site.command(&args);
        command
            .env("AWS_SECRET_ACCESS_KEY", environment)
            .env("HTTPS_PROXY", format!("http://user:{proxy}@127.0.0.1:1"));
        let ran = common::Ran::new(&args, command.output().unwrap());
        assert_eq!(ran.code, 0, "{ran}");
        let told = ran.value();
        let unpacked = unpack(&site, &bundle, name);
        for part in [
            "README.txt",
            "machine.json",
            "settings.json",
            "cluster/status.json",
            "cluster/jobs-failed.json",
            "cluster/audit.json",
            "logs/worker.log",
        ] {
            assert!(
                unpacked.iter().any(|(name, _)| name.ends_with(part)),
                "{part} is missing: {told}"
            );
        }
        for (file, bytes) in &unpacked {
            for secret in secrets.into_iter().chain([key.as_str()]) {
                assert!(
                    !has(bytes, secret),
                    "{secret} is in {file}: {}",
                    String::from_utf8_lossy(bytes)
                );
            }
            for key in &cluster_keys {
                assert!(
                    !bytes.windows(key.len()).any(|window| window == key),
                    "a key is in {file}"
                );
            }
            if anonymous {
                for private in ["web-planted", site.path("").to_str().unwrap()] {
                    assert!(
                        !has(bytes, private),
                        "{private} is in {file}: {}",
                        String::from_utf8_lossy(bytes)
                    );
                }
            }
        }
        let all: Vec<u8> = unpacked.into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(has(&all, "nothing else"), "what is not secret stays");
        assert_eq!(has(&all, "web-planted"), !anonymous);
        for secret in secrets {
            assert!(!ran.stdout.contains(secret) && !ran.stderr.contains(secret), "{ran}");
        }
    }
}

#[test]
fn a_part_that_cannot_be_had_is_noted_and_the_bundle_is_made() {
    let site = Site::new();
    let bundle = site.text("b.tar.zst");
    let args = [
        "--json",
        "support-bundle",
        "--output",
        &bundle,
        "--cluster",
        "127.0.0.1:1",
        "--metrics-of",
        "127.0.0.1:1",
    ];
    let mut command = site.command(&args);
    let ran = common::Ran::new(&args, command.env("TRESOR_CLUSTER_PATIENCE", "1s").output().unwrap());
    assert_eq!(ran.code, 0, "{ran}");
    let missing = ran.value()["missing"].to_string();
    assert!(
        missing.contains("cluster") && missing.contains("metrics of 127.0.0.1:1"),
        "{ran}"
    );
    let unpacked = unpack(&site, &bundle, "u");
    let readme = unpacked.iter().find(|(name, _)| name.ends_with("README.txt")).unwrap();
    assert!(
        has(&readme.1, "Could not be had"),
        "{}",
        String::from_utf8_lossy(&readme.1)
    );

    // An anonymous one has no log then: nobody knows which names to replace in it. And what is secret in an address is not told either.
    let site = Site::new();
    site.file("home/logs/worker.log", "backup of item=web-planted on h-planted\n");
    let bundle = site.text("b.tar.zst");
    let args = [
        "--json",
        "support-bundle",
        "--anonymous",
        "--output",
        &bundle,
        "--cluster",
        "h-planted.example:1",
        "--metrics-of",
        "u:hunter2-hunter2@127.0.0.1:1",
    ];
    let mut command = site.command(&args);
    let ran = common::Ran::new(&args, command.env("TRESOR_CLUSTER_PATIENCE", "1s").output().unwrap());
    assert_eq!(ran.code, 0, "{ran}");
    assert!(ran.value()["missing"].to_string().contains("logs and metrics"), "{ran}");
    for (file, bytes) in unpack(&site, &bundle, "u") {
        for private in ["web-planted", "hunter2"] {
            assert!(!has(&bytes, private), "{private} is in {file}");
        }
    }
    let open = [&args[..2], &args[3..]].concat();
    let ran = common::Ran::new(
        &open,
        site.command(&open)
            .env("TRESOR_CLUSTER_PATIENCE", "1s")
            .output()
            .unwrap(),
    );
    assert_eq!(ran.code, 0, "{ran}");
    let unpacked = unpack(&site, &bundle, "v");
    assert!(unpacked.iter().any(|(_, bytes)| has(bytes, "web-planted")), "{ran}");
    assert!(unpacked.iter().all(|(_, bytes)| !has(bytes, "hunter2")), "{ran}");

    // Also where the settings themselves are what is wrong.
    let site = Site::new();
    site.file("home/config.toml", "colour = \"hunter2-hunter2\"\n");
    let bundle = site.text("b.tar.zst");
    let ran = site.run(&["support-bundle", "--output", &bundle]);
    assert_eq!(ran.code, 0, "{ran}");
    let unpacked = unpack(&site, &bundle, "u");
    assert!(unpacked.iter().all(|(_, bytes)| !has(bytes, "hunter2")));
    assert!(
        ran.stdout.contains("config.toml: ") && ran.stdout.contains("Nothing secret is in it"),
        "{ran}"
    );
}

#[test]
fn a_node_that_serves_is_asked_for_its_state_and_who_is_named_for_metrics() {
    let site = Site::new();
    let image = site.file("web.img", noise(1, 50_000));
    site.json(&["backup", &image]);
    let node = Node::start(&site);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = stream.read(&mut [0; 1024]).unwrap();
        stream
            .write_all(b"HTTP/1.0 200 OK\r\n\r\ntresor_planted_metric 1\n")
            .unwrap();
    });
    let bundle = site.text("b.tar.zst");
    let told = site.json(&[
        "support-bundle",
        "--output",
        &bundle,
        "--since",
        "1h",
        "--metrics-of",
        &address,
    ]);
    serving.join().unwrap();
    assert!(told["files"].to_string().contains("cluster/status.json"), "{told}");
    let unpacked = unpack(&site, &bundle, "u");
    assert!(
        unpacked.iter().any(|(_, bytes)| has(bytes, "tresor_planted_metric 1")),
        "{told}"
    );
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&bundle).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    node.stop();
}
