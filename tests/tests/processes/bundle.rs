//! A support bundle of a cluster: made also where a part of it is down, and without a secret byte.

use std::path::{Path, PathBuf};

use crate::cluster::Cluster;

/// Bytes of a secret that are looked for, in pieces: a line of a key is one.
const PIECE: usize = 24;

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else {
            all.push(path);
        }
    }
}

/// Keys and tokens as they lie in the folders of a cluster's processes and of its user.
fn secrets(cluster: &Cluster) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    files(&cluster.path(""), &mut all);
    let is_secret = |path: &PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy();
        name.contains("key") || name.contains("token")
    };
    let mut secrets = Vec::new();
    for path in all.into_iter().filter(is_secret) {
        let bytes = std::fs::read(&path).unwrap();
        // Of text each line on its own: the first and the last of a key say only what it is.
        let is_piece = |piece: &&[u8]| piece.len() >= PIECE.min(bytes.len()) && !piece.starts_with(b"-----");
        let pieces = bytes.split(|byte| *byte == b'\n').filter(is_piece);
        secrets.extend(pieces.map(|piece| (path.clone(), piece.to_vec())));
    }
    secrets
}

/// Makes a bundle and looks for every key and token of the cluster in it, and for what was `planted`.
pub(crate) fn assert_tells_no_secret(cluster: &Cluster, planted: &[&str]) {
    let bundle = cluster.text("support.tar.zst");
    let made = cluster.verb(&["support-bundle", "--output", &bundle]);
    let packed = std::fs::read(&bundle).unwrap();
    let tar = zstd::bulk::decompress(&packed, 256 << 20).unwrap();
    let has = |piece: &[u8]| tar.windows(piece.len()).any(|window| window == piece);
    for part in ["cluster/status.json", "cluster/jobs-failed.json", "settings.json"] {
        assert!(has(part.as_bytes()), "{part} is missing: {made}");
    }
    let secrets = secrets(cluster);
    let of = |name: &str| secrets.iter().any(|(path, _)| path.to_string_lossy().contains(name));
    assert!(
        of("token") && of("key") && secrets.len() > 8,
        "{} secrets were found to look for",
        secrets.len()
    );
    for (path, secret) in &secrets {
        assert!(!has(secret), "a secret of {} is in the bundle", path.display());
    }
    for secret in planted {
        assert!(!has(secret.as_bytes()), "{secret} is in the bundle");
    }
}
