//! Nothing that the program prints has a secret in it.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod common;

use common::{Site, files, noise};

#[test]
fn no_secret_is_shown_by_settings_errors_or_logs() {
    let site = Site::new();
    let passphrase = "staple-battery-horse";
    let file = site.file("pass", passphrase);
    site.file("home/s3", "hunter2-hunter2");
    site.file(
        "home/config.toml",
        "passphrase_file = \"../pass\"\ncores = 2\n[stores.\"s3://b\"]\nregion = \"eu\"\nsecret_access_key_file = \"s3\"\n",
    );
    let image = site.file("web.img", noise(1, 50_000));
    site.json(&["backup", &image]);
    site.json(&["vault", "create", "locked", "--passphrase", "--passphrase-file", &file]);
    let key = std::fs::read_to_string(files(&site.path("home/keys")).remove(0)).unwrap();
    let key = key
        .lines()
        .find_map(|line| line.strip_prefix("key "))
        .unwrap()
        .to_owned();
    for args in [
        &["config", "show"][..],
        &["config", "show", "--json"],
        &["status", "-vvv"],
        &["vault", "show", "locked", "-vvv"],
        &["vault", "show", "main", "-vvv", "--log-format", "json"],
        &["point", "list", "-vvv", "--store", "s3://user:hunter2-hunter2@b/x"],
        &["point", "list", "--vault", "locked", "--key-file", &file],
        &["point", "list", "--vault", "locked", "--recovery-kit", &file],
    ] {
        let ran = site.run(args);
        for secret in [passphrase, "hunter2", &key] {
            assert!(
                !ran.stdout.contains(secret) && !ran.stderr.contains(secret),
                "{secret} is shown: {ran}"
            );
        }
    }
}

#[test]
fn config_show_says_which_source_won() {
    let site = Site::new();
    site.file(
        "home/config.toml",
        "vault = \"from-file\"\ncompression_level = 3\n[stores.\"s3://b\"]\nregion = \"eu\"\n",
    );
    let mut command = site.command(&["config", "show", "--json", "--vault", "from-option"]);
    let output = command.env("TRESOR_CORES", "3").output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |name: &str| {
        let settings = shown["settings"].as_array().unwrap();
        let setting = settings.iter().find(|setting| setting["setting"] == name).unwrap();
        (
            setting["value"].as_str().unwrap_or("-").to_owned(),
            setting["from"].as_str().unwrap().to_owned(),
        )
    };
    assert_eq!(of("vault"), (String::from("from-option"), String::from("option")));
    assert_eq!(of("cores"), (String::from("3"), String::from("environment")));
    assert_eq!(of("compression_level"), (String::from("3"), String::from("file")));
    assert_eq!(of("metrics_file"), (String::from("-"), String::from("default")));
    assert_eq!(shown["stores"]["s3://b"]["region"], "eu");
}
