//! When there is no coordinator to ask: a cluster is founded again with the real program.

use super::common::Site;

fn founded() -> Site {
    let site = Site::new();
    let data = site.text("lost");
    site.json(&[
        "cluster",
        "init",
        "test",
        "--address",
        "localhost:7420",
        "--data",
        &data,
    ]);
    site
}

#[test]
fn a_cluster_is_recovered_from_one_folder_only_by_who_accepts_the_loss() {
    let site = founded();
    let (lost, next) = (site.text("lost"), site.text("next"));
    let recover = [
        "cluster",
        "recover",
        &lost,
        "--address",
        "localhost:7430",
        "--data",
        &next,
    ];
    let ran = site.run(&recover);
    assert_eq!(ran.code, 2, "{ran}");
    assert!(ran.stderr.contains("--accept-loss"), "{ran}");
    assert!(!site.path("next").exists());

    let shown = site.json(&[&recover[..], &["--accept-loss"]].concat());
    assert_eq!(shown["cluster"], "test");
    assert!(
        shown["from"]
            .as_str()
            .unwrap()
            .contains("coordinator 1 of cluster test"),
        "{shown}"
    );
    assert!(shown["token"].as_str().unwrap().starts_with("tresor_"), "{shown}");
    let [before, after] = [&lost, &next].map(|data| std::fs::read(format!("{data}/cluster.key")).unwrap());
    assert_eq!(before, after, "what it opens is the same");
    assert!(!String::from_utf8_lossy(&before).is_empty());
    let text = String::from_utf8_lossy(&before).trim().to_owned();
    assert!(!shown.to_string().contains(&text), "the key is shown nowhere");

    // A folder is never founded over, and the one that is read is no place for the new one.
    let ran = site.run(&[&recover[..], &["--accept-loss"]].concat());
    assert_eq!(ran.code, 1, "{ran}");
    let same = [
        "cluster",
        "recover",
        &lost,
        "--address",
        "localhost:7430",
        "--data",
        &lost,
        "--accept-loss",
    ];
    assert_eq!(site.run(&same).code, 2);
}

#[test]
fn a_cluster_is_restored_from_one_thing_with_its_key_and_after_a_question() {
    let site = founded();
    let key = site.text("lost/cluster.key");
    let file = site.file("backup", b"something else");
    let next = site.text("next");
    let restore = |more: &[&str]| {
        let common = ["cluster", "restore", "--address", "localhost:7430", "--data", &next];
        site.run(&[&common[..], more].concat())
    };
    let ran = restore(&["--cluster-key", &key]);
    assert_eq!(ran.code, 2, "nothing to restore from: {ran}");
    let ran = restore(&["--cluster-key", &key, &file, "--from-store", "file:///nowhere"]);
    assert_eq!(ran.code, 2, "two things to restore from: {ran}");
    let ran = restore(&["--cluster-key", &key, &file, "--yes"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.contains("no backup of a cluster's state"), "{ran}");
    let empty = site.text("empty");
    std::fs::create_dir(&empty).unwrap();
    let ran = restore(&[
        "--cluster-key",
        &key,
        "--from-store",
        &format!("file://{empty}"),
        "--yes",
    ]);
    assert_ne!(ran.code, 0, "{ran}");
    assert!(ran.stderr.contains("what the cluster left"), "{ran}");
    // A key that others can read is none.
    let open = site.file("open.key", std::fs::read(&key).unwrap());
    let ran = restore(&["--cluster-key", &open, &file, "--yes"]);
    assert_eq!(ran.code, 1, "{ran}");
    assert!(ran.stderr.contains("600"), "{ran}");
    assert!(!site.path("next").exists());
}
