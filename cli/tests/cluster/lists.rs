//! Lists come in pages.

use tresor_proto::v1::*;

use super::here::Here;

#[test]
fn a_list_is_read_to_its_end_or_to_its_limit() {
    let here = Here::new();
    let item = |name: &str| Item {
        spec: Some(ItemSpec {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let page = |names: &[&str], next: &str| ListItemsResponse {
        items: names.iter().map(|name| item(name)).collect(),
        next_page_token: next.to_owned(),
    };
    here.on::<ListItemsRequest, _>(page(&["a", "b"], "b"));
    here.on::<ListItemsRequest, _>(page(&["c"], ""));
    let all = here.json(&[
        "item",
        "list",
        "--label",
        "tier=gold",
        "--state",
        "no-schedule",
        "--vault",
        "main",
    ]);
    let names: Vec<&str> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|i| i["item"].as_str().unwrap())
        .collect();
    assert_eq!(
        (names, &all["more"]),
        (vec!["a", "b", "c"], &serde_json::Value::Bool(false))
    );
    let asked = here.coordinator.script.asked::<ListItemsRequest>();
    let tokens: Vec<&str> = asked.iter().map(|(_, request)| request.page_token.as_str()).collect();
    assert_eq!(tokens, ["", "b"]);
    let request = &asked[0].1;
    assert_eq!(
        (request.state.as_str(), request.vault.as_str()),
        ("no schedule", "main")
    );
    assert_eq!(request.labels["tier"], "gold");

    let here = Here::new();
    here.on::<ListItemsRequest, _>(page(&["a", "b"], "b"));
    let ran = here.run(&["item", "list", "--limit", "1"]);
    assert!(ran.stdout.contains("\na") && !ran.stdout.contains("\nb"), "{ran}");
    assert_eq!(here.only::<ListItemsRequest>().page_size, 2);
    assert!(ran.stderr.contains("--limit 0"), "{ran}");
}
