//! A policy as it is shown, and what it means.

use serde::Serialize;
use tresor_proto::v1;

use crate::human::{self, Table};
use crate::verb::shown::some;

/// A policy.
#[derive(Debug, Serialize)]
pub(super) struct PolicyShown {
    pub(super) policy: String,
    policy_id: String,
    version: u64,
    schedule: Option<String>,
    zone: Option<String>,
    windows: Vec<String>,
    jitter: Option<String>,
    retention: Option<String>,
    priority: i32,
    late_after: Option<String>,
    items: u64,
    words: Vec<String>,
}

/// What a policy means.
#[derive(Debug, Serialize)]
pub(super) struct PreviewShown {
    policy: Option<String>,
    words: Vec<String>,
    runs: Vec<String>,
    /// How many points an item has at most, in the long run.
    points_held: u64,
    points: Vec<VerdictShown>,
}

#[derive(Debug, Serialize)]
struct VerdictShown {
    point: String,
    time: String,
    stays: bool,
    because: Vec<String>,
}

impl From<v1::Policy> for PolicyShown {
    fn from(policy: v1::Policy) -> Self {
        let spec = policy.spec.unwrap_or_default();
        Self {
            policy: spec.name,
            policy_id: policy.id,
            version: policy.version,
            schedule: some(spec.schedule),
            zone: some(spec.zone),
            windows: spec.windows,
            jitter: some(spec.jitter),
            retention: some(spec.retention),
            priority: spec.priority,
            late_after: some(spec.late_after),
            items: policy.items,
            words: policy.words,
        }
    }
}

impl PolicyShown {
    /// All of it.
    pub(super) fn text(&self) -> String {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        let shown = human::pairs(&[
            (
                "policy",
                format!("{} ({}, version {})", self.policy, self.policy_id, self.version),
            ),
            ("items", human::count(self.items)),
            ("schedule", text(&self.schedule)),
            ("zone", text(&self.zone)),
            ("windows", self.windows.join(", ")),
            ("jitter", text(&self.jitter)),
            ("retention", text(&self.retention)),
            ("priority", self.priority.to_string()),
            ("late after", text(&self.late_after)),
        ]);
        format!("{shown}\n\n{}", sentences(&self.words))
    }
}

/// Policies as a table.
pub(super) fn table(policies: &[PolicyShown]) -> String {
    let mut table = Table::new(&["policy", ">items", "schedule", "zone", "retention", "late after"]);
    for policy in policies {
        let text = |value: &Option<String>| value.clone().unwrap_or_default();
        table.row([
            policy.policy.clone(),
            human::count(policy.items),
            text(&policy.schedule),
            text(&policy.zone),
            text(&policy.retention),
            text(&policy.late_after),
        ]);
    }
    table.render()
}

/// Sentences, each a line.
fn sentences(words: &[String]) -> String {
    let lines: Vec<String> = words.iter().map(|sentence| human::plain(sentence)).collect();
    lines.join("\n")
}

impl PreviewShown {
    /// Of the policy of that name, or of one without a name.
    pub(super) fn new(policy: Option<String>, preview: v1::PreviewPolicyResponse) -> Self {
        let verdict = |verdict: v1::PointVerdict| VerdictShown {
            point: verdict.point,
            time: verdict.time,
            stays: verdict.stays,
            because: verdict.because,
        };
        Self {
            policy,
            words: preview.words,
            runs: preview.runs,
            points_held: preview.points_held,
            points: preview.points.into_iter().map(verdict).collect(),
        }
    }

    /// All of it.
    pub(super) fn text(&self) -> String {
        let mut parts = vec![sentences(&self.words)];
        if self.points_held > 0 {
            let held = human::count(self.points_held);
            parts.push(format!("An item has at most {held} points in the long run."));
        }
        if !self.runs.is_empty() {
            let runs: Vec<String> = self
                .runs
                .iter()
                .map(|run| format!("\n  {}", human::plain(run)))
                .collect();
            parts.push(format!("next runs:{}", runs.concat()));
        }
        if !self.points.is_empty() {
            let mut table = Table::new(&["time", "point", "", "because"]);
            for point in &self.points {
                let verdict = if point.stays { "stays" } else { "goes" };
                table.row([
                    point.time.clone(),
                    point.point.clone(),
                    verdict.to_owned(),
                    point.because.join(", "),
                ]);
            }
            parts.push(table.render());
        }
        parts.retain(|part| !part.is_empty());
        parts.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preview() -> v1::PreviewPolicyResponse {
        v1::PreviewPolicyResponse {
            words: vec![
                String::from("Backs up every day at 02:30 in Europe/Berlin."),
                String::from("Keeps the last 3 points, and one for each of 14 days."),
            ],
            runs: vec![
                String::from("2026-03-11T01:30:00Z"),
                String::from("2026-03-12T01:30:00Z"),
            ],
            points: vec![v1::PointVerdict {
                point: "ab".repeat(16),
                time: String::from("2026-03-01T01:30:00Z"),
                stays: true,
                because: vec![String::from("daily 10"), String::from("held: audit")],
            }],
            points_held: 17,
        }
    }

    #[test]
    fn the_text_of_a_preview() {
        let shown = PreviewShown::new(Some(String::from("daily")), preview());
        insta::assert_snapshot!(shown.text(), @"
        Backs up every day at 02:30 in Europe/Berlin.
        Keeps the last 3 points, and one for each of 14 days.
        An item has at most 17 points in the long run.
        next runs:
          2026-03-11T01:30:00Z
          2026-03-12T01:30:00Z
        TIME                  POINT                                    BECAUSE
        2026-03-01T01:30:00Z  abababababababababababababababab  stays  daily 10, held: audit
        ");
    }

    #[test]
    fn the_text_of_a_policy() {
        let policy = v1::Policy {
            id: "cd".repeat(16),
            version: 4,
            spec: Some(v1::PolicySpec {
                name: String::from("daily"),
                schedule: String::from("daily 02:30"),
                zone: String::from("Europe/Berlin"),
                windows: vec![String::from("mon-fri 20:00-06:00")],
                jitter: String::from("10m"),
                retention: String::from("last 3, daily 14"),
                priority: -1,
                late_after: String::from("26h"),
            }),
            items: 812,
            words: preview().words,
        };
        let shown = PolicyShown::from(policy);
        insta::assert_snapshot!(shown.text(), @"
        policy      daily (cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd, version 4)
        items       812
        schedule    daily 02:30
        zone        Europe/Berlin
        windows     mon-fri 20:00-06:00
        jitter      10m
        retention   last 3, daily 14
        priority    -1
        late after  26h

        Backs up every day at 02:30 in Europe/Berlin.
        Keeps the last 3 points, and one for each of 14 days.
        ");
        insta::assert_snapshot!(table(&[shown]), @"
        POLICY  ITEMS  SCHEDULE     ZONE           RETENTION         LATE AFTER
        daily     812  daily 02:30  Europe/Berlin  last 3, daily 14  26h
        ");
    }
}
